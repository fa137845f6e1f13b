"""One real Label Studio and one real service for all end-to-end tests; each test makes its own project."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from label_studio_sdk import LabelStudio

from backend.demo_pictures import SCENE_LABELS, write_scenes
from backend.domain.records import Label
from backend.settings import child_environment
from integrations.label_studio.api import label_studio_api
from integrations.label_studio.connect import Backend, connect
from integrations.label_studio.sample_project import SampleProject, open_project
from integrations.label_studio.server import RunningLabelStudio, copy_empty_database, label_studio_server
from integrations.processes import child_server, free_port

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class RunningService:
    """``glip-label serve`` as a child; ``environment`` is that of commands which belong to it."""

    url: str
    log: Path
    environment: dict[str, str]


@pytest.fixture(scope="session")
def label_studio_executable() -> Path:
    """Label Studio as `make label-studio` installs it, or wherever LABEL_STUDIO says."""
    return Path(os.environ.get("LABEL_STUDIO", ROOT / ".label-studio-venv" / "bin" / "label-studio"))


@pytest.fixture(scope="session")
def empty_database(label_studio_executable: Path) -> Callable[[Path], None]:
    """Copies a migrated database into a data folder; kept beside Label Studio, whose version it belongs to."""
    kept = label_studio_executable.parent.parent / "empty-database"
    return lambda data: copy_empty_database(label_studio_executable, kept, data)


@pytest.fixture(scope="session")
def label_studio(
    label_studio_executable: Path, empty_database: Callable[[Path], None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningLabelStudio]:
    data = tmp_path_factory.mktemp("label-studio")
    empty_database(data)
    with label_studio_server(label_studio_executable, data) as running:
        yield running


@pytest.fixture(scope="session")
def start_service(
    label_studio: RunningLabelStudio, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., RunningService]]:
    """Starts services beside the Label Studio; all end with the session."""
    with ExitStack() as stack:

        def start(basic_auth: tuple[str, str] | None = None) -> RunningService:
            user, password = basic_auth or ("", "")
            home = tmp_path_factory.mktemp("service")
            port = free_port()
            url = f"http://127.0.0.1:{port}"
            health_url = f"http://{user}:{password}@127.0.0.1:{port}/health" if basic_auth else f"{url}/health"
            environment = child_environment(
                HOME=str(home),
                DATABASE_URL="",
                HOST="127.0.0.1",
                PORT=str(port),
                TRAIN_MINUTES="0.5",
                LABEL_STUDIO_URL=label_studio.url,
                LABEL_STUDIO_TOKEN=label_studio.account.token,
                BASIC_AUTH_USER=user,
                BASIC_AUTH_PASSWORD=password,
            )
            log = home / "service.log"
            serve = [sys.executable, "-m", "backend.cli", "serve"]
            stack.enter_context(child_server(serve, health_url=health_url, log=log, environment=environment))
            return RunningService(url, log, environment)

        yield start


@pytest.fixture(scope="session")
def service(start_service: Callable[..., RunningService]) -> RunningService:
    return start_service()


@pytest.fixture(scope="session")
def api(label_studio: RunningLabelStudio) -> Iterator[LabelStudio]:
    with label_studio_api(label_studio.url, label_studio.account.token) as opened:
        yield opened


@pytest.fixture
def call(label_studio: RunningLabelStudio) -> Callable[..., Any]:
    """Calls Label Studio's API as its own pages do."""

    def answer(method: str, path: str, **more: Any) -> Any:
        headers = {"Authorization": f"Token {label_studio.account.token}"}
        reply = requests.request(method, label_studio.url + path, headers=headers, timeout=300, **more)
        assert reply.ok, reply.text
        return reply.json() if reply.content else None

    return answer


@dataclass(frozen=True, slots=True)
class Project:
    """A connected project: ids of its tasks, in the order of its pictures."""

    id: int
    tasks: tuple[int, ...]
    backend_id: int
    model_version: str


@pytest.fixture
def make_project(
    api: LabelStudio, label_studio: RunningLabelStudio, service: RunningService, request: pytest.FixtureRequest
) -> Callable[..., Project]:
    """Makes a connected project of so many generated scenes; the file of number ``damaged`` is cut off."""

    def make(count: int, damaged: int | None = None, title: str | None = None) -> Project:
        title = title or request.node.name[:50]
        folder = label_studio.files / request.node.name
        pictures = write_scenes(folder, count)
        if damaged is not None:
            pictures[damaged].write_bytes(pictures[damaged].read_bytes()[:1000])
        project = open_project(api, SampleProject(title, tuple(map(Label, SCENE_LABELS)), folder, pictures))
        connection = connect(api, project, Backend(service.url))
        rows: Iterable[Any] = api.tasks.list(project=project)
        tasks = sorted(row.id for row in rows)
        return Project(project, tuple(tasks), connection.backend_id, connection.model_version)

    return make
