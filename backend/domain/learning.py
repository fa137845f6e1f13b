"""What learning speaks about: parts of the data, training jobs, model versions, and which of them is in production."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any

from backend.domain.geometry import Box
from backend.domain.records import Proposal

PRODUCTION = "production"
_TRAIN, _TUNE = 0.70, 0.85  # up to where each part reaches; the gate has the rest


class Part(StrEnum):
    """What an image is for: to learn from, or to judge with what was learnt.

    The gate judges each held-out half, ``TUNE`` and ``GATE``, with thresholds and calibration from the other.
    """

    TRAIN = "train"
    TUNE = "tune"
    GATE = "gate"


def split_of(digest: str) -> Part:
    """The part of an image with this SHA-256 (hex): 70, 15 and 15 percent by its leading 32 bits.

    It depends on the image's content alone: what was held out once stays held out, and so do its copies.
    """
    drawn = int(digest[:8], 16) / 2**32
    return Part.TRAIN if drawn < _TRAIN else Part.TUNE if drawn < _TUNE else Part.GATE


class Mode(StrEnum):
    """What a training changes: the language prompt's offsets, the heads, or all weights."""

    PROMPT = "prompt"
    HEAD = "head"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class LabelledBox:
    """A box in pixels of the upright image, and its label's name."""

    box: Box
    label: str


@dataclass(frozen=True, slots=True)
class ReviewedImage:
    """An image as people left it.

    Attributes:
        sha256: hex digest of its file, which is also how the file is found.
        width, height: of the upright image.
        annotations: the annotations' versions that tell of it: Label Studio's id and time (ISO 8601, UTC).
        boxes: all objects; none where a reviewer found nothing.
        rejected: boxes that were proposed and deleted, and that no box of the same label covers now.
    """

    sha256: str
    width: int
    height: int
    annotations: tuple[tuple[int, str], ...] = ()
    boxes: tuple[LabelledBox, ...] = ()
    rejected: tuple[LabelledBox, ...] = ()

    @property
    def part(self) -> Part:
        return split_of(self.sha256)


@dataclass(frozen=True, slots=True)
class PseudoImage:
    """An image of the part ``train`` that nobody reviewed, as a model sees it.

    Attributes:
        sha256, width, height: as of a `ReviewedImage`.
        teacher: name of the model version whose boxes these are.
        boxes: what it is sure of.
        doubtful: where there may be more.
    """

    sha256: str
    width: int
    height: int
    teacher: str
    boxes: tuple[LabelledBox, ...]
    doubtful: tuple[Box, ...] = ()


@dataclass(frozen=True, slots=True)
class FrozenData:
    """What one job learns from and is judged by; whatever order images are given in, they come in one.

    Attributes:
        labels: (name, words it is asked with) in asking order.
        images: what people said.
        pseudo: what a model says of other images; only to learn from.
    """

    labels: tuple[tuple[str, tuple[str, ...]], ...]
    images: tuple[ReviewedImage, ...]
    pseudo: tuple[PseudoImage, ...] = ()

    def __post_init__(self) -> None:
        # A resumed training must see them as the first attempt did, which did not read them from where they are kept.
        object.__setattr__(self, "images", tuple(sorted(self.images, key=lambda each: (each.sha256, each.annotations))))
        object.__setattr__(self, "pseudo", tuple(sorted(self.pseudo, key=lambda each: each.sha256)))

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of labels, images, annotation versions and boxes."""
        return sha256(self.to_json().encode()).hexdigest()

    def part(self, part: Part) -> tuple[ReviewedImage, ...]:
        """The reviewed images of one part, in their order."""
        return tuple(image for image in self.images if image.part is part)

    def to_json(self) -> str:
        """Write it as JSON; equal data gives equal text."""
        fields: dict[str, Any] = {"labels": self.labels, "images": [asdict(image) for image in self.images]}
        if self.pseudo:  # data without any keep the text, and so the fingerprint, that they had before there were any
            fields["pseudo"] = [asdict(image) for image in self.pseudo]
        return json.dumps(fields, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "FrozenData":
        """Read what ``to_json`` wrote."""
        fields = json.loads(text)
        labels = tuple((name, tuple(words)) for name, words in fields["labels"])
        images = tuple(_reviewed(image) for image in fields["images"])
        return cls(labels, images, tuple(_pseudo(image) for image in fields.get("pseudo", ())))


def _reviewed(fields: Mapping[str, Any]) -> ReviewedImage:
    annotations = tuple((number, moment) for number, moment in fields["annotations"])
    boxes, rejected = _boxes(fields["boxes"]), _boxes(fields["rejected"])
    return ReviewedImage(**{**fields, "annotations": annotations, "boxes": boxes, "rejected": rejected})


def _pseudo(fields: Mapping[str, Any]) -> PseudoImage:
    doubtful = tuple(Box(**box) for box in fields["doubtful"])
    return PseudoImage(**{**fields, "boxes": _boxes(fields["boxes"]), "doubtful": doubtful})


def _boxes(rows: Iterable[Mapping[str, Any]]) -> tuple[LabelledBox, ...]:
    return tuple(LabelledBox(Box(**row["box"]), row["label"]) for row in rows)


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """What was asked for; None leaves the choice to the amount of data and the device.

    Attributes:
        reason: what made the job due: ``images``, ``schedule``, ``label-studio`` or ``command``.
        mode: what to train.
        minutes: how long training may take at most.
        images: how many images to learn from at most, chosen by ``seed``.
        seed: of everything random.
        promote: whether a candidate that is better goes into production.
        self_training: whether to learn also from what the version in production is sure of on unreviewed images.
    """

    reason: str
    mode: Mode | None = None
    minutes: float | None = None
    images: int | None = None
    seed: int = 0
    promote: bool = True
    self_training: bool = False


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
        epoch, epochs: passes over the data; None outside of training.
        loss: of the latest steps; None outside of training.
        seconds_left: estimate for the stage, or None.
    """

    stage: str
    step: int = 0
    steps: int = 0
    epoch: int | None = None
    epochs: int | None = None
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
        attempt: which candidate against this production it is, from 1.
    """

    images: tuple[ReviewedImage, ...]
    production: Answers
    candidate: Answers
    attempt: int


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the gate says: whether the candidate is measurably better, why in one line, and the numbers as JSON."""

    promote: bool
    reason: str
    numbers: Mapping[str, Any]


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
