"""``glip-label serve`` and ``glip-label db`` as a user runs them: real processes, a real port, a real tiny model."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from urllib.request import Request, urlopen

import pytest

from tests.glip_model.tiny import tiny_model, tiny_processor
from tests.make import CONFIG, make_body, recorded
from tests.sites import running_site, sends

START_SECONDS = 90


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_model().save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return folder


def environment(home: Path, **settings: object) -> dict[str, str]:
    return {
        "PATH": "/usr/bin:/bin",
        "OMP_NUM_THREADS": "1",
        "GLIP_LABEL_HOME": str(home),
        **{f"GLIP_LABEL_{name}": str(value) for name, value in settings.items()},
    }


def glip_label(home: Path, *arguments: str, **settings: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "backend.cli", *arguments]
    return subprocess.run(
        command, env=environment(home, **settings), capture_output=True, text=True, timeout=START_SECONDS
    )


@contextmanager
def serving(home: Path, **settings: object) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    command = [sys.executable, "-m", "backend.cli", "serve", "--port", "0"]
    with subprocess.Popen(
        command, env=environment(home, **settings), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if "serves" in line:
                    yield line.rsplit(" ", 1)[1].strip(), process
                    break
            else:
                pytest.fail("the service did not start")
        finally:
            process.kill()


def ask(url: str, body: object = None, **headers: str) -> dict[str, object]:
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(url, data, {"Content-Type": "application/json", **headers}), timeout=30) as answer:
        parsed: dict[str, object] = json.loads(answer.read())
        return parsed


def test_a_served_model_answers_label_studio_stores_and_stops_on_sigterm(model: Path, tmp_path: Path) -> None:
    with running_site() as label_studio:
        label_studio.answers["/data/upload/1/a.png"] = sends()
        settings = {"MODEL": model, "LABEL_STUDIO_URL": label_studio.url, "SCORE_THRESHOLD": "0.01"}
        body = make_body("/data/upload/1/a.png", "/data/upload/1/gone.png", config=CONFIG)
        with serving(tmp_path, **settings) as (url, process):
            health = ask(f"{url}/health")
            version = ask(f"{url}/setup", recorded("connect_setup")["json"])["model_version"]
            first = ask(f"{url}/predict", body)
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=START_SECONDS)
            assert process.returncode == 0
        with serving(tmp_path, **settings) as (url, _):
            second = ask(f"{url}/predict", make_body("/data/upload/1/a.png", config=CONFIG))
    assert health["status"] == "UP"
    assert isinstance(version, str)
    assert version.startswith("tiny-")
    results, again = first["results"], second["results"]
    assert isinstance(results, list)
    assert isinstance(again, list)
    assert results[0]["result"]
    assert results[0] == again[0]
    assert "HTTP 404" in results[1]["error"]
    assert label_studio.paths.count("/data/upload/1/a.png") == 1


def test_a_served_model_applies_the_events_that_come_in(model: Path, tmp_path: Path) -> None:
    with serving(tmp_path, MODEL=model, WEBHOOK_SECRET="s3cret") as (url, process):
        body = recorded("webhook_annotations_created_bulk")["json"]
        assert ask(f"{url}/webhook", body, **{"X-Glip-Label-Secret": "s3cret"}) == {"status": "kept"}
        assert process.stdout is not None
        assert any("inbox entry=1 applied" in line for line in process.stdout)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=START_SECONDS)
        assert process.returncode == 0


def test_a_killed_service_takes_its_worker_along(model: Path, tmp_path: Path) -> None:
    with serving(tmp_path, MODEL=model) as (url, process):
        ask(f"{url}/webhook", recorded("webhook_tasks_created")["json"])
        assert process.stdout is not None
        assert any("inbox entry=1 applied" in line for line in process.stdout)
        process.kill()
        process.communicate(timeout=START_SECONDS)  # ends once nobody holds the other end of the pipe


def worker_of(process: "subprocess.Popen[str]") -> int:
    """Process id of a service's worker, once there is one."""
    for _ in range(10 * START_SECONDS):
        found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
        if found:
            return int(found[0])
        sleep(0.1)
    pytest.fail("the service started no worker")


def test_a_worker_that_was_killed_is_followed_by_another(model: Path, tmp_path: Path) -> None:
    with serving(tmp_path, MODEL=model) as (url, process):
        os.kill(worker_of(process), signal.SIGKILL)
        ask(f"{url}/webhook", recorded("webhook_tasks_created")["json"])
        assert process.stdout is not None
        assert any("inbox entry=1 applied" in line for line in process.stdout)


def test_the_service_is_put_together_without_torch_which_takes_seconds_to_import() -> None:
    probe = "import sys, backend.bootstrap, backend.web.app; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe]).returncode == 0


def test_an_address_that_does_not_exist_is_said_in_one_line(model: Path, tmp_path: Path) -> None:
    done = glip_label(tmp_path, "serve", "--host", "no.such.host.invalid", MODEL=model)
    assert done.returncode == 2
    assert done.stderr.endswith("cannot listen on no.such.host.invalid: no such address; choose one with --host\n")
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_said_in_one_line(model: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = glip_label(tmp_path, "serve", "--port", port, MODEL=model)
    assert done.returncode in (1, 2)
    assert f"port {port} is in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_model_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    done = glip_label(tmp_path, "serve", "--model", "no-such-model")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "no-such-model" in done.stderr


def test_the_database_is_checked_and_upgraded_by_command(tmp_path: Path) -> None:
    before = glip_label(tmp_path, "db", "check")
    assert before.returncode == 1
    assert "glip-label db upgrade" in before.stderr
    assert glip_label(tmp_path, "db", "upgrade").returncode == 0
    after = glip_label(tmp_path, "db", "check")
    assert after.returncode == 0
    assert "up to date" in after.stdout
