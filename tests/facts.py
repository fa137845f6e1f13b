"""Facts for tests: builders, strategies, and what a set of facts amounts to, worked out plainly."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from backend.domain.annotations import AnnotatedRegion, Annotation, PercentBox
from backend.domain.facts import Fact, ProjectState, TaskState
from backend.ports import UnitOfWork

UID = "7.1795423412"
PROJECT = ProjectState(UID, 7)


def at(seconds: float) -> datetime:
    """A moment so many seconds after the project began."""
    return datetime(2026, 11, 23, 8, 43, 32, tzinfo=UTC) + timedelta(seconds=seconds)


def make_region(
    region_id: str = "r1", label: str = "cat", x: float = 10.0, prediction: str | None = None
) -> AnnotatedRegion:
    return AnnotatedRegion(
        region_id, "image", (label,), PercentBox(x, 20.0, 30.0, 40.0), 640, 480, "prediction", prediction, 0.5
    )


def make_annotation(
    annotation_id: int = 1, updated: float = 0.0, *regions: AnnotatedRegion, task_id: int = 1, cancelled: bool = False
) -> Annotation:
    return Annotation(
        id=annotation_id,
        task_id=task_id,
        project_id=7,
        created_at=at(0),
        updated_at=at(updated),
        annotator=3,
        cancelled=cancelled,
        ground_truth=False,
        lead_time=2.5,
        parent_prediction=None,
        regions=regions,
    )


def annotated(*annotations: Annotation) -> Fact:
    """What a submit or an update tells."""
    tasks = {each.task_id: TaskState(each.task_id, each.updated_at, images(each.task_id)) for each in annotations}
    return Fact(PROJECT, tuple(tasks.values()), annotations)


def images(task_id: int) -> tuple[tuple[str, str], ...]:
    return (("image", f"/data/upload/7/{task_id}.png"),)


def deleted(*annotation_ids: int) -> Fact:
    return Fact(PROJECT, deleted_annotations=annotation_ids)


def task_deleted(*task_ids: int) -> Fact:
    return Fact(PROJECT, tuple(TaskState(each, deleted=True) for each in task_ids))


@dataclass(frozen=True)
class State:
    """Everything that facts decide; label numbers depend on what came first, so labels are a set here."""

    projects: frozenset[ProjectState]
    labels: frozenset[str]
    tasks: frozenset[TaskState]
    versions: tuple[Annotation, ...]
    current: tuple[Annotation, ...]


def state_of(unit: UnitOfWork, task_ids: Iterable[int], uid: str = UID) -> State:
    """Read the state of one project."""
    project = unit.projects.state(uid)
    tasks = (unit.corrections.task(uid, number) for number in task_ids)
    current = tuple(unit.corrections.current(uid))
    assert unit.corrections.tasks_by_annotation(uid) == {each.id: each.task_id for each in current}
    told = {each.id: each.task_id for each in current if not each.cancelled}
    assert unit.corrections.tasks_by_annotation(uid, skipped=False) == told
    return State(
        frozenset() if project is None else frozenset({project}),
        frozenset(unit.projects.labels(uid)),
        frozenset(task for task in tasks if task is not None),
        tuple(unit.corrections.versions(uid)),
        current,
    )


def reference_fold(facts: Iterable[Fact]) -> State:
    """Work out the state from all facts at once, without an order.

    Two facts about one moment may differ in ``parent_prediction`` only, which deleting a prediction takes away.
    """
    facts = [fact for fact in facts if fact.project is not None]
    told = [fact.project for fact in facts if fact.project is not None]
    projects = [max(told, key=lambda each: each.updated_at or at(-1e9))] if told else []
    annotations = [annotation for fact in facts for annotation in fact.annotations]
    every_task = [task for fact in facts for task in fact.tasks] + [TaskState(each.task_id) for each in annotations]
    tasks = {}
    for number in {task.id for task in every_task}:
        mine = [task for task in every_task if task.id == number]
        newest = max(mine, key=lambda task: task.updated_at or at(-1e9))
        tasks[number] = replace(newest, deleted=any(task.deleted for task in mine))
    versions: dict[tuple[int, datetime], Annotation] = {}
    for annotation in sorted(annotations, key=lambda each: each.parent_prediction or 0):
        versions[annotation.id, annotation.updated_at] = annotation
    gone = {number for fact in facts for number in fact.deleted_annotations}
    ordered = tuple(versions[key] for key in sorted(versions))
    newest_of = {annotation.id: annotation for annotation in ordered}
    labels = {label for project in told for label in project.labels}
    labels |= {label for annotation in annotations for region in annotation.regions for label in region.labels}
    return State(
        frozenset(replace(project, labels=()) for project in projects),
        frozenset(labels),
        frozenset(tasks.values()),
        ordered,
        tuple(each for each in newest_of.values() if each.id not in gone and not tasks[each.task_id].deleted),
    )


def _version(annotation_id: int, second: int, has_parent: bool) -> Annotation:
    """The one thing that annotation said at that second."""
    regions = tuple(make_region(f"r{index}", ("cat", "dog", "Ω")[(second + index) % 3]) for index in range(second % 3))
    # The annotations live on tasks 1 to 3; the last one was moved from one task to another.
    task_id = (annotation_id + (second if annotation_id == 4 else 0)) % 3 + 1
    made = make_annotation(annotation_id, second, *regions, task_id=task_id, cancelled=second == 4)
    return replace(made, parent_prediction=9 if has_parent else None)


_versions = st.builds(_version, st.integers(1, 4), st.integers(0, 5), st.booleans())


def _project(second: int) -> Fact:
    labels = ("cat", f"label {second}")
    return Fact(ProjectState(UID, 7, f"title {second}", at(second), f"<View>{second}</View>", labels))


facts = st.one_of(
    st.lists(_versions, min_size=1, max_size=3).map(lambda versions: annotated(*versions)),
    st.integers(1, 4).map(deleted),
    st.integers(1, 3).map(task_deleted),
    st.builds(
        lambda number, second: Fact(PROJECT, (TaskState(number, at(second), images(number * 10 + second)),)),
        st.integers(1, 3),
        st.integers(6, 9),
    ),
    st.integers(0, 5).map(_project),
    st.just(Fact()),
)
TASK_IDS = range(1, 4)
