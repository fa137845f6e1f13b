"""Label Studio's events, parsed once into facts; what is not needed, and every secret, is left out.

Traps, as recorded: Skip comes as a created annotation; a deletion carries ids only, and that of a task takes its
annotations along without an event of their own; a bulk accept has parallel lists; an import with annotations sends
only the tasks.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from backend.domain.facts import Fact, ProjectState, TaskState
from backend.errors import LabelConfigError, UsageError
from integrations.label_studio.annotations import parse_annotation
from integrations.label_studio.fields import identifier, mapping, mappings, moment
from integrations.label_studio.labels import parse_labeling_config
from integrations.label_studio.references import image_references

SECRET_HEADER = "X-Glip-Label-Secret"  # noqa: S105 - its name, not the secret

_Fields = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Event:
    """An event's name and what it tells; ``known`` is False for one that this service has no use for."""

    action: str
    fact: Fact
    known: bool = True


def parse_event(body: object) -> Event:
    """Read the body of ``POST /webhook``.

    Raises:
        UsageError: a field is missing or of the wrong kind; the message names it, never its content.
    """
    fields = mapping(body, "the body")
    action = fields.get("action")
    if not isinstance(action, str) or not re.fullmatch("[A-Z_]{1,50}", action):
        raise UsageError("'action' must name the event")
    read = _READERS.get(action)
    if read is None:
        return Event(action, Fact(), known=False)
    return Event(action, read(fields, parse_project(fields.get("project"))))


def parse_project(value: object) -> ProjectState:
    """Read a project as events and the API show it, without its token and its passwords.

    The API does not tell when it was updated.

    Raises:
        UsageError: it has no id, or a time that is none.
    """
    fields = mapping(value, "'project'")
    number = identifier(fields.get("id"), "'project.id'")
    created = moment(fields.get("created_at"), "'project.created_at'")
    title, config, updated = (fields.get(name) for name in ("title", "label_config", "updated_at"))
    return ProjectState(
        uid=f"{number}.{int(created.timestamp())}",  # as /setup and /predict name it
        id=number,
        title=title if isinstance(title, str) else "",
        updated_at=None if updated is None else moment(updated, "'project.updated_at'"),
        label_config=config if isinstance(config, str) else None,
        labels=label_names(config) if isinstance(config, str) else (),
    )


def label_names(config: str) -> tuple[str, ...]:
    """Names of all labels in a labelling config, in its order; none where it cannot be served."""
    try:
        targets = parse_labeling_config(config).targets
    except LabelConfigError:
        return ()  # /predict says what is wrong with it
    return tuple(dict.fromkeys(label.name for target in targets for label in target.labels))


def parse_task(value: object, name: str) -> TaskState:
    """Read a task as events and the API show it; of its data only references to pictures are kept.

    Raises:
        UsageError: it has no id or no time.
    """
    fields = mapping(value, name)
    data = fields.get("data")
    return TaskState(
        id=identifier(fields.get("id"), f"the id of {name}"),
        updated_at=moment(fields.get("updated_at"), f"'updated_at' of {name}"),
        images=image_references(data) if isinstance(data, dict) else (),
    )


def _one_annotation(fields: _Fields, project: ProjectState) -> Fact:
    return _annotations([fields.get("annotation")], [fields.get("task")], project)


def _many_annotations(fields: _Fields, project: ProjectState) -> Fact:
    annotations, tasks = fields.get("annotation"), fields.get("task")
    if not isinstance(annotations, list) or not isinstance(tasks, list):
        raise UsageError("'annotation' and 'task' must be lists")
    return _annotations(annotations, tasks, project)


def _annotations(annotations: list[object], tasks: list[object], project: ProjectState) -> Fact:
    return Fact(
        _named(project),
        tasks=tuple(parse_task(task, "'task'") for task in tasks),
        annotations=tuple(parse_annotation(annotation, project.id) for annotation in annotations),
    )


def _deleted_annotations(fields: _Fields, project: ProjectState) -> Fact:
    rows = mappings(fields.get("annotations"), "'annotations'")
    ids = (identifier(row.get("id"), "the id of an annotation") for row in rows)
    return Fact(_named(project), deleted_annotations=tuple(ids))


def _created_tasks(fields: _Fields, project: ProjectState) -> Fact:
    rows = mappings(fields.get("tasks"), "'tasks'")
    return Fact(project, tasks=tuple(parse_task(row, "a task") for row in rows))


def _deleted_tasks(fields: _Fields, project: ProjectState) -> Fact:
    rows = mappings(fields.get("tasks"), "'tasks'")
    ids = (identifier(row.get("id"), "the id of a task") for row in rows)
    return Fact(_named(project), tasks=tuple(TaskState(number, deleted=True) for number in ids))


def _named(project: ProjectState) -> ProjectState:
    """Which project it is, no more: events about annotations are many, its labelling config is long."""
    return ProjectState(project.uid, project.id)


def _updated_project(fields: _Fields, project: ProjectState) -> Fact:
    return Fact(project)


_READERS: Mapping[str, Callable[[_Fields, ProjectState], Fact]] = {
    "ANNOTATION_CREATED": _one_annotation,
    "ANNOTATION_UPDATED": _one_annotation,
    "ANNOTATIONS_CREATED": _many_annotations,
    "ANNOTATIONS_DELETED": _deleted_annotations,
    "TASKS_CREATED": _created_tasks,
    "TASKS_DELETED": _deleted_tasks,
    "PROJECT_UPDATED": _updated_project,
}
