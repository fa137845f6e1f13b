"""The next batch: what is learnt most from, and a share by chance."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import Engine

from backend.db.schema import upgrade
from backend.db.unit_of_work import SqlUnitOfWork
from backend.domain.facts import Fact, ProjectState, TaskState
from backend.domain.fits import Fit
from backend.domain.records import Look, Prediction, Proposal
from backend.ports import UnitOfWork
from backend.services.corrections import apply_fact
from backend.services.next_batch import NextBatch, choose, next_batch
from backend.services.ordering import is_random
from tests.backend.test_ordering import make_fit
from tests.facts import UID, annotated, at, make_annotation, task_deleted
from tests.fakes import FakeDatabase
from tests.regions import CAT
from tests.reviews import VERSION, make_prediction, predict_all, submit

PROJECT = ProjectState(UID, 7, "cats")
Database = Callable[[], UnitOfWork]
FIT = replace(make_fit(0.1, 0.2), model_version=VERSION)


def score_of(task: int) -> float:
    """Shown: the lower the number, the longer it takes."""
    return 0.75 + task / 1000


def prediction_of(task: int) -> Prediction:
    return make_prediction(task, [Proposal(CAT, "cat", score_of(task), "cat")])


def with_tasks(database: Database, count: int, predicted: int, fit: Fit | None = FIT) -> Database:
    predict_all(database, [prediction_of(task) for task in range(1, predicted + 1)])
    with database() as unit:
        if fit is not None:
            unit.fits.add(fit)
        apply_fact(unit, Fact(PROJECT, tuple(TaskState(task, at(0)) for task in range(1, count + 1))))
        unit.commit()
    return database


def ask(database: Database, size: int) -> NextBatch:
    return next_batch(database, PROJECT, VERSION, size)


def test_tasks_of_all_lengths_are_chosen_and_the_fifth_is_drawn() -> None:
    found = ask(with_tasks(FakeDatabase(), 200, 200), 10)
    chosen = [task for task in found.tasks if task not in found.drawn]
    assert not any(is_random(UID, task) for task in chosen)
    assert found.drawn == {found.tasks[4], found.tasks[9]}
    assert all(is_random(UID, task) for task in found.drawn)
    assert (found.waiting, found.unpredicted) == (200, 0)
    # The higher its number, the less time a task takes here; one is chosen of each eighth of them.
    eighths = np.array_split([task for task in range(200, 0, -1) if not is_random(UID, task)], 8)
    assert [sum(task in eighth for task in chosen) for eighth in eighths] == [1] * 8


def test_what_nobody_reviewed_the_like_of_comes_first() -> None:
    tasks = range(1, 61)
    chosen_by_fit = [task for task in tasks if not is_random(UID, task)]
    dogs = set(chosen_by_fit[::7])
    database = with_tasks(FakeDatabase(), len(tasks), 0)
    shown = {task: Proposal(CAT, name := "dog" if task in dogs else "cat", 0.7, name) for task in tasks}
    predict_all(database, [make_prediction(task, [shown[task]]) for task in tasks])
    assert not {*ask(database, 2).tasks} & dogs
    for task in sorted({*chosen_by_fit} - dogs)[:20]:
        submit(database, make_prediction(task, [shown[task]]), {0: CAT})
    assert {*ask(database, 2).tasks} <= dogs


def test_what_was_deleted_or_skipped_is_nothing_that_was_reviewed(engine: Engine) -> None:
    """Most tasks that wait show a dog; so did the others, whose predictions count as little as if there were none."""
    upgrade(engine)
    tasks = range(1, 81)
    deleted, skipped = tasks[:20], tasks[20:40]
    names = {task: "cat" if task > 40 and task % 3 == 0 else "dog" for task in tasks}
    shown = {task: make_prediction(task, [Proposal(CAT, name, 0.7, name)]) for task, name in names.items()}
    found = []
    for database, asked in (
        (FakeDatabase(), tasks),
        (lambda: SqlUnitOfWork(engine), tasks),
        (FakeDatabase(), tasks[40:]),
    ):
        predict_all(with_tasks(database, len(tasks), 0), [shown[task] for task in asked])
        with database() as unit:
            apply_fact(unit, task_deleted(*deleted))
            apply_fact(unit, annotated(*(make_annotation(task, 1, task_id=task, cancelled=True) for task in skipped)))
            unit.commit()
        found.append(ask(database, 10))
    assert found[0] == found[1] == found[2]
    assert found[0].waiting == 40


def test_what_was_reviewed_or_deleted_does_not_come_again() -> None:
    database = with_tasks(FakeDatabase(), 60, 60)
    (first, *_), drawn = (found := ask(database, 20)).tasks, min(found.drawn)
    submit(database, prediction_of(first), {})
    with database() as unit:
        apply_fact(unit, Fact(PROJECT, (TaskState(drawn, deleted=True),)))
        unit.commit()
    again = ask(database, 60)
    assert len(again.tasks) == len(set(again.tasks)) == again.waiting == 58
    assert not {first, drawn} & set(again.tasks)


def test_tasks_without_a_prediction_come_by_chance_only() -> None:
    found = ask(with_tasks(FakeDatabase(), 40, 10), 40)
    assert sorted(found.tasks) == list(range(1, 41))
    assert set(range(11, 41)) <= found.drawn
    assert found.unpredicted == 30


@pytest.mark.parametrize("fit", [None, replace(FIT, ordering=())])
def test_before_anything_was_judged_and_where_the_order_does_not_pay_chance_chooses_all(fit: Fit | None) -> None:
    assert len(ask(with_tasks(FakeDatabase(), 60, 60, fit), 10).drawn) == 10


def test_a_task_of_several_pictures_is_chosen_for_what_is_in_all_of_them() -> None:
    """Of tasks with two sure pictures, one has an unsure one as well, which was predicted first."""
    tasks = [task for task in range(1, 40) if not is_random(UID, task)]
    unsure = tasks[7]
    database = with_tasks(FakeDatabase(), 40, 0)
    with database() as unit:
        for picture in ("left", "right"):
            for task in tasks:
                score = 0.5 if (task, picture) == (unsure, "left") else 0.999
                made = make_prediction(task, [Proposal(CAT, "cat", score, "cat")])
                look = Look(picture, picture, "f" * 64)
                unit.predictions.add(UID, picture, replace(made, id=f"{picture}-{task}", look=look))
        unit.commit()
    (chosen,) = ask(database, 1).tasks
    assert chosen == unsure


def test_while_tasks_are_chosen_a_fifth_is_random_until_the_last() -> None:
    waiting = set(range(220))
    lasting = sum(is_random(UID, task) for task in waiting) // 5
    for _ in range(lasting):
        picked = choose(UID, waiting, {}, FIT, [], 25)
        assert sum(is_random(UID, task) for task in picked) >= 5
        waiting -= picked.keys()
    assert lasting >= 7


def test_where_chance_chooses_all_the_random_tasks_are_not_used_up() -> None:
    picked = choose(UID, range(2000), {}, None, [], 400)
    assert len(picked) == 400
    assert all(picked.values())
    assert sum(is_random(UID, task) for task in picked) == pytest.approx(80, abs=20)


def test_real_databases_choose_the_same(engine: Engine) -> None:
    upgrade(engine)
    fake = with_tasks(FakeDatabase(), 30, 20)
    real = with_tasks(lambda: SqlUnitOfWork(engine), 30, 20)
    for database in (fake, real):
        submit(database, prediction_of(3), {0: CAT})
    assert ask(real, 12) == ask(fake, 12)
