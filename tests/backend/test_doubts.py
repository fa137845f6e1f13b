"""Likely label errors, with the task and the region that they are about."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine

from backend.analysis.label_errors import DoubtKind
from backend.bootstrap import open_database
from backend.cli import run
from backend.db.schema import upgrade
from backend.db.unit_of_work import SqlUnitOfWork
from backend.domain.calibration import Calibration, KnotCurve, PlattCurve
from backend.domain.geometry import Box
from backend.domain.records import Look, Proposal, Region
from backend.errors import UsageError
from backend.ports import UnitOfWork
from backend.services.corrections import apply_fact
from backend.services.doubts import ProjectDoubt, project_doubts
from backend.settings import Settings
from tests.backend.test_ordering import make_fit
from tests.facts import UID, annotated, at, make_annotation
from tests.fakes import FakeDatabase
from tests.regions import CAT, DOG, final
from tests.reviews import VERSION, make_prediction, predict_all, submit

Database = Callable[[], UnitOfWork]
SURE, HIDDEN = Proposal(CAT, "cat", 0.95, "cat"), Proposal(DOG, "dog", 0.99, "dog")


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    """The one that the command opens."""
    monkeypatch.setenv("GLIP_LABEL_HOME", str(tmp_path))
    monkeypatch.delenv("GLIP_LABEL_DATABASE_URL", raising=False)
    return open_database(Settings.from_env())


def review(database: Database) -> None:
    """Ten tasks show a cat and hide a dog, which people draw; on task 3 they forgot it, on task 5 they named it cat."""
    predictions = [replace(make_prediction(task, [SURE]), hidden=(HIDDEN,)) for task in range(10)]
    predict_all(database, predictions)
    for prediction in predictions:
        drawn = {3: [], 5: [(DOG, "cat")]}.get(prediction.task_id, [(DOG, "dog")])
        submit(database, prediction, {0: CAT}, drawn)


def brief(found: Sequence[ProjectDoubt]) -> list[tuple[int, str, str | None]]:
    return sorted((each.task, each.doubt.kind.value, each.region) for each in found)


ERRORS = [(3, "missing", None), (5, "label", "new0")]


def test_what_was_forgotten_or_misnamed_is_listed_with_its_task_and_region() -> None:
    database = FakeDatabase()
    review(database)
    found = project_doubts(database, "cats", 0.5).found
    assert brief(found) == ERRORS
    missing = next(each for each in found if each.region is None)
    assert (missing.annotation, missing.width, missing.height, missing.model_version) == (3, 200, 100, VERSION)
    assert missing.doubt.box == DOG
    assert "dog with 99%" in missing.doubt.reason


def test_real_databases_list_the_same(engine: Engine) -> None:
    upgrade(engine)
    review(lambda: SqlUnitOfWork(engine))
    assert brief(project_doubts(lambda: SqlUnitOfWork(engine), "7", 0.5).found) == ERRORS


def test_probabilities_are_those_of_the_versions_fit() -> None:
    database = FakeDatabase()
    review(database)
    with database() as unit:
        unit.fits.add(replace(make_fit(), model_version=VERSION, calibration=Calibration(PlattCurve(1.0, -3.0))))
        unit.commit()
    assert project_doubts(database, "cats", 0.5).found == ()


def test_each_picture_of_a_task_is_held_against_its_own_prediction() -> None:
    database = FakeDatabase()
    left, right = (
        replace(make_prediction(1, [SURE]), id=name, regions=(Region(f"{name}-0", SURE),), look=Look(name))
        for name in ("left", "right")
    )
    predict_all(database, [left])
    with database() as unit:
        unit.predictions.add(UID, "other", right)
        regions = [
            final("left-0", CAT, image="left"),
            final("right-0", CAT, image="right"),
            final("x", DOG, image="left"),
        ]
        apply_fact(unit, annotated(replace(make_annotation(1, 4e9, *regions), created_at=at(4e9))))
        unit.commit()
    found = project_doubts(database, "7", 0.0).found
    assert [(each.region, each.doubt.kind) for each in found if each.doubt.probability > 0] == [
        ("x", DoubtKind.SPURIOUS)
    ]


def leave(database: Database, shown: Sequence[Proposal], hidden: Sequence[Proposal], *labels: str) -> None:
    """Leave the first box that is shown on task 1 under these labels, and no other box."""
    prediction = replace(make_prediction(1, shown), hidden=tuple(hidden))
    predict_all(database, [prediction])
    left = replace(final(prediction.regions[0].id, shown[0].box), labels=labels)
    with database() as unit:
        apply_fact(unit, annotated(replace(make_annotation(1, 4e9, left), created_at=at(4e9))))
        unit.commit()


@pytest.mark.parametrize(("second", "expected"), [("puppy", []), ("cat", [(1, "label", "nano-1-1-0")])])
def test_a_box_of_several_labels_is_right_by_the_one_that_the_model_is_surest_of(
    second: str, expected: list[tuple[int, str, str | None]]
) -> None:
    """That of "dog" scores higher than that of "puppy", but means half of it; "wolf" is what the box is not."""
    database = FakeDatabase()
    wolf, dog = Proposal(DOG, "wolf", 0.99, "wolf"), Proposal(DOG, "dog", 0.99, "dog")
    leave(database, [Proposal(DOG, "puppy", 0.98, "puppy")], [wolf, dog], "dog", second)
    halved = Calibration(labels={"dog": KnotCurve((0.0, 1.0), (0.0, 0.5))})
    with database() as unit:
        unit.fits.add(replace(make_fit(), model_version=VERSION, calibration=halved))
        unit.commit()
    assert brief(project_doubts(database, "7", 0.3).found) == expected


def test_where_a_box_was_drawn_without_a_label_none_is_missing() -> None:
    database = FakeDatabase()
    leave(database, [SURE], [HIDDEN])
    (missing,) = project_doubts(database, "7", 0.3).found
    assert (missing.doubt.kind, missing.doubt.label) == (DoubtKind.MISSING, "dog")


def test_what_has_no_prediction_or_was_skipped_is_left_out() -> None:
    database = FakeDatabase()
    review(database)
    submit(database, make_prediction(11, []), {}, [(Box(0, 0, 5, 5), "cat")])
    with database() as unit:
        apply_fact(unit, annotated(make_annotation(3, 5e9, task_id=3, cancelled=True)))
        unit.commit()
    assert brief(project_doubts(database, "7", 0.5).found) == ERRORS[1:]


def forget_and_learn(database: Database) -> None:
    """People forget the dog of every task, a version learns that there is none, and each annotation is touched again.

    Then a second person annotates task 1, on what that version proposes.
    """
    predict_all(database, [replace(make_prediction(task, [SURE]), hidden=(HIDDEN,)) for task in (1, 2)])
    left, submitted = final("left", CAT), datetime.now(UTC)
    annotations = [replace(make_annotation(task, 4e9, left, task_id=task), created_at=submitted) for task in (1, 2)]
    with database() as unit:
        apply_fact(unit, annotated(*(replace(each, updated_at=submitted) for each in annotations)))
        unit.commit()
    predict_all(database, [make_prediction(task, [SURE], "nano-2") for task in (1, 2)])
    second = replace(make_annotation(3, 4e9, final("nano-2-1-0", CAT), task_id=1), created_at=at(3e9))
    with database() as unit:
        apply_fact(unit, annotated(*annotations, second))
        unit.commit()


FORGOTTEN = [(1, "missing", None), (1, "missing", None), (2, "missing", None)]


def test_a_version_that_may_have_learned_an_error_is_not_asked_about_it(engine: Engine) -> None:
    upgrade(engine)
    for database in (FakeDatabase(), lambda: SqlUnitOfWork(engine)):
        forget_and_learn(database)
        found = project_doubts(database, "7", 0.5).found
        assert brief(found) == FORGOTTEN
        assert {each.model_version for each in found} == {VERSION}


def test_what_the_first_annotation_began_from_is_asked_whatever_the_clocks_say() -> None:
    """Label Studio's clock is behind, so that annotations seem older than what was proposed for them."""
    database = FakeDatabase()
    predictions = [replace(make_prediction(task, [SURE]), hidden=(HIDDEN,)) for task in (1, 2)]
    predict_all(database, predictions)
    with database() as unit:
        for each, named in zip(predictions, (predictions[0].id, None), strict=True):
            left = final(each.regions[0].id, CAT, prediction=named)
            annotation = make_annotation(each.task_id, 4e9, left, task_id=each.task_id)
            apply_fact(unit, annotated(replace(annotation, created_at=at(-1e9))))
        unit.commit()
    assert brief(project_doubts(database, "7", 0.5).found) == FORGOTTEN[:1]


def test_the_command_knows_whether_labels_may_overlap(
    database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prediction = make_prediction(1, [SURE])
    predict_all(database, [prediction])
    submit(database, prediction, {0: CAT}, [(CAT, "animal")])
    assert run(["doubts", "--project", "7"]) == 0
    assert "twice" in capsys.readouterr().out
    monkeypatch.setenv("GLIP_LABEL_OVERLAPPING_LABELS", "1")
    assert run(["doubts", "--project", "7"]) == 0
    assert "no annotation is wrong" in capsys.readouterr().out


def test_a_project_that_is_not_known_is_refused() -> None:
    with pytest.raises(UsageError, match="'street'"):
        project_doubts(FakeDatabase(), "street", 0.5)


def test_where_nothing_could_be_looked_at_it_does_not_say_that_nothing_is_wrong(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    submit(database, make_prediction(1, []), {}, [(CAT, "cat")])
    assert run(["doubts", "--project", "7", "--json"]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert "no annotation is of a task that was predicted before" in err


def test_what_could_not_be_looked_at_is_counted_beside_what_was(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    review(database)
    for task in (10, 11):
        submit(database, make_prediction(task, []), {}, [(CAT, "cat")])
    with database() as unit:
        apply_fact(unit, annotated(make_annotation(12, 5e9, task_id=12, cancelled=True)))
        unit.commit()
    assert run(["doubts", "--project", "7", "--json"]) == 0
    out, err = capsys.readouterr()
    assert len(json.loads(out)) == 2
    assert "2 of 12 annotations could not be looked at" in err
    assert run(["doubts", "--project", "7", "--least", "1"]) == 0
    assert "2 of 12 annotations could not be looked at" in capsys.readouterr().err


def test_the_command_prints_lines_or_json(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    review(database)
    assert run(["doubts", "--project", "7"]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    lines = sorted(told.out.splitlines())
    assert lines[0].startswith("task 3  no region  missing  83%  no box here")
    assert lines[1].startswith("task 5  region new0  label")
    assert run(["doubts", "--project", "7", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert sorted((row["task"], row["kind"], row["suggestion"]["label"]) for row in rows) == [
        (3, "missing", "dog"),
        (5, "label", "dog"),
    ]
    assert run(["doubts", "--project", "7", "--least", "1"]) == 0
    assert "no annotation is wrong" in capsys.readouterr().out


def test_a_region_without_an_id_is_named_by_its_place(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    review(database)
    with database() as unit:
        left = final("region 1 of annotation 5", DOG, "cat")
        apply_fact(unit, annotated(make_annotation(5, 5e9, left, task_id=5)))
        unit.commit()
    assert run(["doubts", "--project", "7"]) == 0
    assert "task 5  region 1 of annotation 5  label" in capsys.readouterr().out
