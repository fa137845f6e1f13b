"""From upright RGB arrays and captions to boxes in the images' own pixels.

Shape letters: B images, N boxes, T tokens. Sizes are ``(height, width)``.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glip_model.adapters import Adapter
from glip_model.box_ops import nms
from glip_model.caption import Caption, caption_from_sentence, plan_captions
from glip_model.configuration_glip import GlipConfig
from glip_model.image import check_rgb, padded_size
from glip_model.loading import load_model_folder
from glip_model.modeling_glip import GlipForDetection, ImageStates, TextStates
from glip_model.postprocess import Detections, PostprocessSettings
from glip_model.processing_glip import GlipProcessor, refuse_not_finite, scale_boxes
from glip_model.sentence import GroundedSentence

_KEPT_CAPTIONS = 32
_GPU_BATCH = 8


@dataclass(frozen=True, slots=True)
class ImageDetections:
    """Boxes found in one image, best score first, on the CPU.

    Attributes:
        boxes_xyxy: ``(N, 4)`` float32 in pixels of the image as it was given, inside it.
        scores: ``(N,)`` in ``[0, 1]``.
        labels: ``(N,)`` int64, index of the label that owns the prompt.
        prompts: N prompts, the words that found each box.
    """

    boxes_xyxy: Tensor
    scores: Tensor
    labels: Tensor
    prompts: tuple[str, ...]


class GlipDetector:
    """Network and processor as one thing that looks for captions in images. Not thread-safe: one call at a time.

    Args:
        model: in evaluation mode, on its device.
        processor: of the same folder.
        settings: which of each caption's boxes are kept.
    """

    def __init__(
        self,
        model: GlipForDetection,
        processor: GlipProcessor,
        settings: PostprocessSettings | None = None,
    ) -> None:
        self.model = model
        self.processor = processor
        self.settings = settings or PostprocessSettings()
        self._text_states: OrderedDict[tuple[int, ...], TextStates] = OrderedDict()
        self._adapter: Adapter | None = None

    @classmethod
    def from_folder(
        cls, path: Path, device: torch.device | None = None, settings: PostprocessSettings | None = None
    ) -> "GlipDetector":
        """Load a model folder; onto the GPU where there is one, if ``device`` is not given.

        Raises:
            ModelFolderError: the folder's model cannot be used.
        """
        device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return cls(*load_model_folder(path, device), settings)

    def adapted(self, adapter: Adapter | None) -> "GlipDetector":
        """The same network with an adapter, or without any.

        Nothing is copied: network, processor and encoded captions are shared, so that one call at a time may run over
        all that share them.

        Args:
            adapter: on this detector's device, made on its weights, as ``load_adapter`` makes sure.
        """
        view = copy(self)
        view._adapter = adapter
        return view

    @property
    def device(self) -> torch.device:
        return self.model.device

    def captions(self, prompts: Sequence[Sequence[str]], max_prompts: int | None = None) -> tuple[Caption, ...]:
        """Plan the captions for labels, each asked with one prompt or several; as ``caption.plan_captions``.

        Raises:
            CaptionError: names that no caption can be made of.
        """
        longest = self.model.config.max_text_len
        return plan_captions(self.processor.tokenizer, prompts, max_tokens=longest, max_prompts=max_prompts)

    def sentence_captions(self, sentence: GroundedSentence, owners: Sequence[int] | None = None) -> tuple[Caption, ...]:
        """Plan the caption for a sentence; ``owners`` gives the label index of each phrase, its own if not given.

        Raises:
            CaptionError: a sentence that no caption can be made of.
        """
        longest = self.model.config.max_text_len
        return (caption_from_sentence(self.processor.tokenizer, sentence, owners, max_tokens=longest),)

    @torch.inference_mode()
    def detect(
        self,
        images: Sequence[NDArray[np.uint8]],
        captions: Sequence[Caption],
        score_threshold: float = 0.0,
    ) -> list[ImageDetections]:
        """Look for all captions in each image.

        Boxes of one label that overlap are one, whichever of its prompts or captions found them: the best score wins.

        Args:
            images: ``(H, W, 3)`` uint8, upright RGB, of any sizes.
            captions: of `captions` or `sentence_captions`.
            score_threshold: boxes that score less are left out.

        Returns:
            One result per image, in order.

        Raises:
            ValueError: an array is no RGB image.
            ModelOutputError: the network answers with numbers that are not finite.
        """
        check_rgb(images)
        border = cast(GlipConfig, self.model.config).border
        results: dict[int, ImageDetections] = {}
        for indices in self._batches(images):
            batch = [images[index] for index in indices]
            pixel_values, sizes_hw = self.processor.image_processor.network_input(batch)
            pixels = torch.from_numpy(pixel_values).to(self.device)
            with self._precision():
                seen = self.model.encode_image(pixels)
            found = [self._look_for(caption, seen, sizes_hw) for caption in captions]
            for row, index in enumerate(indices):
                merged, prompts = merge_captions([boxes[row] for boxes in found], captions, self.settings.nms_threshold)
                height, width = batch[row].shape[:2]
                scaled = scale_boxes(merged, sizes_hw[row], (height, width), border)
                results[index] = _above(scaled, prompts, score_threshold)
        return [results[index] for index in range(len(images))]

    def _batches(self, images: Sequence[NDArray[np.uint8]]) -> Iterator[list[int]]:
        """Group images whose padded sizes are equal, so that none sees more padding than alone.

        The padding is part of what the network sees: a result must not depend on an image's company. On a CPU a
        batch is no faster than one image after the other.
        """
        processor = self.processor.image_processor
        largest = _GPU_BATCH if self.device.type == "cuda" else 1
        groups: dict[tuple[int, int], list[int]] = {}
        for index, size_hw in enumerate(processor.network_sizes([image.shape[:2] for image in images])):
            groups.setdefault(padded_size([size_hw], processor.size_divisor), []).append(index)
        for group in groups.values():
            for start in range(0, len(group), largest):
                yield group[start : start + largest]

    def _look_for(self, caption: Caption, seen: ImageStates, sizes_hw: Sequence[tuple[int, int]]) -> list[Detections]:
        with self._precision():
            text, head = self._encoded(caption), None
            if self._adapter is not None:
                text, head = self._adapter.adapted(text, caption), self._adapter.head
            output = self.model.align(self.model.fuse(seen, text), head=head)
        refuse_not_finite(output)
        return self.model.detections(output, caption.label_tokens, sizes_hw, self.settings)

    def _encoded(self, caption: Caption) -> TextStates:
        states = self._text_states.pop(caption.input_ids, None)
        if states is None:
            ids = torch.tensor([caption.input_ids], device=self.device)  # (1, T)
            states = self.model.encode_text(ids, torch.ones_like(ids))
        self._text_states[caption.input_ids] = states
        if len(self._text_states) > _KEPT_CAPTIONS:
            self._text_states.popitem(last=False)
        return states

    def _precision(self) -> AbstractContextManager[object]:
        if self.device.type != "cuda":
            return nullcontext()
        return torch.autocast("cuda", torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16)


def merge_captions(
    found: Sequence[Detections], captions: Sequence[Caption], nms_threshold: float
) -> tuple[Detections, tuple[str, ...]]:
    """Put the boxes of one image's captions together: prompts become the labels that own them.

    Boxes are suppressed within each label once more, which drops nothing where each label has one prompt.

    Args:
        found: per caption its boxes, with its prompts as labels.
        captions: in the same order.
        nms_threshold: boxes of one label that overlap more are suppressed.

    Returns:
        The boxes that remain, best score first, on the CPU, and the prompt that found each.
    """
    pairs = list(zip(found, captions, strict=True))
    boxes = torch.cat([part.boxes_xyxy for part in found]).cpu()
    scores = torch.cat([part.scores for part in found]).cpu()
    owners = torch.cat([torch.tensor(caption.owners)[part.labels.cpu()] for part, caption in pairs])
    words = [caption.prompts[prompt] for part, caption in pairs for prompt in part.labels.tolist()]
    kept = nms(boxes, scores, owners, nms_threshold)
    return Detections(boxes[kept], scores[kept], owners[kept]), tuple(words[index] for index in kept.tolist())


def _above(found: Detections, prompts: Sequence[str], score_threshold: float) -> ImageDetections:
    count = int((found.scores >= score_threshold).sum())  # best first, so a prefix
    return ImageDetections(found.boxes_xyxy[:count], found.scores[:count], found.labels[:count], tuple(prompts[:count]))
