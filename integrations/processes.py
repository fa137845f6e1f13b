"""Servers run as children: started on a free port, waited for, and stopped with everything they started."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import requests

from backend.errors import GlipLabelError

LOOPBACK = "127.0.0.1"
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.2


class ServerStartError(GlipLabelError):
    """A child server that ended early or never answered; the message names its log."""


def free_port(preferred: int = 0) -> int:
    """Return ``preferred`` where nobody listens on it, any free loopback port otherwise."""
    with contextlib.suppress(OSError):
        return _bound_port(preferred)
    return _bound_port(0)


def _bound_port(port: int) -> int:
    with socket.socket() as probe:
        # As servers do: a port whose last connections are still closing counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((LOOPBACK, port))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def child_server(
    command: Sequence[str],
    *,
    health_url: str,
    log: Path,
    environment: Mapping[str, str],
    seconds: float = 300.0,
) -> Iterator[None]:
    """Run a server for the length of a ``with`` block.

    The child leads a process group of its own: a Ctrl-C in the terminal reaches only us, and leaving the
    block ends the child together with whatever it started.

    Args:
        command: program and arguments.
        health_url: address that answers 200 once the server is ready.
        log: file that takes the child's output, appended to.
        environment: the child's whole environment.
        seconds: how long to wait for the first healthy answer.

    Raises:
        ServerStartError: the program is missing, ended early, or never answered.
    """
    try:
        with log.open("ab") as sink:
            process = subprocess.Popen(  # noqa: S603 - no shell, the caller chose the program
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except OSError as error:
        raise ServerStartError(f"cannot start {command[0]}: {error.strerror}") from error
    try:
        _wait_until_healthy(process, health_url, log, seconds)
        yield
    finally:
        _stop_group(process)


def _wait_until_healthy(process: subprocess.Popen[bytes], health_url: str, log: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            reason = f"exit code {process.returncode}: {_last_line(log)}"
            raise ServerStartError(f"server ended early, {reason} (log: {log})")
        with contextlib.suppress(requests.RequestException):
            if requests.get(health_url, timeout=2).ok:
                return
        time.sleep(_POLL_SECONDS)
    raise ServerStartError(f"no answer from {health_url} within {seconds:.0f} s (log: {log})")


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "it said nothing"


def _stop_group(process: subprocess.Popen[bytes]) -> None:
    """Ask the whole group to end, then insist; a second Ctrl-C while waiting insists at once."""
    try:
        _signal_group(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
    finally:
        _signal_group(process.pid, signal.SIGKILL)
        process.wait()


def _signal_group(leader: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, number)
