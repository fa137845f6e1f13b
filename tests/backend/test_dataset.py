"""What of a box is written: rounded, clipped to its image."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.domain.dataset import on_grid, outline_in_image
from backend.domain.geometry import RotatedBox

places = st.floats(-900, 1500)
lengths = st.floats(-5, 900)
boxes = st.builds(RotatedBox, places, places, lengths, lengths, st.just(0.0) | st.floats(-720, 720)).map(on_grid)


@settings(deadline=None)
@given(boxes)
def test_rounding_twice_changes_nothing(box: RotatedBox) -> None:
    assert on_grid(box) == box
    assert 0 <= box.rotation < 360


@settings(deadline=None)
@given(boxes)
def test_an_outline_is_inside_the_image_and_has_area(box: RotatedBox) -> None:
    outline = outline_in_image(box, 640, 480)
    if outline is not None:
        assert all(0 <= x <= 640 and 0 <= y <= 480 for x, y in outline.polygon)
        assert outline.area > 0
        assert outline.bounds.width > 0
        assert outline.bounds.height > 0
        assert len(set(outline.polygon)) == len(outline.polygon) >= 3


def test_bounds_of_a_rotated_box_are_those_of_its_visible_part() -> None:
    outline = outline_in_image(RotatedBox(0, 0, 10, 10, 45), 100, 100)
    assert outline is not None
    half = round(math.sqrt(50), 2)
    assert outline.polygon == ((0, 0), (half, half), (0, 2 * half))
    assert (outline.bounds.width, outline.bounds.height) == (half, 2 * half)


@pytest.mark.parametrize(
    "box",
    [
        RotatedBox(100, 0, 10, 10),  # touches the edge from outside
        RotatedBox(-20, 0, 10, 10, 30),
        RotatedBox(10, 10, 0, 10),
        RotatedBox(10, 10, 10, -1, 20),
        RotatedBox(10, 10, 1e-9, 5),
    ],
)
def test_what_has_no_area_inside_the_image_has_no_outline(box: RotatedBox) -> None:
    assert outline_in_image(on_grid(box), 100, 100) is None


def test_a_turn_of_nearly_a_whole_circle_is_none() -> None:
    assert on_grid(RotatedBox(1, 1, 2, 2, 359.99999)).rotation == 0
