"""Rotated boxes against images and against each other."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.domain.annotations import PercentBox
from backend.domain.geometry import Box, RotatedBox, iou, percent_to_pixels, pixels_to_percent
from backend.domain.polygons import polygon_area, polygon_bounds, rotated_iou, shared_polygon

IMAGE = ((0.0, 0.0), (640.0, 0.0), (640.0, 480.0), (0.0, 480.0))
places = st.floats(-500, 1000)
lengths = st.floats(0.5, 800)
rotated_boxes = st.builds(RotatedBox, places, places, lengths, lengths, st.floats(-720, 720))
quick = settings(deadline=None)  # other work on the machine must not fail a test


@pytest.mark.parametrize(
    ("value", "bbox"),
    [
        (PercentBox(40, 40, 20, 10, 30), (232, 192, 134.9, 105.6)),
        (PercentBox(80, 10, 20, 10, 90), (464, 48, 48, 128)),
        (PercentBox(75, 10, 10, 15, 90), (408, 48, 72, 64)),
        (PercentBox(80, 10, 10, 20, 90), (416, 48, 96, 64)),
    ],
)
def test_bounds_of_a_rotated_box_follow_from_its_corners_in_pixels(
    value: PercentBox, bbox: tuple[float, float, float, float]
) -> None:
    bounds = polygon_bounds(percent_to_pixels(value, 640, 480).corners)
    assert (bounds.x1, bounds.y1, bounds.width, bounds.height) == pytest.approx(bbox, abs=0.06)


@quick
@given(st.builds(PercentBox, places, places, lengths, lengths, st.floats(-720, 720)))
def test_percent_and_pixels_are_each_others_inverse(value: PercentBox) -> None:
    back = pixels_to_percent(percent_to_pixels(value, 1333, 797), 1333, 797)
    for name in ("x", "y", "width", "height", "rotation"):
        assert getattr(back, name) == pytest.approx(getattr(value, name), abs=1e-9)


@quick
@given(rotated_boxes)
def test_a_clipped_polygon_lies_in_the_image_and_is_no_larger(box: RotatedBox) -> None:
    inside = shared_polygon(box.corners, IMAGE)
    assert all(-1e-6 <= x <= 640 + 1e-6 and -1e-6 <= y <= 480 + 1e-6 for x, y in inside)
    assert -1e-6 <= polygon_area(inside) <= box.width * box.height + 1e-6


@quick
@given(rotated_boxes)
def test_clipping_keeps_just_the_points_that_are_in_both(box: RotatedBox) -> None:
    inside = shared_polygon(box.corners, IMAGE)
    angle = math.radians(box.rotation)
    for x, y in [(1.0, 1.0), (320.0, 240.0), (639.0, 470.0), (100.0, 400.0)]:
        across = (x - box.x) * math.cos(angle) + (y - box.y) * math.sin(angle)
        along = (y - box.y) * math.cos(angle) - (x - box.x) * math.sin(angle)
        margin = min(across, box.width - across, along, box.height - along)
        if abs(margin) > 1e-6:
            assert (margin > 0) == (polygon_area(inside) > 1e-6 and holds(inside, x, y))


def holds(polygon: tuple[tuple[float, float], ...], x: float, y: float) -> bool:
    edges = zip(polygon, (*polygon[1:], *polygon[:1]), strict=True)
    return all((x2 - x1) * (y - y1) >= (y2 - y1) * (x - x1) - 1e-6 for (x1, y1), (x2, y2) in edges)


@quick
@given(places, places, lengths, lengths, rotated_boxes)
def test_without_rotation_the_shared_area_is_that_of_upright_boxes(
    x: float, y: float, width: float, height: float, other: RotatedBox
) -> None:
    a, b = RotatedBox(x, y, width, height), RotatedBox(other.x, other.y, other.width, other.height)
    upright = [Box(each.x, each.y, each.x + each.width, each.y + each.height) for each in (a, b)]
    assert rotated_iou(a, b) == pytest.approx(iou(*upright), abs=1e-6)


@quick
@given(rotated_boxes, rotated_boxes)
def test_iou_of_rotated_boxes_is_symmetric_and_one_with_itself(a: RotatedBox, b: RotatedBox) -> None:
    assert rotated_iou(a, b) == pytest.approx(rotated_iou(b, a), abs=1e-6)
    assert rotated_iou(a, a) == pytest.approx(1, abs=1e-6)


def test_a_box_whose_numbers_are_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="not a rotated box"):
        RotatedBox(0, 0, math.nan, 4)


def test_boxes_without_area_share_nothing() -> None:
    assert rotated_iou(RotatedBox(0, 0, 0, 4), RotatedBox(0, 0, 4, 4)) == 0


@pytest.mark.parametrize("sides", [(-2.0, 4.0), (4.0, -2.0), (0.0, 4.0), (1e-170, 1e-170), (1e-150, 1e-160)])
def test_a_box_with_next_to_no_area_has_an_overlap(sides: tuple[float, float]) -> None:
    empty, box = RotatedBox(1.0, 1.0, *sides, 30.0), RotatedBox(0.0, 0.0, 5.0, 5.0)
    assert rotated_iou(empty, empty) in (0.0, 1.0)
    assert rotated_iou(empty, box) == rotated_iou(box, empty) == pytest.approx(0.0)
