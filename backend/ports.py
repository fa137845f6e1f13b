"""What the services need from the outside, as protocols; ``backend.bootstrap`` picks the implementations."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from backend.domain.dataset import AnnotatedImage, DatasetLabel
from backend.domain.records import Picture, Prediction, Proposal, Query


class Detector(Protocol):
    """A model that finds what a query names."""

    @property
    def version(self) -> str:
        """Name of the immutable weights, for example ``glip-nano``; stored with every prediction."""
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


class Images(Protocol):
    """Where the picture of a task comes from."""

    def fetch(self, reference: str, task_id: int | None = None) -> Picture:
        """Get the picture that a task's data refers to (upload, local file, http(s), cloud URI).

        Raises:
            ImageError: it cannot be had; the message names it and the reason.
        """
        ...


class Predictions(Protocol):
    """Predictions that were emitted, one per task, model version and query."""

    def find(self, project_id: int, task_id: int, model_version: str, query_key: str) -> Prediction | None: ...

    def add(self, project_id: int, query_key: str, prediction: Prediction) -> None: ...


class Projects(Protocol):
    """What Label Studio said about its projects; ``project`` is its unique name, ``ID.CREATED``."""

    def score_threshold(self, project: str) -> float | None: ...

    def set_score_threshold(self, project: str, value: float | None) -> None: ...


class AnnotatedImages(Protocol):
    """A project's images with everything that was annotated on them, for an export."""

    def labels(self) -> Sequence[DatasetLabel]:
        """All labels ever seen in the project, by their ids."""
        ...

    def images(self) -> Iterator[AnnotatedImage]:
        """Yield the images in the order of their ids; memory does not grow with their number."""
        ...


class UnitOfWork(Protocol):
    """One transaction: nothing is kept unless ``commit`` is called."""

    predictions: Predictions
    projects: Projects

    def __enter__(self) -> "UnitOfWork": ...

    def __exit__(self, *exc_info: object) -> None: ...

    def commit(self) -> None: ...
