"""The ports in memory, with real behaviour: what the services' tests run on."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from threading import Lock

from backend.domain.geometry import Box
from backend.domain.records import Picture, Prediction, Proposal, Query, Sentence
from backend.errors import GlipLabelError, ImageError
from backend.ports import Predictions, Projects


def one_box_per_label(picture: Picture, query: Query) -> list[Proposal]:
    """Propose the middle of the picture for the first label, and smaller, less certain boxes for the others."""
    asked = (
        [(span.label, query.text[span.start : span.end]) for span in query.spans]
        if isinstance(query, Sentence)
        else [(label.name, label.asked[0]) for label in query]
    )
    return [
        Proposal(
            Box(picture.width / 4, picture.height / 4, picture.width / (2 + rank), picture.height / (2 + rank)),
            label,
            0.9 / (1 + rank),
            words,
        )
        for rank, (label, words) in enumerate(asked[:2])
    ]


class FakeDetector:
    """A detector that answers by a function, and remembers what it was asked."""

    def __init__(
        self,
        finds: Callable[[Picture, Query], list[Proposal]] = one_box_per_label,
        version: str = "fake-0123abcd",
        error: GlipLabelError | None = None,
    ) -> None:
        self.version = version
        self.asked: list[tuple[Sequence[Picture], Query]] = []
        self._finds = finds
        self._error = error

    def detect(
        self, pictures: Sequence[Picture], query: Query, *, score_threshold: float = 0.05
    ) -> list[list[Proposal]]:
        self.asked.append((pictures, query))
        if self._error is not None:
            raise self._error
        return [
            [proposal for proposal in self._finds(picture, query) if not proposal.score < score_threshold]
            for picture in pictures
        ]


class FakeImages:
    """Pictures by reference; those not given are of the size ``default``, or missing where that is None."""

    def __init__(
        self, pictures: Mapping[str, Picture | GlipLabelError] | None = None, default: tuple[int, int] | None = (64, 48)
    ) -> None:
        self.fetched: list[str] = []
        self._pictures = dict(pictures or {})
        self._default = default

    def fetch(self, reference: str, task_id: int | None = None) -> Picture:
        self.fetched.append(reference)
        picture = self._pictures.get(reference)
        if isinstance(picture, GlipLabelError):
            raise picture
        if picture is not None:
            return picture
        if self._default is None:
            raise ImageError(f"{reference}: not there")
        width, height = self._default
        return Picture(width, height, bytes(3 * width * height), "0" * 64, reference)


class FakePredictions:
    """``ports.Predictions`` in a dictionary."""

    def __init__(self, rows: dict[tuple[int, int, str, str], Prediction]) -> None:
        self.rows = rows

    def find(self, project_id: int, task_id: int, model_version: str, query_key: str) -> Prediction | None:
        return self.rows.get((project_id, task_id, model_version, query_key))

    def add(self, project_id: int, query_key: str, prediction: Prediction) -> None:
        self.rows.setdefault((project_id, prediction.task_id, prediction.model_version, query_key), prediction)


class FakeProjects:
    """``ports.Projects`` in a dictionary."""

    def __init__(self, thresholds: dict[str, float | None]) -> None:
        self.thresholds = thresholds

    def score_threshold(self, project: str) -> float | None:
        return self.thresholds.get(project)

    def set_score_threshold(self, project: str, value: float | None) -> None:
        self.thresholds[project] = value


class FakeDatabase:
    """Call it for a unit of work; what was committed stays, the rest is forgotten."""

    def __init__(self) -> None:
        self.predictions: dict[tuple[int, int, str, str], Prediction] = {}
        self.thresholds: dict[str, float | None] = {}
        self.lock = Lock()

    def __call__(self) -> "FakeUnitOfWork":
        return FakeUnitOfWork(self)


class FakeUnitOfWork:
    """``ports.UnitOfWork`` on copies that ``commit`` merges back."""

    predictions: Predictions
    projects: Projects

    def __init__(self, database: FakeDatabase) -> None:
        self._database = database

    def __enter__(self) -> "FakeUnitOfWork":
        with self._database.lock:
            self._predictions = FakePredictions(dict(self._database.predictions))
            self._projects = FakeProjects(deepcopy(self._database.thresholds))
        self.predictions, self.projects = self._predictions, self._projects
        return self

    def __exit__(self, *exc_info: object) -> None:
        del self.predictions, self.projects

    def commit(self) -> None:
        with self._database.lock:
            self._database.predictions |= self._predictions.rows
            self._database.thresholds |= self._projects.thresholds
