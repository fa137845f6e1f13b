"""A whole annotation project with a simulated person at work, to see what the loop of learning saves.

Batch by batch: the model in production proposes boxes, some are shown, the person corrects them, a candidate learns
from what the person left, the gate judges it, scores and thresholds are fitted anew, the next images are chosen. Only
the person is simulated: training, fits, gate and choice are those of real projects.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from backend.analysis.acquisition import choosing_pays
from backend.analysis.simulated_annotator import Annotator, Human
from backend.analysis.simulated_project import Display, Round, Strategy
from backend.domain.learning import (
    Answers,
    Contest,
    Mode,
    Ruling,
    TrainingRequest,
    next_version_name,
    training_due_after,
)
from backend.domain.records import Label, Proposal
from backend.domain.review import FLOOR, LABEL_STUDIO, Costs, slow
from backend.domain.training_data import FrozenData, Part, ReviewedImage
from backend.domain.verdicts import VerdictKind
from backend.errors import ImageError
from backend.ports import Detector, Images, Models
from backend.services.next_batch import choose
from backend.services.ordering import Work, rounds_of
from backend.services.prelabel import PrelabelSettings, Skipped, prelabel
from backend.services.simulated_view import Seen, TrueImage, View

FIXED_CUTS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6)
_DETECTED_AT_ONCE = 8

_Proposals = Sequence[Sequence[Proposal]]


@dataclass(frozen=True, slots=True)
class TrueProject:
    """What is asked for, the images to annotate, and those that models are measured on and nothing else."""

    labels: tuple[Label, ...]
    pool: tuple[TrueImage, ...]
    test: tuple[TrueImage, ...]


@dataclass(frozen=True, slots=True)
class SimulationSettings:
    """How a project goes.

    Attributes:
        batch: images that are chosen at once at most, and between two trainings at least; a fifth of them after a
            training that could not be judged.
        rounds: how often the model learns at most, but for trainings that could not be judged; as long as images are
            left where None.
        mode, minutes: of each training, as in a `TrainingRequest`.
        costs: of the person who draws fast; the one who draws slowly reviews the same boxes.
        human: how the person errs.
    """

    batch: int = 25
    rounds: int | None = None
    mode: Mode | None = None
    minutes: float | None = None
    costs: Costs = LABEL_STUDIO
    human: Human = field(default_factory=Human)

    @property
    def displays(self) -> tuple[Display, ...]:
        """Every way to show boxes, for either person; the first is what the model learns from."""
        both = (self.costs, slow(self.costs))
        lenient = tuple(Display(costs, cut) for costs in both for cut in (None, *FIXED_CUTS))
        return lenient + tuple(Display(costs, strict=True) for costs in both)


Precision = tuple[float | None, float | None]


@dataclass(frozen=True, slots=True)
class Trained:
    """The folder of what was trained, and the seconds that it took."""

    folder: Path
    mode: Mode
    seconds: float


@dataclass(frozen=True, slots=True)
class SimulationTools:
    """What does the work, as in real projects.

    Attributes:
        train: learns from frozen data, going on from the model in a folder where one is given.
        images: takes an image's SHA-256 for its reference.
        judge: the gate.
        precision: AP and AP50 of the proposals for each test image, in ``[0, 1]``.
    """

    models: Models
    train: Callable[[FrozenData, TrainingRequest, Path | None], Trained]
    images: Images
    judge: Callable[[Contest], Ruling]
    precision: Callable[[_Proposals], Precision]


class _Model:
    """A model whose proposals are kept: it looks at each image once, whichever strategy, seed or round asks.

    ``start`` is the folder that a whole model can go on learning from; None for the base and for adapters of it.
    """

    def __init__(self, detector: Detector, name: str, simulation: "Simulation", start: Path | None = None) -> None:
        self.name = name
        self.start = start
        self._detector = detector
        self._simulation = simulation
        self._found: dict[str, tuple[Proposal, ...]] = {}
        self._precision: Precision | None = None

    def proposals(self, images: Sequence[TrueImage]) -> list[tuple[Proposal, ...]]:
        """Everything from `FLOOR` on, per image.

        Raises:
            ImageError: an image cannot be had.
        """
        new = dict.fromkeys(image.sha256 for image in images if image.sha256 not in self._found)
        outcomes = prelabel(
            new,
            self._simulation.project.labels,
            images=self._simulation.tools.images,
            detector=self._detector,
            settings=PrelabelSettings(FLOOR, _DETECTED_AT_ONCE),
        )
        for outcome in outcomes:
            if isinstance(outcome, Skipped):
                raise ImageError(outcome.reason)
            self._found[outcome.reference] = outcome.proposals
        return [self._found[image.sha256] for image in images]

    def known(self, images: Sequence[TrueImage]) -> dict[int, tuple[Proposal, ...]]:
        """Everything found so far, by the images' places."""
        return {place: self._found[each.sha256] for place, each in enumerate(images) if each.sha256 in self._found}

    @property
    def precision(self) -> Precision:
        if self._precision is None:
            self._precision = self._simulation.tools.precision(self.proposals(self._simulation.project.test))
        return self._precision


class Simulation:
    """Runs projects on the same images; what the base model finds in them is computed once."""

    def __init__(self, project: TrueProject, tools: SimulationTools, settings: SimulationSettings) -> None:
        self.project = project
        self.tools = tools
        self.settings = settings
        self.base = _Model(tools.models.open(None), tools.models.base, self)
        self._versions: list[str] = []

    def run(self, strategy: Strategy, seed: int) -> Iterator[Round]:
        """Yield one round after the other until all images are reviewed.

        Raises:
            ImageError: an image cannot be had.
            TrainingError: training failed.
            StorageError: the folder of what was trained cannot be written.
        """
        run = _Run(self, strategy, seed)
        while run.remaining:
            yield run.next_round()

    def trained(self, data: FrozenData, start: Path | None, seed: int) -> tuple[_Model, float]:
        """Learn from frozen data; give the model, and the seconds that it took.

        ``start`` is the folder of ``data.start``.
        """
        self._versions.append(next_version_name(self.tools.models.base, self._versions))
        request = TrainingRequest("command", self.settings.mode, self.settings.minutes, seed=seed)
        done = self.tools.train(data, request, start)
        whole = done.folder if done.mode is Mode.FULL else None
        return _Model(self.tools.models.open_folder(done.folder), self._versions[-1], self, whole), done.seconds


class _Run:
    """One project as it stands."""

    def __init__(self, simulation: Simulation, strategy: Strategy, seed: int) -> None:
        self._simulation = simulation
        self._settings = simulation.settings
        self._strategy = strategy
        self._seed = seed
        self._number = 0
        self._attempts = 0
        self._rounds = 0
        self._learnt = 0
        self._judged = True
        self._uid = f"simulated.{seed}"
        self._production = self._furthest = simulation.base
        self._refused: _Model | None = None
        self._reviewed: list[tuple[TrueImage, ReviewedImage]] = []
        self._works: list[Work] = []
        names = tuple(label.name for label in simulation.project.labels)
        self._views = [
            View(display, Annotator(names, display.costs, display.person(self._settings.human), seed), self._uid)
            for display in self._settings.displays
        ]
        self.remaining = set(range(len(simulation.project.pool)))

    def next_round(self) -> Round:
        self._number += 1
        model, tasks = self._production, self._next_batch()
        batch = [self._simulation.project.pool[task] for task in tasks]
        leading, pays = self._views[0], choosing_pays(rounds_of(self._uid, self._works))
        placing = leading.reading.fit
        seen: dict[View, list[Seen]] = {view: [] for view in self._views}
        for image, found in zip(batch, model.proposals(batch), strict=True):
            for view in self._views:
                seen[view].append(view.review(image, found, model.name, pays=pays))
        self._reviewed += [(image, each.left(image)) for image, each in zip(batch, seen[leading], strict=True)]
        if placing is not None:
            self._works += [
                _work(task, bool(placing.ordering), each) for task, each in zip(tasks, seen[leading], strict=True)
            ]
        learned = self._learn()
        return Round(
            strategy=self._strategy,
            seed=self._seed,
            number=self._number,
            model=model.name,
            ap=model.precision[0],
            ap50=model.precision[1],
            truth=tuple(image.objects for image in batch),
            reviews={view.display: tuple(each.review for each in seen[view]) for view in self._views},
            drawn=tuple(leading.person.review(image.name, image.objects, ()) for image in batch),
            ruling=learned.ruling,
            training_seconds=learned.seconds,
            looked_again=learned.looked_again,
        )

    def _next_batch(self) -> list[int]:
        predicted: Mapping[int, tuple[Proposal, ...]] = {}
        leading = self._views[0]
        size = self._settings.batch if self._over else min(self._settings.batch, self._missing)
        fit = leading.reading.fit if self._strategy is Strategy.ACTIVE else None  # without one chance chooses all
        if fit is not None and fit.ordering:
            self._production.proposals([self._simulation.project.pool[task] for task in self.remaining])
            predicted = self._production.known(self._simulation.project.pool)
        chosen = choose(self._uid, self.remaining, predicted, fit, leading.judgements, size)
        self.remaining -= chosen.keys()
        return list(chosen)

    @property
    def _over(self) -> bool:
        """Whether nothing learns any more."""
        rounds = self._settings.rounds
        return self._strategy is Strategy.ZERO_SHOT or (rounds is not None and self._rounds >= rounds)

    @property
    def _missing(self) -> int:
        """How many images must be reviewed until the next training is due."""
        due = training_due_after(self._learnt, self._settings.batch, judged=self._judged)
        return self._learnt + due - len(self._reviewed)

    def _learn(self) -> "_Learned":
        """Where it is due, train a candidate on everything reviewed, and promote it if the gate lets it pass."""
        if self._over or not self.remaining or self._missing > 0:
            return _Learned()
        before, last, self._learnt = self._refused, self._learnt, len(self._reviewed)
        labels = tuple((label.name, label.asked) for label in self._simulation.project.labels)
        start = self._furthest.start
        # Named by its folder, which is named by what it learned: the same in every run of this project.
        name = None if start is None else start.name
        data = FrozenData(labels, tuple(reviewed for _, reviewed in self._reviewed), start=name)
        if not any(image.boxes for image in data.part(Part.TRAIN)):
            return _Learned()  # a job would fail; the next one is due after as many images more
        candidate, seconds = self._simulation.trained(data, start, self._seed)
        ruling, looked = self._judge(candidate, self._held_out()), None
        if before is not None and not ruling.promote:
            looked = self._judge(before, self._held_out(since=last))
            if looked.promote:
                ruling = self._judge(candidate, self._held_out())
        self._judged = ruling.compared
        self._rounds += self._judged
        pending = not ruling.promote and (ruling.may_pay or not ruling.compared)
        if pending:
            self._refused = candidate
        if ruling.promote or (pending and candidate.start is not None):
            self._furthest = candidate  # real projects go on from it as well
        return _Learned(ruling, seconds, looked)

    def _held_out(self, since: int | None = None) -> list[tuple[TrueImage, ReviewedImage]]:
        """What nothing ever learns from, and of the images reviewed after the first ``since`` all."""
        older, newer = self._reviewed[:since], [] if since is None else self._reviewed[since:]
        return [pair for pair in older if pair[1].part is not Part.TRAIN] + newer

    def _judge(self, candidate: _Model, held_out: Sequence[tuple[TrueImage, ReviewedImage]]) -> Ruling:
        """Let the gate decide on these images, and follow it."""
        images = [image for image, _ in held_out]
        # Kept proposals were not timed side by side: the gate leaves latency out.
        production, candidates = (
            Answers(tuple(model.proposals(images)), ()) for model in (self._production, candidate)
        )
        reviewed = tuple(reviewed for _, reviewed in held_out)
        ruling = self._simulation.tools.judge(Contest(reviewed, production, candidates, self._attempts + 1))
        self._attempts += ruling.compared
        if ruling.promote:
            self._production, self._attempts, self._works, self._refused = candidate, 0, [], None
            pairs = list(zip(reviewed, candidates.proposals, strict=True))
            for view in self._views:
                view.begin(candidate.name, pairs)
        return ruling


@dataclass(frozen=True, slots=True)
class _Learned:
    """What came of a training, how long it took, and what the gate said of the one before when it looked again."""

    ruling: Ruling | None = None
    seconds: float = 0.0
    looked_again: Ruling | None = None


def _work(task: int, ordered: bool, seen: Seen) -> Work:
    kinds = [judgement.kind for judgement in seen.review.judgements]
    kinds += [VerdictKind.ADDED] * len(seen.review.drawn)
    return Work(task, ordered, tuple(kinds), seen.review.seconds)
