"""Webhook bodies: facts written as Label Studio's recorded events are, and bodies that no one can use."""

import json
from collections.abc import Callable
from datetime import datetime
from random import Random
from typing import Any

from backend.domain.annotations import AnnotatedRegion, Annotation
from backend.domain.facts import Fact, ProjectState, TaskState
from tests.make import recorded
from tests.torture.world import CREATED, Happening

_SAMPLE = recorded("webhook_annotation_updated")["json"]


def body_of(happening: Happening) -> dict[str, Any]:
    """Write an event as Label Studio would send it."""
    fact = happening.fact
    assert fact.project is not None
    return {"action": happening.action, "project": _project(fact.project), **_payload(happening.action, fact)}


def _payload(action: str, fact: Fact) -> dict[str, Any]:
    annotations, tasks = [_annotation(each) for each in fact.annotations], [_task(each) for each in fact.tasks]
    match action:
        case "ANNOTATION_CREATED" | "ANNOTATION_UPDATED":
            return {"annotation": annotations[0], "task": tasks[0]}
        case "ANNOTATIONS_CREATED":
            return {"annotation": annotations, "task": tasks}
        case "ANNOTATIONS_DELETED":
            return {"annotations": [{"id": each} for each in fact.deleted_annotations]}
        case "TASKS_CREATED" | "TASKS_DELETED":
            return {"tasks": tasks}
    return {}


def _project(project: ProjectState) -> dict[str, Any]:
    told: dict[str, Any] = {"id": project.id, "created_at": _time(CREATED), "token": "s3cret"}
    if project.updated_at is not None:
        told |= {"title": project.title, "label_config": project.label_config, "updated_at": _time(project.updated_at)}
    return {**_SAMPLE["project"], **told}


def _task(task: TaskState) -> dict[str, Any]:
    if task.updated_at is None:
        return {"id": task.id}  # of a deleted one no more is told
    return {**_SAMPLE["task"], "id": task.id, "data": dict(task.images), "updated_at": _time(task.updated_at)}


def _annotation(annotation: Annotation) -> dict[str, Any]:
    return {
        **_SAMPLE["annotation"],
        "id": annotation.id,
        "task": annotation.task_id,
        "project": annotation.project_id,
        "created_at": _time(annotation.created_at),
        "updated_at": _time(annotation.updated_at),
        "completed_by": annotation.annotator,
        "was_cancelled": annotation.cancelled,
        "ground_truth": annotation.ground_truth,
        "lead_time": annotation.lead_time,
        "parent_prediction": annotation.parent_prediction,
        "result": [_region(each) for each in annotation.regions],
    }


def _region(region: AnnotatedRegion) -> dict[str, Any]:
    value = region.value
    box = {"x": value.x, "y": value.y, "width": value.width, "height": value.height, "rotation": value.rotation}
    told: dict[str, Any] = {
        "id": region.id,
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": region.image,
        "original_width": region.image_width,
        "original_height": region.image_height,
        "image_rotation": 0,
        "value": {**box, "rectanglelabels": list(region.labels)},
    }
    if region.origin is not None:
        told["origin"] = region.origin
    if region.prediction is not None:
        told |= {"score": region.score, "meta": {"glip": {"prediction": region.prediction}}}
    return told


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def malformed(body: dict[str, Any], random: Random) -> bytes:
    """Spoil the body of an event about one annotation in a way that has to be refused."""
    whole = json.dumps(body).encode()
    annotation = body["annotation"]
    spoiled: list[Callable[[], bytes]] = [
        lambda: b"",
        lambda: whole[: random.randrange(len(whole))],
        lambda: b"\xff\xfe" + whole,
        lambda: b"[" * 100_000,
        lambda: b"[1]",
        lambda: _written(body, action="annotation-created"),
        lambda: _written(body, action=None),
        lambda: _written(body, project=None),
        lambda: _written(body, project={**body["project"], "id": "7"}),
        lambda: _written(body, project={**body["project"], "title": "\ud800"}),
        lambda: _written(body, annotation=[annotation]),
        lambda: _written(body, task=None),
        lambda: _written(body, annotation={**annotation, "id": 2**63}),
        lambda: _written(body, annotation={**annotation, "task": -1}),
        lambda: _written(body, annotation={**annotation, "updated_at": "yesterday"}),
        lambda: _written(body, annotation={**annotation, "updated_at": "2026-11-23T08:46:43"}),
        lambda: _written(body, annotation={**annotation, "result": {"type": "rectanglelabels"}}),
        lambda: _written(body, annotation={**annotation, "result": [{"type": "rectanglelabels", "value": 3}]}),
    ]
    return random.choice(spoiled)()


def _written(body: dict[str, Any], **changes: object) -> bytes:
    return json.dumps({**body, **changes}).encode()
