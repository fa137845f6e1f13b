"""Wilson's interval."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.analysis.intervals import Rate, wilson_interval

quick = settings(deadline=None)  # other work on the machine must not fail a test
counts = st.integers(0, 10**6).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials)))


@pytest.mark.parametrize(
    ("successes", "trials", "bounds"),
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3
    [(81, 263, (0.2553, 0.3662)), (15, 148, (0.0624, 0.1605)), (0, 20, (0.0, 0.1611)), (1, 29, (0.0061, 0.1718))],
)
def test_the_bounds_are_those_of_the_literature(successes: int, trials: int, bounds: tuple[float, float]) -> None:
    assert wilson_interval(successes, trials) == pytest.approx(bounds, abs=5e-5)


@quick
@given(counts)
def test_the_bounds_solve_the_score_equation(count: tuple[int, int]) -> None:
    successes, trials = count
    if not trials:
        return
    for bound in wilson_interval(successes, trials):
        deviation = abs(successes / trials - bound)
        assert deviation == pytest.approx(1.959963985 * math.sqrt(bound * (1 - bound) / trials), abs=1e-7)


@quick
@given(counts)
def test_the_interval_holds_the_share_and_stays_between_0_and_1(count: tuple[int, int]) -> None:
    rate = Rate(*count)
    low, high = rate.interval
    assert 0 <= low <= (rate.share if rate.share is not None else 0.5) <= high <= 1


@quick
@given(counts)
def test_the_interval_of_the_failures_is_the_mirror_image(count: tuple[int, int]) -> None:
    successes, trials = count
    low, high = wilson_interval(successes, trials)
    assert wilson_interval(trials - successes, trials) == pytest.approx((1 - high, 1 - low), abs=1e-12)


@quick
@given(st.integers(0, 100), st.integers(0, 100))
def test_more_of_the_same_narrows_the_interval(successes: int, failures: int) -> None:
    low, high = wilson_interval(successes, successes + failures)
    more_low, more_high = wilson_interval(2 * successes, 2 * (successes + failures))
    assert more_high - more_low <= high - low + 1e-12


def test_of_nothing_nothing_is_known() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert Rate(0, 0).share is None


def test_boxes_that_are_alike_within_an_image_do_not_narrow_the_interval() -> None:
    chance = np.random.default_rng(0)
    held = naive = 0
    for _ in range(600):
        boxes = chance.integers(1, 16, 50)
        accepted = chance.binomial(boxes, chance.beta(2.1, 0.9, 50))  # correlation 0.25 within an image
        rate = Rate.of_annotations(zip(accepted.tolist(), boxes.tolist(), strict=True))
        held += rate.interval[0] <= 0.7 <= rate.interval[1]
        naive += wilson_interval(rate.count, rate.total)[0] <= 0.7 <= wilson_interval(rate.count, rate.total)[1]
    assert 0.92 <= held / 600 <= 0.97
    assert naive / 600 < 0.8


def test_the_design_effect_is_the_variance_of_the_ratio_over_that_of_independent_things() -> None:
    assert Rate.of_annotations([(4, 4), (0, 4)] * 10).design_effect == pytest.approx(4 * 20 / 19)
    assert Rate.of_annotations([(2, 4)] * 10).design_effect == 1
    assert Rate.of_annotations([(1, 1), (0, 1), (0, 0)] * 500).design_effect == pytest.approx(1000 / 999)


@pytest.mark.parametrize("counts", [[], [(0, 0)], [(3, 4)], [(4, 4), (2, 2)], [(0, 4), (0, 2)]])
def test_where_nothing_tells_how_alike_things_are_they_count_in_full(counts: list[tuple[int, int]]) -> None:
    assert Rate.of_annotations(counts).design_effect == 1


@pytest.mark.parametrize("effect", [0.5, math.inf, math.nan])
def test_impossible_design_effects_are_refused(effect: float) -> None:
    with pytest.raises(ValueError, match="a design effect of"):
        wilson_interval(1, 2, design_effect=effect)


@pytest.mark.parametrize(
    ("successes", "trials", "confidence"), [(2, 1, 0.95), (-1, 1, 0.95), (1, 1, 1.0), (1, 1, 0.0), (1, 1, math.nan)]
)
def test_impossible_counts_are_refused(successes: int, trials: int, confidence: float) -> None:
    with pytest.raises(ValueError, match=r"successes|confidence"):
        wilson_interval(successes, trials, confidence)
