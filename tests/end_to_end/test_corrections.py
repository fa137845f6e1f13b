"""What people do in a real Label Studio is what the database says, also where the service was killed meanwhile."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import requests
from label_studio_sdk import LabelStudio

from backend.bootstrap import open_database
from backend.demo_pictures import SCENE_LABELS, write_scenes
from backend.domain.records import Label
from backend.settings import Settings, child_environment
from integrations.label_studio.connect import Backend, connect
from integrations.label_studio.sample_project import SampleProject, open_project, retrieve_predictions
from integrations.label_studio.server import RunningLabelStudio
from integrations.processes import free_port

pytestmark = pytest.mark.end_to_end

SECRET = "not-to-be-guessed"
KINDS = ("accepted", "moved", "relabelled", "deleted", "added")
_SECONDS = 60.0

State = dict[int, tuple[object, ...]]


class KillableService:
    """``glip-label serve`` that can be killed at any moment and started again on the same database and port."""

    def __init__(self, home: Path, label_studio: RunningLabelStudio) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.environment = child_environment(
            HOME=str(home),
            DATABASE_URL="",
            HOST="127.0.0.1",
            PORT=str(port),
            LABEL_STUDIO_URL=label_studio.url,
            LABEL_STUDIO_TOKEN=label_studio.account.token,
            BASIC_AUTH_USER="",
            BASIC_AUTH_PASSWORD="",
            WEBHOOK_SECRET=SECRET,
            SYNC_MINUTES="0",
        )
        self.log = home / "service.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as sink:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "backend.cli", "serve"], env=self.environment, stdout=sink, stderr=sink
            )
        deadline = time.monotonic() + _SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                if requests.get(f"{self.url}/health", timeout=2).ok:
                    return
            except requests.RequestException:
                time.sleep(0.2)
        self.kill()
        raise TimeoutError(self.log.read_text(encoding="utf-8"))

    def kill(self) -> None:
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def run(self, *arguments: str) -> Any:
        """Output of a command on the same database, as JSON."""
        command = [sys.executable, "-m", "backend.cli", *arguments, "--json"]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def killable(tmp_path: Path, label_studio: RunningLabelStudio) -> Iterator[KillableService]:
    running = KillableService(tmp_path, label_studio)
    running.start()
    yield running
    running.kill()


def _submit(call: Callable[..., Any], task: int, result: Sequence[object], **more: object) -> int:
    body = {"result": list(result), "lead_time": 5.0, **more}
    return int(call("POST", f"/api/tasks/{task}/annotations/", json=body)["id"])


def _moved(region: dict[str, Any], by: float) -> dict[str, Any]:
    value = {**region["value"], "width": region["value"]["width"] * (1 - by)}
    return {**region, "origin": "prediction-changed", "value": value}


def _relabelled(region: dict[str, Any]) -> dict[str, Any]:
    (label,) = region["value"]["rectanglelabels"]
    other = next(name for name in SCENE_LABELS if name != label)
    return {**region, "origin": "prediction-changed", "value": {**region["value"], "rectanglelabels": [other]}}


def _drawn(region: dict[str, Any]) -> dict[str, Any]:
    value = {"x": 1.0, "y": 1.0, "width": 3.0, "height": 3.0, "rotation": 0, "rectanglelabels": [SCENE_LABELS[0]]}
    kept = {key: region[key] for key in ("from_name", "to_name", "type", "original_width", "original_height")}
    return {**kept, "id": "byhand0001", "origin": "manual", "value": value}


def _server_state(call: Callable[..., Any], project: int, tasks: Sequence[int], *skipped: int) -> State:
    """Every annotation that Label Studio has: its task, whether it was skipped, ids and labels of its regions.

    Skipped ones are asked for by their ids: lists of annotations leave them out.
    """
    listed = call("GET", f"/api/tasks?project={project}&fields=all&page_size=200")["tasks"]
    assert {row["id"] for row in listed} == set(tasks)
    rows = [row for task in tasks for row in call("GET", f"/api/tasks/{task}/annotations/")]
    rows += [call("GET", f"/api/annotations/{number}/") for number in skipped]
    return {
        row["id"]: (
            row["task"],
            row["was_cancelled"],
            tuple((region["id"], tuple(region["value"]["rectanglelabels"])) for region in row["result"]),
        )
        for row in rows
    }


def _our_state(service: KillableService, uid: str) -> State:
    with open_database(Settings.from_env(service.environment))() as unit:
        return {
            each.id: (each.task_id, each.cancelled, tuple((region.id, region.labels) for region in each.regions))
            for each in unit.corrections.current(uid)
        }


def _uid(service: KillableService, project: int) -> str:
    """The project's unique name in our database."""
    with open_database(Settings.from_env(service.environment))() as unit:
        return next(each.uid for each in unit.projects.all() if each.id == project)


def _until_equal(service: KillableService, uid: str, wanted: State) -> None:
    """Wait for the worker; events are applied within a second or two of their arrival."""
    deadline = time.monotonic() + 30
    while _our_state(service, uid) != wanted and time.monotonic() < deadline:
        time.sleep(0.3)
    assert _our_state(service, uid) == wanted


@pytest.fixture
def predicted(
    killable: KillableService, label_studio: RunningLabelStudio, api: LabelStudio, request: pytest.FixtureRequest
) -> tuple[int, list[int]]:
    """A project connected to the killable service, all tasks predicted: its id and those of its tasks."""
    pictures = write_scenes(label_studio.files / request.node.name[:40], 8)
    sample = SampleProject("corrections", tuple(map(Label, SCENE_LABELS)), pictures[0].parent, pictures)
    project = open_project(api, sample)
    connect(api, project, Backend(killable.url, webhook_secret=SECRET))
    assert sum(retrieve_predictions(api, project)) == len(pictures)
    rows: Any = api.tasks.list(project=project)
    return project, sorted(row.id for row in rows)


def test_the_database_equals_label_studio_whatever_was_missed(
    killable: KillableService, predicted: tuple[int, list[int]], call: Callable[..., Any]
) -> None:
    project, tasks = predicted
    uid = _uid(killable, project)
    proposed = {row["task"]: row["result"] for row in call("GET", f"/api/predictions?project={project}")}
    full = [task for task in tasks if len(proposed[task]) >= 3]
    assert len(full) >= 4, "the scenes leave too little to correct"
    accepted, moved, mixed, skipped = full[:4]
    left = [task for task in tasks if task not in full[:4]]

    # Delivered by events: accept all, move one, relabel + delete + draw, skip.
    _submit(call, accepted, [{**each, "origin": "prediction"} for each in proposed[accepted]])
    mended = _submit(call, moved, [_moved(proposed[moved][0], 0.2), *proposed[moved][1:]])
    first, _, *others = proposed[mixed]
    _submit(call, mixed, [_relabelled(first), *others, _drawn(first)])
    skip = _submit(call, skipped, proposed[skipped], was_cancelled=True)
    _until_equal(killable, uid, _server_state(call, project, tasks, skip))
    (counts,) = killable.run("stats", "--project", str(project))["model_versions"]
    untouched = len(proposed[accepted]) + len(proposed[moved]) - 1 + len(others)
    assert [counts[kind] for kind in KINDS] == [untouched, 1, 1, 1, 1]

    # Missed: killed, then un-skip, bulk accept, an update, deletions of an annotation and of a task.
    killable.kill()
    call("PATCH", f"/api/annotations/{skip}/", json={"was_cancelled": False})
    items = {"selectedItems": {"all": False, "included": left[:2]}}
    call("POST", f"/api/dm/actions?id=predictions_to_annotations&project={project}", json=items)
    emptied = _submit(call, left[2], proposed[left[2]])
    call("PATCH", f"/api/annotations/{emptied}/", json={"result": []})
    call("DELETE", f"/api/annotations/{mended}/")
    call("DELETE", f"/api/tasks/{mixed}/")
    tasks.remove(mixed)
    wanted = _server_state(call, project, tasks)
    assert _our_state(killable, uid) != wanted
    report = killable.run("sync", "--project", str(project))
    assert _our_state(killable, uid) == wanted
    assert (report["tasks_deleted"], report["annotations_deleted"]) == (1, 1)
    assert killable.run("sync", "--project", str(project))["repaired"] == 0

    # And events go on after a restart.
    killable.start()
    _submit(call, left[3], [])
    _until_equal(killable, uid, _server_state(call, project, tasks))
    assert SECRET not in killable.log.read_text(encoding="utf-8")
