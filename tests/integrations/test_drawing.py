"""Boxes on pictures."""

import numpy as np
import pytest

from backend.domain.geometry import Box
from backend.domain.records import Picture, Proposal
from integrations.drawing import draw_proposals, label_colours


def black(width: int, height: int) -> Picture:
    return Picture(width, height, bytes(3 * width * height), "0" * 64, "black")


def drawn(picture: Picture, *proposals: Proposal) -> "np.typing.NDArray[np.uint8]":
    colours = label_colours([proposal.label for proposal in proposals])
    return np.asarray(draw_proposals(picture, proposals, colours))


def test_labels_have_colours_that_differ() -> None:
    colours = np.array(list(label_colours([f"label {number}" for number in range(12)]).values()), float)
    distances = np.abs(colours[:, None] - colours[None]).sum(-1)
    assert distances[~np.eye(12, dtype=bool)].min() > 60


def test_the_outline_runs_along_the_box_and_leaves_its_inside() -> None:
    image = drawn(black(300, 200), Proposal(Box(100, 80, 200, 160), "cat", 0.5, "cat"))
    colour = label_colours(["cat"])["cat"]
    assert tuple(image[160, 150]) == tuple(image[120, 100]) == tuple(image[120, 200]) == colour
    assert not image[130:150, 110:190].any()
    assert not image[170:].any()


def test_lines_grow_with_the_picture() -> None:
    def width_of_line(side: int) -> int:
        box = Box(side / 4, side / 4, side / 2, side / 2)
        return int((drawn(black(side, side), Proposal(box, "cat", 0.5, "cat"))[3 * side // 8] > 0).any(-1).sum())

    assert width_of_line(3000) > 2 * width_of_line(300)


@pytest.mark.parametrize(
    "box", [Box(0, 0, 300, 200), Box(290, 190, 300, 200), Box(150, 0, 150, 0)], ids=["whole", "corner", "point"]
)
def test_a_tag_stays_inside_the_picture_wherever_the_box_is(box: Box) -> None:
    image = drawn(black(300, 200), Proposal(box, "ein langes Wort\nund noch eins", 0.5, ""))
    letters = (image == 0).all(-1) | (image == 255).all(-1)
    assert (~letters).sum() > 500


def test_nothing_found_leaves_the_picture_as_it_is() -> None:
    assert not drawn(black(30, 20)).any()
