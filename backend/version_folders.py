"""Folders of training jobs and of model versions, below ``HOME``.

``versions/PROJECT/NAME`` appears whole or not at all, and is never changed afterwards; names that begin with a dot are
not versions. ``jobs/ID`` is what a job works in, checkpoints included; it may be on another file system.
"""

import json
import os
import shutil
from hashlib import file_digest
from pathlib import Path
from typing import Any

from backend.domain.learning import ModelVersion, TrainingJob
from backend.errors import ModelError, StorageError

ABOUT = "version.json"


def make_folder(folder: Path) -> None:
    """Make a folder if it is not there.

    Raises:
        StorageError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be made ({error.strerror})") from error


class VersionFolders:
    """``ports.learning.VersionFiles`` on this machine's disk."""

    def __init__(self, home: Path) -> None:
        self._versions = home / "versions"
        self._jobs = home / "jobs"

    def work(self, job: int) -> Path:
        folder = self._jobs / str(job)
        make_folder(folder)
        return folder

    def discard(self, job: int) -> None:
        shutil.rmtree(self._jobs / str(job), ignore_errors=True)
        for staged in self._versions.glob(f"*/.job-{job}-*"):
            shutil.rmtree(staged, ignore_errors=True)

    def stage(self, job: TrainingJob, about: dict[str, Any]) -> tuple[tuple[str, str], ...]:
        """As ``ports.learning.VersionFiles``."""
        staged = self._staged(job)
        try:
            shutil.rmtree(staged, ignore_errors=True)
            staged.mkdir(parents=True)
            for file in sorted(self.work(job.id).iterdir()):
                if file.is_file():
                    shutil.copyfile(file, staged / file.name)
            text = json.dumps(about, ensure_ascii=False, indent=1, sort_keys=True)
            (staged / ABOUT).write_text(text + "\n", encoding="utf-8")
            files = sorted(staged.iterdir())
            for path in (*files, staged):
                _to_disk(path)
            return tuple((file.name, _digest(file)) for file in files)
        except OSError as error:
            shutil.rmtree(staged, ignore_errors=True)  # the next claim stages elsewhere, and a full disk needs the room
            raise StorageError(f"{staged}: cannot be written ({error.strerror or error})") from error

    def reveal(self, job: TrainingJob, name: str) -> None:
        """As ``ports.learning.VersionFiles``."""
        target = self._versions / job.project / name
        leftover = target.with_name(f".{name}.replaced")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(leftover, ignore_errors=True)
            if target.exists():
                target.rename(leftover)
            self._staged(job).rename(target)
            _to_disk(target.parent)
        except OSError as error:
            raise StorageError(f"{target}: cannot be written ({error.strerror or error})") from error
        shutil.rmtree(leftover, ignore_errors=True)

    def _staged(self, job: TrainingJob) -> Path:
        # Beside the versions, or it could not be renamed to one where machines share that folder alone. Each claim has
        # its own: a worker that lost the job may still be writing.
        return self._versions / job.project / f".job-{job.id}-{job.attempts}"

    def folder(self, version: ModelVersion) -> Path:
        """As ``ports.learning.VersionFiles``."""
        folder = self._versions / version.project / version.name
        cure = "restore it from a backup, or go back with `glip-label models rollback`"
        for name, digest in version.files:
            try:
                if _digest(folder / name) != digest:
                    raise ModelError(f"{folder / name} is not the file that was trained: {cure}")
            except OSError as error:
                raise ModelError(f"{folder / name} cannot be read ({error.strerror}): {cure}") from error
        return folder


def _to_disk(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, outlasts a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
