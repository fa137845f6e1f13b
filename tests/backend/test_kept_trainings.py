"""Trainings of simulated projects: each is done once, whoever asks, and none is lost with the process that began it."""

import logging
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from threading import Event

import pytest

from backend.domain.learning import Mode, TrainingProgress, TrainingRequest
from backend.domain.training_data import FrozenData
from backend.errors import StorageError
from backend.kept_trainings import KeptTrainings

DATA = FrozenData((("cat", ("cat",)),), ())
REQUEST = TrainingRequest("command", Mode.HEAD, 1.0, seed=0)


class Trainer:
    """``ports.Trainer`` that counts, and takes until it is let go."""

    def __init__(self) -> None:
        self.folders: list[Path] = []
        self.began, self.go_on = Event(), Event()
        self.go_on.set()

    def train(
        self,
        data: FrozenData,
        request: TrainingRequest,
        start: Path | None,
        folder: Path,
        progress: Callable[[TrainingProgress], None],
    ) -> Mode:
        self.folders.append(folder)
        self.began.set()
        assert self.go_on.wait(30)
        folder.mkdir(exist_ok=True)
        return request.mode or Mode.FULL


class Told(logging.Handler):
    """What was logged, for those who wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: Queue[str] = Queue()

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.put(record.getMessage())


@pytest.fixture
def told() -> Iterator[Told]:
    handler, log = Told(), logging.getLogger("glip_label.training")
    log.addHandler(handler)
    yield handler
    log.removeHandler(handler)


def test_who_wants_what_another_command_trains_waits_and_takes_it(tmp_path: Path, told: Told) -> None:
    first, second = Trainer(), Trainer()
    first.go_on.clear()
    with ThreadPoolExecutor(2) as threads:
        one = threads.submit(KeptTrainings(first, "base", tmp_path).train, DATA, REQUEST, None)
        assert first.began.wait(30)
        other = threads.submit(KeptTrainings(second, "base", tmp_path).train, DATA, REQUEST, None)
        assert told.messages.get(timeout=30).endswith("another command trains the same: waiting for it")
        assert not other.done()
        first.go_on.set()
        assert one.result(30) == other.result(30)
    assert len(first.folders) == 1
    assert second.folders == []


@pytest.mark.parametrize(
    ("base", "request_"),
    [("other", REQUEST), ("base", TrainingRequest("command", Mode.HEAD, 1.0, seed=1))],
)
def test_another_training_waits_for_none(base: str, request_: TrainingRequest, tmp_path: Path) -> None:
    first, second = Trainer(), Trainer()
    first.go_on.clear()
    with ThreadPoolExecutor(1) as threads:
        one = threads.submit(KeptTrainings(first, "base", tmp_path).train, DATA, REQUEST, None)
        assert first.began.wait(30)
        other = KeptTrainings(second, base, tmp_path).train(DATA, request_, None)
        first.go_on.set()
        assert one.result(30).folder != other.folder


def test_what_a_killed_command_began_is_trained_by_the_next(tmp_path: Path) -> None:
    killed = """
        import os, signal, sys
        from pathlib import Path
        from backend.kept_trainings import KeptTrainings
        from tests.backend.test_kept_trainings import DATA, REQUEST, Trainer
        class Killed(Trainer):
            def train(self, *of):
                os.kill(os.getpid(), signal.SIGKILL)
        KeptTrainings(Killed(), "base", Path(sys.argv[1])).train(DATA, REQUEST, None)
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(killed), str(tmp_path)], timeout=120, check=False)
    assert ended.returncode == -9
    trainer = Trainer()
    assert KeptTrainings(trainer, "base", tmp_path).train(DATA, REQUEST, None).folder == trainer.folders[0]


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"\.lock: cannot be written \("):
        KeptTrainings(Trainer(), "base", Path("/dev/null")).train(DATA, REQUEST, None)
