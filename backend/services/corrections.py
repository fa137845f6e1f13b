"""Facts become state: whatever their order, lateness and repetition, the same facts make the same state.

A project and a task are as they stood last, by Label Studio's clock. Every version of an annotation is kept under its
own update time; the newest is the current one. A deletion holds for ever, since Label Studio never gives an id twice,
and that of a task takes its annotations along. Where two facts disagree about one moment, the greater one holds: any
rule will do that does not depend on which came first. Of labels alone, numbers and moments depend on that.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from backend.domain.annotations import Annotation
from backend.domain.facts import Fact, InboxCounts, InboxFailure, ProjectState, TaskState, fact_from_json, fact_to_json
from backend.domain.matching import verdicts_of
from backend.domain.records import Prediction
from backend.domain.verdicts import Verdict
from backend.ports import UnitOfWork

_LONGEST_REASON = 500
_AT_A_TIME = 50  # annotations or tasks in one transaction: with SQLite, an event waits for it, and who predicts
_NEVER = datetime.min.replace(tzinfo=UTC)


class CorrectionsService:
    """Takes facts in and applies them; one instance serves all threads."""

    def __init__(self, unit_of_work: Callable[[], UnitOfWork]) -> None:
        self._unit_of_work = unit_of_work

    def receive(self, action: str, fact: Fact) -> None:
        """Keep a fact until it is applied; when this returns it is safe on disk.

        Raises:
            StorageError: it could not be kept.
        """
        with self._unit_of_work() as unit:
            for part in fact.parts(_AT_A_TIME):
                unit.inbox.add(action, None if part.project is None else part.project.id, fact_to_json(part))
            unit.commit()

    def waiting(self, limit: int = 100) -> Sequence[int]:
        """Return the inbox entries to apply, oldest first."""
        with self._unit_of_work() as unit:
            entries = unit.inbox.waiting(limit)
            unit.commit()
        return entries

    def apply(self, entry: int) -> bool:
        """Apply one inbox entry and mark it, in one transaction; False where another worker did.

        Raises:
            ValueError: the entry holds no fact, or one that cannot be.
            StorageError: the database failed (ValueRefusedError: it cannot hold this fact).
        """
        with self._unit_of_work() as unit:
            payload = unit.inbox.claim(entry)
            if payload is None:
                return False
            apply_fact(unit, fact_from_json(payload))
            unit.commit()
        return True

    def fail(self, entry: int, reason: str) -> None:
        """Keep why an entry cannot be applied; the others go on, and ``retry`` lets it wait again."""
        with self._unit_of_work() as unit:
            unit.inbox.fail(entry, reason[:_LONGEST_REASON])
            unit.commit()

    def retry(self) -> int:
        """Let all failed entries wait again; returns how many there were."""
        with self._unit_of_work() as unit:
            count = unit.inbox.retry()
            unit.commit()
        return count

    def inbox(self, failures: int = 20) -> tuple[InboxCounts, Sequence[InboxFailure]]:
        """Return how many entries there are, and the oldest that failed."""
        with self._unit_of_work() as unit:
            return unit.inbox.counts(), unit.inbox.failures(failures)


def apply_fact(unit: UnitOfWork, fact: Fact) -> None:
    """Make a fact part of the state, with the verdicts that follow from it; the caller commits.

    Raises:
        ValueError: the fact tells of tasks or annotations but not of their project.
        StorageError: the database failed.
    """
    project = fact.project
    if project is None:
        if fact != Fact():
            raise ValueError("a fact about tasks or annotations names no project")
        return
    unit.corrections.lock()
    known = _apply_project(unit, project)
    for task in fact.tasks:
        _apply_task(unit, project.uid, task)
    for annotation in fact.annotations:
        _apply_annotation(unit, project.uid, annotation)
    for annotation_id in fact.deleted_annotations:
        unit.corrections.delete_annotation(project.uid, annotation_id)
    seen = (label for annotation in fact.annotations for region in annotation.regions for label in region.labels)
    unit.projects.add_labels(project.uid, [*project.labels, *seen], _since(known, project))


def current_verdicts(unit: UnitOfWork, project: str, annotation: Annotation) -> tuple[Verdict, ...]:
    """Derive the verdicts on a version from it and from what was predicted until it was made; always the same ones."""
    return verdicts_of(annotation, known_predictions(unit, project, annotation))


def known_predictions(unit: UnitOfWork, project: str, annotation: Annotation) -> Sequence[Prediction]:
    """Return the predictions that the verdicts on an annotation are about: its regions name them, or they were there.

    Who touches an annotation again sees the annotation, and not what was predicted since it was made.
    """
    kept = {region.id for region in annotation.regions}
    named = {region.prediction for region in annotation.regions if region.prediction is not None}
    return unit.predictions.of_task(project, annotation.task_id, annotation.created_at, named | kept)


def rewrite_verdicts(unit: UnitOfWork, project: str, annotation: Annotation) -> None:
    """Derive the verdicts on a stored version and keep them in place of earlier ones; the caller commits."""
    unit.corrections.put_verdicts(project, annotation, current_verdicts(unit, project, annotation))


def check_verdicts(unit_of_work: Callable[[], UnitOfWork], *, repair: bool = False) -> tuple[int, int]:
    """Derive the verdicts of every project in Label Studio again, some annotations at a time: events go on coming in.

    Args:
        unit_of_work: makes the transactions.
        repair: also keep those that differ in place of the stored ones.

    Returns:
        How many versions of annotations there are, and on how many of them the stored verdicts differ.
    """
    with unit_of_work() as unit:
        projects = [project.uid for project in unit.projects.all() if not project.is_imported]
    checked = differ = 0
    for project in projects:
        last = -1
        while True:
            with unit_of_work() as unit:
                unit.corrections.lock()
                ids = unit.corrections.annotation_ids(project, last, _AT_A_TIME)
                versions = list(unit.corrections.versions(project, ids))
                stale = [each for each in versions if _is_stale(unit, project, each)]
                if repair and stale:
                    for annotation in stale:
                        rewrite_verdicts(unit, project, annotation)
                    unit.commit()
            checked, differ = checked + len(versions), differ + len(stale)
            if not ids:
                break
            last = ids[-1]
    return checked, differ


def _is_stale(unit: UnitOfWork, project: str, annotation: Annotation) -> bool:
    return unit.corrections.verdicts(project, annotation) != current_verdicts(unit, project, annotation)


def _apply_project(unit: UnitOfWork, told: ProjectState) -> ProjectState | None:
    """Keep a project's state if it is the newest; returns what was known before."""
    known = unit.projects.state(told.uid)
    if known is None or _project_rank(told) > _project_rank(known):
        title = told.title or ("" if known is None else known.title)  # /setup tells the labelling config alone
        unit.projects.put(replace(told, title=title, labels=()))
    return known


def _project_rank(project: ProjectState) -> tuple[datetime, str, str]:
    return project.updated_at or _NEVER, project.label_config or "", project.title


def _since(known: ProjectState | None, told: ProjectState) -> datetime | None:
    """The moment when new labels were added, or a later one; None where they may have been there from the start.

    Too late, it makes an image that was reviewed meanwhile teach too little; too early, something wrong.
    """
    if known is None or known.label_config is None:
        return None
    return told.updated_at or datetime.now(UTC)


def _apply_task(unit: UnitOfWork, project: str, told: TaskState) -> None:
    known = unit.corrections.task(project, told.id)
    newest = told if known is None else max(known, told, key=_task_rank)
    merged = replace(newest, deleted=told.deleted or (known is not None and known.deleted))
    if merged != known:
        unit.corrections.put_task(project, merged)


def _task_rank(task: TaskState) -> tuple[datetime, tuple[tuple[str, str], ...]]:
    return task.updated_at or _NEVER, task.images


def _apply_annotation(unit: UnitOfWork, project: str, told: Annotation) -> None:
    if unit.corrections.task(project, told.task_id) is None:
        unit.corrections.put_task(project, TaskState(told.task_id))
    known = unit.corrections.version(project, told.id, told.updated_at)
    if known is None or _annotation_rank(told) > _annotation_rank(known):
        unit.corrections.put_version(project, told)
        rewrite_verdicts(unit, project, told)


def _annotation_rank(annotation: Annotation) -> tuple[int, str]:
    # Deleting a prediction takes it out of the annotations that began from it, without a new time.
    return annotation.parent_prediction or 0, fact_to_json(Fact(annotations=(annotation,)))
