"""``glip-label demo`` from its first line to its last."""

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from backend.demo_pictures import write_scenes
from backend.settings import child_environment
from tests.signals import listen_to_control_c

pytestmark = pytest.mark.end_to_end


@contextmanager
def running_demo(home: Path, *arguments: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Run the demo until it says that Ctrl-C stops it; yields the process and what it printed up to there."""
    command = [sys.executable, "-u", "-m", "backend.cli", "demo", *arguments]
    with subprocess.Popen(
        command,
        env=child_environment(HOME=str(home)),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=listen_to_control_c,
    ) as process:
        assert process.stdout is not None
        printed = ""
        for line in process.stdout:
            printed += line
            if "Ctrl-C" in line:
                break
        try:
            yield process, printed
        finally:
            process.terminate()


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass(frozen=True, slots=True)
class FirstRun:
    """A demo that was run once, and stopped with Ctrl-C."""

    home: Path
    arguments: tuple[str, ...]
    printed: str
    projects: list[str]
    predictions: list[int]
    busy_port: int
    ports: tuple[int, int]
    exit_code: int


@pytest.fixture(scope="module")
def first_run(
    label_studio_executable: Path,
    empty_database: Callable[[Path], None],
    tmp_path_factory: pytest.TempPathFactory,
) -> FirstRun:
    home = tmp_path_factory.mktemp("home")
    empty_database(home / "demo" / "label-studio")
    photos = home / "my photos"
    write_scenes(photos, 2, seed=1)
    images = ("--images", str(photos), "--labels", "arrow,disc=circle")
    arguments = ("--scenes", "3", *images, "--label-studio", str(label_studio_executable))
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        taken = busy.getsockname()[1]
        with running_demo(home, *arguments, "--port", str(taken), "--backend-port", str(taken)) as (process, printed):
            url = re.findall(r"log in at (\S+) as", printed)[0]
            account = json.loads((home / "demo" / "label-studio" / "account.json").read_text())
            session = requests.Session()
            session.headers["Authorization"] = f"Token {account['token']}"
            with session:
                projects = re.findall(r"/projects/(\d+)/data", printed)
                counts = [len(session.get(f"{url}/api/predictions?project={id_}").json()) for id_ in projects]
                (backend,) = session.get(f"{url}/api/ml?project={projects[0]}").json()
            process.send_signal(signal.SIGINT)
            exit_code = process.wait(30)
    ports = (int(url.rpartition(":")[2]), int(backend["url"].rpartition(":")[2]))
    return FirstRun(home, arguments, printed, projects, counts, taken, ports, exit_code)


def test_the_demo_pre_annotates_its_scenes_and_the_given_pictures(first_run: FirstRun) -> None:
    assert first_run.predictions == [3, 2]


def test_the_demo_prints_log_in_and_model(first_run: FirstRun) -> None:
    account = json.loads((first_run.home / "demo" / "label-studio" / "account.json").read_text())
    assert f"as {account['email']} with password {account['password']}" in first_run.printed
    assert re.search(r"^model \S+-[0-9a-f]{8}", first_run.printed, re.MULTILINE)


def test_other_commands_work_on_the_demos_projects_with_the_settings_it_leaves(first_run: FirstRun) -> None:
    kept = first_run.home / "demo" / "environment"
    assert kept.stat().st_mode & 0o077 == 0
    assert f". {kept}" in first_run.printed
    listing = f". {kept}; {sys.executable} -m backend.cli models list --project {first_run.projects[0]}"
    listed = subprocess.run(["sh", "-c", listing], capture_output=True, text=True, check=True)
    assert "the configured model" in listed.stdout


def test_the_demo_takes_free_ports_where_the_wanted_ones_are_busy(first_run: FirstRun) -> None:
    assert first_run.busy_port not in first_run.ports


def test_ctrl_c_ends_the_demo_and_all_it_started(first_run: FirstRun) -> None:
    assert first_run.exit_code == 0
    assert not any(is_open(port) for port in first_run.ports)


def test_the_next_demo_finds_the_projects_of_the_first(first_run: FirstRun) -> None:
    with running_demo(first_run.home, *first_run.arguments) as (_, printed):
        assert re.findall(r"/projects/(\d+)/data", printed) == first_run.projects


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--label-studio", "/no/such/label-studio"), "no Label Studio at /no/such/label-studio"),
        (("--images", "/no/such/folder"), "Directory '/no/such/folder' does not exist"),
        (("--images", ".", "--labels", ""), "no labels"),
    ],
)
def test_what_cannot_start_is_one_line(
    arguments: tuple[str, ...], line: str, tmp_path: Path, label_studio_executable: Path
) -> None:
    command = [sys.executable, "-m", "backend.cli", "demo", "--scenes", "1"]
    failed = subprocess.run(
        [*command, "--label-studio", str(label_studio_executable), *arguments],
        env=child_environment(HOME=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert failed.returncode in {1, 2}
    assert line in failed.stderr
    assert len(failed.stderr.splitlines()) == 1
