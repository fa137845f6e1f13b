"""One picture to learn from, with its boxes and the names that were looked for."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


def no_boxes() -> NDArray[np.float32]:
    """An array of no boxes, ``(0, 4)``."""
    return np.zeros((0, 4), dtype=np.float32)


@dataclass(frozen=True)
class Sample:
    """A picture with named boxes.

    Attributes:
        rgb: ``(H, W, 3)`` uint8.
        boxes_xyxy: ``(N, 4)`` float32 in pixels of ``rgb``, 0 <= x1 < x2 <= W.
        names: for each box the names it answers to, most often one; all are in ``asked``.
        asked: every name that was looked for; each thing in the picture that fits one of them has its box.
        rejected: for each box the names that people took off it; such a box has no other. None when there are none.
        unreviewed_xyxy: ``(R, 4)``, parts of the picture in which things may lack their boxes.
        pixel: side of a pixel of the original picture, in pixels of ``rgb``.
    """

    rgb: NDArray[np.uint8]
    boxes_xyxy: NDArray[np.float32]
    names: tuple[tuple[str, ...], ...]
    asked: tuple[str, ...]
    rejected: tuple[tuple[str, ...], ...] | None = None
    unreviewed_xyxy: NDArray[np.float32] = field(default_factory=no_boxes)
    pixel: float = 1.0


@dataclass(frozen=True)
class Handling:
    """What augmentation may do to pictures without making their names wrong.

    Attributes:
        mirror: left and right may be exchanged; wrong for letters and printed boards.
        quarter_turns: pictures have no upright position.
        colour: strength of the change of brightness, contrast and channel gains.
        longest_side: pixels that the longer side is cached at.
    """

    mirror: bool = True
    quarter_turns: bool = False
    colour: float = 0.25
    longest_side: int = 640
