"""Drawing one textured shape with Pillow and numpy.

Outlines live in a frame of -1..1 with y down; pictures are RGB uint8 ``(h, w, 3)``, alphas float32 ``(h, w)`` in 0..1.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from glip_model.pretraining.words import COLOURS

FloatArray = NDArray[np.float32]
ByteArray = NDArray[np.uint8]

_SUPERSAMPLE = 2
_RING_HOLE = 0.5


def _arc(radius: float, start: float, stop: float, points: int) -> FloatArray:
    angles = np.linspace(start, stop, points)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32) * radius


def _regular(corners: int) -> FloatArray:
    return _arc(1.0, -np.pi / 2, 1.5 * np.pi, corners + 1)[:-1]


def _star() -> FloatArray:
    points = _regular(10)
    points[1::2] *= 0.42
    return points


def _heart() -> FloatArray:
    t = np.linspace(0, 2 * np.pi, 40)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x / 17, y / 17], axis=1).astype(np.float32)


def _crescent() -> FloatArray:
    outer = _arc(1.0, 0.3 * np.pi, 1.7 * np.pi, 28)
    inner = _arc(0.83, 1.62 * np.pi, 0.38 * np.pi, 24) + np.array([0.3, 0.0], dtype=np.float32)
    return np.concatenate([outer, inner])


def _points(*pairs: tuple[float, float]) -> FloatArray:
    return np.array(pairs, dtype=np.float32)


_ARM = 0.34
_OUTLINES: dict[str, FloatArray] = {
    "circle": _regular(40),
    "ring": _regular(40),
    "square": _points((-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)),
    "rectangle": _points((-1, -0.48), (1, -0.48), (1, 0.48), (-1, 0.48)),
    "triangle": _points((0, -0.95), (0.95, 0.75), (-0.95, 0.75)),
    "diamond": _points((0, -1), (0.58, 0), (0, 1), (-0.58, 0)),
    "hexagon": _regular(6),
    "star": _star(),
    "heart": _heart(),
    "crescent": _crescent(),
    "cross": _points(
        (-_ARM, -1), (_ARM, -1), (_ARM, -_ARM), (1, -_ARM), (1, _ARM), (_ARM, _ARM),
        (_ARM, 1), (-_ARM, 1), (-_ARM, _ARM), (-1, _ARM), (-1, -_ARM), (-_ARM, -_ARM),
    ),
    "arrow": _points((1, 0), (0.15, -0.75), (0.15, -0.28), (-1, -0.28), (-1, 0.28), (0.15, 0.28), (0.15, 0.75)),
}  # fmt: skip


@dataclass(frozen=True)
class Patch:
    """A drawn shape, cut tight: colour picture and alpha of the same ``(h, w)``."""

    rgb: FloatArray
    alpha: FloatArray


def draw_alpha(shape: str, side: int, angle: float, hollow: bool) -> FloatArray:
    """Draw a shape about ``side`` pixels wide, turned by ``angle`` radians, cut to what it covers."""
    canvas = _SUPERSAMPLE * (side + 4)
    cos, sin = np.cos(angle), np.sin(angle)
    turned = _OUTLINES[shape] @ np.array([[cos, sin], [-sin, cos]], dtype=np.float32)
    extent = np.abs(turned).max()
    points = turned / extent * (_SUPERSAMPLE * side / 2) + canvas / 2
    image = Image.new("L", (canvas, canvas))
    draw = ImageDraw.Draw(image)
    corners = [(float(x), float(y)) for x, y in points]
    if hollow:
        width = max(2 * _SUPERSAMPLE, round(0.085 * side * _SUPERSAMPLE))
        draw.line([*corners, corners[0], corners[1]], fill=255, width=width, joint="curve")
    else:
        draw.polygon(corners, fill=255)
    if shape == "ring":
        hole = (points - canvas / 2) * _RING_HOLE + canvas / 2
        draw.polygon([(float(x), float(y)) for x, y in hole], fill=0)
    small = image.reduce(_SUPERSAMPLE)
    alpha = np.asarray(small, dtype=np.float32) / 255.0
    rows, columns = np.flatnonzero((alpha > 0.4).any(1)), np.flatnonzero((alpha > 0.4).any(0))
    return alpha[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def jittered_colour(colour: str, rng: np.random.Generator) -> FloatArray:
    """The named colour with a little of this thing's own, RGB 0..255."""
    base = np.array(COLOURS[colour], dtype=np.float32)
    return np.clip(base * rng.uniform(0.9, 1.1) + rng.uniform(-12, 12, 3), 0, 255).astype(np.float32)


def _second_colour(first: FloatArray, rng: np.random.Generator) -> FloatArray:
    darker = first.mean() > 90 and rng.random() < 0.6
    mixed = first * 0.35 if darker else first * 0.25 + 255 * (0.75 if first.mean() < 150 else 0.2)
    return np.asarray(mixed, dtype=np.float32)


def _pattern(texture: str, shape_hw: tuple[int, int], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Where the second colour goes; its period follows the shape's size, so that small things stay readable."""
    height, width = shape_hw
    y, x = np.mgrid[:height, :width].astype(np.float32)
    angle = rng.uniform(0, np.pi)
    period = max(5.0, max(height, width) * rng.uniform(0.17, 0.26))
    u = (x * np.cos(angle) + y * np.sin(angle)) / period + rng.random()
    v = (y * np.cos(angle) - x * np.sin(angle)) / period + rng.random()
    if texture == "striped":
        return np.asarray(u % 1.0 < 0.45)
    if texture == "dotted":
        return np.asarray((u % 1.0 - 0.5) ** 2 + (v % 1.0 - 0.5) ** 2 < 0.09)
    return np.asarray((np.floor(u * 1.3) + np.floor(v * 1.3)) % 2 < 1)  # checkered


def draw_patch(shape: str, texture: str, colour_rgb: FloatArray, side: int, rng: np.random.Generator) -> Patch:
    """Draw one thing with a random turn; ``side`` is its longer side in pixels, up to rounding."""
    alpha = draw_alpha(shape, side, rng.uniform(0, 2 * np.pi), texture == "hollow")
    rgb = np.broadcast_to(colour_rgb, (*alpha.shape, 3)).copy()
    if texture not in ("plain", "hollow"):
        second = _pattern(texture, (alpha.shape[0], alpha.shape[1]), rng)
        rgb[second] = _second_colour(colour_rgb, rng)
    shade = np.linspace(rng.uniform(0.88, 1.0), rng.uniform(0.92, 1.08), alpha.shape[0], dtype=np.float32)
    return Patch(np.clip(rgb * shade[:, None, None], 0, 255), alpha)
