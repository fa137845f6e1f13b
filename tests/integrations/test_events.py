"""Events as Label Studio sent them, parsed into facts, on recorded requests and on broken ones."""

import json
import math
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.domain.annotations import AnnotatedRegion, PercentBox
from backend.domain.facts import Fact, TaskState, fact_from_json, fact_to_json
from backend.domain.geometry import visible_bounds
from backend.errors import UsageError
from integrations.label_studio.events import label_names, parse_event
from tests.make import recorded, recordings

UID = "1.1795423412"


def fact(name: str) -> Fact:
    event = parse_event(recorded(name)["json"])
    assert event.known
    return event.fact


def broken(name: str, *path: str | int, value: object = None) -> dict[str, Any]:
    """A recorded event with one field of it replaced."""
    body: dict[str, Any] = deepcopy(recorded(name)["json"])
    place: Any = body
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return body


@pytest.mark.parametrize("name", recordings("/webhook"))
def test_every_recorded_event_becomes_a_fact_that_survives_storing(name: str) -> None:
    body = recorded(name)["json"]
    event = parse_event(body)
    assert event.known is (body["action"] != "START_TRAINING")
    assert fact_from_json(fact_to_json(event.fact)) == event.fact


def test_a_created_annotation_keeps_its_regions_with_what_they_came_from() -> None:
    found = fact("webhook_annotation_created_from_prediction")
    (annotation,) = found.annotations
    assert found.project is not None
    assert (found.project.uid, annotation.project_id) == (UID, 1)
    assert (annotation.id, annotation.task_id, annotation.annotator, annotation.parent_prediction) == (1, 7, 1, 1)
    assert annotation.updated_at == datetime(2026, 11, 23, 8, 46, 43, 63427, UTC)
    assert (annotation.lead_time, annotation.cancelled, annotation.ground_truth) == (12.5, False, False)
    assert [(region.id, region.labels, region.origin, region.score) for region in annotation.regions] == [
        ("glip7a", ("cat",), "prediction", 0.9),
        ("glip7b", ("traffic light",), "prediction-changed", 0.8),
        ("manual0001", ("person",), "manual", None),
    ]
    assert annotation.regions[1].value == PercentBox(50, 40, 30.5, 25, 0)
    assert (annotation.regions[2].image_width, annotation.regions[2].image_height) == (300, 600)
    (task,) = found.tasks
    assert task.id == 7
    assert [key for key, _ in task.images] == ["image"]
    assert task.images[0][1].endswith("/data/local-files/?d=imgs/c.jpg")


@pytest.mark.parametrize(
    ("name", "cancelled", "ground_truth", "regions"),
    [
        ("webhook_annotation_created_empty", False, False, 0),
        ("webhook_annotation_skipped", True, False, 0),
        ("webhook_annotation_unskipped", False, False, 0),
        ("webhook_annotation_ground_truth", False, True, 2),
        ("editor_skip", True, False, 2),
        ("editor_submit_empty_all_deleted", False, False, 0),
    ],
)
def test_skipping_and_stars_are_kept_as_they_are(name: str, cancelled: bool, ground_truth: bool, regions: int) -> None:
    (annotation,) = fact(name).annotations
    assert (annotation.cancelled, annotation.ground_truth, len(annotation.regions)) == (
        cancelled,
        ground_truth,
        regions,
    )


def test_a_bulk_accept_holds_several_annotations_without_origin() -> None:
    found = fact("webhook_annotations_created_bulk")
    assert [(each.id, each.task_id, each.parent_prediction, each.lead_time) for each in found.annotations] == [
        (6, 5, 6, None),
        (7, 6, 7, None),
    ]
    assert {region.origin for each in found.annotations for region in each.regions} == {None}
    assert [task.id for task in found.tasks] == [5, 6]


def test_deletions_are_ids() -> None:
    assert fact("webhook_annotations_deleted").deleted_annotations == (4,)
    assert fact("webhook_annotations_deleted_bulk").deleted_annotations == (5,)
    assert fact("webhook_tasks_deleted").tasks == (TaskState(8, deleted=True),)


def test_a_changed_project_tells_its_title_and_labels_in_their_order() -> None:
    project = fact("webhook_project_updated").project
    assert project is not None
    assert (project.uid, project.title, project.labels) == (UID, "GLIP boxes", ("cat", "traffic light", "pedestrian"))
    assert project.label_config is not None
    assert "pedestrian" in project.label_config


def test_labels_of_a_config_that_cannot_be_served_are_none() -> None:
    assert label_names("<View/>") == ()


def test_provenance_and_the_editors_own_size_come_through() -> None:
    (annotation,) = fact("editor_geometry_noorig").annotations
    assert {(region.image_width, region.image_height) for region in annotation.regions} == {(400, 800)}
    body = broken("editor_submit_unchanged", "annotation", "result", 0, "meta", value={"glip": {"prediction": "p1"}})
    first, second = parse_event(body).fact.annotations[0].regions
    assert (first.prediction, second.prediction) == ("p1", None)


@pytest.mark.parametrize(
    ("value", "bounds"),
    [
        ({"points": [[10, 20], [50, 30.5], [20, 60]], "polygonlabels": ["cat"]}, PercentBox(10, 20, 40, 40)),
        ({"x": 30, "y": 40, "radiusX": 10, "radiusY": 5, "ellipselabels": ["cat"]}, PercentBox(20, 35, 20, 10)),
        ({"x": 30, "y": 40, "radiusX": 10, "radiusY": 5, "rotation": 20}, PercentBox(0, 0, 100, 100)),
        ({"x": 1, "y": 2, "width": 3, "height": 4, "rotation": 5, "labels": ["cat"]}, PercentBox(1, 2, 3, 4, 5)),
        ({"format": "rle", "rle": [1, 2, 3], "brushlabels": ["cat"]}, PercentBox(0, 0, 100, 100)),
        ({"points": "damaged"}, PercentBox(0, 0, 100, 100)),
        ({"x": 30, "y": 40, "width": 1, "keypointlabels": ["cat"]}, None),
        ({"choices": ["clear"]}, None),
        ({"text": ["a cat"]}, None),
    ],
)
def test_of_what_other_tools_drew_the_bounds_are_kept_without_a_label(
    value: dict[str, Any], bounds: PercentBox | None
) -> None:
    body: dict[str, Any] = deepcopy(recorded("editor_submit_unchanged")["json"])
    other = {"id": "other", "type": "what-it-was", "to_name": "image", "value": value, "original_width": 800}
    body["annotation"]["result"].insert(0, other)
    first, second, *drawn = parse_event(body).fact.annotations[0].regions
    assert first.tool is second.tool is None
    expected = AnnotatedRegion("other", "image", (), bounds, 800, None, tool="what-it-was") if bounds else None
    assert drawn == ([] if expected is None else [expected])


def test_what_is_said_about_a_box_is_no_other_shape_of_it() -> None:
    body: dict[str, Any] = deepcopy(recorded("editor_submit_unchanged")["json"])
    box = body["annotation"]["result"][0]
    said = {**box, "type": "choices", "from_name": "blurred", "value": {**box["value"], "choices": ["yes"]}}
    body["annotation"]["result"].append(said)
    assert [region.tool for region in parse_event(body).fact.annotations[0].regions] == [None, None]


def test_boxes_without_label_or_id_are_kept() -> None:
    name = "editor_submit_unchanged"
    assert fact("editor_geometry_nolabel").annotations[0].regions[0].labels == ()
    body = broken(name, "annotation", "result", 0, "id")
    assert parse_event(body).fact.annotations[0].regions[0].id == "region 1 of annotation 11"


@pytest.mark.parametrize("name", recordings("/webhook"))
def test_no_secret_of_an_event_is_kept(name: str) -> None:
    body: dict[str, Any] = deepcopy(recorded(name)["json"])
    signed = "https://me:s3cret@bucket.example.org/a.png?X-Amz-Signature=s3cret&X-Amz-Expires=60"
    body["project"] |= {"token": "s3cret", "task_data_login": "s3cret", "task_data_password": "s3cret"}
    rows = [body.get("task"), body.get("tasks"), body.get("annotation"), body.get("annotations")]
    for row in [each for some in rows for each in (some if isinstance(some, list) else [some]) if each]:
        row |= {"token": "s3cret", "unique_id": "s3cret"}
        if "data" in row:
            row["data"] = {"image": signed, "text": "s3cret"}
    assert "s3cret" not in fact_to_json(parse_event(body).fact)


def test_an_unknown_event_is_no_error() -> None:
    event = parse_event({"action": "REVIEW_CREATED", "review": {"text": "s3cret"}})
    assert (event.known, event.fact) == (False, Fact())


NAME = "webhook_annotation_created_from_prediction"


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ([], "the body must be a JSON object"),
        ({"action": "<b>"}, "'action' must name the event"),
        ({"action": "PROJECT_UPDATED"}, "'project' must be a JSON object"),
        ({"action": "ANNOTATION_CREATED"}, "'project' must be a JSON object"),
        (broken(NAME, "project", "created_at", value="today"), "'project.created_at' must be a time"),
        (broken(NAME, "annotation"), "'annotation' must be a JSON object"),
        (broken(NAME, "annotation", "id", value="1"), "'annotation.id' must be a number"),
        (broken(NAME, "annotation", "task", value=2**63), "'task' of annotation 1 must be a number"),
        (broken(NAME, "annotation", "updated_at", value="2026-11-23"), "'updated_at' of annotation 1 must be a time"),
        (broken(NAME, "annotation", "result", value={"a": 1}), "the result of annotation 1 must be a list"),
        (broken(NAME, "annotation", "result", 1, "value"), "the value of region 2 of annotation 1"),
        (broken(NAME, "annotation", "result", 0, "value", "x", value="nan"), "'x' of region 1 of annotation 1"),
        (broken(NAME, "annotation", "result", 0, "value", "width", value=1e300), "'width' of region 1 of annotation 1"),
        (broken(NAME, "annotation", "result", 0, "value", "y", value=-(10**400)), "'y' of region 1 of annotation 1"),
        (broken(NAME, "annotation", "result", 0, "value", "rotation", value="1e5"), "'rotation' of region 1 of"),
        (broken(NAME, "task", "id", value=True), "the id of 'task' must be a number"),
        (broken("webhook_annotations_created_bulk", "task", value={}), "'annotation' and 'task' must be lists"),
        (broken("webhook_annotations_deleted", "annotations", value=[4]), "an item of 'annotations'"),
        (broken("webhook_tasks_deleted", "tasks", 0, "id"), "the id of a task must be a number"),
        (broken("webhook_tasks_created", "tasks"), "'tasks' must be a list"),
    ],
)
def test_a_malformed_event_is_refused_by_the_field_s_name(body: object, complaint: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_event(body)
    assert complaint in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("region_id", [None, "", 5, [["r1"]]])
def test_a_region_whose_id_is_no_text_is_named_by_its_place(region_id: object) -> None:
    body = broken(NAME, "annotation", "result", 1, "id", value=region_id)
    assert parse_event(body).fact.annotations[0].regions[1].id == "region 2 of annotation 1"


def test_numbers_sent_as_text_are_read() -> None:
    body = broken(NAME, "annotation", "result", 0, "value", "x", value="10.5")
    assert parse_event(body).fact.annotations[0].regions[0].value.x == 10.5


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_largest_coordinates_that_are_taken_in_can_be_compared_in_the_largest_image(sign: int) -> None:
    body = broken(NAME, "annotation", "result", 0, "original_width", value=1_000_000)
    furthest = sign * math.nextafter(1e5, 0)
    body["annotation"]["result"][0]["value"] |= dict.fromkeys(("x", "y", "width", "height", "rotation"), furthest)
    region = parse_event(body).fact.annotations[0].regions[0]
    assert region.image_width == 1_000_000
    assert visible_bounds(region.value, region.image_width, region.image_width).x1 >= 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.sampled_from(recordings("/webhook")), st.data())
def test_whatever_stands_in_a_field_the_event_is_read_or_refused(name: str, data: st.DataObject) -> None:
    body: Any = deepcopy(recorded(name)["json"])
    place = body
    while True:
        keys: list[Any] = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], (dict, list)) or not place[key] or data.draw(st.booleans()):
            place[key] = data.draw(JSON)
            break
        place = place[key]
    try:
        found = parse_event(body).fact
    except UsageError:
        return
    assert fact_from_json(fact_to_json(found)) == found


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"project": 1}', json.dumps({"project": None, "tasks": 1})])
def test_a_stored_text_that_is_no_fact_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        fact_from_json(text)
