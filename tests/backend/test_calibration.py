"""Honest scores: curves from verdicts, when they are used, and that they always rise."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.analysis.calibration import calibration_error, fit_calibration
from backend.domain.calibration import IDENTITY, Calibration, KnotCurve, PlattCurve, logit
from backend.domain.review import Judgement
from backend.domain.verdicts import VerdictKind

ACCEPTED, MOVED, RELABELLED, DELETED, _ = VerdictKind


def judgements(chance: np.random.Generator, number: int, truth: dict[str, PlattCurve]) -> list[Judgement]:
    """As many per label; a box is right with its label's true probability at its score."""
    made = []
    for label, curve in truth.items():
        for score in chance.beta(1.2, 2.0, number):
            kind = ACCEPTED if chance.random() < curve.probability(float(score)) else DELETED
            made.append(Judgement(str(chance.integers(max(number // 2, 5))), label, float(score), kind, 1.0))
    return made


UNSURE = {"cat": PlattCurve(1.4, 2.0), "dog": PlattCurve(0.9, 1.0), "owl": PlattCurve(1.2, 2.5)}
HONEST = dict.fromkeys(UNSURE, IDENTITY)


@pytest.mark.parametrize("seed", range(6))
def test_a_hundred_verdicts_per_label_take_forty_percent_off_the_error_on_others(seed: int) -> None:
    chance = np.random.default_rng(seed)
    fitted, others = fit_calibration(judgements(chance, 100, UNSURE)), judgements(chance, 2000, UNSURE)
    assert calibration_error(others, fitted) <= 0.6 * calibration_error(others, Calibration())


@pytest.mark.parametrize("truth", [UNSURE, HONEST, {"cat": PlattCurve(1.3, -1.0)}])
@pytest.mark.parametrize("seed", range(6))
def test_ten_verdicts_per_label_never_make_it_worse(truth: dict[str, PlattCurve], seed: int) -> None:
    chance = np.random.default_rng(seed)
    fitted, others = fit_calibration(judgements(chance, 10, truth)), judgements(chance, 2000, truth)
    assert calibration_error(others, fitted) <= calibration_error(others, Calibration())


def test_many_verdicts_find_a_shape_that_no_logistic_curve_has() -> None:
    chance = np.random.default_rng(0)
    stepped = KnotCurve((0.3, 0.31, 0.7, 0.71), (0.05, 0.5, 0.5, 0.95))
    made = []
    for index, score in enumerate(chance.random(6000)):
        kind = ACCEPTED if chance.random() < stepped.probability(float(score)) else DELETED
        made.append(Judgement(str(index % 500), "cat", float(score), kind, 1.0))
    fitted = fit_calibration(made[:3000])
    assert isinstance(fitted.labels["cat"], KnotCurve)
    assert calibration_error(made[3000:], fitted) < 0.04


def test_many_verdicts_of_a_label_on_one_image_prove_nothing() -> None:
    given = judgements(np.random.default_rng(0), 400, {"seed": PlattCurve(3.0, 1.0)})
    assert fit_calibration([replace(each, image="tray") for each in given]) == Calibration()


def test_a_label_without_verdicts_gets_the_curve_of_all() -> None:
    fitted = fit_calibration(judgements(np.random.default_rng(0), 100, UNSURE))
    assert fitted.probability("fox", 0.3) > 0.5


def test_moved_boxes_are_right_and_relabelled_ones_wrong() -> None:
    made = [
        Judgement(str(index), label, 0.5, kind, 0.9)
        for index in range(100)
        for label, kind in (("cat", MOVED), ("dog", RELABELLED))
    ]
    fitted = fit_calibration(made)
    assert fitted.probability("cat", 0.5) > 0.9
    assert fitted.probability("dog", 0.5) < 0.1


@pytest.mark.parametrize("seed", range(6))
def test_a_few_explored_boxes_that_stand_for_all_hidden_ones_do_not_bend_the_curves(seed: int) -> None:
    chance = np.random.default_rng(seed)
    every = judgements(chance, 300, UNSURE)
    hidden = [each for each in every if each.score < 0.4]
    explored = [replace(each, weight=len(hidden) / 3) for each in hidden[:: len(hidden) // 3]]
    fitted = fit_calibration([each for each in every if each.score >= 0.4] + explored)
    others = judgements(chance, 2000, UNSURE)
    assert calibration_error(others, fitted) <= 0.4 * calibration_error(others, Calibration())


def test_without_verdicts_scores_stay_as_they_are() -> None:
    assert fit_calibration([]) == Calibration()
    assert Calibration().probability("cat", 0.3) == 0.3
    with pytest.raises(ValueError, match="no judgements"):
        calibration_error([], Calibration())


def test_the_error_is_the_mean_gap_of_labels() -> None:
    cats = [Judgement(str(index), "cat", 0.6, ACCEPTED if index % 10 < 6 else DELETED, 1.0) for index in range(100)]
    dogs = [Judgement(str(index), "dog", 0.6, DELETED, 0.0) for index in range(100)]
    assert calibration_error(dogs, Calibration()) == pytest.approx(0.6)
    assert calibration_error(cats + dogs, Calibration()) == pytest.approx(0.3, abs=1e-9)


score_lists = st.lists(
    st.builds(
        Judgement,
        st.sampled_from("abcdef"),
        st.sampled_from(["cat", "dog"]),
        st.floats(0, 1),
        st.sampled_from([ACCEPTED, MOVED, RELABELLED, DELETED]),
        st.just(1.0),
        st.sampled_from([1.0, 20.0]),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=50)
@given(score_lists, st.integers(1, 20), st.lists(st.floats(0, 1), min_size=2))
def test_curves_rise_and_survive_json(given: list[Judgement], times: int, scores: list[float]) -> None:
    fitted = fit_calibration(given * times)
    told = [fitted.probability("cat", score) for score in sorted(scores)]
    assert told == sorted(told)
    assert all(0 <= each <= 1 for each in told)
    assert Calibration.from_json(json.loads(json.dumps(fitted.to_json()))) == fitted


def test_what_is_no_rising_curve_is_refused() -> None:
    for make in (
        lambda: PlattCurve(0.0, 1.0),
        lambda: PlattCurve(1.0, float("nan")),
        lambda: KnotCurve((), ()),
        lambda: KnotCurve((0.5, 0.4), (0.1, 0.2)),
        lambda: KnotCurve((0.4, 0.5), (0.2, 0.1)),
        lambda: KnotCurve((0.4,), (1.2,)),
        lambda: Calibration.from_json({"labels": {}}),
        lambda: Calibration.from_json({"default": {"slope": "steep"}, "labels": {}}),
    ):
        with pytest.raises(ValueError, match=r"curve|probabilities|calibration"):
            make()


def test_scores_of_exactly_0_and_1_have_finite_log_odds() -> None:
    assert logit(0.5) == 0
    assert logit(1.0) == pytest.approx(-logit(0.0)) == pytest.approx(13.8, abs=0.1)
