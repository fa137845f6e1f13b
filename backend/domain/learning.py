"""What learning speaks about: training jobs, model versions, and which of them is in production."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from math import ceil
from typing import Any

from backend.domain.records import Proposal
from backend.domain.training_data import ReviewedImage

PRODUCTION = "production"
_GROWTH = 0.5
_UNJUDGED = 0.2


class Mode(StrEnum):
    """What a training changes: the language prompt's offsets, the heads, or all weights."""

    PROMPT = "prompt"
    HEAD = "head"
    FULL = "full"


def training_due_after(learnt: int, least: int, *, judged: bool = True) -> int:
    """Give how many new images are worth a training, after one that was done and knew ``learnt``.

    They are ``least`` and half as many as those: ten more teach much where there were twenty, and little where there
    were a thousand. Where the gate could not judge that one, a fifth of ``least`` is enough: it waits for a few more
    held-out images.
    """
    return ceil(max(least, _GROWTH * learnt) if judged else _UNJUDGED * least)


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """What was asked for; None leaves the choice to the amount of data and the device.

    Attributes:
        reason: what made the job due: ``annotations``, ``schedule``, ``label-studio`` or ``command``.
        mode: what to train.
        minutes: how long training may take at most.
        images: how many images to learn from at most, chosen by ``seed``.
        seed: of everything random.
        promote: whether a candidate that is better goes into production.
        self_training: whether to learn also from what the version in production is sure of on unreviewed images.
        frozen: in mode "full" what stays as it is, as beginnings of parameters' names.
        from_base: whether to begin at the base although a whole model was trained before.
    """

    reason: str
    mode: Mode | None = None
    minutes: float | None = None
    images: int | None = None
    seed: int = 0
    promote: bool = True
    self_training: bool = False
    frozen: tuple[str, ...] = ()
    from_base: bool = False


class JobState(StrEnum):
    """Where a job stands; ``QUEUED`` and ``RUNNING`` are open, and a project has at most one open job."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """How far a job is.

    Attributes:
        stage: ``data``, ``train`` or ``gate``.
        step, steps: of the stage; 0 steps where it is not known how many there are.
        epoch: which pass over the data, from 1; None outside of training.
        loss: of the latest steps; None outside of training.
        seconds_left: estimate for the stage, or None.
    """

    stage: str
    step: int = 0
    steps: int = 0
    epoch: int | None = None
    loss: float | None = None
    seconds_left: float | None = None


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """One request to fine-tune, and what came of it; moments are UTC.

    Attributes:
        id: unique in the database.
        project: Label Studio's ``ID.CREATED``.
        worker: who works on it, or did; its claim holds until ``lease_until`` unless a heartbeat prolongs it.
        attempts: how often it was claimed.
        seen: number of the newest version of an annotation that it knows of.
        learnt: how many annotations it learns from and is judged by, once its data are frozen.
        fingerprint: of its data, once they are frozen.
        version: name of the model version it made.
        outcome: one line for people: what the gate decided, or why it failed.
    """

    id: int
    project: str
    request: TrainingRequest
    state: JobState
    requested_at: datetime
    worker: str | None = None
    lease_until: datetime | None = None
    heartbeat_at: datetime | None = None
    finished_at: datetime | None = None
    attempts: int = 0
    progress: TrainingProgress | None = None
    fingerprint: str | None = None
    version: str | None = None
    outcome: str | None = None
    seen: int = 0
    learnt: int = 0

    @property
    def is_open(self) -> bool:
        return self.state in (JobState.QUEUED, JobState.RUNNING)


def job_to_json(job: TrainingJob) -> dict[str, Any]:
    """Show a job to programs; moments are ISO 8601 in UTC."""
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in asdict(job).items()}


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model proposed for some images, in their order: all boxes down to a score of 0.05, and seconds for each.

    They come from the whole way that a prediction takes, so after suppression of doubles and without a threshold.
    """

    proposals: tuple[tuple[Proposal, ...], ...]
    seconds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Contest:
    """A candidate beside what is in production, on images that neither learned from.

    Attributes:
        images: of the parts ``tune`` and ``gate``.
        production, candidate: their answers.
        attempt: which candidate compared with this production it is, from 1.
    """

    images: tuple[ReviewedImage, ...]
    production: Answers
    candidate: Answers
    attempt: int


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the gate says: whether the candidate is measurably better, why in one line, and the numbers as JSON.

    ``compared`` is False where too few images were held out to look: that was no try, and leaves the next one all its
    error. ``may_pay`` tells that the candidate measured better, be it by chance.
    """

    promote: bool
    reason: str
    numbers: Mapping[str, Any]
    compared: bool = True
    may_pay: bool = False

    def to_json(self) -> dict[str, Any]:
        """Show it to programs."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One immutable set of weights or adapter of a project.

    Attributes:
        project: Label Studio's ``ID.CREATED``.
        name: ``<base's name>-NNNN``, unique in the project, for example ``glip-nano-0003``.
        parent: what was in production when it was trained: a version of the project, or the base.
        base: version of the base weights it was trained from, for example ``glip-nano-3f9a12cd``.
        mode: what was trained; an adapter unless ``full``.
        fingerprint: of the data.
        files: (name, SHA-256 in hex) of each file in its folder.
        metrics: numbers of the training and of the gate, as JSON.
        created_at: UTC.
    """

    project: str
    name: str
    parent: str
    base: str
    mode: Mode
    fingerprint: str
    files: tuple[tuple[str, str], ...]
    metrics: Mapping[str, Any]
    created_at: datetime

    @property
    def judged(self) -> bool:
        """Whether the gate could look; versions from before it told were looked at."""
        return bool(self.metrics.get("gate", {}).get("compared", True))

    @property
    def may_be_better(self) -> bool:
        """Whether it measured better than what was in production, be it by chance, or could not be judged."""
        return bool(self.metrics.get("gate", {}).get("may_pay", False)) or not self.judged

    @property
    def refused(self) -> bool:
        """Whether the gate would not have it."""
        return not self.metrics.get("gate", {}).get("promote", False)


class MoveKind(StrEnum):
    """Why an alias moved: to something chosen, or back to what it was before that."""

    PROMOTION = "promotion"
    ROLLBACK = "rollback"


@dataclass(frozen=True, slots=True)
class AliasMove:
    """One change of what an alias means: the newest one holds.

    Attributes:
        version: name of the version, None for the configured base model.
        moved_at: UTC.
        actor: who or what did it, for people: ``gate``, ``command`` …
        reason: one line, for people.
        numbers: what the decision rests on, as JSON; empty where a person decided.
    """

    project: str
    alias: str
    version: str | None
    kind: MoveKind
    moved_at: datetime
    actor: str
    reason: str
    numbers: Mapping[str, Any]


def next_version_name(base: str, taken: Sequence[str]) -> str:
    """Name the next version of a base: ``glip-nano-3f9a12cd`` gives ``glip-nano-0001``, or the number after ``taken``.

    Args:
        base: the base weights' version: a name and a digest.
        taken: names of all the project's versions.
    """
    numbers = [int(name.rpartition("-")[2]) for name in taken]
    return f"{base.rpartition('-')[0]}-{max(numbers, default=0) + 1:04d}"
