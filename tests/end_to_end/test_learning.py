"""Training and promotion beside a real Label Studio: names, ordering and live predictions follow."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
import requests
from label_studio_sdk import LabelStudio

from integrations.label_studio.sample_project import retrieve_predictions
from tests.end_to_end.conftest import Project, RunningService

pytestmark = pytest.mark.end_to_end

SECONDS = 600
COUNT = 12
OPEN = 5  # tasks that nobody has reviewed


def run(service: RunningService, *words: str) -> Any:
    """Output of a command beside the service, as JSON."""
    command = [sys.executable, "-m", "backend.cli", *words, "--json"]
    done = subprocess.run(command, env=service.environment, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def accept(call: Callable[..., Any], project: Project, tasks: tuple[int, ...]) -> None:
    """Accept all proposals on some tasks, as a person does in the Data Manager."""
    items = {"selectedItems": {"all": False, "included": list(tasks)}}
    call("POST", f"/api/dm/actions?id=predictions_to_annotations&project={project.id}", json=items)


def submit_empty(call: Callable[..., Any], task: int) -> None:
    """Answer that there is nothing."""
    call("POST", f"/api/tasks/{task}/annotations", json={"result": []})


def names(api: LabelStudio, project: Project) -> set[str | None]:
    """What Label Studio calls the current version in its several places."""
    row = api.ml.get(project.backend_id)
    return {row.title, row.model_version, api.projects.get(project.id).model_version}


def test_a_promoted_version_names_orders_and_predicts_until_it_is_rolled_back(
    make_project: Callable[..., Project], call: Callable[..., Any], api: LabelStudio, service: RunningService
) -> None:
    project = make_project(COUNT)
    assert sum(retrieve_predictions(api, project.id)) == COUNT
    accept(call, project, project.tasks[:-OPEN])
    words = ("--project", str(project.id), "--mode", "prompt", "--minutes", "0.1", "--no-promote")
    version = run(service, "train", *words)["version"]
    assert names(api, project) == {project.model_version}

    run(service, "models", "promote", "--project", str(project.id), version)
    assert names(api, project) == {version}
    call("PATCH", f"/api/projects/{project.id}", json={"sampling": "Uncertainty sampling"})
    live = call("GET", f"/api/projects/{project.id}/next")
    assert version in {prediction["model_version"] for prediction in live["predictions"]}
    assert sum(retrieve_predictions(api, project.id)) == COUNT
    stored = call("GET", f"/api/predictions?project={project.id}")
    scores = {row["task"]: row["score"] for row in stored if row["model_version"] == version}
    assert sorted(scores) == list(project.tasks)
    assert sum(row["model_version"] == project.model_version for row in stored) == COUNT
    submit_empty(call, live["id"])  # whoever opened a task gets it again until it is submitted
    waiting, order = [task for task in project.tasks[-OPEN:] if task != live["id"]], []
    for _ in waiting:
        order.append(call("GET", f"/api/projects/{project.id}/next")["id"])
        submit_empty(call, order[-1])
    assert order == sorted(waiting, key=lambda task: scores[task])

    run(service, "models", "rollback", "--project", str(project.id))
    assert names(api, project) == {project.model_version}


def test_the_start_training_button_trains_in_the_background_while_predictions_are_answered(
    make_project: Callable[..., Project], call: Callable[..., Any], api: LabelStudio, service: RunningService
) -> None:
    project = make_project(COUNT)
    assert sum(retrieve_predictions(api, project.id)) == COUNT
    accept(call, project, project.tasks)
    call("POST", f"/api/ml/{project.backend_id}/train", json={})

    def job() -> Any:
        answer = requests.get(f"{service.url}/training?project={project.id}", timeout=30).json()
        return answer["jobs"][0]

    assert job()["request"]["reason"] == "label-studio"
    slowest, seen = 0.0, set()
    deadline = time.monotonic() + SECONDS
    while job()["state"] in ("queued", "running") and time.monotonic() < deadline:
        begun = time.monotonic()
        assert requests.get(f"{service.url}/health", timeout=30).ok
        slowest = max(slowest, time.monotonic() - begun)
        seen.add((job()["progress"] or {}).get("stage"))
        time.sleep(0.5)
    assert job()["state"] == "done", job()
    assert "train" in seen
    assert slowest < 5
    assert job()["version"].startswith("glip-nano-")
