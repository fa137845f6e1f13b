"""What Label Studio told about a project: facts reduced to what is kept, and their JSON.

A fact says how things stood at a moment of Label Studio's clock, or that something is gone for good. Facts may come
late, twice and in any order: ``backend.services.corrections`` makes the same state of them.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from backend.domain.annotations import AnnotatedRegion, Annotation, PercentBox

IMPORTED = 0  # for an id of a project that no Label Studio knows; theirs begin at 1


@dataclass(frozen=True, slots=True)
class ProjectState:
    """A project as it stood at ``updated_at`` (UTC).

    Attributes:
        uid: Label Studio's ``ID.CREATED``, unique over its installations.
        id: Label Studio's; `IMPORTED` of a data set that was imported.
        title: for people.
        updated_at: Label Studio's time of the other fields; None where they are not known.
        label_config: the labelling config's XML; None where it was not told.
        labels: the names in it, in its order; empty where it holds none or cannot be read.
    """

    uid: str
    id: int
    title: str = ""
    updated_at: datetime | None = None
    label_config: str | None = None
    labels: tuple[str, ...] = ()

    @property
    def is_imported(self) -> bool:
        """Whether it is an imported data set: it is there for export, and Label Studio can tell nothing about it."""
        return self.id == IMPORTED


@dataclass(frozen=True, slots=True)
class TaskState:
    """A task as it stood at ``updated_at`` (UTC).

    Attributes:
        id: Label Studio's.
        updated_at: Label Studio's time; None where only the deletion is known.
        images: (key of the task's data, reference to a picture), in the keys' order. References hold no credentials.
        deleted: gone for good, with its annotations.
    """

    id: int
    updated_at: datetime | None = None
    images: tuple[tuple[str, str], ...] = ()
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Fact:
    """Everything that one event, or one look at Label Studio, told about a project; None: it told of no project."""

    project: ProjectState | None = None
    tasks: tuple[TaskState, ...] = ()
    annotations: tuple[Annotation, ...] = ()
    deleted_annotations: tuple[int, ...] = ()

    def parts(self, most: int) -> "Iterator[Fact]":
        """The same in parts, each of which tells of at most so many tasks, annotations and deletions."""
        longest = max(len(self.tasks), len(self.annotations), len(self.deleted_annotations))
        for start in range(0, max(1, longest), most):
            part = slice(start, start + most)
            yield Fact(self.project, self.tasks[part], self.annotations[part], self.deleted_annotations[part])


@dataclass(frozen=True, slots=True)
class TaskLook:
    """A task as Label Studio shows it now, with all its annotations; ``problems`` are lines about unreadable ones."""

    task: TaskState
    annotations: tuple[Annotation, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class InboxCounts:
    """How many facts there are in the inbox."""

    waiting: int
    failed: int
    applied: int


@dataclass(frozen=True, slots=True)
class InboxFailure:
    """A fact that could not be applied, and why; ``action`` is the event that told it."""

    entry: int
    action: str
    project_id: int | None
    error: str


def fact_to_json(fact: Fact) -> str:
    """Write a fact as one line of JSON; ``fact_from_json`` reads it back as it was."""
    return json.dumps(asdict(fact), default=datetime.isoformat, separators=(",", ":"))


def fact_from_json(text: str) -> Fact:
    """Read what ``fact_to_json`` wrote.

    Raises:
        ValueError: it is something else.
    """
    try:
        fields = json.loads(text)
        project = fields["project"]
        return Fact(
            project=None if project is None else _project(project),
            tasks=tuple(map(_task, fields["tasks"])),
            annotations=tuple(map(_annotation, fields["annotations"])),
            deleted_annotations=tuple(fields["deleted_annotations"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"this is no fact of ours ({type(error).__name__}: {error})") from error


def _project(fields: Mapping[str, Any]) -> ProjectState:
    known = {**fields, "updated_at": _moment(fields["updated_at"]), "labels": tuple(fields["labels"])}
    return ProjectState(**known)


def _task(fields: Mapping[str, Any]) -> TaskState:
    images = tuple((key, reference) for key, reference in fields["images"])
    return TaskState(**{**fields, "updated_at": _moment(fields["updated_at"]), "images": images})


def _annotation(fields: Mapping[str, Any]) -> Annotation:
    times = {name: datetime.fromisoformat(fields[name]) for name in ("created_at", "updated_at")}
    return Annotation(**{**fields, **times, "regions": tuple(map(_region, fields["regions"]))})


def _region(fields: Mapping[str, Any]) -> AnnotatedRegion:
    return AnnotatedRegion(**{**fields, "labels": tuple(fields["labels"]), "value": PercentBox(**fields["value"])})


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
