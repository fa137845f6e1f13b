"""The ports of learning in memory."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from backend.domain.dataset import AnnotatedImage, DatasetLabel, ImageFacts, ImageFile
from backend.domain.facts import ProjectState
from backend.domain.learning import (
    AliasMove,
    JobState,
    Mode,
    ModelVersion,
    TrainingJob,
    TrainingProgress,
    TrainingRequest,
)
from backend.domain.records import Label
from backend.domain.training_data import FrozenData
from backend.errors import ImageError
from backend.ports import AnnotatedImages, Detector


@dataclass
class FakeLearning:
    """What the fake database holds of learning."""

    versions: dict[tuple[str, str], ModelVersion] = field(default_factory=dict)
    moves: list[AliasMove] = field(default_factory=list)
    jobs: dict[int, TrainingJob] = field(default_factory=dict)
    data: dict[int, str] = field(default_factory=dict)

    def copy(self) -> "FakeLearning":
        return FakeLearning(dict(self.versions), list(self.moves), dict(self.jobs), dict(self.data))


class FakeModelVersions:
    """``ports.learning.ModelVersions`` in dictionaries."""

    def __init__(self, tables: FakeLearning) -> None:
        self._tables = tables

    def lock(self, project: str) -> None:
        pass  # one transaction at a time anyway

    def add(self, version: ModelVersion) -> None:
        assert (version.project, version.name) not in self._tables.versions
        self._tables.versions[version.project, version.name] = version

    def find(self, project: str, name: str) -> ModelVersion | None:
        return self._tables.versions.get((project, name))

    def all(self, project: str) -> Sequence[ModelVersion]:
        return [version for (owner, _), version in self._tables.versions.items() if owner == project]

    def names(self) -> frozenset[str]:
        return frozenset(name for _, name in self._tables.versions)

    def alias(self, project: str, alias: str) -> ModelVersion | None:
        moves = self.moves(project, alias)
        name = moves[-1].version if moves else None
        return None if name is None else self._tables.versions[project, name]

    def move(self, move: AliasMove) -> None:
        if move.version is not None and (move.project, move.version) not in self._tables.versions:
            raise ValueError(f"project {move.project} has no version {move.version}")
        self._tables.moves.append(move)

    def moves(self, project: str, alias: str) -> Sequence[AliasMove]:
        return [move for move in self._tables.moves if (move.project, move.alias) == (project, alias)]


class FakeTrainingJobs:
    """``ports.learning.TrainingJobs`` in dictionaries."""

    def __init__(self, tables: FakeLearning) -> None:
        self._tables = tables

    def add(self, project: str, request: TrainingRequest, now: datetime, seen: int = 0) -> TrainingJob:
        known = [job for job in self._tables.jobs.values() if job.project == project and job.is_open]
        if known:
            return known[0]
        job = TrainingJob(len(self._tables.jobs) + 1, project, request, JobState.QUEUED, now, seen=seen)
        self._tables.jobs[job.id] = job
        return job

    def find(self, job: int) -> TrainingJob | None:
        return self._tables.jobs.get(job)

    def of(self, project: str, limit: int) -> Sequence[TrainingJob]:
        jobs = sorted(self._tables.jobs.values(), key=lambda job: -job.id)
        return [job for job in jobs if job.project == project][:limit]

    def done(self, project: str) -> TrainingJob | None:
        return next((job for job in self.of(project, len(self._tables.jobs)) if job.state is JobState.DONE), None)

    def claimable(self, now: datetime) -> Sequence[int]:
        return [number for number in self._tables.jobs if self._is_claimable(number, now)]

    def claim(self, job: int, worker: str, now: datetime, until: datetime) -> TrainingJob | None:
        if not self._is_claimable(job, now):
            return None
        attempts = self._tables.jobs[job].attempts + 1
        self._put(job, state=JobState.RUNNING, worker=worker, lease_until=until, heartbeat_at=now, attempts=attempts)
        return self._tables.jobs[job]

    def beat(self, job: TrainingJob, now: datetime, until: datetime, progress: TrainingProgress | None) -> bool:
        told = {} if progress is None else {"progress": progress}
        return self._held(job) and self._put(job.id, heartbeat_at=now, lease_until=until, **told)

    def release(self, job: TrainingJob) -> None:
        if self._held(job):
            self._put(job.id, lease_until=None)

    def freeze(self, job: TrainingJob, data: FrozenData) -> bool:
        if not self._held(job):
            return False
        self._tables.data[job.id] = data.to_json()
        return self._put(job.id, fingerprint=data.fingerprint, seen=data.seen, learnt=data.learnt)

    def data(self, job: int) -> FrozenData | None:
        return FrozenData.from_json(self._tables.data[job]) if job in self._tables.data else None

    def finish(self, job: TrainingJob, state: JobState, now: datetime, outcome: str, version: str | None) -> bool:
        return self._held(job) and self._put(
            job.id, state=state, finished_at=now, lease_until=None, outcome=outcome, version=version
        )

    def _is_claimable(self, number: int, now: datetime) -> bool:
        job = self._tables.jobs[number]
        abandoned = job.state is JobState.RUNNING and (job.lease_until is None or job.lease_until < now)
        return job.state is JobState.QUEUED or abandoned

    def _held(self, job: TrainingJob) -> bool:
        known = self._tables.jobs[job.id]
        return known.state is JobState.RUNNING and known.attempts == job.attempts

    def _put(self, number: int, **changes: Any) -> bool:
        self._tables.jobs[number] = replace(self._tables.jobs[number], **changes)
        return True


class FakeModels:
    """Detectors by version's name; the base is the one under ``base``, what a trainer wrote the one ``candidate``."""

    def __init__(self, base: Detector, **others: Detector) -> None:
        self._base = base
        self._others = others

    @property
    def base(self) -> str:
        return self._base.version

    def open(self, version: ModelVersion | None) -> Detector:
        return self._base if version is None else self._others[version.name.replace("-", "_")]

    def open_folder(self, folder: Path) -> Detector:
        assert list(folder.iterdir())
        return self._others["candidate"]


class FakeTrainer:
    """Writes the labels and counts what it learned from, after three steps that it reports."""

    def __init__(self, error: Exception | None = None, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.learned: list[FrozenData] = []
        self.starts: list[Path | None] = []
        self.error = error
        self._meanwhile = meanwhile

    def train(
        self,
        data: FrozenData,
        request: TrainingRequest,
        start: Path | None,
        folder: Path,
        progress: Callable[[TrainingProgress], None],
    ) -> Mode:
        self.learned.append(data)
        self.starts.append(start)
        if self.error is not None:
            raise self.error
        for step in range(3):
            progress(TrainingProgress("train", step, 3, epoch=1, loss=1.0 / (1 + step), seconds_left=3 - step))
        self._meanwhile()
        (folder / "adapter.json").write_text(json.dumps([name for name, _ in data.labels]))
        return request.mode or Mode.PROMPT


class FakeReviewedProjects:
    """``ports.ReviewedProjects`` over given images; their files are their references, read once."""

    def __init__(
        self, images: Sequence[AnnotatedImage], labels: Sequence[Label] = (Label("cat"), Label("dog"))
    ) -> None:
        self.was_read: list[str] = []
        self._images = images
        self._labels = tuple(labels)

    @contextmanager
    def open(self, project: ProjectState) -> Iterator[AnnotatedImages]:
        yield FakeAnnotatedImages(self._images, [label.name for label in self._labels])

    def labels(self, project: ProjectState) -> tuple[Label, ...]:
        return self._labels

    def has(self, sha256: str) -> bool:
        return False

    def read(self, image: AnnotatedImage) -> ImageFile:
        self.was_read.append(image.reference)
        if image.reference.startswith("gone"):
            raise ImageError(f"{image.reference}: not there")
        return ImageFile(b"", ImageFacts(640, 480, digest_of(image.reference)))


class FakeAnnotatedImages:
    """``ports.AnnotatedImages`` in a list."""

    def __init__(self, images: Sequence[AnnotatedImage], labels: Sequence[str]) -> None:
        self._images = images
        self._labels = labels

    def labels(self) -> Sequence[DatasetLabel]:
        return [DatasetLabel(number, name) for number, name in enumerate(self._labels, start=1)]

    def images(self) -> Iterator[AnnotatedImage]:
        yield from self._images


def digest_of(reference: str) -> str:
    """A hash that puts the image ``train-1`` into the part ``train`` and so on, and differs from any other's."""
    first = {"train": "1", "tune": "c", "gate": "f"}[reference.rpartition("/")[2].partition("-")[0]]
    return first + sha256(reference.encode()).hexdigest()[1:]
