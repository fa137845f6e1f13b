"""Sync: whatever events were lost, afterwards our state is Label Studio's."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from backend.db.schema import upgrade
from backend.db.unit_of_work import SqlUnitOfWork
from backend.domain.annotations import Annotation
from backend.domain.facts import Fact, ProjectState, TaskLook, TaskState
from backend.errors import LabelStudioError
from backend.ports import UnitOfWork
from backend.services.corrections import apply_fact
from backend.services.sync import Sync, SyncReport
from tests.facts import (
    PROJECT,
    TASK_IDS,
    UID,
    annotated,
    at,
    facts,
    images,
    make_annotation,
    make_region,
    reference_fold,
)
from tests.fakes import FakeCorrections, FakeDatabase, FakeUnitOfWork

SHOWN = ProjectState(UID, 7, "boats", None, "<View/>", ("cat", "dog", "Ω"))


@dataclass
class FakeTasks:
    """Label Studio in dictionaries; what is ``hidden`` is there, but lost between two pages."""

    tasks: dict[int, TaskState] = field(default_factory=dict)
    annotations: dict[int, Annotation] = field(default_factory=dict)
    hidden: frozenset[int] = frozenset()
    problems: tuple[str, ...] = ()
    asked: list[int] = field(default_factory=list)

    def project(self, project_id: int) -> ProjectState:
        return SHOWN

    def pages(self, project_id: int) -> Iterator[Sequence[TaskLook]]:
        for task in self.tasks.values():
            if task.id not in self.hidden:
                mine = tuple(each for each in self.annotations.values() if each.task_id == task.id)
                yield [TaskLook(task, mine, self.problems)]

    def has_task(self, task_id: int) -> bool:
        self.asked.append(task_id)
        return task_id in self.tasks

    def has_annotation(self, annotation_id: int) -> bool:
        self.asked.append(annotation_id)
        return annotation_id in self.annotations


def label_studio_after(told: Sequence[Fact]) -> FakeTasks:
    """What Label Studio shows once all of this happened."""
    state = reference_fold(told)
    live = [task for task in state.tasks if not task.deleted]
    return FakeTasks(
        {task.id: replace(task, updated_at=task.updated_at or at(0)) for task in live},
        {annotation.id: annotation for annotation in state.current},
    )


def apply(unit_of_work: Callable[[], UnitOfWork], *told: Fact) -> None:
    for fact in told:
        with unit_of_work() as unit:
            apply_fact(unit, fact)
            unit.commit()


def shown(unit_of_work: Callable[[], UnitOfWork]) -> tuple[dict[int, TaskState], dict[int, Annotation]]:
    """What our state says is there, without the times of tasks and without what predictions began it."""
    with unit_of_work() as unit:
        tasks = [unit.corrections.task(UID, number) for number in TASK_IDS]
        current = {each.id: replace(each, parent_prediction=None) for each in unit.corrections.current(UID)}
    return {task.id: replace(task, updated_at=None) for task in tasks if task and not task.deleted}, current


def expected(tasks: FakeTasks) -> tuple[dict[int, TaskState], dict[int, Annotation]]:
    annotations = {key: replace(each, parent_prediction=None) for key, each in tasks.annotations.items()}
    return {key: replace(task, updated_at=None) for key, task in tasks.tasks.items()}, annotations


@settings(deadline=None)
@given(st.lists(facts, max_size=12), st.data())
def test_whatever_was_lost_afterwards_the_state_is_label_studios(told: list[Fact], data: st.DataObject) -> None:
    label_studio = label_studio_after(told)
    database = FakeDatabase()
    apply(database, *[fact for fact in told if data.draw(st.booleans())])
    sync = Sync(label_studio, database, database)
    sync(7)
    assert shown(database) == expected(label_studio)
    assert database.tables.projects[UID].title == "boats"
    assert sync(7).repaired == 0


def test_real_databases_are_repaired_alike(engine: Engine) -> None:
    upgrade(engine)

    def unit_of_work() -> UnitOfWork:
        return SqlUnitOfWork(engine)

    gone = annotated(make_annotation(1, 1, make_region()), make_annotation(2, 1, task_id=2), make_annotation(3, 1))
    apply(unit_of_work, gone)
    now = annotated(make_annotation(3, 2, make_region()), make_annotation(4, 2, task_id=3))
    label_studio = label_studio_after([now])
    report = Sync(label_studio, unit_of_work, partial(SqlUnitOfWork, engine, reads_only=True))(7)
    assert replace(report, problems=[]) == SyncReport(
        7,
        project_changed=True,
        tasks_added=1,
        tasks_deleted=1,
        annotations_added=1,
        annotations_changed=1,
        annotations_deleted=1,
    )
    assert shown(unit_of_work) == expected(label_studio)


def test_what_is_known_of_a_whole_project_is_read_where_no_writer_waits_for_it() -> None:
    class Writers(FakeCorrections):
        def live_tasks(self, project: str) -> frozenset[int]:
            raise AssertionError("read while others wait")

        def tasks_by_annotation(self, project: str, *, skipped: bool = True) -> Mapping[int, int]:
            raise AssertionError("read while others wait")

        def current(self, project: str) -> Iterator[Annotation]:
            raise AssertionError("read while others wait")

    class Writing(FakeUnitOfWork):
        def __enter__(self) -> "Writing":
            super().__enter__()
            self.corrections = Writers(self._tables)
            return self

    database = FakeDatabase()
    apply(database, annotated(make_annotation(1, 1, make_region()), make_annotation(2, 1, task_id=2)))
    report = Sync(FakeTasks(), lambda: Writing(database), database)(7)
    assert report.tasks_deleted == 2


def test_a_page_of_many_tasks_is_repaired_whole() -> None:
    class OnePage(FakeTasks):
        def pages(self, project_id: int) -> Iterator[Sequence[TaskLook]]:
            yield [look for page in super().pages(project_id) for look in page]

    database = FakeDatabase()
    many = OnePage({number: TaskState(number, at(1), images(number)) for number in range(25)})
    assert Sync(many, database, database)(7).tasks_added == 25


def test_what_a_page_lost_is_asked_for_and_not_deleted() -> None:
    database = FakeDatabase()
    told = annotated(make_annotation(1, 1), make_annotation(2, 1, task_id=2))
    apply(database, told)
    label_studio = replace(label_studio_after([told]), hidden=frozenset({2}))
    report = Sync(label_studio, database, database)(7)
    assert (report.tasks_deleted, report.annotations_deleted) == (0, 0)
    assert label_studio.asked == [2, 2]  # the task, then its annotation
    assert len(shown(database)[1]) == 2


def test_a_star_and_a_move_that_brought_no_new_time_are_repaired() -> None:
    database = FakeDatabase()
    starred = replace(make_annotation(1, 1, make_region()), ground_truth=True)
    apply(database, annotated(starred, make_annotation(2, 1)))
    now = FakeTasks(
        {1: TaskState(1, at(1), images(1)), 2: TaskState(2, at(1), images(2))},
        {1: replace(starred, ground_truth=False), 2: make_annotation(2, 1, task_id=2)},
    )
    assert Sync(now, database, database)(7).annotations_changed == 2
    assert shown(database) == expected(now)


@pytest.mark.parametrize(("before", "now"), [("photo", "image"), ("image", "photo")])
def test_another_key_that_brought_no_new_time_is_repaired_once(before: str, now: str) -> None:
    database = FakeDatabase()
    apply(database, Fact(PROJECT, (TaskState(1, at(1), ((before, "a.png"),)),)))
    label_studio = FakeTasks({1: TaskState(1, at(1), ((now, "a.png"),))})
    sync = Sync(label_studio, database, database)
    assert [sync(7).tasks_changed, sync(7).tasks_changed] == [1, 0]
    assert shown(database) == expected(label_studio)


def test_a_deleted_prediction_leaves_what_an_annotation_began_from() -> None:
    database = FakeDatabase()
    begun = replace(make_annotation(1, 1), parent_prediction=9)
    apply(database, annotated(begun))
    Sync(label_studio_after([annotated(replace(begun, parent_prediction=None))]), database, database)(7)
    assert database.tables.versions[UID, 1, at(1)] == begun


def test_an_unreadable_annotation_is_told_and_left() -> None:
    database = FakeDatabase()
    apply(database, annotated(make_annotation(1, 1)))
    label_studio = label_studio_after([annotated(make_annotation(1, 1))])
    label_studio.problems = ("task 1: 'x' of region 1 of annotation 1 must be a finite number",)
    report = Sync(label_studio, database, database)(7)
    assert report.problems == list(label_studio.problems)
    assert len(shown(database)[1]) == 1


def test_nothing_is_deleted_where_label_studio_goes_away_in_the_middle() -> None:
    class Away(FakeTasks):
        def pages(self, project_id: int) -> Iterator[Sequence[TaskLook]]:
            yield []
            raise LabelStudioError("no answer from Label Studio")

    database = FakeDatabase()
    apply(database, annotated(make_annotation(1, 1)))
    with pytest.raises(LabelStudioError):
        Sync(Away(), database, database)(7)
    assert len(shown(database)[1]) == 1
    assert database.tables.projects[UID].id == PROJECT.id
