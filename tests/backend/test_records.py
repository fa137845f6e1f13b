"""What the services speak about."""

import pytest

from backend.domain.records import names_sides


@pytest.mark.parametrize(
    "name",
    [
        *("left hand", "left_hand", "hand_left", "turn_left_sign", "left-hand", "arm left", "right_lung", "Left"),
        *("LeftHand", "handRight", "HAND_LEFT", "IRLeft", "left2", "2left"),
    ],
)
def test_a_name_with_left_or_right_among_its_words_names_a_side(name: str) -> None:
    assert names_sides(["cat", name])


@pytest.mark.parametrize(
    "name", ["leftover", "bright", "copyright", "upright", "UPRIGHT", "Leftover", "L", "cleft", ""]
)
def test_a_name_that_only_has_the_letters_of_left_or_right_names_no_side(name: str) -> None:
    assert not names_sides([name])
