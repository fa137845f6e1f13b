"""What people said about one picture, and the views of it that training sees.

Shape letters: N boxes, K rejected boxes, R regions. Boxes are xyxy in pixels of the upright picture.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from glip_model.image import PixelSettings, resize_rgb, resized_size
from glip_model.sentence import GroundedSentence
from glip_model.training.augment import augmented
from glip_model.training.samples import Handling, Sample, no_boxes

SCALES = (0.7, 1.3)
"""Least and largest enlargement of a view, relative to how inference shows the picture."""

_KEPT_BYTES = 1 << 29


@dataclass(frozen=True)
class TrainingExample:
    """One picture as people left it.

    Attributes:
        image: gives the picture, ``(H, W, 3)`` uint8 upright RGB; called again when it is needed again.
        boxes_xyxy: ``(N, 4)``; with N = 0 and nothing unreviewed the picture is known to be empty.
        labels: of each box the index of its label in the run's prompts, or of its phrase in ``sentence``.
        rejected_xyxy: ``(K, 4)``, proposals that people deleted.
        rejected_labels: the label that each of them was given.
        unreviewed_xyxy: ``(R, 4)``, parts of the picture that nobody looked at.
        weight: how much the picture counts; less than 1 for boxes that a model proposed and nobody saw.
        sentence: what to ask with, instead of the run's prompts.
        unasked: labels without boxes that nobody looked for; the picture teaches nothing about them.
    """

    image: Callable[[], NDArray[np.uint8]]
    boxes_xyxy: NDArray[np.float32]
    labels: tuple[int, ...]
    rejected_xyxy: NDArray[np.float32] = field(default_factory=no_boxes)
    rejected_labels: tuple[int, ...] = ()
    unreviewed_xyxy: NDArray[np.float32] = field(default_factory=no_boxes)
    weight: float = 1.0
    sentence: GroundedSentence | None = None
    unasked: tuple[int, ...] = ()


def fingerprint(examples: Sequence[TrainingExample]) -> str:
    """Digest of all that people said, pictures aside."""
    digest = sha256()
    for example in examples:
        for boxes in (example.boxes_xyxy, example.rejected_xyxy, example.unreviewed_xyxy):
            digest.update(np.asarray(boxes, dtype="<f4").tobytes() + b";")
        digest.update(repr((example.labels, example.rejected_labels, example.weight, example.sentence)).encode())
        if example.unasked:
            digest.update(repr(example.unasked).encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class View:
    """Which view: the picture, which of its views, and the side of the square."""

    example: int
    number: int
    side: int


class Pictures:
    """Views of pictures, each a pure function of the seed and its key; recent pictures are kept decoded.

    A view's names are the numbers of labels, as text.

    Args:
        examples: what is drawn from.
        pixels: how inference shows pictures.
        handling: what augmentation may do.
        seed: of the run.
    """

    def __init__(
        self, examples: Sequence[TrainingExample], pixels: PixelSettings, handling: Handling, seed: int
    ) -> None:
        self._examples, self._pixels, self._handling, self._seed = examples, pixels, handling, seed
        self._kept: OrderedDict[int, tuple[Sample, float]] = OrderedDict()
        self._bytes = 0

    def view(self, key: View) -> Sample:
        """A random cut of a picture, turned and recoloured, ``side`` x ``side``."""
        sample, shown = self._sample(key.example)
        rng = np.random.default_rng([self._seed, key.example, key.number, key.side])
        low, high = SCALES
        size_hw = (key.side, key.side)
        # An object that is cut off does not tell where it ends, and large ones hardly fit into small views.
        return augmented(sample, self._handling, size_hw, (low * shown, high * shown), rng, whole=True)

    def _sample(self, index: int) -> tuple[Sample, float]:
        """A picture no larger than any view needs it, and how much inference would enlarge that."""
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        example = self._examples[index]
        rgb = example.image()
        height, width = rgb.shape[:2]
        shown = min(resized_size((height, width), self._pixels)) / min(height, width)
        scale = min(1.0, shown * SCALES[1])
        rgb = resize_rgb(rgb, (max(1, round(height * scale)), max(1, round(width * scale))))
        labels, rejected = ([(str(v),) for v in values] for values in (example.labels, example.rejected_labels))
        sample = Sample(
            rgb,
            np.concatenate([example.boxes_xyxy, example.rejected_xyxy]).astype(np.float32) * np.float32(scale),
            (*labels, *(() for _ in rejected)),
            asked=(),
            rejected=(*(() for _ in labels), *rejected),
            unreviewed_xyxy=example.unreviewed_xyxy.astype(np.float32) * np.float32(scale),
            pixel=scale,
        )
        self._kept[index] = sample, shown / scale
        self._bytes += rgb.nbytes
        while self._bytes > _KEPT_BYTES and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1][0].rgb.nbytes
        return sample, shown / scale
