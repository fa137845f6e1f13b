"""Edges that people move the same way every time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.analysis.edge_correction import EdgeMove, fit_edges
from backend.domain.edges import EdgeCorrection, EdgeShift
from backend.domain.geometry import Box
from backend.domain.records import Proposal
from backend.domain.verdicts import EdgeOffsets


def moves(chance: np.random.Generator, left: float, count: int = 60, label: str = "cat") -> list[EdgeMove]:
    """Boxes of several sizes whose left edge goes by a share of the width, all edges by some noise besides."""
    made = []
    for side in chance.uniform(20, 200, count):
        noise = chance.normal(0, 0.02, 4) * side + (left * side, 0, 0, 0)
        made.append(EdgeMove(label, Box(0, 0, side, side), EdgeOffsets(*map(float, noise))))
    return made


def test_an_edge_that_always_moves_the_same_way_is_corrected_and_the_others_are_left() -> None:
    shift = fit_edges(moves(np.random.default_rng(0), -0.1)).labels["cat"]
    assert shift.left == pytest.approx(-0.1, abs=0.01)
    assert (shift.top, shift.right, shift.bottom) == (0, 0, 0)


def test_boxes_moved_either_way_are_not_corrected() -> None:
    corrected = [bool(fit_edges(moves(np.random.default_rng(seed), 0.0)).labels) for seed in range(100)]
    assert sum(corrected) <= 10


def test_where_most_boxes_are_left_alone_nothing_is_corrected() -> None:
    alone = [EdgeMove("cat", Box(0, 0, 10, 10), EdgeOffsets(0, 0, 0, 0))] * 80
    assert fit_edges([*moves(np.random.default_rng(0), -0.1), *alone]) == EdgeCorrection()


def test_a_handful_of_moves_proves_nothing() -> None:
    assert fit_edges(moves(np.random.default_rng(0), -0.1, count=6)) == EdgeCorrection()


def test_a_corrected_proposal_stays_inside_the_image() -> None:
    correction = EdgeCorrection({"cat": EdgeShift(left=-0.1, bottom=0.2)})
    found = correction.corrected(Proposal(Box(5, 0, 105, 100), "cat", 0.5, "cat"), 200, 110)
    assert found.box == Box(0, 0, 105, 110)
    dog = Proposal(Box(5, 0, 105, 100), "dog", 0.5, "dog")
    assert correction.corrected(dog, 200, 110) == dog


@given(st.builds(EdgeShift, *[st.floats(-0.49, 0.49)] * 4))
def test_corrections_survive_json(shift: EdgeShift) -> None:
    correction = EdgeCorrection({"cat": shift})
    assert EdgeCorrection.from_json(correction.to_json()) == correction
    assert shift.apply(Box(0, 0, 10, 10)).area > 0


def test_a_shift_of_half_a_box_is_refused() -> None:
    with pytest.raises(ValueError, match="not a small shift"):
        EdgeShift(left=0.5)
    with pytest.raises(ValueError, match="four shares"):
        EdgeCorrection.from_json({"cat": [0.1]})
