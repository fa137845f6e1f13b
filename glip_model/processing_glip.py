"""Images and names in, boxes and names out, in the roles that Hugging Face gives them.

Shape letters: B images, A anchors, T tokens, N boxes. Sizes are ``(height, width)``.
"""

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from os.path import isfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import BatchFeature, PreTrainedTokenizerBase
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_utils import make_flat_list_of_images
from transformers.processing_utils import ProcessorMixin

from glip_model.anchors import LEVEL_STRIDES, grid_anchors
from glip_model.box_ops import clip_boxes
from glip_model.caption import Caption, caption_from_names, caption_from_sentence
from glip_model.image import (
    DEFAULT_PIXELS,
    PixelSettings,
    normalize_and_pad,
    padded_size,
    read_image,
    resized_size,
    to_pixel_values,
    to_rgb_array,
)
from glip_model.postprocess import Detections, PostprocessSettings, detect_boxes, label_scores
from glip_model.sentence import parse_sentence

if TYPE_CHECKING:
    from glip_model.modeling_glip import GlipOutput

_SETTINGS = ("size", "image_mean", "image_std", "size_divisor", "do_resize")
Query = str | Sequence[str]
Sizes = Sequence[tuple[int, int]] | Tensor


class ModelOutputError(ValueError):
    """The network answered with numbers that are not finite."""


class GlipImageProcessor(BaseImageProcessor):
    """Scales, normalises and pads images, and brings boxes back to their pixels; needs no torchvision.

    Args:
        size: ``shortest_edge`` and ``longest_edge`` in pixels.
        image_mean: of blue, green, red in ``0..255``.
        image_std: of blue, green, red in ``0..255``.
        size_divisor: both sides of a batch are multiples of this.
        do_resize: False feeds images in their own size.

    Raises:
        ValueError: ``size`` is something else.
    """

    def __init__(
        self,
        size: Mapping[str, int] | None = None,
        image_mean: Sequence[float] = DEFAULT_PIXELS.mean,
        image_std: Sequence[float] = DEFAULT_PIXELS.std,
        size_divisor: int = DEFAULT_PIXELS.size_divisor,
        do_resize: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        size = {} if size is None else size
        if not isinstance(size, Mapping) or not set(size) <= {"shortest_edge", "longest_edge"}:
            raise ValueError(f"size must be shortest_edge and longest_edge in pixels, not {size!r}")
        self.size = {
            "shortest_edge": size.get("shortest_edge", DEFAULT_PIXELS.shortest_edge),
            "longest_edge": size.get("longest_edge", DEFAULT_PIXELS.longest_edge),
        }
        self.image_mean = list(image_mean)
        self.image_std = list(image_std)
        self.size_divisor = size_divisor
        self.do_resize = do_resize

    @property
    def settings(self) -> PixelSettings:
        """The same numbers for the functions of ``glip_model.image``."""
        mean, std = (_three(values) for values in (self.image_mean, self.image_std))
        return PixelSettings(self.size["shortest_edge"], self.size["longest_edge"], mean, std, self.size_divisor)

    def preprocess(self, images: Any, *_: Any, return_tensors: str | None = "pt", **options: Any) -> BatchFeature:
        """Make one batch ``pixel_values (B, 3, H, W)`` of PIL images, paths, addresses or RGB uint8 arrays.

        Options for other models are ignored.

        Raises:
            ValueError: an array is not ``(H, W, 3)`` or ``(3, H, W)`` uint8, or a setting of this processor is given
                another value for one call: boxes could not be brought back.
            ImageDecodeError: a file is refused by ``read_image``.
        """
        for name, value in options.items():
            if name in _SETTINGS and value != getattr(self, name):
                raise ValueError(f"{name} cannot differ from call to call: give it to from_pretrained")
        flat = cast(list[Any], make_flat_list_of_images(self.fetch_images(_read(images))))
        pixel_values, _sizes = self.network_input([_rgb(image) for image in flat])
        return BatchFeature({"pixel_values": pixel_values}, tensor_type=return_tensors)

    def network_input(self, images: Sequence[NDArray[np.uint8]]) -> tuple[NDArray[np.float32], list[tuple[int, int]]]:
        """Make ``pixel_values (B, 3, H, W)`` of upright RGB arrays; also returns each one's size before padding.

        Raises:
            ValueError: there is no image, or an array is not ``(H, W, 3)`` uint8.
        """
        if self.do_resize:
            return to_pixel_values(images, self.settings)
        return normalize_and_pad(images, self.settings), [(image.shape[0], image.shape[1]) for image in images]

    def network_sizes(self, target_sizes: Sizes) -> list[tuple[int, int]]:
        """Return the size each image of ``target_sizes`` has in the network's input, before padding."""
        sizes_hw = [(int(height), int(width)) for height, width in target_sizes]
        return [resized_size(size_hw, self.settings) for size_hw in sizes_hw] if self.do_resize else sizes_hw

    def post_process_object_detection(
        self, outputs: "GlipOutput", threshold: float = 0.05, target_sizes: Sizes | None = None
    ) -> list[dict[str, Tensor]]:
        """Take each image's whole caption for one label, as the zero-shot pipeline asks.

        Args:
            outputs: the network's, one image with one caption per row.
            threshold: boxes must score more; of a label probability up to 0.05 none is given in any case.
            target_sizes: original sizes of the images.

        Returns:
            Per image ``scores (N,)``, ``labels (N,)`` all 0, ``boxes (N, 4)`` xyxy in original pixels, best first.

        Raises:
            ValueError: a caption is empty, or ``target_sizes`` are missing or of other images.
            ModelOutputError: the network answered with numbers that are not finite.
        """
        logits = _given(outputs.token_logits)
        # Padding has the same logit at every anchor; tokens do not. The caption's own first and last are special.
        used = (logits != logits[:, :1]).any(1).sum(-1).tolist()
        if min(used) < 3:
            raise ValueError("a label has no words: leave out what is empty")
        label_tokens = [[range(1, count - 1)] for count in used]
        return self.detections(outputs, label_tokens, threshold, target_sizes)

    def detections(
        self,
        outputs: "GlipOutput",
        label_tokens: Sequence[Sequence[Sequence[int]]],
        threshold: float,
        target_sizes: Sizes | None,
    ) -> list[dict[str, Tensor]]:
        """Find the boxes of each image's labels: ``label_tokens`` per image, the rest as for the pipeline."""
        refuse_not_finite(outputs)
        logits = _given(outputs.token_logits)
        if target_sizes is None or len(target_sizes) != len(logits):
            raise ValueError(f"target_sizes must give (height, width) of all {len(logits)} images")
        sizes_hw = self.network_sizes(target_sizes)
        level_sizes = _level_sizes(padded_size(sizes_hw, self.size_divisor))
        if _given(outputs.level_sizes)[0].tolist() != [list(size_hw) for size_hw in level_sizes]:
            raise ValueError(
                "target_sizes are not the sizes of the images that the outputs belong to: give (height, width) of each"
            )
        anchors = grid_anchors(level_sizes, logits.device)
        results = []
        for row, tokens in enumerate(label_tokens):
            border = float(_given(outputs.border)[row])
            (found,) = detect_boxes(
                label_scores(logits[row : row + 1], tokens),
                _given(outputs.box_deltas)[row : row + 1],
                _given(outputs.centerness)[row : row + 1],
                anchors=anchors,
                image_sizes_hw=sizes_hw[row : row + 1],
                settings=PostprocessSettings(border=border),
            )
            height, width = (int(side) for side in target_sizes[row])
            found = scale_boxes(found, sizes_hw[row], (height, width), border)
            keep = found.scores > threshold
            results.append(
                {"scores": found.scores[keep], "labels": found.labels[keep], "boxes": found.boxes_xyxy[keep]}
            )
        return results


class GlipProcessor(ProcessorMixin):
    """Image processor and tokenizer in one.

    ``text`` is a list of names, a sentence as ``parse_sentence`` reads it, or a list with one of these per image.
    """

    def __init__(self, image_processor: GlipImageProcessor, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(image_processor, tokenizer)  # type: ignore[no-untyped-call]

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> "GlipProcessor":
        """As in transformers, which looks both parts up in its Auto classes: they know GLIP from here on."""
        from glip_model.auto import register_auto_classes

        register_auto_classes()
        return super().from_pretrained(*args, **kwargs)

    def __call__(
        self,
        images: Any = None,
        text: Query | Sequence[Query] | None = None,
        return_tensors: str | None = "pt",
        **kwargs: Any,
    ) -> BatchFeature:
        """Make ``pixel_values (B, 3, H, W)``, ``input_ids (B, T)`` and ``attention_mask (B, T)``, whichever is asked.

        A flat list of names is one caption: ``input_ids (1, T)`` serve all images.

        Raises:
            ValueError: neither images nor text, or images that cannot be used.
            CaptionError: names or sentences that cannot be used.
        """
        if images is None and text is None:
            raise ValueError("the processor needs images, text or both")
        inputs: dict[str, Any] = {}
        if images is not None:
            inputs.update(self.image_processor(images, return_tensors=return_tensors, **kwargs))
        if text is not None:
            captions = [self._caption(query) for query in _queries(text)]
            ids = {"input_ids": [list(caption.input_ids) for caption in captions]}
            padded = self.tokenizer.pad(ids, return_tensors=return_tensors)
            inputs.update(input_ids=padded["input_ids"], attention_mask=padded["attention_mask"])
        return BatchFeature(inputs)

    def post_process_grounded_object_detection(
        self,
        outputs: "GlipOutput",
        threshold: float = 0.05,
        target_sizes: Sizes | None = None,
        text_labels: Query | Sequence[Query] | None = None,
    ) -> list[dict[str, Any]]:
        """Turn the network's outputs into boxes of the names that were asked for.

        Args:
            outputs: the network's.
            threshold: boxes must score more; of a label probability up to 0.05 none is given in any case.
            target_sizes: original sizes of the B images.
            text_labels: the ``text`` the processor was called with.

        Returns:
            Per image ``scores (N,)``, ``boxes (N, 4)`` xyxy in original pixels, ``labels (N,)`` 0-based and
            ``text_labels``, N words; best score first.

        Raises:
            ValueError: ``text_labels`` or ``target_sizes`` are missing or of other images.
            ModelOutputError: the network answered with numbers that are not finite.
        """
        if text_labels is None:
            raise ValueError("text_labels must be the text that was looked for")
        captions = [self._caption(query) for query in _queries(text_labels)]
        num_images = len(_given(outputs.token_logits))
        if len(captions) == 1:
            captions *= num_images
        if len(captions) != num_images:
            raise ValueError(f"text_labels for {len(captions)} images, outputs for {num_images}")
        label_tokens = [caption.label_tokens for caption in captions]
        results = self.image_processor.detections(outputs, label_tokens, threshold, target_sizes)
        return [
            {**result, "text_labels": [caption.prompts[label] for label in result["labels"].tolist()]}
            for result, caption in zip(results, captions, strict=True)
        ]

    def _caption(self, query: Query) -> Caption:
        if isinstance(query, str):
            return caption_from_sentence(self.tokenizer, parse_sentence(query))
        return caption_from_names(self.tokenizer, query)


def refuse_not_finite(outputs: "GlipOutput") -> None:
    """Make sure that what finds nothing has looked.

    Raises:
        ModelOutputError: logits, box offsets or centerness hold NaN or infinity.
    """
    for name in ("token_logits", "box_deltas", "centerness"):
        if not _given(getattr(outputs, name)).isfinite().all():
            raise ModelOutputError(f"the network's {name} are not finite: its weights are damaged, or it needs float32")


def scale_boxes(found: Detections, from_hw: tuple[int, int], to_hw: tuple[int, int], border: float) -> Detections:
    """Bring detections from an image of size ``from_hw`` to the same image of size ``to_hw``, and inside it.

    ``border`` is 1 where x2 and y2 name the last pixel of a box. That is one of the image of size ``to_hw``, so it is
    added there, as the official evaluation does; then, and always with 0, they name the edge behind it.
    """
    vertical, horizontal = to_hw[0] / from_hw[0], to_hw[1] / from_hw[1]
    ratios = found.boxes_xyxy.new_tensor([horizontal, vertical, horizontal, vertical])
    low, high = (found.boxes_xyxy * ratios).split(2, dim=1)
    high = high + border * (high > low)  # what lies beyond the image was clipped to a line, which holds no pixel
    boxes = clip_boxes(torch.cat([low, high], dim=1), to_hw, border=0)
    return Detections(boxes, found.scores, found.labels)


def _read(images: Any) -> Any:
    """Decode files as everywhere here; transformers would show what is transparent on black and whiten 16 bits."""
    if isinstance(images, list | tuple):
        return [_read(image) for image in images]
    is_file = isinstance(images, PathLike) or (isinstance(images, str) and isfile(images))
    return read_image(Path(images)) if is_file else images


def _rgb(image: Any) -> NDArray[np.uint8]:
    if isinstance(image, Image.Image):
        return to_rgb_array(image)
    array = np.asarray(image)
    if array.ndim == 3 and array.shape[0] == 3 and array.shape[2] != 3:
        array = array.transpose(1, 2, 0)
    return np.ascontiguousarray(array)


def _queries(text: Query | Sequence[Query]) -> list[Query]:
    """Tell one query from a list with one per image: only the second holds lists."""
    if isinstance(text, str) or all(isinstance(part, str) or not isinstance(part, Iterable) for part in text):
        return [text]  # type: ignore[list-item]  # a flat list of names
    return list(text)


def _given(tensor: Tensor | None) -> Tensor:
    if tensor is None:
        raise ValueError("the outputs lack logits, box offsets, centerness, level sizes or border")
    return tensor


def _level_sizes(size_hw: tuple[int, int]) -> list[tuple[int, int]]:
    # Each level halves the one before, rounding up as the strided convolutions do.
    height, width = size_hw
    return [(-(-height // stride), -(-width // stride)) for stride in LEVEL_STRIDES]


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    first, second, third = values
    return first, second, third
