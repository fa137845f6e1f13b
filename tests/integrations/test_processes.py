"""Child servers: a small Python web server stands for Label Studio."""

import shlex
import socket
import sys
import urllib.request
from pathlib import Path

import pytest

from integrations.processes import ServerStartError, child_server, free_port


def web_server(port: int) -> list[str]:
    return [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:  # refused, or cut off by a server on its way out
        return False


def test_a_child_server_answers_inside_the_block_and_is_gone_after_it(tmp_path: Path) -> None:
    port = free_port()
    with child_server(web_server(port), health_url=f"http://127.0.0.1:{port}/", log=tmp_path / "log", environment={}):
        assert answers(port)
    assert not answers(port)


def test_what_the_child_started_ends_with_it(tmp_path: Path) -> None:
    port = free_port()
    command = ["/bin/sh", "-c", f"{shlex.join(web_server(port))} & wait"]
    with child_server(command, health_url=f"http://127.0.0.1:{port}/", log=tmp_path / "log", environment={}):
        assert answers(port)
    assert not answers(port)


def test_a_child_that_ignores_sigterm_is_ended_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("integrations.processes._STOP_SECONDS", 0.2)
    port = free_port()
    stubborn = ["/bin/sh", "-c", f"trap '' TERM; {shlex.join(web_server(port))}"]
    with child_server(stubborn, health_url=f"http://127.0.0.1:{port}/", log=tmp_path / "log", environment={}):
        assert answers(port)
    assert not answers(port)


def test_a_child_that_ends_early_is_reported_with_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('database is locked')"]
    with (
        pytest.raises(ServerStartError, match=r"exit code 1: database is locked \(log: .*log\)"),
        child_server(command, health_url="http://127.0.0.1:9/", log=tmp_path / "log", environment={}),
    ):
        pytest.fail("the server cannot have started")


def test_a_missing_program_is_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(ServerStartError, match="cannot start /no/such/program: No such file"),
        child_server(["/no/such/program"], health_url="http://127.0.0.1:9/", log=tmp_path / "log", environment={}),
    ):
        pytest.fail("the server cannot have started")


def test_a_child_that_never_answers_is_ended_and_reported(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with (
        pytest.raises(ServerStartError, match=r"no answer from http://127\.0\.0\.1:9/ within 1 s"),
        child_server(command, health_url="http://127.0.0.1:9/", log=tmp_path / "log", environment={}, seconds=0.6),
    ):
        pytest.fail("the server cannot have answered")


def test_a_busy_preferred_port_gives_another_one() -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        taken = busy.getsockname()[1]
        assert free_port(taken) not in {0, taken}


def test_a_free_preferred_port_is_kept() -> None:
    port = free_port()
    assert free_port(port) == port
