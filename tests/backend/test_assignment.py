"""The best pairing, held against trying them all."""

from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.domain.assignment import best_assignment

quick = settings(deadline=None)  # other work on the machine must not fail a test


@st.composite
def matrices(draw: st.DrawFn) -> list[list[float]]:
    rows, columns = draw(st.integers(0, 5)), draw(st.integers(1, 5))
    # eighths add up without rounding, and make ties
    weight = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.125, 0.5, 1.0]))
    return draw(st.lists(st.lists(weight, min_size=columns, max_size=columns), min_size=rows, max_size=rows))


def greatest_sum(weights: list[list[float]]) -> float:
    if not weights:
        return 0.0
    slots = [*range(len(weights[0])), *[None] * len(weights)]
    best: float = max(
        sum(row[column] for row, column in zip(weights, chosen, strict=False) if column is not None)
        for chosen in set(permutations(slots, len(weights)))
    )
    return best


@quick
@given(matrices())
def test_no_other_pairing_sums_to_more(weights: list[list[float]]) -> None:
    pairs = best_assignment(weights)
    assert sum(weights[row][column] for row, column in pairs) == pytest.approx(greatest_sum(weights), abs=1e-12)


@quick
@given(matrices())
def test_each_row_and_column_is_paired_at_most_once_and_never_for_nothing(weights: list[list[float]]) -> None:
    pairs = best_assignment(weights)
    assert len({row for row, _ in pairs}) == len(pairs) == len({column for _, column in pairs})
    assert all(weights[row][column] > 0 for row, column in pairs)
    assert pairs == sorted(pairs)


def test_a_greedy_choice_is_undone_where_the_whole_gains() -> None:
    assert best_assignment([[0.9, 0.8], [0.85, 0.0]]) == [(0, 1), (1, 0)]


@pytest.mark.parametrize("weights", [[], [[]], [[], []], [[0.0]]])
def test_nothing_to_pair_gives_no_pairs(weights: list[list[float]]) -> None:
    assert best_assignment(weights) == []


def test_a_lone_row_takes_the_first_of_equally_good_columns() -> None:
    assert best_assignment([[0.0, 0.5, 0.5]]) == [(0, 1)]


def test_a_hundred_by_a_hundred_is_solved() -> None:
    weights = [[1 / (1 + abs(row - column)) for column in range(100)] for row in range(100)]
    assert best_assignment(weights) == [(each, each) for each in range(100)]
