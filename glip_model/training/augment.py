"""Changes to a sample that keep its boxes right.

Shape letters: N boxes. Sizes are (height, width); boxes are xyxy in pixels of the picture they come with.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from glip_model.training.samples import Handling, Sample

_LEAST_VISIBLE = 0.35
_LEAST_SIDE = 3.0
_LARGEST = 0.9
"""Share of a view's side that the box it is cut around may take, where that is to be whole."""
_FILL = (124, 116, 104)
"""RGB close to the mean that normalisation subtracts, for what lies outside a picture."""

Boxes = NDArray[np.float32]
"""``(N, 4)``."""


def kept_boxes(sample: Sample, move: Callable[[Boxes], Boxes], size_hw: tuple[int, int]) -> Sample:
    """The sample with boxes moved and clipped to a picture of ``size_hw``; those mostly outside it are dropped.

    What still shows of a dropped box counts as not reviewed.

    Args:
        sample: gives the picture, the boxes and the names.
        move: where boxes come to lie, which may be beyond the picture.
        size_hw: size of the picture.
    """
    boxes = move(sample.boxes_xyxy)
    clipped = _clipped(boxes, size_hw)
    before = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    sides = clipped[:, 2:] - clipped[:, :2]
    kept = (sides.min(axis=1) >= _LEAST_SIDE) & (sides.prod(axis=1) >= _LEAST_VISIBLE * before)
    unreviewed = np.concatenate([_clipped(move(sample.unreviewed_xyxy), size_hw), clipped[~kept]])
    shown = (unreviewed[:, 2:] > unreviewed[:, :2]).all(axis=1)
    return replace(
        sample,
        boxes_xyxy=clipped[kept],
        names=_chosen(sample.names, kept),
        rejected=None if sample.rejected is None else _chosen(sample.rejected, kept),
        unreviewed_xyxy=unreviewed[shown],
    )


def _clipped(boxes: Boxes, size_hw: tuple[int, int]) -> Boxes:
    height, width = size_hw
    return np.clip(boxes, 0, np.array([width, height, width, height], dtype=np.float32))


def _chosen(names: tuple[tuple[str, ...], ...], kept: NDArray[np.bool_]) -> tuple[tuple[str, ...], ...]:
    return tuple(of_box for of_box, keep in zip(names, kept, strict=True) if keep)


def cut(sample: Sample, origin_xy: tuple[float, float], scale: float, size_hw: tuple[int, int]) -> Sample:
    """Show the part of a picture that starts at ``origin_xy``, enlarged by ``scale``, as a picture of ``size_hw``.

    What lies outside the picture is filled with a mean colour.
    """
    height, width = size_hw
    (x, y), (full_height, full_width) = origin_xy, sample.rgb.shape[:2]
    left, top = max(x, 0.0), max(y, 0.0)
    right, bottom = min(x + width / scale, full_width), min(y + height / scale, full_height)
    canvas = Image.new("RGB", (width, height), _FILL)
    shown = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
    part = Image.fromarray(sample.rgb).resize(shown, Image.Resampling.BILINEAR, (left, top, right, bottom))
    canvas.paste(part, (round((left - x) * scale), round((top - y) * scale)))
    shift = np.array([x, y, x, y], dtype=np.float32)
    shown_part = replace(sample, rgb=np.asarray(canvas), pixel=sample.pixel * scale)
    return kept_boxes(shown_part, lambda boxes: (boxes - shift) * np.float32(scale), size_hw)


def random_cut(
    sample: Sample,
    size_hw: tuple[int, int],
    scales: tuple[float, float],
    rng: np.random.Generator,
    *,
    whole: bool = False,
) -> Sample:
    """A random part of the picture at a random scale, most often around one of its boxes.

    Args:
        scales: least and largest.
        whole: that box is shown as a whole, at less than the least scale if need be.
    """
    height, width = size_hw
    full_height, full_width = sample.rgb.shape[:2]
    scale = float(np.exp(rng.uniform(np.log(scales[0]), np.log(scales[1]))))
    anywhere = rng.random(2)
    focus = None
    if len(sample.boxes_xyxy) and rng.random() < 0.7:
        focus = sample.boxes_xyxy[rng.integers(len(sample.boxes_xyxy))]
        if whole:
            scale = min(scale, _LARGEST * float((np.array([width, height]) / (focus[2:] - focus[:2])).min()))
    window = np.array([width, height]) / scale
    room = np.array([full_width, full_height]) - window
    low, high = np.minimum(room, 0), np.maximum(room, 0)
    origin = low + (high - low) * anywhere
    if focus is not None:
        slack = np.maximum(window - (focus[2:] - focus[:2]), 0)
        origin = np.clip(focus[:2] - rng.random(2) * slack, low, high)
    return cut(sample, (float(origin[0]), float(origin[1])), scale, size_hw)


def mirrored(sample: Sample) -> Sample:
    """Left and right exchanged."""
    width = sample.rgb.shape[1]

    def moved(boxes: Boxes) -> Boxes:
        x1, y1, x2, y2 = boxes.T
        return np.stack([width - x2, y1, width - x1, y2], axis=1)

    return _rearranged(sample, sample.rgb[:, ::-1], moved)


def quarter_turned(sample: Sample, turns: int) -> Sample:
    """Turned by ``turns`` times 90 degrees, counter-clockwise."""
    for _ in range(turns % 4):
        width = sample.rgb.shape[1]

        def moved(boxes: Boxes, width: int = width) -> Boxes:
            x1, y1, x2, y2 = boxes.T
            return np.stack([y1, width - x2, y2, width - x1], axis=1)

        sample = _rearranged(sample, np.rot90(sample.rgb), moved)
    return sample


def _rearranged(sample: Sample, rgb: NDArray[np.uint8], moved: Callable[[Boxes], Boxes]) -> Sample:
    boxes, unreviewed = moved(sample.boxes_xyxy), moved(sample.unreviewed_xyxy)
    return replace(sample, rgb=np.ascontiguousarray(rgb), boxes_xyxy=boxes, unreviewed_xyxy=unreviewed)


def recoloured(sample: Sample, strength: float, rng: np.random.Generator) -> Sample:
    """Brightness, contrast and channel gains changed at random, through one table per channel."""
    gains = rng.uniform(1 - strength, 1 + strength) * rng.uniform(1 - strength / 4, 1 + strength / 4, 3)
    contrast = rng.uniform(1 - strength, 1 + strength)
    levels = np.arange(256, dtype=np.float32)
    rgb = np.empty_like(sample.rgb)
    for channel in range(3):
        table = np.clip(((levels - 110) * contrast + 110) * gains[channel], 0, 255).astype(np.uint8)
        rgb[..., channel] = table[sample.rgb[..., channel]]
    return replace(sample, rgb=rgb)


def augmented(
    sample: Sample,
    handling: Handling,
    size_hw: tuple[int, int],
    scales: tuple[float, float],
    rng: np.random.Generator,
    *,
    whole: bool = False,
) -> Sample:
    """One view of a real sample: a random cut, then the turns and colours that its set allows.

    Args:
        scales, whole: as of `random_cut`.
    """
    turns = int(rng.integers(4)) if handling.quarter_turns else 0
    wanted = size_hw if turns % 2 == 0 else (size_hw[1], size_hw[0])
    view = random_cut(sample, wanted, scales, rng, whole=whole)
    if turns:
        view = quarter_turned(view, turns)
    if handling.mirror and rng.random() < 0.5:
        view = mirrored(view)
    return recoloured(view, handling.colour, rng)


def mosaic(tiles: Sequence[Sample], centre_xy: tuple[int, int], side: int) -> Sample:
    """Four pictures in one: top left, top right, bottom left, bottom right of ``centre_xy``.

    Every tile must fill its quarter, and a name that one tile asks for must be absent from, or labelled in, all
    others. That holds for tiles of sets that share no names.
    """
    x, y = centre_xy
    corners = ((0, 0), (x, 0), (0, y), (x, y))
    rgb = np.empty((side, side, 3), dtype=np.uint8)
    boxes: list[NDArray[np.float32]] = []
    names: list[tuple[str, ...]] = []
    asked: dict[str, None] = {}
    for (left, top), tile in zip(corners, tiles, strict=True):
        height, width = tile.rgb.shape[:2]
        rgb[top : top + height, left : left + width] = tile.rgb
        boxes.append(tile.boxes_xyxy + np.array([left, top, left, top], dtype=np.float32))
        names.extend(tile.names)
        asked.update(dict.fromkeys(tile.asked))
    return Sample(rgb, np.concatenate(boxes), tuple(names), tuple(asked))
