"""Annotated rectangles, upright and rotated, in pixels."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.domain.annotations import PercentBox
from backend.domain.geometry import Box, percent_to_pixels, visible_bounds

quick = settings(deadline=None)  # other work on the machine must not fail a test
percents = st.floats(-50, 150)
shares = st.floats(0, 100)
turns = st.floats(-720, 720)
sides = st.integers(1, 20_000)


def edges(box: Box) -> tuple[float, float, float, float]:
    return box.x1, box.y1, box.x2, box.y2


@pytest.mark.parametrize(
    ("rotation", "bounds"),
    [
        (0, (256, 192, 384, 240)),
        (30, (232, 192, 366.851, 297.569)),
        (90, (208, 192, 256, 320)),
        (360, (256, 192, 384, 240)),
    ],
)
def test_the_rotation_is_in_pixels_around_the_top_left_corner(
    rotation: float, bounds: tuple[float, float, float, float]
) -> None:
    value = PercentBox(40, 40, 20, 10, rotation)
    assert edges(visible_bounds(value, 640, 480)) == pytest.approx(bounds, abs=1e-3)


@quick
@given(st.builds(PercentBox, percents, percents, shares, shares, turns), sides, sides)
def test_a_rotation_keeps_the_sides_and_the_top_left_corner(value: PercentBox, width: int, height: int) -> None:
    corners = percent_to_pixels(value, width, height).corners
    assert corners[0] == (value.x * width / 100, value.y * height / 100)
    lengths = [math.dist(corners[index], corners[(index + 1) % 4]) for index in range(4)]
    assert lengths == pytest.approx([value.width * width / 100, value.height * height / 100] * 2, abs=1e-6)


@quick
@given(st.builds(PercentBox, percents, percents, percents, percents, turns), sides, sides)
def test_the_visible_bounds_never_leave_the_image(value: PercentBox, width: int, height: int) -> None:
    box = visible_bounds(value, width, height)
    assert 0 <= box.x1 <= box.x2 <= width
    assert 0 <= box.y1 <= box.y2 <= height


def test_a_rectangle_outside_the_image_has_no_visible_area() -> None:
    assert visible_bounds(PercentBox(120, 10, 20, 20), 100, 100).area == 0
