"""Fits to verdicts: when they are made, and what they say."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from sqlalchemy import Engine

from backend.db.schema import upgrade
from backend.db.unit_of_work import SqlUnitOfWork
from backend.domain.edges import EdgeCorrection, EdgeShift
from backend.domain.fits import Fit, Reading
from backend.domain.geometry import Box
from backend.domain.records import Look, Picture, Proposal
from backend.domain.review import LABEL_STUDIO, Judgement
from backend.domain.training_data import LabelledBox, ReviewedImage
from backend.domain.verdicts import VerdictKind
from backend.ports import UnitOfWork
from backend.services.fitting import LEAST, Fitting, fit_judgements, rehearse
from backend.services.ordering import works_of
from tests.facts import UID
from tests.fakes import FakeDatabase
from tests.regions import CAT, DOG
from tests.reviews import VERSION, make_prediction, predict_all, submit

NOW = datetime(2026, 11, 26, tzinfo=UTC)
SURE, UNSURE = Proposal(CAT, "cat", 0.9, "cat"), Proposal(DOG, "dog", 0.4, "dog")


def fitting(database: FakeDatabase, *, edges: bool = False) -> Fitting:
    return Fitting(database, database, edges, lambda: NOW)


def newest(database: FakeDatabase) -> Fit:
    with database() as unit:
        fit = unit.fits.newest(UID, VERSION)
    assert fit is not None
    return fit


def review(database: FakeDatabase, tasks: range, right: int) -> None:
    """Each task shows a sure cat and an unsure dog; the cat is right in ``right`` of 10 tasks, the dog never."""
    predictions = [make_prediction(task, [SURE, UNSURE]) for task in tasks]
    predict_all(database, predictions)
    for prediction in predictions:
        submit(database, prediction, {0: CAT} if prediction.task_id % 10 < right else {})


def test_before_five_verdicts_nothing_is_fitted() -> None:
    database = FakeDatabase()
    review(database, range(LEAST // 2), right=5)
    assert fitting(database)() == []
    review(database, range(LEAST // 2, LEAST // 2 + 1), right=5)
    assert [fit.judgements for fit in fitting(database)()] == [LEAST + 1]


def test_a_fit_is_the_newest_though_the_clock_was_ahead_at_the_one_before() -> None:
    database, times = FakeDatabase(), [NOW + timedelta(days=1), NOW]
    fitting = Fitting(database, database, clock=lambda: times.pop(0))
    review(database, range(20), right=5)
    assert [fit.judgements for fit in fitting()] == [40]
    review(database, range(20, 40), right=5)
    assert [fit.judgements for fit in fitting()] == [80]
    assert newest(database).judgements == 80
    assert fitting() == []


def test_a_version_is_fitted_again_only_when_verdicts_grew_by_a_fifth() -> None:
    database = FakeDatabase()
    review(database, range(20), right=5)
    assert len(fitting(database)()) == 1
    review(database, range(20, 23), right=5)
    assert fitting(database)() == []
    review(database, range(23, 24), right=5)
    assert [fit.judgements for fit in fitting(database)()] == [48]


def test_scores_become_honest_and_a_label_that_is_always_wrong_is_not_shown_any_more() -> None:
    database = FakeDatabase()
    review(database, range(100), right=5)
    fitting(database)()
    fit = newest(database)
    assert fit.calibration.probability("cat", 0.9) == pytest.approx(0.5, abs=0.08)
    assert fit.calibration.probability("dog", 0.4) < 0.1
    picture = Picture(200, 100, b"", "0" * 64, "a.png")
    regions, hidden = Reading(fit, 0.3, theirs=False).read([SURE, UNSURE], picture, "p")
    assert [region.proposal for region in regions] == [SURE]
    assert hidden == (UNSURE,)


def wide(box: Box) -> Box:
    return Box(box.x1 - 0.1 * box.width, box.y1, box.x2, box.y2)


def test_edges_that_people_always_move_are_learnt_only_if_asked_for() -> None:
    database = FakeDatabase()
    predictions = [make_prediction(task, [SURE]) for task in range(40)]
    predict_all(database, predictions)
    for prediction in predictions:
        submit(database, prediction, {0: wide(CAT)})
    with database() as unit:
        (project,) = unit.projects.all()
    plain, moved = (fitting(database, edges=edges).fit(project, VERSION) for edges in (False, True))
    assert plain.edges == EdgeCorrection()
    assert moved.edges.labels["cat"].left == pytest.approx(-0.1)
    assert moved.edges.labels["cat"].right == 0


def test_boxes_that_are_left_where_a_correction_put_them_keep_the_correction() -> None:
    database = FakeDatabase()
    correction = EdgeCorrection({"cat": EdgeShift(left=-0.1, bottom=0.05)})
    fit = replace(fit_judgements(UID, VERSION, [], [], NOW), edges=correction)
    shown = correction.corrected(SURE, 200, 100)
    predictions = [replace(make_prediction(task, [shown]), fit=fit.id) for task in range(40)]
    predict_all(database, predictions)
    with database() as unit:
        unit.fits.add(fit)
        unit.commit()
    for prediction in predictions:
        submit(database, prediction, {0: shown.box})
    (again,) = fitting(database, edges=True)()
    assert again.edges.labels["cat"].left == pytest.approx(-0.1)
    assert again.edges.labels["cat"].bottom == pytest.approx(0.05)


def rehearsal(images: int) -> list[Judgement]:
    """On each image the version finds a cat that is there and a dog that is not."""
    reviewed = [
        (ReviewedImage(f"{number:064x}", 200, 100, boxes=(LabelledBox(CAT, "cat"),)), [SURE, UNSURE])
        for number in range(images)
    ]
    return rehearse(reviewed, LABEL_STUDIO)


def after_rehearsal(images: int) -> FakeDatabase:
    """A version was fitted an hour ago to what it finds on held-out images."""
    database = FakeDatabase()
    judgements = rehearsal(images)
    with database() as unit:
        unit.fits.add_rehearsal(UID, VERSION, judgements)
        unit.fits.add(fit_judgements(UID, VERSION, judgements, [], NOW - timedelta(hours=1)))
        unit.commit()
    return database


def test_what_was_judged_before_anybody_saw_a_version_counts_beside_its_verdicts() -> None:
    database = after_rehearsal(50)
    review(database, range(10), right=0)
    (fit,) = fitting(database)()
    assert fit.judgements == 120
    # 50 of 60 cats were right; verdicts alone would say that none is.
    assert fit.calibration.probability("cat", 0.9) > 0.7
    assert fit.thresholds.shows(SURE)
    assert fitting(database)() == []


def test_what_was_rehearsed_does_not_delay_the_next_fit() -> None:
    """It judges all that a version finds; what people see of it is soon known better by their verdicts."""
    database = after_rehearsal(50)
    moments = (NOW + timedelta(seconds=second) for second in count())
    fit_what_is_due = Fitting(database, database, clock=lambda: next(moments))
    review(database, range(2), right=0)
    assert fit_what_is_due() == [], "four verdicts"
    counts = []
    for task in range(2, 9):
        review(database, range(task, task + 1), right=0)
        counts += [fit.judgements - 100 for fit in fit_what_is_due()]
    assert counts == [6, 8, 10, 12, 16]


def test_a_version_that_nobody_saw_yet_is_fitted_to_images_that_were_reviewed() -> None:
    fit = fit_judgements(UID, VERSION, rehearsal(50), [[SURE, UNSURE]] * 50, NOW)
    assert fit.judgements == 100
    assert fit.thresholds.shows(SURE)
    assert not fit.thresholds.shows(UNSURE)
    assert fit.calibration.probability("cat", 0.9) > fit.calibration.probability("dog", 0.4)
    assert len(fit.ordering) == 50


@pytest.mark.parametrize(("kept", "ranked"), [(9, 0), (10, 60)])
def test_a_model_of_which_people_keep_next_to_nothing_is_not_asked_what_it_is_unsure_of(kept: int, ranked: int) -> None:
    images = [[replace(SURE, score=0.2 + image / 100)] for image in range(60)]
    kinds = [VerdictKind.MOVED] * kept + [VerdictKind.DELETED] * 40
    judgements = [Judgement(str(at), "cat", 0.5, kind, 0.7) for at, kind in enumerate(kinds)]
    fit = fit_judgements(UID, VERSION, judgements, images, NOW)
    assert len(fit.ordering) == ranked


def test_where_ordered_tasks_bring_no_more_than_others_chance_orders_all() -> None:
    orderings = []
    blank = replace(fit_judgements(UID, VERSION, [], [], NOW), fitted_at=NOW - timedelta(hours=1))
    for placed_by in (None, blank, replace(blank, ordering=(0.1, 0.2))):
        database = FakeDatabase()
        fit_id = None if placed_by is None else placed_by.id
        predictions = [replace(make_prediction(task, [SURE]), fit=fit_id) for task in range(60)]
        predict_all(database, predictions)
        if placed_by is not None:
            with database() as unit:
                unit.fits.add(placed_by)
                unit.commit()
        for prediction in predictions:
            submit(database, prediction, {0: CAT})
        (fit,) = fitting(database)()
        orderings.append(len(fit.ordering))
    assert orderings == [60, 60, 0]


def check_what_was_drawn_counts(database: Callable[[], UnitOfWork]) -> None:
    """A task on which nothing was shown, another where something was; on both a cat is drawn. A third has no fit."""
    placed = [replace(make_prediction(1, []), fit="fit"), replace(make_prediction(2, [UNSURE]), fit="fit")]
    predict_all(database, [*placed, make_prediction(3, [])])
    with database() as unit:
        prompted = replace(make_prediction(1, []), id="typed", look=Look(prompted=True), fit="other")
        unit.predictions.add(UID, "typed", prompted)
        unit.commit()
    for prediction in (*placed, make_prediction(3, [])):
        submit(database, prediction, {}, drawn=[(CAT, "cat")])
    with database() as unit:
        judged = unit.corrections.judged(UID, VERSION, 100)
    assert [(each.task_id, each.fit) for each in judged] == [(1, "fit"), (2, "fit"), (2, "fit"), (3, None)]
    works = works_of(judged, {"fit"})
    assert [(each.task_id, each.kinds) for each in works] == [
        (1, (VerdictKind.ADDED,)),
        (2, (VerdictKind.ADDED, VerdictKind.DELETED)),
    ]


def test_an_image_on_which_all_had_to_be_drawn_was_placed_by_the_fit_that_found_nothing() -> None:
    check_what_was_drawn_counts(FakeDatabase())


def test_real_databases_know_which_fit_placed_it(engine: Engine) -> None:
    upgrade(engine)
    check_what_was_drawn_counts(lambda: SqlUnitOfWork(engine))


def test_verdicts_in_tables_are_fitted_as_well(engine: Engine) -> None:
    upgrade(engine)

    def database() -> SqlUnitOfWork:
        return SqlUnitOfWork(engine)

    predictions = [make_prediction(task, [SURE, UNSURE]) for task in range(20)]
    predict_all(database, predictions)
    for prediction in predictions:
        submit(database, prediction, {0: CAT})
    (fit,) = Fitting(database, database, clock=lambda: NOW)()
    with database() as unit:
        assert unit.fits.newest(UID, VERSION) == fit
    assert Fitting(database, database)() == []
