"""What the services need from the outside, as protocols; ``backend.bootstrap`` picks the implementations."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Protocol

from backend.domain.annotations import Annotation
from backend.domain.dataset import AnnotatedImage, DatasetLabel, ImageFacts, ImageFile
from backend.domain.facts import InboxCounts, InboxFailure, ProjectState, TaskLook, TaskState
from backend.domain.fits import Fit
from backend.domain.learning import ModelVersion
from backend.domain.records import Label, Picture, Prediction, Proposal, Query
from backend.domain.review import Judgement
from backend.domain.verdicts import Judged, Verdict
from backend.ports.learning import ModelVersions, TrainingJobs


class Detector(Protocol):
    """A model that finds what a query names."""

    @property
    def version(self) -> str:
        """Name of the immutable weights, for example ``glip-nano-3f9a12cd``; stored with every prediction."""
        ...

    def detect(
        self, pictures: Sequence[Picture], query: Query, *, score_threshold: float = 0.05
    ) -> list[list[Proposal]]:
        """Find what the query names in each picture.

        Returns:
            One list per picture, in order, best score first; boxes in pixels of the picture, clipped to it.

        Raises:
            UsageError: the query is empty, or one of its names has no tokens.
            ModelError: the weights cannot be loaded.
        """
        ...


class Models(Protocol):
    """The configured base model, and the versions that were trained from it."""

    @property
    def base(self) -> str:
        """Version of the base weights, for example ``glip-nano-3f9a12cd``; nothing is loaded.

        Raises:
            ModelError: there is no such model.
        """
        ...

    def open(self, version: ModelVersion | None) -> Detector:
        """Give the detector of a version, or of the base where None; weights are loaded when it first detects."""
        ...

    def open_folder(self, folder: Path) -> Detector:
        """Give the detector of what a trainer wrote, before it is a version."""
        ...


class Images(Protocol):
    """Where the picture of a task comes from."""

    def fetch(self, reference: str, task_id: int | None = None) -> Picture:
        """Get the picture that a task's data refers to (upload, local file, http(s), cloud URI).

        Raises:
            ImageError: it cannot be had; the message names it and the reason.
        """
        ...


class Predictions(Protocol):
    """Predictions that were emitted, one per task, model version and query; ``project`` is as in `Projects`."""

    def find(self, project: str, task_id: int, model_version: str, query_key: str) -> Prediction | None: ...

    def add(self, project: str, query_key: str, prediction: Prediction) -> None: ...

    def of_task(self, project: str, task_id: int, until: datetime, named: Collection[str] = ()) -> Sequence[Prediction]:
        """Return a task's predictions until a moment, and those whose id, or a region's, is ``named``; oldest first."""
        ...

    def newest(self, project: str, model_version: str) -> Iterator[Prediction]:
        """Yield a version's newest prediction for each task, in no order, without those that a person prompted."""
        ...

    def newest_by_picture(self, project: str, model_version: str) -> Iterator[Prediction]:
        """Yield what ``newest`` does, but one for each picture that a task showed."""
        ...

    def prompted_regions(self, project: str) -> frozenset[str]:
        """Return the ids of the regions that were found for people's prompts."""
        ...


class Projects(Protocol):
    """What Label Studio said about its projects; ``project`` is its unique name, ``ID.CREATED``."""

    def score_threshold(self, project: str) -> float | None: ...

    def set_score_threshold(self, project: str, value: float | None) -> None: ...

    def state(self, project: str) -> ProjectState | None:
        """Return what was put last, without the labels; None for a project that is not known."""
        ...

    def put(self, state: ProjectState) -> None:
        """Keep a project's state in place of an earlier one; its labels are not touched."""
        ...

    def labels(self, project: str) -> Mapping[str, datetime | None]:
        """Return all labels ever seen, the first has number 1, and when each was added; None: the project began so."""
        ...

    def add_labels(self, project: str, names: Sequence[str], since: datetime | None) -> None:
        """Give the next numbers to those names that have none, and keep when they were added."""
        ...

    def all(self) -> Sequence[ProjectState]:
        """Return every known project, without its labels, by Label Studio's id."""
        ...


class Corrections(Protocol):
    """Tasks, annotations with all their versions, and the verdicts on them; ``project`` is ``ID.CREATED``.

    It keeps what it is given: ``backend.services.corrections`` decides what holds.
    """

    def lock(self) -> None:
        """Keep other transactions from deciding at the same time, until this one ends."""
        ...

    def task(self, project: str, task_id: int) -> TaskState | None: ...

    def live_tasks(self, project: str) -> frozenset[int]:
        """Return the ids of the known tasks that were not deleted."""
        ...

    def put_task(self, project: str, task: TaskState) -> None:
        """Keep a task in place of its earlier state; its project must be known."""
        ...

    def version(self, project: str, annotation_id: int, updated_at: datetime) -> Annotation | None: ...

    def put_version(self, project: str, annotation: Annotation) -> None:
        """Keep a version in place of one of the same time, whose verdicts go; its task must be known."""
        ...

    def knows(self, project: str, annotation_id: int) -> bool:
        """Tell whether there is anything about an annotation, be it only its deletion."""
        ...

    def delete_annotation(self, project: str, annotation_id: int) -> None:
        """Mark an annotation as deleted, also one that is not known; its versions stay."""
        ...

    def annotation_ids(self, project: str, after: int, limit: int) -> Sequence[int]:
        """Return the lowest ids of annotations above ``after``, deleted ones as well."""
        ...

    def versions(self, project: str, ids: Collection[int] | None = None) -> Iterator[Annotation]:
        """Yield every version of every annotation (of those ids), by id and time, deleted ones as well."""
        ...

    def current(self, project: str) -> Iterator[Annotation]:
        """Yield the newest version of every annotation that was not deleted, nor its task; by id."""
        ...

    def tasks_by_annotation(self, project: str, *, skipped: bool = True) -> Mapping[int, int]:
        """Return the ids of what ``current`` yields, with or without skipped ones, and of their tasks: less to read."""
        ...

    def put_facts(self, project: str, task_id: int, reference: str, facts: ImageFacts) -> None:
        """Keep what the file behind a task's reference says of itself."""
        ...

    def newest_version(self, project: str) -> int:
        """Number the version that was kept last, whatever its time; 0 where there is none. Later ones have more."""
        ...

    def count_reviewed(self, project: str, after: int = 0) -> int:
        """Count the annotations that say something (not skipped, not deleted), by versions kept after that number."""
        ...

    def put_verdicts(self, project: str, annotation: Annotation, verdicts: Sequence[Verdict]) -> None:
        """Keep the verdicts on a version in place of earlier ones."""
        ...

    def verdicts(self, project: str, annotation: Annotation) -> tuple[Verdict, ...]:
        """Return the verdicts on a version, by position."""
        ...

    def current_verdicts(self, project: str) -> Iterator[Verdict]:
        """Yield the verdicts on what ``current`` yields, by annotation and position."""
        ...

    def judged(self, project: str, model_version: str, newest: int) -> Sequence[Judged]:
        """Return the last so many current verdicts on what a version proposed or missed, by annotation and position."""
        ...

    def count_judged(self, project: str) -> Mapping[str, int]:
        """Count the current verdicts on proposed regions by model version, except on what prompts asked for."""
        ...


class Tasks(Protocol):
    """Label Studio as it stands now. All raise LabelStudioError where it is away or refuses."""

    def project(self, project_id: int) -> ProjectState:
        """Look at a project; its ``updated_at`` is not known."""
        ...

    def pages(self, project_id: int) -> Iterator[Sequence[TaskLook]]:
        """Yield all tasks of a project, some at a time. Those deleted meanwhile may push others out of sight."""
        ...

    def has_task(self, task_id: int) -> bool: ...

    def has_annotation(self, annotation_id: int) -> bool: ...


class Inbox(Protocol):
    """Facts that wait to be applied, in the order in which they came; none is ever removed."""

    def add(self, action: str, project_id: int | None, payload: str) -> None: ...

    def waiting(self, limit: int) -> Sequence[int]:
        """Return the ids of the oldest entries that were neither applied nor failed."""
        ...

    def claim(self, entry: int) -> str | None:
        """Mark a waiting entry as applied and return its payload; None where it does not wait any more.

        Another transaction that claims the same entry waits for this one to end.
        """
        ...

    def fail(self, entry: int, reason: str) -> None:
        """Keep the reason why a waiting entry cannot be applied; it waits no more."""
        ...

    def retry(self) -> int:
        """Let the failed entries wait again; returns how many there were."""
        ...

    def counts(self) -> InboxCounts: ...

    def failures(self, limit: int) -> Sequence[InboxFailure]:
        """Return the oldest failed entries."""
        ...


class AnnotatedImages(Protocol):
    """A project's images with everything that was annotated on them, for an export."""

    def labels(self) -> Sequence[DatasetLabel]:
        """All labels ever seen in the project, by their ids."""
        ...

    def images(self) -> Iterator[AnnotatedImage]:
        """Yield the images in the order of their ids; memory does not grow with their number."""
        ...


class ReviewedProjects(Protocol):
    """Projects as their people left them, for learning."""

    def open(self, project: ProjectState) -> AbstractContextManager[AnnotatedImages]:
        """Give the images as they are now, with everything that was annotated, for the length of a ``with`` block."""
        ...

    def labels(self, project: ProjectState) -> tuple[Label, ...]:
        """Return what a model is asked for in the project.

        Raises:
            LabelConfigError: its labelling config asks for nothing, or is not known.
        """
        ...

    def has(self, sha256: str) -> bool:
        """Tell whether the image with this content lies on this machine."""
        ...

    def read(self, image: AnnotatedImage) -> ImageFile:
        """Get an image's file from where its task says, and keep it on this machine.

        Raises:
            ImageError: it cannot be had, is no image, or its pixels cannot be decoded.
        """
        ...


class ImportedImages(Protocol):
    """A project that takes a data set in."""

    def add(self, labels: Sequence[DatasetLabel], images: Iterable[AnnotatedImage]) -> None:
        """Keep labels and images under their ids; all or nothing.

        Raises:
            UsageError: the project holds something already.
        """
        ...


class Fits(Protocol):
    """What was fitted to verdicts; none is ever removed, so that what people saw can be told.

    A version's rehearsal is what became of its proposals on images that it was not trained on, before anybody saw them.
    """

    def newest(self, project: str, model_version: str) -> Fit | None: ...

    def find(self, fit: str) -> Fit | None: ...

    def add(self, fit: Fit) -> None:
        """Keep a fit; its project must be known."""
        ...

    def rehearsed(self, project: str, model_version: str) -> Sequence[Judgement]: ...

    def count_rehearsed(self, project: str, model_version: str) -> int: ...

    def add_rehearsal(self, project: str, model_version: str, judgements: Sequence[Judgement]) -> None:
        """Keep a version's rehearsal; its project must be known."""
        ...


class UnitOfWork(Protocol):
    """One transaction: nothing is kept unless ``commit`` is called."""

    predictions: Predictions
    projects: Projects
    corrections: Corrections
    inbox: Inbox
    versions: ModelVersions
    jobs: TrainingJobs
    fits: Fits

    def __enter__(self) -> "UnitOfWork": ...

    def __exit__(self, *exc_info: object) -> None: ...

    def commit(self) -> None: ...
