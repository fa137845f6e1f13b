"""``glip-label connect`` against a real Label Studio."""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import requests
from label_studio_sdk import LabelStudio

from backend.domain.records import Label
from integrations.label_studio.sample_project import labeling_config
from integrations.label_studio.server import RunningLabelStudio
from tests.end_to_end.conftest import RunningService

pytestmark = pytest.mark.end_to_end


def run_connect(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "backend.cli", "connect", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def project(api: LabelStudio, request: pytest.FixtureRequest) -> int:
    config = labeling_config([Label("cat")])
    return int(api.projects.create(title=request.node.name[:50], label_config=config).id or 0)


def test_connecting_by_title_twice_leaves_one_backend_and_one_webhook(
    project: int, api: LabelStudio, service: RunningService, request: pytest.FixtureRequest
) -> None:
    title = request.node.name[:50]

    first = run_connect(service.environment, "--project", title, "--json")
    second = run_connect(service.environment, "--project", str(project))

    made = json.loads(first.stdout)
    assert (first.returncode, made["project_id"], made["created"]) == (0, project, True)
    assert (second.returncode, second.stderr) == (0, "")
    assert f"up to date, model version {made['model_version']}" in second.stdout
    (row,) = api.ml.list(project=project)
    (hook,) = api.webhooks.list(project=str(project))
    assert (row.title, row.model_version) == (made["model_version"], made["model_version"])
    assert hook.url == f"{service.url}/webhook"
    assert api.projects.get(project).model_version == made["model_version"]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"GLIP_LABEL_LABEL_STUDIO_URL": "http://127.0.0.1:9"}, "no answer from Label Studio at http://127.0.0.1:9"),
        ({"GLIP_LABEL_LABEL_STUDIO_TOKEN": "0" * 40}, "refuses the legacy token"),
        ({"GLIP_LABEL_LABEL_STUDIO_TOKEN": "a.b.c"}, "refuses the"),
        ({"GLIP_LABEL_PORT": "9"}, "gets no answer from http://127.0.0.1:9"),
    ],
)
def test_each_failure_is_one_line_and_exit_code_1(
    change: dict[str, str], line: str, project: int, service: RunningService
) -> None:
    failed = run_connect(service.environment | change, "--project", str(project))

    assert failed.returncode == 1
    assert line in failed.stderr
    assert len(failed.stderr.splitlines()) == 1


def test_an_unknown_project_is_one_line(service: RunningService) -> None:
    for name in ("999999", "no such title"):
        failed = run_connect(service.environment, "--project", name)
        assert (failed.returncode, len(failed.stderr.splitlines())) == (1, 1)
        assert "project" in failed.stderr


def test_a_personal_access_token_connects_too(
    project: int, label_studio: RunningLabelStudio, service: RunningService
) -> None:
    headers = {"Authorization": f"Token {label_studio.account.token}"}
    made = requests.post(f"{label_studio.url}/api/token/", headers=headers, timeout=10)
    token = {"GLIP_LABEL_LABEL_STUDIO_TOKEN": made.json()["token"]}

    assert run_connect(service.environment | token, "--project", str(project)).returncode == 0


def test_events_reach_a_service_with_basic_auth(
    project: int, api: LabelStudio, start_service: Callable[..., RunningService]
) -> None:
    service = start_service(("user", "secret"))
    assert run_connect(service.environment, "--project", str(project)).returncode == 0
    task: Any = api.tasks.create(project=project, data={"image": "/data/local-files/?d=none.png"})

    api.annotations.create(id=task.id, result=[])

    events = [line for line in service.log.read_text().splitlines() if "ANNOTATION_CREATED" in line]
    assert len(events) == 1
    assert "POST /webhook 200" in events[0]
