"""Pre-annotations in a real Label Studio, asked for in each of the ways that people have."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import requests
from label_studio_sdk import LabelStudio
from PIL import Image

from backend.demo_pictures import SCENE_LABELS
from integrations.label_studio.sample_project import retrieve_predictions, unpredicted_tasks
from tests.end_to_end.conftest import Project, RunningService

pytestmark = pytest.mark.end_to_end


def check_prediction(prediction: dict[str, Any], project: Project) -> None:
    """A prediction of ours: version, score, and regions inside the picture with labels of the config."""
    assert prediction["model_version"] == project.model_version
    assert 0.0 <= prediction["score"] <= 1.0
    for region in prediction["result"]:
        value = region["value"]
        assert (region["from_name"], region["to_name"], region["type"]) == ("label", "image", "rectanglelabels")
        assert len(value["rectanglelabels"]) == 1
        assert value["rectanglelabels"][0] in SCENE_LABELS
        assert 0.0 <= value["x"] <= value["x"] + value["width"] <= 100.0 + 1e-6
        assert 0.0 <= value["y"] <= value["y"] + value["height"] <= 100.0 + 1e-6
        assert region["meta"]["glip"]["version"] == project.model_version


def test_retrieve_predictions_on_200_tasks_stores_200_predictions(
    make_project: Callable[..., Project], call: Callable[..., Any], api: LabelStudio
) -> None:
    project = make_project(200)

    # On a slow machine the service stops in time and answers what it has: people press again for the rest.
    for _ in range(3):
        call(
            "POST",
            f"/api/dm/actions?id=retrieve_tasks_predictions&project={project.id}",
            json={"selectedItems": {"all": True, "excluded": []}},
        )
        if not unpredicted_tasks(api, project.id):
            break

    stored = call("GET", f"/api/predictions?project={project.id}")
    assert sorted(prediction["task"] for prediction in stored) == list(project.tasks)
    for prediction in stored:
        check_prediction(prediction, project)
    regions = [region["id"] for prediction in stored for region in prediction["result"]]
    assert regions
    assert len(set(regions)) == len(regions)


def test_opening_a_task_predicts_it(make_project: Callable[..., Project], call: Callable[..., Any]) -> None:
    project = make_project(2)
    opened, other = project.tasks

    (prediction,) = call("GET", f"/api/tasks/{opened}?project={project.id}")["predictions"]

    check_prediction(prediction, project)
    assert call("GET", f"/api/predictions?task={other}") == []


def test_the_label_stream_brings_tasks_with_predictions(
    make_project: Callable[..., Project], call: Callable[..., Any]
) -> None:
    project = make_project(2)

    (prediction,) = call("GET", f"/api/projects/{project.id}/next")["predictions"]

    check_prediction(prediction, project)


def test_uncertainty_sampling_orders_the_stream_by_our_scores(
    make_project: Callable[..., Project], call: Callable[..., Any], api: LabelStudio
) -> None:
    project = make_project(5)
    assert sum(retrieve_predictions(api, project.id)) == 5
    call("PATCH", f"/api/projects/{project.id}", json={"sampling": "Uncertainty sampling"})
    scores = {row["task"]: row["score"] for row in call("GET", f"/api/predictions?project={project.id}")}

    first = call("GET", f"/api/projects/{project.id}/next")["id"]

    assert scores[first] == min(scores.values())


def test_a_damaged_image_fails_alone_and_visibly(
    make_project: Callable[..., Project], api: LabelStudio, call: Callable[..., Any], service: RunningService
) -> None:
    project = make_project(3, damaged=1)
    damaged = project.tasks[1]

    assert sum(retrieve_predictions(api, project.id)) == 3

    stored = call("GET", f"/api/predictions?project={project.id}")
    assert {prediction["task"] for prediction in stored} == set(project.tasks) - {damaged}
    failures = requests.get(f"{service.url}/health", timeout=5).json()["failed_tasks"]
    assert [failure["task"] for failure in failures if failure["project"] == project.id] == [damaged]


def test_an_uploaded_image_is_predicted_like_a_local_one(
    make_project: Callable[..., Project], call: Callable[..., Any]
) -> None:
    project = make_project(1)
    picture = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    Image.fromarray(noise).save(picture, "PNG")
    call("POST", f"/api/projects/{project.id}/import", files={"file": ("a b.png", picture.getvalue(), "image/png")})
    (task,) = {row["id"] for row in call("GET", f"/api/projects/{project.id}/tasks")} - set(project.tasks)

    (prediction,) = call("GET", f"/api/tasks/{task}?project={project.id}")["predictions"]

    check_prediction(prediction, project)


def test_a_prompt_typed_into_the_open_task_is_answered_and_not_stored(
    make_project: Callable[..., Project], call: Callable[..., Any]
) -> None:
    project = make_project(1)
    (task,) = project.tasks
    typed = {
        "id": "prompt0001",
        "from_name": "prompt",
        "to_name": "image",
        "type": "textarea",
        "origin": "manual",
        "value": {"text": ["red circle"]},
    }

    answer = call(
        "POST",
        f"/api/ml/{project.backend_id}/interactive-annotating",
        json={"task": task, "context": {"result": [typed]}},
    )

    assert "errors" not in answer
    labels = {region["value"]["rectanglelabels"][0] for region in answer["data"]["result"]}
    assert labels <= {"red circle"}
    assert call("GET", f"/api/predictions?task={task}") == []
