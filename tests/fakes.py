"""The ports in memory, with real behaviour: what the services' tests run on."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from threading import RLock

from backend.domain.annotations import Annotation
from backend.domain.dataset import ImageFacts
from backend.domain.facts import ProjectState, TaskState
from backend.domain.fits import Fit
from backend.domain.geometry import Box
from backend.domain.records import Picture, Prediction, Proposal, Query, Sentence
from backend.domain.review import Judgement
from backend.domain.verdicts import Judged, Verdict
from backend.errors import GlipLabelError, ImageError
from backend.ports import Corrections, Fits, Inbox, Predictions, Projects
from backend.ports.learning import ModelVersions, TrainingJobs
from tests.fake_fits import FakeFits
from tests.fake_inbox import FakeInbox, FakeInboxEntry
from tests.fake_learning import FakeLearning, FakeModelVersions, FakeTrainingJobs


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


@dataclass
class FakeTables:
    """What the fake database holds."""

    predictions: dict[tuple[str, int, str, str], Prediction] = field(default_factory=dict)
    predicted_at: dict[str, datetime] = field(default_factory=dict)
    thresholds: dict[str, float | None] = field(default_factory=dict)
    projects: dict[str, ProjectState] = field(default_factory=dict)
    labels: dict[str, dict[str, datetime | None]] = field(default_factory=dict)
    tasks: dict[tuple[str, int], TaskState] = field(default_factory=dict)
    versions: dict[tuple[str, int, datetime], Annotation] = field(default_factory=dict)
    deleted: set[tuple[str, int]] = field(default_factory=set)
    verdicts: dict[tuple[str, int, datetime], tuple[Verdict, ...]] = field(default_factory=dict)
    facts: dict[tuple[str, int, str], ImageFacts] = field(default_factory=dict)
    inbox: list[FakeInboxEntry] = field(default_factory=list)
    learning: FakeLearning = field(default_factory=FakeLearning)
    fits: dict[str, Fit] = field(default_factory=dict)
    rehearsals: dict[tuple[str, str], list[Judgement]] = field(default_factory=dict)

    def copy(self) -> "FakeTables":
        """The same rows, so that changes to one do not show in the other."""
        changed = {each.name: copy(getattr(self, each.name)) for each in fields(self)}
        return FakeTables(
            **{**changed, "inbox": [replace(entry) for entry in self.inbox], "learning": self.learning.copy()}
        )


class FakePredictions:
    """``ports.Predictions`` in a dictionary."""

    def __init__(self, tables: FakeTables) -> None:
        self._tables = tables

    def find(self, project: str, task_id: int, model_version: str, query_key: str) -> Prediction | None:
        return self._tables.predictions.get((project, task_id, model_version, query_key))

    def add(self, project: str, query_key: str, prediction: Prediction) -> None:
        key = (project, prediction.task_id, prediction.model_version, query_key)
        self._tables.predictions.setdefault(key, prediction)
        self._tables.predicted_at.setdefault(prediction.id, datetime.now(UTC))

    def of_task(self, project: str, task_id: int, until: datetime, named: Collection[str] = ()) -> Sequence[Prediction]:
        made = self._tables.predicted_at
        found = [each for key, each in self._tables.predictions.items() if key[:2] == (project, task_id)]
        names = {each.id: {each.id, *(region.id for region in each.regions)} for each in found}
        known = [each for each in found if made[each.id] <= until or not names[each.id].isdisjoint(named)]
        return sorted(known, key=lambda each: (made[each.id], each.id))

    def newest(self, project: str, model_version: str) -> Iterator[Prediction]:
        yield from {each.task_id: each for each in self._oldest_first(project, model_version)}.values()

    def newest_by_picture(self, project: str, model_version: str) -> Iterator[Prediction]:
        found = self._oldest_first(project, model_version)
        yield from {(each.task_id, each.look.reference): each for each in found}.values()

    def prompted_regions(self, project: str) -> frozenset[str]:
        made = [each for key, each in self._tables.predictions.items() if key[0] == project]
        return frozenset(region.id for each in made for region in each.regions if region.weight == 0)

    def _oldest_first(self, project: str, model_version: str) -> list[Prediction]:
        made = self._tables.predicted_at
        found = [each for key, each in self._tables.predictions.items() if (key[0], key[2]) == (project, model_version)]
        return sorted((each for each in found if not each.look.prompted), key=lambda each: (made[each.id], each.id))


class FakeProjects:
    """``ports.Projects`` in dictionaries."""

    def __init__(self, tables: FakeTables) -> None:
        self._tables = tables

    def score_threshold(self, project: str) -> float | None:
        return self._tables.thresholds.get(project)

    def set_score_threshold(self, project: str, value: float | None) -> None:
        self._tables.thresholds[project] = value

    def state(self, project: str) -> ProjectState | None:
        return self._tables.projects.get(project)

    def put(self, state: ProjectState) -> None:
        self._tables.projects[state.uid] = replace(state, labels=())

    def labels(self, project: str) -> Mapping[str, datetime | None]:
        return self._tables.labels.get(project, {})

    def add_labels(self, project: str, names: Sequence[str], since: datetime | None) -> None:
        known = self.labels(project)
        self._tables.labels[project] = {**known, **{name: since for name in names if name not in known}}

    def all(self) -> Sequence[ProjectState]:
        return sorted(self._tables.projects.values(), key=lambda state: (state.id, state.uid))


class FakeCorrections:
    """``ports.Corrections`` in dictionaries."""

    def __init__(self, tables: FakeTables) -> None:
        self._tables = tables

    def lock(self) -> None:
        pass  # one transaction at a time anyway

    def task(self, project: str, task_id: int) -> TaskState | None:
        return self._tables.tasks.get((project, task_id))

    def live_tasks(self, project: str) -> frozenset[int]:
        return frozenset(
            key for (owner, key), task in self._tables.tasks.items() if owner == project and not task.deleted
        )

    def put_task(self, project: str, task: TaskState) -> None:
        assert project in self._tables.projects
        self._tables.tasks[project, task.id] = task

    def version(self, project: str, annotation_id: int, updated_at: datetime) -> Annotation | None:
        return self._tables.versions.get((project, annotation_id, updated_at))

    def put_version(self, project: str, annotation: Annotation) -> None:
        assert (project, annotation.task_id) in self._tables.tasks
        key = (project, annotation.id, annotation.updated_at)
        self._tables.versions[key] = annotation
        self._tables.verdicts.pop(key, None)

    def knows(self, project: str, annotation_id: int) -> bool:
        told = any(key[:2] == (project, annotation_id) for key in self._tables.versions)
        return told or (project, annotation_id) in self._tables.deleted

    def delete_annotation(self, project: str, annotation_id: int) -> None:
        assert project in self._tables.projects
        self._tables.deleted.add((project, annotation_id))

    def annotation_ids(self, project: str, after: int, limit: int) -> Sequence[int]:
        known = {key[:2] for key in self._tables.versions} | self._tables.deleted
        return sorted(number for owner, number in known if owner == project and number > after)[:limit]

    def versions(self, project: str, ids: Collection[int] | None = None) -> Iterator[Annotation]:
        keys = sorted(key for key in self._tables.versions if key[0] == project and (ids is None or key[1] in ids))
        yield from [self._tables.versions[key] for key in keys]

    def current(self, project: str) -> Iterator[Annotation]:
        newest = {annotation.id: annotation for annotation in self.versions(project)}
        for annotation in newest.values():
            task = self._tables.tasks[project, annotation.task_id]
            if not task.deleted and (project, annotation.id) not in self._tables.deleted:
                yield annotation

    def tasks_by_annotation(self, project: str, *, skipped: bool = True) -> Mapping[int, int]:
        return {each.id: each.task_id for each in self.current(project) if skipped or not each.cancelled}

    def put_facts(self, project: str, task_id: int, reference: str, facts: ImageFacts) -> None:
        assert (project, task_id) in self._tables.tasks
        self._tables.facts[project, task_id, reference] = facts

    def newest_version(self, project: str) -> int:
        return max((number for (owner, *_), number in self._numbered() if owner == project), default=0)

    def count_reviewed(self, project: str, after: int = 0) -> int:
        numbers = dict(self._numbered())
        counted = (each for each in self.current(project) if not each.cancelled)
        return sum(numbers[project, each.id, each.updated_at] > after for each in counted)

    def _numbered(self) -> Iterator[tuple[tuple[str, int, datetime], int]]:
        """The keys of all versions in the order in which they came."""
        yield from ((key, number) for number, key in enumerate(self._tables.versions, start=1))

    def put_verdicts(self, project: str, annotation: Annotation, verdicts: Sequence[Verdict]) -> None:
        key = (project, annotation.id, annotation.updated_at)
        assert key in self._tables.versions
        self._tables.verdicts[key] = tuple(verdicts)

    def verdicts(self, project: str, annotation: Annotation) -> tuple[Verdict, ...]:
        return self._tables.verdicts.get((project, annotation.id, annotation.updated_at), ())

    def current_verdicts(self, project: str) -> Iterator[Verdict]:
        for annotation in self.current(project):
            yield from self.verdicts(project, annotation)

    def judged(self, project: str, model_version: str, newest: int) -> Sequence[Judged]:
        found = []
        emitted = {
            region.id: (region, each.fit) for each in self._tables.predictions.values() for region in each.regions
        }
        for annotation in self.current(project):
            for verdict in self.verdicts(project, annotation):
                if verdict.model_version == model_version:
                    region, fit = emitted.get(verdict.emitted_region or "", (None, None))
                    if verdict.emitted_region is None:
                        fit = self._fit_of_answered(project, annotation, model_version)
                    found.append(Judged(verdict, annotation.task_id, region, fit))
        return found[-newest:]

    def _fit_of_answered(self, project: str, annotation: Annotation, version: str) -> str | None:
        made, of_task = self._tables.predicted_at, (project, annotation.task_id, version)
        asked = [each for key, each in self._tables.predictions.items() if key[:3] == of_task]
        known = [each for each in asked if not each.look.prompted and made[each.id] <= annotation.created_at]
        newest = max(known, key=lambda each: (made[each.id], each.id), default=None)
        return None if newest is None else newest.fit

    def count_judged(self, project: str) -> Mapping[str, int]:
        weights = {region.id: region.weight for each in self._tables.predictions.values() for region in each.regions}
        return Counter(
            each.model_version
            for each in self.current_verdicts(project)
            if each.model_version and each.emitted_region and weights.get(each.emitted_region, 1.0) > 0
        )


class FakeDatabase:
    """Call it for a unit of work; what was committed stays, the rest is forgotten."""

    def __init__(self) -> None:
        self.tables = FakeTables()
        self.lock = RLock()

    def __call__(self) -> "FakeUnitOfWork":
        return FakeUnitOfWork(self)


class FakeUnitOfWork:
    """``ports.UnitOfWork`` on a copy that ``commit`` puts in place; one transaction at a time, as with SQLite."""

    predictions: Predictions
    projects: Projects
    corrections: Corrections
    inbox: Inbox
    versions: ModelVersions
    jobs: TrainingJobs
    fits: Fits

    def __init__(self, database: FakeDatabase) -> None:
        self._database = database

    def __enter__(self) -> "FakeUnitOfWork":
        self._database.lock.acquire()
        self._tables = self._database.tables.copy()
        self.predictions = FakePredictions(self._tables)
        self.projects = FakeProjects(self._tables)
        self.corrections = FakeCorrections(self._tables)
        self.inbox = FakeInbox(self._tables.inbox)
        self.versions = FakeModelVersions(self._tables.learning)
        self.jobs = FakeTrainingJobs(self._tables.learning)
        self.fits = FakeFits(self._tables.fits, self._tables.rehearsals)
        return self

    def __exit__(self, *exc_info: object) -> None:
        del self.predictions, self.projects, self.corrections, self.inbox, self.versions, self.jobs, self.fits
        self._database.lock.release()

    def commit(self) -> None:
        self._database.tables = self._tables.copy()
