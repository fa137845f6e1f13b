"""Pixels to percent and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.domain.geometry import Box
from integrations.label_studio.regions import box_from_percent, box_to_percent

sides = st.integers(1, 20_000)
fractions = st.floats(0, 1)


@given(sides, sides, fractions, fractions, fractions, fractions)
def test_a_box_survives_percent_and_back(
    width: int, height: int, left: float, top: float, wide: float, high: float
) -> None:
    x1, y1 = left * width, top * height
    box = Box(x1, y1, x1 + wide * (width - x1), y1 + high * (height - y1))
    value = box_to_percent(box, width, height)
    assert all(0 <= number <= 100 for number in value.values())
    assert value["x"] + value["width"] <= 100
    assert value["y"] + value["height"] <= 100
    back = box_from_percent(value, width, height)
    assert (back.x1, back.y1, back.x2, back.y2) == pytest.approx((box.x1, box.y1, box.x2, box.y2), abs=1e-6)


def test_a_box_beyond_the_image_is_clipped() -> None:
    assert box_to_percent(Box(-10, 50, 300, 70), 200, 100) == {"x": 0, "y": 50, "width": 100, "height": 20}
