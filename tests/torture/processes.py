"""The real commands as processes of their own: started, frozen, looked at, and killed."""

import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

from integrations.processes import LOOPBACK, free_port

_POLL_SECONDS = 0.02
_GIVE_UP_SECONDS = 60.0


class BreachError(AssertionError):
    """Something that must hold did not; the message is the reason."""


class Command:
    """``glip-label`` with a home and a database of its own; what its processes say goes to two logs.

    No model is loaded: two hundred lives of the service would spend most of their time on it.
    """

    def __init__(self, home: Path, database_url: str) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.log = home / "service.log"
        self.other_log = home / "commands.log"
        self._home, self._database_url = home, database_url
        self._instead = home / "instead"
        self._instead.mkdir(exist_ok=True)
        (self._instead / "torch.py").write_text("raise SystemExit  # ends the thread that loads the model\n")

    def start(self, *arguments: str, database_url: str | None = None) -> "subprocess.Popen[bytes]":
        """Start a command without waiting for it."""
        environment = {
            "PATH": os.defpath,
            "OMP_NUM_THREADS": "1",
            "PYTHONFAULTHANDLER": "1",
            "PYTHONPATH": str(self._instead),
            "GLIP_LABEL_HOME": str(self._home),
            "GLIP_LABEL_TRAIN_AFTER": "0",
            "GLIP_LABEL_DATABASE_URL": database_url or self._database_url,
        }
        with (self.log if arguments[0] == "serve" else self.other_log).open("ab") as log:
            command = [sys.executable, "-m", "backend.cli", *arguments]
            return subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # the service's worker is frozen and killed with it
            )

    def run(self, *arguments: str, database_url: str | None = None) -> tuple[int, str]:
        """Run a command to its end; returns its exit code and what it said. One at a time."""
        begun = self.other_log.stat().st_size if self.other_log.exists() else 0
        code = self.start(*arguments, database_url=database_url).wait()
        return code, self.other_log.read_bytes()[begun:].decode(errors="replace")

    def finish(self, *arguments: str, database_url: str | None = None) -> str:
        """Run a command that has to succeed.

        Raises:
            BreachError: it failed.
        """
        code, said = self.run(*arguments, database_url=database_url)
        if code:
            raise BreachError(f"glip-label {' '.join(arguments)} failed ({code}): {said[-500:]}")
        return said


class Server:
    """``glip-label serve`` at one port, with its worker, through all its lives.

    Attributes:
        start_seconds: for each start, from the process's beginning to the first answer of ``/health``.
        own_seconds: the same, less the time that other programs kept the processor from it.
    """

    def __init__(self, command: Command) -> None:
        self.command = command
        self.port = free_port()
        self.start_seconds: list[float] = []
        self.own_seconds: list[float] = []
        self.process: subprocess.Popen[bytes] | None = None

    def launch(self) -> "subprocess.Popen[bytes]":
        """Begin a life, and wait for nothing."""
        self.process = self.command.start("serve", "--port", str(self.port))
        return self.process

    def start(self) -> None:
        """Begin a life and wait for the first answer.

        Raises:
            BreachError: it ended, or does not answer.
        """
        begun = time.monotonic()
        process = self.launch()
        while not self._is_up():
            if process.poll() is not None:
                raise BreachError(f"the service did not start again: see {self.command.log}")
            if time.monotonic() - begun > _GIVE_UP_SECONDS:
                process.send_signal(signal.SIGABRT)  # writes to the log where each thread is
                raise BreachError(
                    f"the service does not answer within {_GIVE_UP_SECONDS:.0f} s: see {self.command.log}"
                )
            time.sleep(_POLL_SECONDS)
        self.start_seconds.append(time.monotonic() - begun)
        self.own_seconds.append(self.start_seconds[-1] - _seconds_waited_for_processor(process.pid))

    def kill(self) -> None:
        """End this life with SIGKILL."""
        if self.process is not None:
            kill(self.process)
            self.process = None

    def stop(self) -> None:
        """Ask it to end.

        Raises:
            BreachError: it ends in another way than it should.
        """
        assert self.process is not None
        self.process.terminate()
        code = self.process.wait(_GIVE_UP_SECONDS)
        if code:
            raise BreachError(f"the service ended with {code} on SIGTERM")
        self.process = None

    def _is_up(self) -> bool:
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=1)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def _seconds_waited_for_processor(process: int) -> float:
    """How long a process's main thread was ready to run and did not; 0 where the system does not tell."""
    try:
        return int(Path(f"/proc/{process}/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


def kill(process: "subprocess.Popen[bytes]") -> None:
    """End a command with SIGKILL, and what it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def frozen_when(
    process: "subprocess.Popen[bytes]", condition: Callable[[], bool], random: Random, seconds: float
) -> bool:
    """Stop a command again and again for a moment, until what is looked for is so; it stays frozen then.

    Returns:
        False where it was not to be seen for so long, or the process ended before.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        os.killpg(process.pid, signal.SIGSTOP)
        seen = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        if seen is None or seen.si_code != os.CLD_STOPPED:
            return False
        if condition():
            return True
        os.killpg(process.pid, signal.SIGCONT)
        time.sleep(random.uniform(0.0005, 0.01))
    return False
