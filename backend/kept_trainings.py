"""What simulated projects trained, kept in a folder: taken up when they run again, shared by commands side by side."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from time import monotonic

from filelock import FileLock, Timeout

from backend.domain.learning import Mode, TrainingRequest
from backend.domain.training_data import FrozenData
from backend.errors import StorageError
from backend.ports.learning import Trainer
from backend.services.simulate import Trained

log = logging.getLogger("glip_label.training")


@dataclass(frozen=True, slots=True)
class KeptTrainings:
    """Trains what was not trained before.

    Attributes:
        base: version name of the trainer's model.
        folder: holds a folder for each training, named by what it learned from what.
    """

    trainer: Trainer
    base: str
    folder: Path

    def train(self, data: FrozenData, request: TrainingRequest, start: Path | None) -> Trained:
        """Train, or take up what was trained; where another process is at it, wait for that.

        Raises:
            TrainingError, ImageError: training failed.
            StorageError: the folder cannot be written.
        """
        of = f"{self.base} {request.mode} {request.minutes} {request.seed} {data.fingerprint}"
        folder = self.folder / sha256(of.encode()).hexdigest()[:20]
        facts = folder / "trained.json"
        with _alone(folder):
            if not facts.exists():
                began = monotonic()
                mode = self.trainer.train(data, request, start, folder, lambda progress: None)
                _write(facts, json.dumps({"mode": mode, "seconds": monotonic() - began}))
        told = json.loads(facts.read_text(encoding="utf-8"))
        return Trained(folder, Mode(told["mode"]), told["seconds"])


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes out, as long as this one lives."""
    lock = FileLock(folder.with_suffix(".lock"))
    try:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            log.warning("%s: another command trains the same: waiting for it", folder)
            lock.acquire()
    except OSError as error:
        raise StorageError(f"{lock.lock_file}: cannot be written ({error.strerror or error})") from error
    try:
        yield
    finally:
        lock.release()


def _write(path: Path, text: str) -> None:
    """Whole or not at all: where the disk is full, the simulation can go on later."""
    aside = path.with_suffix(".aside")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror or error})") from error
