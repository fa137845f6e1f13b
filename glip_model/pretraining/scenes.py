"""Generated scenes: coloured, textured shapes on varied grounds, drawn from a numpy Generator and nothing else.

Coordinates are pixels of the square picture, boxes (x1, y1, x2, y2) with exclusive right and bottom.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from glip_model.pretraining.shapes import FloatArray, Patch, draw_patch, jittered_colour
from glip_model.pretraining.words import Looks, possible_looks

SIDE_OF_SIZE: dict[str | None, tuple[float, float]] = {
    "small": (0.075, 0.125),
    None: (0.15, 0.20),
    "large": (0.25, 0.36),
}
"""Longer side of a thing as a share of the picture's side."""

_SIZE_CHOICES: tuple[str | None, ...] = ("small", None, "large")
_SIZE_WEIGHTS = (0.36, 0.36, 0.28)
_TRIES = 12
_LEAST_CONTRAST = 55.0
_SEEN_LOOKS = tuple(possible_looks())


@dataclass(frozen=True)
class Thing:
    """One drawn thing and its box in pixels."""

    looks: Looks
    box_xyxy: tuple[float, float, float, float]


@dataclass(frozen=True)
class Scene:
    """A picture ``(side, side, 3)`` uint8 RGB and all that is in it."""

    rgb: NDArray[np.uint8]
    things: tuple[Thing, ...]


def _enlarged(small: FloatArray, side: int) -> FloatArray:
    """A few pixels blown up to a smooth ``(side, side, 3)`` ground."""
    image = Image.fromarray(np.clip(small, 0, 255).astype(np.uint8))
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32)


def draw_ground(side: int, rng: np.random.Generator) -> FloatArray:
    """A plain, graded, blurred or noisy background, ``(side, side, 3)`` float32 in 0..255, mostly pale in colour."""
    kind = rng.integers(4)
    grey = rng.uniform(30, 225)
    tint = rng.uniform(-45, 45, 3) * rng.random()
    if kind == 0:
        ground = np.broadcast_to((grey + tint).astype(np.float32), (side, side, 3)).copy()
    else:
        cells = 2 if kind == 1 else int(rng.integers(4, 14))
        spread = rng.uniform(10, 45)
        ground = _enlarged((grey + tint + rng.normal(0, spread, (cells, cells, 3))).astype(np.float32), side)
    if kind == 3 or rng.random() < 0.3:
        grain = rng.standard_normal((side, side, 1), dtype=np.float32)
        ground = ground + grain * np.float32(rng.uniform(2, 14))
    return np.clip(ground, 0, 255).astype(np.float32)


def random_looks(rng: np.random.Generator, near: Sequence[Looks] = ()) -> Looks:
    """Choose how a thing looks among what training may see; often it shares parts with one of ``near``."""
    size = _SIZE_CHOICES[rng.choice(3, p=_SIZE_WEIGHTS)]
    for _ in range(_TRIES):
        shape, colour, texture = _SEEN_LOOKS[rng.integers(len(_SEEN_LOOKS))]
        if rng.random() < 0.35:
            texture = "plain"
        if near and rng.random() < 0.55:
            other = near[int(rng.integers(len(near)))]
            kept = rng.random(3) < 0.5
            shape = other.shape if kept[0] else shape
            colour = other.colour if kept[1] else colour
            texture = other.texture if kept[2] else texture
        if (shape, colour, texture) in _SEEN_SET:
            return Looks(shape, colour, texture, size)
    shape, colour, texture = _SEEN_LOOKS[rng.integers(len(_SEEN_LOOKS))]
    return Looks(shape, colour, texture, size)


_SEEN_SET = frozenset(_SEEN_LOOKS)


def _overlap(box: FloatArray, others: FloatArray) -> float:
    """Largest intersection with any other box as a share of the smaller of the two."""
    if not len(others):
        return 0.0
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1)
    return float((shared / np.minimum(areas, (box[2:] - box[:2]).prod())).max())


def _place(patch: Patch, taken: FloatArray, side: int, limit: float, rng: np.random.Generator) -> FloatArray | None:
    """Find room for the patch; None where the picture is too full."""
    height, width = patch.alpha.shape
    for _ in range(_TRIES):
        x, y = rng.integers(0, side - width + 1), rng.integers(0, side - height + 1)
        box = np.array([x, y, x + width, y + height], dtype=np.float32)
        if _overlap(box, taken) <= limit:
            return box
    return None


def draw_scene(side: int, wanted: Sequence[Looks], rng: np.random.Generator, frame: float | None = None) -> Scene:
    """Draw the wanted things, in order; one that finds no room, or no contrast to its ground, is left out.

    Args:
        side: the picture's side in pixels.
        wanted: how each thing shall look.
        rng: the only source of chance, so equal generators draw equal scenes.
        frame: side of the whole that the picture is a part of, which is what sizes refer to; None: the picture itself.
    """
    picture = draw_ground(side, rng)
    limit = rng.choice([0.0, 0.06, 0.18])
    boxes: FloatArray = np.zeros((0, 4), dtype=np.float32)
    things: list[Thing] = []
    for looks in wanted:
        low, high = SIDE_OF_SIZE[looks.size]
        colour = jittered_colour(looks.colour, rng)
        pixels = round((frame or side) * rng.uniform(low, high))
        pixels = min(pixels, side - 4)  # a drawn patch may be a few pixels larger
        patch = draw_patch(looks.shape, looks.texture, colour, pixels, rng)
        box = _place(patch, boxes, side, limit, rng)
        if box is None:
            continue
        x1, y1, x2, y2 = (int(v) for v in box)
        under = picture[y1:y2, x1:x2]
        if np.linalg.norm(under.mean(axis=(0, 1)) - colour) < _LEAST_CONTRAST:
            continue
        alpha = patch.alpha[:, :, None]
        picture[y1:y2, x1:x2] = under + alpha * (patch.rgb - under)
        boxes = np.concatenate([boxes, box[None]])
        things.append(Thing(looks, (float(x1), float(y1), float(x2), float(y2))))
    return Scene(np.clip(picture, 0, 255).astype(np.uint8), tuple(things))


def random_scene(side: int, rng: np.random.Generator, frame: float | None = None) -> Scene:
    """A scene of training: two to a dozen things that share looks with one another, none of them held out.

    Args:
        side, rng, frame: as of :func:`draw_scene`.
    """
    wanted: list[Looks] = []
    for _ in range(int(rng.integers(2, 13))):
        if wanted and rng.random() < 0.2:
            wanted.append(wanted[rng.integers(len(wanted))])
        else:
            wanted.append(random_looks(rng, wanted))
    return draw_scene(side, wanted, rng, frame)
