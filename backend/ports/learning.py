"""What learning needs from the outside: the trainer, and where versions and jobs are kept."""

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from backend.domain.learning import (
    AliasMove,
    JobState,
    Mode,
    ModelVersion,
    TrainingJob,
    TrainingProgress,
    TrainingRequest,
)
from backend.domain.training_data import FrozenData


class Trainer(Protocol):
    """What fine-tunes a model."""

    def train(
        self,
        data: FrozenData,
        request: TrainingRequest,
        start: Path | None,
        folder: Path,
        progress: Callable[[TrainingProgress], None],
    ) -> Mode:
        """Learn from the part ``train`` and leave an adapter or a model in ``folder``.

        Called again with the same folder after it was killed, it goes on where it stopped. An error that ``progress``
        raises stops it; it may go on later.

        Args:
            data: what to learn from.
            request: how.
            start: the folder of ``data.start``, for mode "full"; adapters are of the base always.
            folder: of this training alone.
            progress: told after each step.

        Returns:
            What was trained.

        Raises:
            TrainingError: the data or the weights cannot be trained with.
            StorageError: ``folder`` cannot be written, as on a full disk; what was kept there is still whole.
        """
        ...


class ModelVersions(Protocol):
    """Projects' model versions, and what their aliases mean; ``project`` is ``ID.CREATED``."""

    def lock(self, project: str) -> None:
        """Keep other transactions from moving the project's aliases, until this one ends."""
        ...

    def add(self, version: ModelVersion) -> None:
        """Keep a new version; its project must be known, its name not."""
        ...

    def find(self, project: str, name: str) -> ModelVersion | None: ...

    def all(self, project: str) -> Sequence[ModelVersion]:
        """Return a project's versions, oldest first."""
        ...

    def names(self) -> frozenset[str]:
        """Return the names of all projects' versions."""
        ...

    def alias(self, project: str, alias: str) -> ModelVersion | None:
        """Return what an alias means; None for the configured base model, as where it never moved."""
        ...

    def move(self, move: AliasMove) -> None:
        """Give an alias another meaning; its project and version must be known."""
        ...

    def moves(self, project: str, alias: str) -> Sequence[AliasMove]:
        """Return how an alias moved, oldest first."""
        ...


class TrainingJobs(Protocol):
    """Jobs with their leases: whoever works on one must have claimed it, and shows with heartbeats that it lives."""

    def add(self, project: str, request: TrainingRequest, now: datetime, seen: int = 0) -> TrainingJob:
        """Queue a job and return it, or the project's open one where there is one.

        ``seen`` is the number of the newest version of an annotation until its data are frozen.
        """
        ...

    def find(self, job: int) -> TrainingJob | None: ...

    def of(self, project: str, limit: int) -> Sequence[TrainingJob]:
        """Return a project's jobs, newest first."""
        ...

    def done(self, project: str) -> TrainingJob | None:
        """Return the newest of a project's jobs that made a version, be it promoted or not."""
        ...

    def claimable(self, now: datetime) -> Sequence[int]:
        """Return the ids of the open jobs that nobody works on, oldest first."""
        ...

    def claim(self, job: int, worker: str, now: datetime, until: datetime) -> TrainingJob | None:
        """Give a worker the job until then; None where it is not claimable any more."""
        ...

    def beat(self, job: TrainingJob, now: datetime, until: datetime, progress: TrainingProgress | None) -> bool:
        """Prolong a claim and keep the progress; False where the job is another's by now."""
        ...

    def release(self, job: TrainingJob) -> None:
        """Let others claim a job at once, if it is still this claim's."""
        ...

    def freeze(self, job: TrainingJob, data: FrozenData) -> bool:
        """Keep what a job learns from; False where the job is another's by now."""
        ...

    def data(self, job: int) -> FrozenData | None:
        """Return what a job learns from, once it is frozen."""
        ...

    def finish(self, job: TrainingJob, state: JobState, now: datetime, outcome: str, version: str | None) -> bool:
        """Close a job; False where it is another's by now."""
        ...


class VersionFiles(Protocol):
    """Folders of jobs and versions."""

    def folder(self, version: ModelVersion) -> Path:
        """Return the folder of a version whose files are those that were published.

        Raises:
            ModelError: it is not there, or damaged; the message says what helps.
        """
        ...

    def work(self, job: int) -> Path:
        """Give the folder that a job works in; it is made where it is not there."""
        ...

    def stage(self, job: TrainingJob, about: dict[str, Any]) -> tuple[tuple[str, str], ...]:
        """Copy what was trained in the job's folder aside, with ``about`` as ``version.json``, safe on disk.

        Returns:
            (name, SHA-256) of each file.
        """
        ...

    def reveal(self, job: TrainingJob, name: str) -> None:
        """Make what this claim staged the folder of the version ``name``, whole or not at all.

        A folder under that name is replaced: a killed worker left it, and there is no such version yet.
        """
        ...

    def discard(self, job: int) -> None:
        """Remove the folder that a job worked in."""
        ...
