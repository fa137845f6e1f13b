"""Which images come next: what teaches most per second, unlike each other."""

import math
import tracemalloc

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

USUAL = Acquisition(Expectation(), ShowThresholds(0.3), CARDS)


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
    assert worth(candidate("a", 0.5), USUAL) > worth(candidate("b", 0.95), USUAL)
    assert worth(candidate("a", 0.5), USUAL) > worth(candidate("b", 0.5, *[0.999] * 20), USUAL)
    assert worth(candidate("a"), USUAL) == 0


def test_difficult_labels_weigh_up_to_a_fifth_more() -> None:
    easy = [Judgement("a", "cat", 0.99, VerdictKind.ACCEPTED, 1.0)] * 5
    hard = [Judgement("a", "dog", 0.2, VerdictKind.MOVED, 0.5)] * 5
    weights = label_weights([*easy, *hard, Judgement("a", "owl", 0.5, VerdictKind.DELETED, 0.0)], PLAIN)
    assert list(weights) == ["cat", "dog", "owl"]
    assert 1 <= weights["cat"] < weights["dog"] < weights["owl"]
    assert weights["owl"] == pytest.approx(1.2)


def test_an_unsure_image_is_chosen_before_a_sure_one() -> None:
    pool = [candidate("sure", 0.99), candidate("unsure", 0.5), candidate("dog", 0.99, label="dog")]
    assert choose_batch(pool, 1, USUAL) == ("unsure",)


def test_an_image_that_stands_for_many_doubts_is_chosen_before_one_that_stands_for_itself() -> None:
    pool = [candidate("dog", 0.5, label="dog"), *(candidate(f"cat {place}", 0.52) for place in range(3))]
    (first,) = choose_batch(pool, 1, USUAL)
    assert first.startswith("cat")


def test_what_was_reviewed_enough_comes_after_another_kind() -> None:
    pool = [candidate("dog", 0.5, label="dog"), *(candidate(f"cat {place}", 0.52) for place in range(3))]
    reviewed = [candidate(f"seen {place}", 0.5) for place in range(9)]
    assert choose_batch(pool, 1, USUAL, reviewed) == ("dog",)


def test_a_batch_takes_as_long_as_the_images_that_wait() -> None:
    crowds = [candidate(f"crowd {place}", *[0.5 + place / 1000] * 30) for place in range(20)]
    singles = [candidate(f"single {place}", 0.5 + place / 1000) for place in range(60)]
    for seed in range(5):
        chosen = choose_batch([*crowds, *singles], 20, USUAL, seed=seed)
        assert sum(image.startswith("crowd") for image in chosen) == 5
        assert 1 <= sum(image.startswith("crowd") for image in chosen[:15]) <= 5


def test_of_very_many_images_some_stand_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.analysis.acquisition._MOST_ASKED", 20)
    pool = [candidate(f"{place}", 0.5, label="dog" if place % 5 == 0 else "cat") for place in range(200)]
    for seed in range(5):
        (first,) = choose_batch(pool, 1, USUAL, seed=seed)
        assert int(first) % 5
    assert len({*choose_batch(pool, 50, USUAL)}) == 50


def test_the_choice_does_not_depend_on_how_many_likenesses_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = ("cat", "dog", "owl")
    pool = [candidate(f"{place}", 0.3 + place / 300, label=labels[place % 3]) for place in range(90)]
    reviewed = [candidate(f"seen {place}", 0.5, label=labels[place % 2]) for place in range(30)]
    at_once = choose_batch(pool, 20, USUAL, reviewed)
    monkeypatch.setattr("backend.analysis.acquisition._MOST_LIKENESSES", 100)
    assert choose_batch(pool, 20, USUAL, reviewed) == at_once


def test_many_reviewed_images_take_little_memory() -> None:
    pool = [candidate(f"{place}", 0.5) for place in range(2000)]
    reviewed = [candidate(f"seen {place}", 0.5) for place in range(10_000)]
    tracemalloc.start()
    choose_batch(pool, 5, USUAL, reviewed)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100e6  # all likenesses at once are 160 MB


def test_small_pools_are_taken_whole() -> None:
    assert {*choose_batch([candidate("a", 0.5), candidate("b", 0.5)], 10, USUAL)} == {"a", "b"}
    assert choose_batch([], 10, USUAL) == ()


def test_choosing_stops_when_two_rounds_bring_less_than_random_may() -> None:
    poor = RoundGains(chosen=((1.0, 10.0),) * 8, random=((4.0, 10.0), (5.0, 10.0)))
    rich = RoundGains(chosen=((9.0, 10.0),) * 8, random=((4.0, 10.0), (5.0, 10.0)))
    assert not choosing_pays([rich, poor, poor])
    assert choosing_pays([poor, rich])
    assert choosing_pays([poor])
    assert choosing_pays([])
