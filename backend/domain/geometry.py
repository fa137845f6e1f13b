"""Boxes as plain floats.

Frame: pixels of the upright image (EXIF orientation applied), origin at its top-left corner, x to the right, y down.
A box covers the continuous area ``[x1, x2] x [y1, y2]``; there is no ``+1`` anywhere outside the model.
"""

from dataclasses import dataclass


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
