"""Which images come next: what teaches most per second, unlike each other, some at random."""

import math

import pytest

from backend.analysis.acquisition import (
    Acquisition,
    Candidate,
    RoundGains,
    choose_batch,
    choosing_pays,
    label_weights,
    uncertainty,
    worth,
)
from backend.analysis.expected_seconds import Expectation
from backend.domain.calibration import PLAIN, Calibration, PlattCurve
from backend.domain.geometry import Box
from backend.domain.records import Proposal
from backend.domain.review import CARDS, Judgement, ShowThresholds
from backend.domain.verdicts import VerdictKind

GREEDY = Acquisition(Expectation(), ShowThresholds(0.3), CARDS, random_share=0.0)


def candidate(image: str, *scores: float, label: str = "cat") -> Candidate:
    boxes = tuple(Proposal(Box(0, 0, 10, 10), label, score, label) for score in scores)
    return Candidate(image, boxes)


def test_a_model_is_most_unsure_at_one_half() -> None:
    assert uncertainty(candidate("a", 0.5).proposals, PLAIN, {}) == pytest.approx(math.log(2))
    assert uncertainty(candidate("a", 0.0, 1.0, 0.04).proposals, PLAIN, {}) == 0
    assert uncertainty(candidate("a", 0.5).proposals, PLAIN, {"cat": 1.2}) == pytest.approx(1.2 * math.log(2))


def test_uncertainty_is_of_honest_probabilities() -> None:
    modest = Calibration(PlattCurve(1.0, 3.0))
    assert uncertainty(candidate("a", 0.05).proposals, modest, {}) > 0.6


def test_an_unsure_image_is_worth_more_and_one_that_takes_long_less() -> None:
    assert worth(candidate("a", 0.5), GREEDY) > worth(candidate("b", 0.95), GREEDY)
    assert worth(candidate("a", 0.5), GREEDY) > worth(candidate("b", 0.5, *[0.999] * 20), GREEDY)
    assert worth(candidate("a"), GREEDY) == 0


def test_difficult_labels_weigh_up_to_a_fifth_more() -> None:
    easy = [Judgement("a", "cat", 0.99, VerdictKind.ACCEPTED, 1.0)] * 5
    hard = [Judgement("a", "dog", 0.2, VerdictKind.MOVED, 0.5)] * 5
    weights = label_weights([*easy, *hard, Judgement("a", "owl", 0.5, VerdictKind.DELETED, 0.0)], PLAIN)
    assert list(weights) == ["cat", "dog"]
    assert 1 <= weights["cat"] < weights["dog"] <= 1.2


def test_without_a_random_share_the_batch_is_the_most_unsure_images() -> None:
    pool = [candidate(str(score), score) for score in (0.99, 0.5, 0.9, 0.6)]
    assert choose_batch(pool, 3, GREEDY).chosen == ("0.5", "0.6", "0.9")


def test_an_image_like_a_chosen_one_comes_after_another_kind() -> None:
    pool = [candidate("a", 0.5), candidate("b", 0.5), candidate("c", 0.8, label="dog")]
    assert choose_batch(pool, 2, GREEDY).chosen == ("a", "c")
    assert choose_batch(pool, 1, GREEDY, reviewed=[candidate("z", 0.5)]).chosen == ("c",)


def test_a_crowd_of_the_same_is_no_other_kind() -> None:
    pool = [candidate("one", 0.5), candidate("crowd", *[0.6] * 30), candidate("dog", 0.8, label="dog")]
    seen = [candidate("z", 0.5)]
    assert choose_batch(pool, 1, GREEDY, reviewed=seen).chosen == ("dog",)


def test_a_fifth_of_each_batch_is_random_and_no_image_comes_twice() -> None:
    pool = [candidate(str(place), 0.5 if place < 10 else 0.99) for place in range(200)]
    acquisition = Acquisition(Expectation(), ShowThresholds(0.3), CARDS)
    drawn = [choose_batch(pool, 10, acquisition, seed=seed) for seed in range(60)]
    assert {len(batch.random) for batch in drawn} == {2}
    assert all(len({*batch.chosen, *batch.random}) == 10 for batch in drawn)
    assert len({image for batch in drawn for image in batch.random}) > 70
    assert drawn[0] == choose_batch(pool, 10, acquisition, seed=0)


def test_small_pools_are_taken_whole() -> None:
    acquisition = Acquisition(Expectation(), ShowThresholds(0.3), CARDS)
    batch = choose_batch([candidate("a", 0.5), candidate("b", 0.5)], 10, acquisition)
    assert {*batch.chosen, *batch.random} == {"a", "b"}
    assert choose_batch([], 10, acquisition).chosen == ()


def test_choosing_stops_when_two_rounds_bring_less_than_random_may() -> None:
    poor = RoundGains(chosen=((1.0, 10.0),) * 8, random=((4.0, 10.0), (5.0, 10.0)))
    rich = RoundGains(chosen=((9.0, 10.0),) * 8, random=((4.0, 10.0), (5.0, 10.0)))
    assert not choosing_pays([rich, poor, poor])
    assert choosing_pays([poor, rich])
    assert choosing_pays([poor])
    assert choosing_pays([])
