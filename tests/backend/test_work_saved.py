"""How much time was saved, simulated and measured, and how sure that is."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.analysis.work_saved import fit_times, saving, work_saved
from backend.domain.review import LABEL_STUDIO
from backend.domain.verdicts import Verdict, VerdictKind
from tests.backend.test_acceptance import verdict

KINDS = list(VerdictKind)
TRUE_TIMES = np.array([0.6, 5.0, 3.0, 1.5, 9.0, 4.0])  # accepted, moved, relabelled, deleted, added, image


def project(chance: np.random.Generator, annotations: int) -> list[Verdict]:
    """Verdicts of annotations that took the true times, and sometimes a coffee break."""
    made: list[Verdict] = []
    for number in range(annotations):
        counts = chance.poisson((4, 1, 0.3, 0.7, 0.8))
        counts[0] += counts.sum() == 0
        seconds = float(np.append(counts, 1) @ TRUE_TIMES * chance.lognormal(0, 0.1))
        seconds += 3600 * (chance.random() < 0.02)
        for kind, times in zip(KINDS, counts, strict=True):
            made += [verdict(kind, annotation_id=number, lead_time=seconds)] * times
    return made


def test_times_per_act_follow_from_times_per_annotation() -> None:
    found = work_saved(project(np.random.default_rng(0), 600), LABEL_STUDIO)
    # Long breaks are cut, not gone: they make opening an image seem slower than it is.
    assert list(found.times.values()) == pytest.approx(TRUE_TIMES, abs=2.0)
    assert list(found.times) == ["accepted", "moved", "relabelled", "deleted", "added", "image"]


def test_the_saving_against_the_own_pace_is_the_true_one() -> None:
    verdicts = project(np.random.default_rng(1), 400)
    found = work_saved(verdicts, LABEL_STUDIO)
    mean = np.array((4, 1, 0.3, 0.7, 0.8, 1.0))
    true = 1 - mean @ TRUE_TIMES / ((mean[:3].sum() + mean[4]) * 9.0 + 4.0)
    own = found.savings["own pace"]
    assert own.low < true < own.high
    assert own.high - own.low < 0.12
    assert found.savings["25.5 s per box"].share > found.savings["7 s per box"].share
    assert json.loads(json.dumps(found.to_json()))["savings"]["own pace"]["share"] == own.share


def test_annotations_without_a_time_are_told_and_not_counted() -> None:
    verdicts = project(np.random.default_rng(0), 50)
    bulk = [verdict(annotation_id=1000 + number) for number in range(7)]
    found = work_saved([*verdicts, *bulk], LABEL_STUDIO)
    assert (found.annotations, found.untimed) == (50, 7)
    assert found == replace(work_saved(verdicts, LABEL_STUDIO), untimed=7)


def test_annotations_where_nothing_was_proposed_save_nothing_and_cost_nothing() -> None:
    verdicts = project(np.random.default_rng(0), 50)
    drawn = [verdict(KINDS[4], annotation_id=1000 + n, lead_time=13.0, model_version=None) for n in range(40)]
    found = work_saved([*verdicts, *drawn], LABEL_STUDIO)
    assert found.annotations == 50
    assert found.seconds == pytest.approx(work_saved(verdicts, LABEL_STUDIO).seconds, rel=0.2)


def test_a_handful_of_annotations_gives_no_saving() -> None:
    assert work_saved([], LABEL_STUDIO).savings == {}
    assert work_saved(project(np.random.default_rng(0), 9), LABEL_STUDIO).savings == {}


def test_a_rare_act_keeps_its_standard_time() -> None:
    acts = np.array([[3.0, 0.0]] * 50)
    assert fit_times(acts, np.full(50, 6.0), np.array([9.0, 7.0])) == pytest.approx([2.07, 7.0], abs=0.1)


def test_the_saving_of_simulations_is_over_all_their_images() -> None:
    found = saving([([1.0, 3.0], [10.0, 10.0]), ([2.0, 2.0], [10.0, 10.0])])
    assert found.share == pytest.approx(0.8)
    assert found.low <= 0.8 <= found.high


def test_the_interval_of_a_saving_covers_the_truth_as_often_as_it_says() -> None:
    chance, covered = np.random.default_rng(0), 0
    for _ in range(200):
        drawn = chance.gamma(4, 5, 80)
        found = saving([(list(drawn * chance.uniform(0.2, 0.6, 80)), list(drawn))], seed=int(chance.integers(1000)))
        covered += found.low <= 0.6 <= found.high
    assert covered >= 0.95 * 200 - 3 * 3.1


@pytest.mark.parametrize("seeds", [[], [([], [])], [([1.0], [1.0, 2.0])]])
def test_without_the_same_images_there_is_no_saving(seeds: list[tuple[list[float], list[float]]]) -> None:
    with pytest.raises(ValueError, match="the same images"):
        saving(seeds)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.floats(0, 1e4)), min_size=1))
def test_fitted_times_are_never_negative(rows: list[tuple[int, int, float]]) -> None:
    table = np.array(rows)
    assert (fit_times(table[:, :2], table[:, 2], np.array([1.0, 2.0])) >= 0).all()
