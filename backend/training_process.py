"""Training in a process of its own, which gives way to whatever else wants the processor.

``python -m backend.training_process [JOB]`` works on that job, or on the oldest that waits, and ends.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from time import monotonic

from backend.errors import GlipLabelError, TrainingError
from backend.settings import Settings

_LOWEST_PRIORITY = 19
_STOP_SECONDS = 20.0
_PAUSES = (5.0, 600.0)  # seconds after a child that ended badly: the first, doubled each time, and the longest
_END_SECONDS = 60.0  # that a child may take after its job, to tell Label Studio of what came of it
# A thread that waits sleeps instead of spinning: beside a busy neighbour, spinning ones take the processor from the
# very thread they wait for, and a step can take many times as long.
_PATIENT = {"OMP_WAIT_POLICY": "PASSIVE"}

log = logging.getLogger("glip_label.training")


class TrainingProcess:
    """At most one child that trains; call it now and then.

    Args:
        waits: tells whether a job waits for a worker.
        environment: the child's whole environment; its own OpenMP wait policy, if it has one, wins over ours.
        job: the one to work on; None for the oldest that waits.
        module: what the child runs.
        clock: tells seconds.
    """

    def __init__(
        self,
        waits: Callable[[], bool],
        environment: Mapping[str, str],
        job: int | None = None,
        module: str = __name__,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._waits = waits
        self._environment = {**_PATIENT, **environment}
        self._command = [sys.executable, "-m", module, *([] if job is None else [str(job)])]
        self._clock = clock
        self._child: subprocess.Popen[bytes] | None = None
        self._pause, self._not_before = _PAUSES[0], clock()

    def __call__(self) -> None:
        """Start the child if a job waits and none is at work.

        Raises:
            TrainingError: the last one ended badly, which is said once; the next starts after a pause.
        """
        if self._child is not None:
            code = self._child.poll()
            if code is None:
                return
            self._child = None
            self._look_at_end(code)
        if self._clock() >= self._not_before and self._waits():
            # A group of its own, which Ctrl-C spares, but no session: Linux divides the processor evenly among
            # sessions, whatever the priorities in them.
            self._child = subprocess.Popen(  # noqa: S603 - our own module
                self._command, env=self._environment, stdin=subprocess.DEVNULL, process_group=0
            )

    def _look_at_end(self, code: int) -> None:
        """Whatever is wrong may stay wrong, and each start takes seconds of the processor."""
        if code == 0:
            self._pause = _PAUSES[0]
            return
        pause, self._pause = self._pause, min(2 * self._pause, _PAUSES[1])
        self._not_before = self._clock() + pause
        raise TrainingError(
            f"its process ended with exit code {code}; the next one starts in {pause:.0f} s at the earliest"
        )

    @property
    def pid(self) -> int | None:
        """Of the child that was started last, if it was not found to have ended."""
        return None if self._child is None else self._child.pid

    def finish(self, worker: str | None, seconds: float = _END_SECONDS) -> None:
        """Let the child end by itself if it closed the job: it still has to tell Label Studio and to tidy up.

        Where another ``worker`` was faster, the child has nothing to do, and `close` stops it.
        """
        if self._child is None or worker != _worker(self._child.pid):
            return
        try:
            self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            log.error("the job is closed, but its process does not end within %g s and is stopped", seconds)

    def close(self) -> None:
        """Let the child give its job back and end."""
        if self._child is None:
            return
        self._child.terminate()
        try:
            self._child.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


def _worker(pid: int) -> str:
    """The name under which a process of this machine claims jobs."""
    return f"{socket.gethostname()}:{pid}"


def main(arguments: Sequence[str]) -> int:
    """Work on one job; returns the exit code: 0 where it is finished or there is none."""
    from backend.bootstrap import build_learn

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    os.nice(_LOWEST_PRIORITY)
    try:
        training, learn = build_learn(Settings.from_env())
        # A claim that is not given back keeps others away for a minute: one that is being made is made first.
        stops: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, _: stops.append(number))
        claim = training.claim(_worker(os.getpid()), int(arguments[0]) if arguments else None)
        if claim is None:
            return 0
        try:
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            if stops:
                raise KeyboardInterrupt
            learn(claim)
        except KeyboardInterrupt:
            claim.release()
            log.info("job=%d stopped", claim.job.id)
        except GlipLabelError:
            raise
        except Exception as error:
            log.exception("job=%d failed by a defect of glip-label", claim.job.id)
            learn.fail(claim.job, f"a defect of glip-label: {type(error).__name__}, see its log")
    except GlipLabelError as error:
        log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
