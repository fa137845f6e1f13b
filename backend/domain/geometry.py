"""Boxes as plain floats.

Frame: pixels of the upright image (turned as browsers turn it), origin at its top-left corner, x to the right, y down.
A box covers the continuous area ``[x1, x2] x [y1, y2]``; there is no ``+1`` anywhere outside the model.
"""

import math
from dataclasses import dataclass

from backend.domain.annotations import PercentBox

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Box:
    """Axis-aligned box with ``x1 <= x2`` and ``y1 <= y2``, in pixels.

    Raises:
        ValueError: a corner is not finite, or the corners are in the wrong order.
    """

    x1: float
    y1: float
    x2: float
    y2: float

    def __post_init__(self) -> None:
        # NaN fails both comparisons, infinity fails the second: one test refuses all malformed boxes.
        if not (-1e9 < self.x1 <= self.x2 < 1e9 and -1e9 < self.y1 <= self.y2 < 1e9):
            raise ValueError(f"not a box: {self.x1}, {self.y1}, {self.x2}, {self.y2}")

    @property
    def width(self) -> float:
        return self.x2 - self.x1

    @property
    def height(self) -> float:
        return self.y2 - self.y1

    @property
    def area(self) -> float:
        return self.width * self.height

    def clipped(self, width: float, height: float) -> "Box":
        """Return the part inside an image of ``width`` x ``height`` pixels; it may have no area."""
        x1, x2 = (min(max(x, 0.0), width) for x in (self.x1, self.x2))
        y1, y2 = (min(max(y, 0.0), height) for y in (self.y1, self.y2))
        return Box(x1, y1, x2, y2)


def iou(a: Box, b: Box) -> float:
    """Intersection over union in ``[0, 1]``; two boxes without area have 0."""
    width = min(a.x2, b.x2) - max(a.x1, b.x1)
    height = min(a.y2, b.y2) - max(a.y1, b.y1)
    shared = max(width, 0.0) * max(height, 0.0)
    # The product of two tiny sides may round to 0, and then so may the areas.
    return shared / (a.area + b.area - shared) if shared > 0 else 0.0


@dataclass(frozen=True, slots=True)
class RotatedBox:
    """A rectangle turned by ``rotation`` degrees, clockwise, around ``(x, y)``: its top-left corner before the turn.

    In pixels; it may reach beyond the image.

    Raises:
        ValueError: a number is not finite.
    """

    x: float
    y: float
    width: float
    height: float
    rotation: float = 0.0

    def __post_init__(self) -> None:
        # NaN and infinity fail, too.
        if not (
            -1e9 < self.x < 1e9
            and -1e9 < self.y < 1e9
            and -1e9 < self.width < 1e9
            and -1e9 < self.height < 1e9
            and -1e9 < self.rotation < 1e9
        ):
            raise ValueError(f"not a rotated box: {self.x}, {self.y}, {self.width}, {self.height}, {self.rotation}")

    @property
    def corners(self) -> tuple[Point, Point, Point, Point]:
        """Top left, top right, bottom right, bottom left, as named before the turn."""
        x, y, wide, high = self.x, self.y, self.width, self.height
        angle = math.radians(self.rotation % 360)
        cos, sin = math.cos(angle), math.sin(angle)
        return (
            (x, y),
            (x + wide * cos, y + wide * sin),
            (x + wide * cos - high * sin, y + wide * sin + high * cos),
            (x - high * sin, y + high * cos),
        )


def percent_to_pixels(value: PercentBox, width: float, height: float) -> RotatedBox:
    """Bring Label Studio's percent into the pixels of an upright image of ``width`` x ``height``.

    It is turned in pixels; Label Studio's own exporters turn in percent, which shears the rectangle.

    Raises:
        ValueError: a number is not finite.
    """
    x, y = value.x * width / 100, value.y * height / 100
    return RotatedBox(x, y, value.width * width / 100, value.height * height / 100, value.rotation)


def pixels_to_percent(box: RotatedBox, width: float, height: float) -> PercentBox:
    """Undo `percent_to_pixels`, up to the last bits."""
    x, y = box.x * 100 / width, box.y * 100 / height
    return PercentBox(x, y, box.width * 100 / width, box.height * 100 / height, box.rotation)


def visible_bounds(value: PercentBox, width: float, height: float) -> Box:
    """Smallest upright box around the part of an annotated rectangle's bounds that is inside the image, in pixels.

    It has no area where the rectangle lies outside.
    """
    corners = percent_to_pixels(value, width, height).corners
    xs, ys = ([min(max(0.0, corner[axis]), (width, height)[axis]) for corner in corners] for axis in (0, 1))
    return Box(min(xs), min(ys), max(xs), max(ys))
