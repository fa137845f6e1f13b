"""Convex polygons: what of a rotated box is inside an image, and how much two rotated boxes share.

Frame: that of ``backend.domain.geometry``. Corners go round clockwise as seen on the screen, where y points down.
"""

from collections.abc import Sequence

from backend.domain.geometry import Box, Point, RotatedBox

Polygon = tuple[Point, ...]


def polygon_area(polygon: Sequence[Point]) -> float:
    """Area in square pixels, by the shoelace formula; 0 for fewer than three corners."""
    following = (*polygon[1:], *polygon[:1])
    return sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in zip(polygon, following, strict=True)) / 2


def polygon_bounds(polygon: Sequence[Point]) -> Box:
    """Smallest upright box around a polygon.

    Raises:
        ValueError: it has no corners.
    """
    xs, ys = zip(*polygon, strict=True)
    return Box(min(xs), min(ys), max(xs), max(ys))


def shared_polygon(subject: Polygon, window: Polygon) -> Polygon:
    """The part of ``subject`` inside ``window`` (Sutherland and Hodgman 1974); empty where they do not meet."""
    for (x1, y1), (x2, y2) in zip(window, (*window[1:], *window[:1]), strict=True):
        # Positive on the inner side of the window's edge.
        depths = [(x2 - x1) * (y - y1) - (y2 - y1) * (x - x1) for x, y in subject]
        subject = tuple(_cut(subject, depths))
    return subject


def rotated_iou(a: RotatedBox, b: RotatedBox) -> float:
    """Intersection over union of two rotated boxes in ``[0, 1]``; where one has no area it is 0."""
    first, second = a.corners, b.corners
    areas = polygon_area(first), polygon_area(second)
    shared = min(polygon_area(shared_polygon(first, second)), *areas)  # else it may be more, by rounding
    return shared / (sum(areas) - shared) if shared > 0 else 0.0


def _cut(subject: Polygon, depths: Sequence[float]) -> list[Point]:
    kept = []
    for index, (point, depth) in enumerate(zip(subject, depths, strict=True)):
        before, depth_before = subject[index - 1], depths[index - 1]
        if (depth < 0) != (depth_before < 0):
            share = depth_before / (depth_before - depth)
            kept.append((before[0] + share * (point[0] - before[0]), before[1] + share * (point[1] - before[1])))
        if depth >= 0:
            kept.append(point)
    return kept
