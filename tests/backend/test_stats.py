"""A project's figures out of stored verdicts, on fakes and on real databases."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import Engine

from backend.db.schema import upgrade
from backend.db.unit_of_work import SqlUnitOfWork
from backend.domain.facts import Fact
from backend.domain.geometry import Box
from backend.domain.records import Look, Prediction, Proposal, Region
from backend.errors import UsageError
from backend.ports import UnitOfWork
from backend.services.corrections import apply_fact
from backend.services.stats import project_stats
from tests.facts import PROJECT, UID, annotated, deleted, make_annotation, make_region, task_deleted
from tests.fakes import FakeDatabase
from tests.regions import final
from tests.reviews import make_prediction, predict_all, submit

UnitsOfWork = Callable[[], UnitOfWork]


@pytest.fixture
def sql_unit_of_work(engine: Engine) -> UnitsOfWork:
    upgrade(engine)
    return lambda: SqlUnitOfWork(engine)


def tell(unit_of_work: UnitsOfWork, *facts: Fact) -> None:
    with unit_of_work() as unit:
        for fact in facts:
            apply_fact(unit, fact)
        unit.commit()


def counts(unit_of_work: UnitsOfWork, project: str = "7") -> list[tuple[str | None, int, int]]:
    return [(row.label, row.accepted, row.added) for row in project_stats(unit_of_work, project).acceptance.rows]


def check_only_what_stands_is_counted(unit_of_work: UnitsOfWork) -> None:
    first = make_annotation(1, 0, make_region("a", "cat"), make_region("b", "dog"))
    tell(unit_of_work, annotated(first), annotated(make_annotation(2, 0, make_region("c", "cat"))))
    assert counts(unit_of_work) == [("cat", 0, 2), ("dog", 0, 1)]
    tell(unit_of_work, annotated(make_annotation(1, 5, make_region("b", "dog"))))
    assert counts(unit_of_work) == [("cat", 0, 1), ("dog", 0, 1)]
    tell(unit_of_work, deleted(2))
    assert counts(unit_of_work) == [("dog", 0, 1)]
    tell(unit_of_work, task_deleted(1))
    assert counts(unit_of_work) == []


def test_only_the_newest_versions_of_what_was_not_deleted_are_counted() -> None:
    check_only_what_stands_is_counted(FakeDatabase())


def test_real_databases_count_the_same(sql_unit_of_work: UnitsOfWork) -> None:
    check_only_what_stands_is_counted(sql_unit_of_work)


def test_the_figures_are_of_one_project_and_keep_their_precision(sql_unit_of_work: UnitsOfWork) -> None:
    box = Box(64.0, 96.0, 256.0, 288.0)  # what `make_region` draws, in pixels
    prediction = Prediction(1, "glip-1", 640, 480, (Region("p1-0", Proposal(box, "cat", 0.7, "a cat")),), "p1")
    with sql_unit_of_work() as unit:
        unit.predictions.add(UID, "query", prediction)
        unit.commit()
    other = replace(PROJECT, uid="8.1795423412", id=8, title="other")
    moved = make_annotation(1, 1e9, make_region("p1-0", "cat", x=11.0))
    elsewhere = replace(annotated(replace(make_annotation(1, 0, make_region("z", "dog")), project_id=8)), project=other)
    tell(sql_unit_of_work, annotated(moved), elsewhere)
    (row,) = project_stats(sql_unit_of_work, "7").acceptance.rows
    assert (row.label, row.model_version, row.moved) == ("cat", "glip-1", 1)
    assert row.median_offsets is not None
    assert row.median_offsets.left == pytest.approx(6.4, abs=1e-12)
    assert row.median_iou == pytest.approx(1856 / 1984)
    assert row.median_seconds == 2.5
    assert counts(sql_unit_of_work, "other") == [("dog", 0, 1)]


def check_seconds_are_saved(unit_of_work: UnitsOfWork) -> None:
    """Twelve tasks with three right boxes each take 4 s, where drawing takes 7 s for each box."""
    boxes = [Box(10.0 * x, 10, 10.0 * x + 8, 30) for x in (1, 2, 3)]
    predictions = [make_prediction(task, [Proposal(box, "cat", 0.9, "cat") for box in boxes]) for task in range(12)]
    predict_all(unit_of_work, predictions)
    for prediction in predictions:
        submit(unit_of_work, prediction, dict(enumerate(boxes)), lead_time=4.0)
    work = project_stats(unit_of_work, "cats").work
    assert (work.annotations, work.untimed, work.seconds) == (12, 0, 48.0)
    saved = work.savings["7 s per box"]
    assert 0.7 < saved.low <= saved.share <= saved.high < 0.9


def test_the_seconds_saved_are_measured_from_verdicts_and_lead_times() -> None:
    check_seconds_are_saved(FakeDatabase())


def test_real_databases_tell_the_same_seconds(sql_unit_of_work: UnitsOfWork) -> None:
    check_seconds_are_saved(sql_unit_of_work)


def check_prompted_boxes_were_missed(unit_of_work: UnitsOfWork) -> None:
    """A cat was proposed; a dog was found for a prompt and taken, another was not."""
    cat, taken, left = Box(10, 10, 30, 30), Box(50, 10, 70, 30), Box(90, 10, 120, 30)
    shown = make_prediction(1, [Proposal(cat, "cat", 0.9, "cat")])
    dogs = tuple(Region(f"p-{n}", Proposal(box, "dog", 0.8, "dog"), weight=0.0) for n, box in enumerate((taken, left)))
    predict_all(unit_of_work, [shown])
    with unit_of_work() as unit:
        unit.predictions.add(UID, "typed", replace(shown, regions=dogs, id="p", look=Look(prompted=True)))
        unit.commit()
    kept = [final(shown.regions[0].id, cat, "cat"), final("p-0", taken, "dog")]
    tell(unit_of_work, annotated(make_annotation(1, 4e9, *kept)))
    table = project_stats(unit_of_work, "cats").acceptance
    assert [(row.label, row.accepted, row.added) for row in table.rows] == [("cat", 1, 0), ("dog", 0, 1)]
    (total,) = table.totals
    assert (total.rates["recall"].share, total.rates["precision"].share) == (0.5, 1.0)


def test_what_a_prompt_found_the_model_itself_missed() -> None:
    check_prompted_boxes_were_missed(FakeDatabase())


def test_real_databases_tell_what_a_prompt_found(sql_unit_of_work: UnitsOfWork) -> None:
    check_prompted_boxes_were_missed(sql_unit_of_work)


def test_a_project_that_is_not_known_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="'street'"):
        project_stats(FakeDatabase(), "street")
