"""How much time was saved, and how sure that is."""

import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.analysis.bootstrap import image_counts, resampled_sums
from backend.analysis.overlap import Floats
from backend.analysis.work_saved import fit_times, work_saved, worked_seconds
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
    assert list(found.times.values()) == pytest.approx(TRUE_TIMES, abs=0.6)
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


def nearly_all_found(chance: np.random.Generator, found: float) -> tuple[list[Verdict], float]:
    """Verdicts of 120 images with five boxes, of which people drew the few others slowly, and what was truly saved."""
    made: list[Verdict] = []
    took = 0.0
    for number in range(120):
        accepted = int(chance.binomial(5, found))
        seconds = 0.5 * accepted + 25.5 * (5 - accepted) + 2
        took += seconds
        told = float(seconds * chance.lognormal(0, 0.1))
        kinds = [VerdictKind.ACCEPTED] * accepted + [VerdictKind.ADDED] * (5 - accepted)
        made += [verdict(kind, annotation_id=number, lead_time=told) for kind in kinds]
    return made, 1 - took / (120 * (5 * 25.5 + 2))


def test_the_own_pace_is_told_only_where_people_drew_and_then_it_is_theirs() -> None:
    for seed in range(3):
        verdicts, true = nearly_all_found(np.random.default_rng(seed), 0.95)
        own = work_saved(verdicts, LABEL_STUDIO).savings["own pace"]
        assert own.share == pytest.approx(true, abs=0.005)
        assert own.low <= true <= own.high
    few = work_saved(nearly_all_found(np.random.default_rng(0), 0.98)[0], LABEL_STUDIO)
    assert (list(few.savings), list(few.times)) == (["7 s per box", "25.5 s per box"], ["accepted", "image"])


DRAW, ACCEPT, OPEN = 7.0, 0.5, 1.0
BOXES: dict[str, Callable[[np.random.Generator], Floats]] = {
    "lognormal": lambda chance: np.ceil(chance.lognormal(1.0, 1.2, 400)),
    "poisson": lambda chance: chance.poisson(7, 400).astype(np.float64) + 1,
    "few crowds": lambda chance: np.array([1.0] * 96 + [100.0] * 4),
}


def drawn_at_7_seconds(chance: np.random.Generator, boxes: Floats, found: float) -> tuple[list[Verdict], float]:
    """Verdicts where a share of the boxes is found and all others are drawn, and the true saving on the 7 s row."""
    made: list[Verdict] = []
    took = drawing = 0.0
    for number, count in enumerate(boxes):
        accepted = int(chance.binomial(int(count), found))
        seconds = ACCEPT * accepted + DRAW * (count - accepted) + OPEN
        took, drawing = took + seconds, drawing + DRAW * count + OPEN
        kinds = [VerdictKind.ACCEPTED] * accepted + [VerdictKind.ADDED] * (int(count) - accepted)
        made += [verdict(kind, annotation_id=number, lead_time=seconds) for kind in kinds]
    return made, 1 - took / drawing


@pytest.mark.parametrize("boxes", BOXES)
@pytest.mark.parametrize("found", [0.0, 0.5])
def test_crowded_images_save_no_more_than_they_do(boxes: str, found: float) -> None:
    chance = np.random.default_rng(0)
    verdicts, true = drawn_at_7_seconds(chance, BOXES[boxes](chance), found)
    row = work_saved(verdicts, LABEL_STUDIO).savings["7 s per box"]
    assert row.share == pytest.approx(true, abs=0.005)
    assert row.low - 0.005 <= true <= row.high + 0.005


@pytest.mark.parametrize("idle", [90.0 * 60, 8 * 3600.0])
def test_a_tab_left_open_counts_as_much_as_others_take(idle: float) -> None:
    chance = np.random.default_rng(0)
    verdicts, true = drawn_at_7_seconds(chance, BOXES["lognormal"](chance), 0.5)
    left = [replace(each, lead_time=idle) if each.annotation_id in (3, 30, 300) else each for each in verdicts]
    row = work_saved(left, LABEL_STUDIO).savings["7 s per box"]
    assert row.share == pytest.approx(true, abs=0.01)


def test_where_nobody_idles_no_time_is_put_aside_however_unsteady_people_are() -> None:
    standard = np.full(2000, 10.0)
    told = standard * np.random.default_rng(0).lognormal(0.0, 0.6, 2000)
    assert worked_seconds(told.tolist(), standard).tolist() == told.tolist()


def test_where_nobody_idles_no_time_is_put_aside_be_drawing_as_slow_as_it_may() -> None:
    standard = np.array([2.0] * 95 + [70.0] * 5)
    told = np.array([0.5] * 95 + [255.0] * 5)  # a glance at most images; a few with ten boxes to draw at 25.5 s each
    assert worked_seconds(told.tolist(), standard).tolist() == told.tolist()


def test_a_time_that_nobody_tells_is_the_usual_one_at_the_others_pace() -> None:
    assert worked_seconds([None, None], [2.0, 4.0]).tolist() == [2.0, 4.0]
    assert worked_seconds([None, 6.0, 3600.0], [2.0, 2.0, 4.0]).tolist() == [6.0, 6.0, 12.0]


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


def test_a_large_project_needs_little_memory() -> None:
    made = [verdict(annotation_id=number, lead_time=4.0 + number % 3) for number in range(4000)]
    tracemalloc.start()
    work_saved(made, LABEL_STUDIO)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40e6  # all resamples at once would take 128 MB


def test_sums_of_a_few_resamples_at_a_time_are_those_of_all_at_once() -> None:
    values = np.random.default_rng(0).random((3000, 2))
    counts = image_counts(3000, 1000, np.random.default_rng(1))
    assert resampled_sums(values, 1000, np.random.default_rng(1)) == pytest.approx(counts @ values, rel=1e-12)


def test_a_rare_act_keeps_its_standard_time() -> None:
    acts = np.array([[3.0, 0.0]] * 50)
    assert fit_times(acts, np.full(50, 6.0), np.array([9.0, 7.0])) == pytest.approx([2.02, 7.0], abs=0.01)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.floats(0, 1e4)), min_size=1))
def test_fitted_times_are_never_negative(rows: list[tuple[int, int, float]]) -> None:
    table = np.array(rows)
    assert (fit_times(table[:, :2], table[:, 2], np.array([1.0, 2.0])) >= 0).all()
