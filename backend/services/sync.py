"""Our state made equal to Label Studio's: events are delivered once at most, some not at all."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from backend.domain.annotations import Annotation
from backend.domain.facts import Fact, ProjectState, TaskLook, TaskState
from backend.errors import LabelStudioError
from backend.ports import Tasks, UnitOfWork
from backend.services.corrections import apply_fact, rewrite_verdicts

_AT_A_TIME = 10  # tasks in one transaction: with SQLite, an event waits for it


@dataclass(slots=True)
class SyncReport:
    """What was repaired. ``problems`` are lines about annotations that could not be read; they are left as they were.

    ``added`` counts what was not known, ``changed`` what stood differently, ``deleted`` what is gone; an annotation
    that went with its task is not counted by itself.
    """

    project_id: int
    project_changed: bool = False
    tasks_added: int = 0
    tasks_changed: int = 0
    tasks_deleted: int = 0
    annotations_added: int = 0
    annotations_changed: int = 0
    annotations_deleted: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def repaired(self) -> int:
        """How many things were repaired in all."""
        tasks = self.tasks_added + self.tasks_changed + self.tasks_deleted
        annotations = self.annotations_added + self.annotations_changed + self.annotations_deleted
        return self.project_changed + tasks + annotations

    def summary(self) -> str:
        """The counts, for people and for the log."""
        return (
            f"tasks +{self.tasks_added} ~{self.tasks_changed} -{self.tasks_deleted}, "
            f"annotations +{self.annotations_added} ~{self.annotations_changed} -{self.annotations_deleted}"
        )


class Sync:
    """Polls Label Studio and repairs what its events did not tell; it may run while events come in.

    ``reading`` makes the transaction that lists what is known: it may be very much.
    """

    def __init__(self, tasks: Tasks, unit_of_work: Callable[[], UnitOfWork], reading: Callable[[], UnitOfWork]) -> None:
        self._tasks = tasks
        self._unit_of_work = unit_of_work
        self._reading = reading

    def __call__(self, project_id: int, uid: str | None = None) -> SyncReport:
        """Repair one project; what was repaired before an error stays repaired.

        Args:
            project_id: its number, which another Label Studio may have given to another project.
            uid: which project is meant; None for whichever has the number.

        Raises:
            LabelStudioError: Label Studio is away or refuses, or its project of that number is another one.
            StorageError: the database failed.
        """
        project = self._tasks.project(project_id)
        if uid not in (None, project.uid):
            raise LabelStudioError(
                f"project {project_id} is another one in this Label Studio: {project.uid}, not {uid}"
            )
        report = SyncReport(project_id)
        with self._reading() as unit:
            # What comes in from now on is not missing, whatever the pages show.
            known_tasks = unit.corrections.live_tasks(project.uid)
            known = unit.corrections.tasks_by_annotation(project.uid)
        with self._unit_of_work() as unit:
            report.project_changed = _repair_project(unit, project)
            unit.commit()
        seen_tasks: set[int] = set()
        seen: set[int] = set()
        for page in self._tasks.pages(project_id):
            seen_tasks.update(look.task.id for look in page)
            seen.update(each.id for look in page for each in look.annotations)
            for start in range(0, len(page), _AT_A_TIME):
                self._repair(project, page[start : start + _AT_A_TIME], report)
        gone_tasks = self._gone(known_tasks - seen_tasks, self._tasks.has_task)
        missing = (number for number, task in known.items() if number not in seen and task not in gone_tasks)
        gone = self._gone(missing, self._tasks.has_annotation)
        if gone_tasks or gone:
            self._delete(project, gone_tasks, gone)
        report.tasks_deleted, report.annotations_deleted = len(gone_tasks), len(gone)
        return report

    def _gone(self, missing: Iterable[int], exists: Callable[[int], bool]) -> list[int]:
        """Ask for each by its id: a deletion holds for ever, and a page may have lost one."""
        return [number for number in sorted(missing) if not exists(number)]

    def _delete(self, project: ProjectState, tasks: Sequence[int], annotations: Sequence[int]) -> None:
        named = ProjectState(project.uid, project.id)
        gone = tuple(TaskState(number, deleted=True) for number in tasks)
        for part in Fact(named, gone, deleted_annotations=tuple(annotations)).parts(_AT_A_TIME):
            with self._unit_of_work() as unit:
                apply_fact(unit, part)
                unit.commit()

    def _repair(self, project: ProjectState, looks: Sequence[TaskLook], report: SyncReport) -> None:
        named = ProjectState(project.uid, project.id)
        with self._unit_of_work() as unit:
            unit.corrections.lock()
            for look in looks:
                report.problems += look.problems
                before = unit.corrections.task(project.uid, look.task.id)
                changes = [(each, _change(unit, project.uid, each)) for each in look.annotations]
                told = tuple(each for each, change in changes if change is not None)
                if before is None or before.images != look.task.images or told:
                    apply_fact(unit, Fact(named, (look.task,), told))
                    if before is not None and before.updated_at == look.task.updated_at:
                        # Another key for the same time, as after a change of the labelling config: this is how it is.
                        unit.corrections.put_task(project.uid, replace(look.task, deleted=before.deleted))
                    report.tasks_added += before is None
                    report.tasks_changed += before is not None and before.images != look.task.images
                for each, change in changes:
                    report.annotations_added += change == "added"
                    report.annotations_changed += change in ("newer", "differs")
                    if change == "differs":
                        unit.corrections.put_version(project.uid, each)
                        rewrite_verdicts(unit, project.uid, each)
            unit.commit()


def _repair_project(unit: UnitOfWork, told: ProjectState) -> bool:
    """Make title and labelling config those that Label Studio shows now; tells whether they were others."""
    unit.corrections.lock()
    known = unit.projects.state(told.uid)
    names = unit.projects.labels(told.uid)
    apply_fact(unit, Fact(told))
    if known is not None and (known.title, known.label_config) != (told.title, told.label_config):
        unit.projects.put(replace(told, updated_at=known.updated_at, labels=()))
    return unit.projects.state(told.uid) != known or unit.projects.labels(told.uid) != names


def _change(unit: UnitOfWork, project: str, told: Annotation) -> str | None:
    """How an annotation stands to what is known of it: added, newer, differs (at the same time), or None: as known.

    A star given to another annotation and a move to another task change one without a new time. Deleting a prediction
    takes it out of the annotation; what it once began from is worth keeping.
    """
    known = unit.corrections.version(project, told.id, told.updated_at)
    if known is None:
        return "newer" if unit.corrections.knows(project, told.id) else "added"
    same = replace(known, parent_prediction=told.parent_prediction) == told
    return None if same else "differs"
