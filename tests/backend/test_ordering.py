"""Which tasks people see first."""

from dataclasses import replace
from datetime import UTC, datetime
from statistics import fmean

import pytest

from backend.analysis.acquisition import RoundGains, choosing_pays
from backend.domain.calibration import Calibration
from backend.domain.fits import Fit
from backend.domain.records import Prediction, Proposal, Region
from backend.domain.review import LABEL_STUDIO, ShowThresholds
from backend.domain.verdicts import Judged, VerdictKind
from backend.services.ordering import RANDOM_SHARE, is_random, order_of, rounds_of, urgency, works_of
from integrations.label_studio.import_json import default_target
from integrations.label_studio.payloads import prediction_to_json
from tests.backend.test_acceptance import verdict
from tests.facts import UID
from tests.regions import CAT

THRESHOLDS = ShowThresholds(0.3)
TASKS = range(2000)


def cats(*scores: float) -> list[Proposal]:
    return [Proposal(CAT, "cat", score, "cat") for score in scores]


def make_fit(*ordering: float) -> Fit:
    moment = datetime(2026, 11, 26, tzinfo=UTC)
    return Fit(UID, "nano-1", Calibration(), THRESHOLDS, 40, moment, ordering=ordering)


def test_an_image_is_urgent_if_its_boxes_are_uncertain_and_cost_little_time() -> None:
    sure, unsure, nothing, crowd = (
        urgency(cats(*scores), Calibration(), THRESHOLDS) for scores in ((0.99,), (0.5,), (), (0.99,) * 20 + (0.5,))
    )
    assert 0 == nothing < sure < crowd < unsure


def test_what_a_threshold_hides_is_uncertain_too() -> None:
    assert urgency(cats(0.9, 0.2), Calibration(), THRESHOLDS) > urgency(cats(0.9), Calibration(), THRESHOLDS)


def test_four_in_five_tasks_are_ordered_by_urgency_and_the_others_by_chance() -> None:
    known = sorted(urgency(cats(score), Calibration(), THRESHOLDS) for score in (0.5, 0.6, 0.8, 0.99))
    fit = make_fit(*known)
    orders = {task: order_of(fit, task, cats(0.8)) for task in TASKS}
    ordered = {orders[task] for task in TASKS if not is_random(UID, task)}
    drawn = [order for task, order in orders.items() if is_random(UID, task) and order is not None]
    assert ordered == {0.5}
    assert len(drawn) == pytest.approx(RANDOM_SHARE * len(TASKS), rel=0.15)
    assert fmean(drawn) == pytest.approx(0.5, abs=0.05)
    assert 0 <= min(drawn) < 0.05 < 0.95 < max(drawn) < 1


def test_the_most_urgent_come_first_within_0_and_1_however_far_from_what_was_known() -> None:
    task = next(task for task in TASKS if not is_random(UID, task))
    fit = make_fit(0.01, 0.02, 0.03)
    assert order_of(fit, task, cats(0.5)) == 0
    assert order_of(fit, task, cats()) == 1


def test_where_the_order_does_not_pay_all_are_drawn() -> None:
    orders = [order_of(make_fit(), task, cats(0.5)) or 0.0 for task in TASKS]
    assert fmean(orders) == pytest.approx(0.5, abs=0.03)
    assert len(set(orders)) == len(TASKS)
    first = [task for task in TASKS if orders[task] < 0.3]
    # The random ones come no sooner than others: some are left when tasks are chosen again.
    assert sum(is_random(UID, task) for task in first) == pytest.approx(RANDOM_SHARE * len(first), rel=0.2)


def test_a_tasks_score_is_the_lowest_order_of_its_images_and_without_any_the_mean_score() -> None:
    target = default_target(["cat"])
    orders = (0.75, 0.25, None)
    first, second, unknown = (Prediction(1, "nano-1", 200, 100, (), str(order), order=order) for order in orders)
    assert prediction_to_json([(target, first), (target, second)])["score"] == 0.25
    assert prediction_to_json([(target, unknown)])["score"] == 0.0
    assert order_of(None, 1, cats(0.5)) is None


def judged(task: int, changes: int, seconds: float | None, fit: str | None = "fit") -> list[Judged]:
    """The verdicts on a task with ten boxes, of which people deleted some."""
    kinds = [VerdictKind.DELETED] * changes + [VerdictKind.ACCEPTED] * (10 - changes)
    return [
        Judged(verdict(kind, annotation_id=task, lead_time=seconds), task, Region("r", cats(0.5)[0]), fit)
        for kind in kinds
    ]


def changed(chosen: int, random: int, fit: str | None = "fit") -> list[Judged]:
    """A hundred tasks of 20 s, with so many changes on those that were ordered and those placed by chance."""
    rows = [judged(task, random if is_random(UID, task) else chosen, 20.0, fit) for task in range(100)]
    return [each for row in rows for each in row]


def test_ordering_pays_as_long_as_ordered_tasks_bring_more_changes_per_second() -> None:
    assert choosing_pays(rounds_of(UID, works_of(changed(chosen=8, random=3), {"fit"})))
    assert not choosing_pays(rounds_of(UID, works_of(changed(chosen=3, random=3), {"fit"})))


def test_a_tab_left_open_decides_nothing() -> None:
    paying = changed(chosen=8, random=3)
    last = max(task for task in range(100) if not is_random(UID, task))
    before = max(task for task in range(75) if not is_random(UID, task))
    idle = [
        replace(each, verdict=replace(each.verdict, lead_time=8 * 3600.0)) if each.task_id in (last, before) else each
        for each in paying
    ]
    assert choosing_pays(rounds_of(UID, works_of(idle, {"fit"})))


def test_what_no_fit_placed_says_nothing_about_ordering() -> None:
    assert works_of(changed(chosen=3, random=3, fit=None), {"fit"}) == []


def test_where_a_fit_left_all_to_chance_nothing_was_chosen() -> None:
    while_ordered, by_chance = changed(chosen=3, random=3), judged(200, 9, 20.0, "no ordering")
    rounds = rounds_of(UID, works_of([*while_ordered, *by_chance], {"fit"}))
    assert rounds[0] == RoundGains(chosen=(), random=((9.0, 20.0),))
    assert rounds[1:] == rounds_of(UID, works_of(while_ordered, {"fit"}))


def test_the_last_rounds_are_whole() -> None:
    rounds = rounds_of(UID, works_of(changed(chosen=3, random=3)[:-100], {"fit"}))
    assert [len(each.chosen) + len(each.random) for each in rounds] == [15, 25, 25, 25]


def test_an_unknown_time_counts_as_the_usual_one() -> None:
    task = next(task for task in TASKS if not is_random(UID, task))
    (gains,) = rounds_of(UID, works_of(judged(task, 4, None), {"fit"}))
    assert gains.random == ()
    assert gains.chosen == ((4.0, LABEL_STUDIO.of_image(10) + 4 * LABEL_STUDIO.reject + 6 * LABEL_STUDIO.accept),)
