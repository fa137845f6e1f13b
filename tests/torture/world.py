"""A made-up Label Studio: people at work in two projects, told as the facts that its events tell."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random

from backend.domain.annotations import AnnotatedRegion, Annotation, PercentBox
from backend.domain.facts import Fact, ProjectState, TaskState
from backend.domain.geometry import Box
from backend.domain.records import Look, Prediction, Proposal, Region

LABELS = ("cat", "dog", "traffic light", "Schiff 🚢")
WIDTH, HEIGHT = 640, 480
CREATED = datetime(2026, 11, 23, 8, 43, 32, 942350, UTC)
# Nobody annotates before the proposals are stored, which is when the torture begins.
_BEGIN = datetime(2040, 1, 1, tzinfo=UTC)

Version = tuple[int, datetime]  # an annotation's id and its update time


@dataclass(frozen=True)
class Happening:
    """One event: its name, what it tells, and the verdicts that follow, in order, for each version in it."""

    action: str
    fact: Fact
    verdicts: Mapping[Version, tuple[str, ...]] = field(default_factory=dict)


def proposals(project_id: int, task_id: int) -> tuple[tuple[str, str, PercentBox], ...]:
    """What the model proposed for a task: (region id, label, box in the image's left part); every fourth has none."""
    return tuple(
        (
            f"t{project_id}-{task_id}-{place}",
            LABELS[(task_id + place) % 3],
            PercentBox(5.0 + 20 * place, 10.0, 15.0, 30.0),
        )
        for place in range(task_id % 4)
    )


def prediction(project_id: int, task_id: int) -> Prediction:
    """The same as it is stored, in pixels."""
    found = tuple(
        Region(key, Proposal(_pixels(box), label, 0.75, label)) for key, label, box in proposals(project_id, task_id)
    )
    ((tag, reference),) = images(project_id, task_id)
    look = Look(tag, reference)
    return Prediction(task_id, "glip-nano-torture", WIDTH, HEIGHT, found, f"t{project_id}-{task_id}", look)


def _pixels(box: PercentBox) -> Box:
    left, top = box.x * WIDTH / 100, box.y * HEIGHT / 100
    return Box(left, top, left + box.width * WIDTH / 100, top + box.height * HEIGHT / 100)


def images(project_id: int, task_id: int) -> tuple[tuple[str, str], ...]:
    return (("image", f"/data/upload/{project_id}/{task_id}.png"),)


def labeling_config(labels: Sequence[str]) -> str:
    rows = "".join(f'<Label value="{label}"/>' for label in labels)
    return (
        '<View><Image name="image" value="$image"/>'
        f'<RectangleLabels name="label" toName="image">{rows}</RectangleLabels></View>'
    )


class Project:
    """One project: what is in it now, and what may happen to it next."""

    def __init__(self, project_id: int, random: Random) -> None:
        uid = f"{project_id}.{int(CREATED.timestamp())}"
        self.bare = ProjectState(uid, project_id)
        self._state = self.bare
        self._random = random
        self._now = _BEGIN + timedelta(seconds=project_id)
        self._last_task = self._last_annotation = 0
        self._tasks: set[int] = set()
        self._annotations: dict[int, Annotation] = {}
        self._kinds: dict[Version, tuple[str, ...]] = {}  # as if nothing had been skipped

    def happenings(self) -> Iterator[Happening]:
        """Tell what happens, for ever."""
        yield self._rename()
        while True:
            yield self._next()

    def _next(self) -> Happening:
        self._now += timedelta(microseconds=self._random.randint(1_000, 9_000_000))
        if len(self._tasks) < 10 or self._random.random() < 0.08:
            return self._import()
        common = [self._submit] * 8 + [self._bulk]
        rare = [self._delete_task, self._rename]
        return self._random.choice(common + ([self._update] * 7 + [self._delete] + rare if self._annotations else []))()

    def _rename(self) -> Happening:
        labels = LABELS + tuple(f"label {number}" for number in range(self._random.randrange(4)))
        title = f"boats at {self._now}"
        self._state = ProjectState(self.bare.uid, self.bare.id, title, self._now, labeling_config(labels), labels)
        return Happening("PROJECT_UPDATED", Fact(self._state))

    def _import(self) -> Happening:
        new = range(self._last_task + 1, self._last_task + self._random.randint(1, 5) + 1)
        self._last_task = new[-1]
        self._tasks |= set(new)
        return Happening("TASKS_CREATED", Fact(self._state, tuple(map(self._task, new))))

    def _submit(self) -> Happening:
        self._last_annotation += 1
        task = self._random.choice(sorted(self._tasks))
        skipped = self._random.random() < 0.1
        made = Annotation(
            id=self._last_annotation,
            task_id=task,
            project_id=self.bare.id,
            created_at=self._now,
            updated_at=self._now,
            annotator=self._random.randint(1, 5),
            cancelled=skipped,
            ground_truth=False,
            lead_time=self._random.randint(1, 9000) / 100,
            parent_prediction=1000 + task if task % 4 else None,
            regions=(),
        )
        return self._tell("ANNOTATION_CREATED", self._drawn(made))

    def _update(self) -> Happening:
        known = replace(self._random.choice(list(self._annotations.values())), updated_at=self._now)
        match self._random.randrange(4):
            case 0:
                return self._tell("ANNOTATION_UPDATED", (replace(known, ground_truth=not known.ground_truth), None))
            case 1 if known.cancelled:
                return self._tell("ANNOTATION_UPDATED", (replace(known, cancelled=False), None))
        return self._tell("ANNOTATION_UPDATED", self._drawn(known))

    def _bulk(self) -> Happening:
        """Accept what was proposed for several tasks: no origin, no lead time."""
        tasks = self._random.sample(sorted(self._tasks), self._random.randint(2, 6))
        made = []
        for task in tasks:
            self._last_annotation += 1
            regions = tuple(_accepted(*each, origin=None) for each in proposals(self.bare.id, task))
            first = Annotation(
                self._last_annotation, task, self.bare.id, self._now, self._now, 1, False, False, None, 1000 + task, ()
            )
            made.append((replace(first, regions=regions), ("accepted",) * len(regions)))
        return self._tell("ANNOTATIONS_CREATED", *made)

    def _delete(self) -> Happening:
        gone = self._random.sample(sorted(self._annotations), min(len(self._annotations), self._random.randint(1, 4)))
        for number in gone:
            del self._annotations[number]
        return Happening("ANNOTATIONS_DELETED", Fact(self.bare, deleted_annotations=tuple(gone)))

    def _delete_task(self) -> Happening:
        gone = self._random.sample(sorted(self._tasks), self._random.randint(1, 2))
        self._tasks -= set(gone)
        self._annotations = {key: each for key, each in self._annotations.items() if each.task_id not in gone}
        return Happening("TASKS_DELETED", Fact(self.bare, tuple(TaskState(each, deleted=True) for each in gone)))

    def _tell(self, action: str, *made: tuple[Annotation, tuple[str, ...] | None]) -> Happening:
        verdicts = {}
        for annotation, kinds in made:
            before = self._annotations.get(annotation.id)
            self._annotations[annotation.id] = annotation
            told = self._kinds[before.id, before.updated_at] if kinds is None and before is not None else kinds or ()
            self._kinds[annotation.id, annotation.updated_at] = told
            verdicts[annotation.id, annotation.updated_at] = () if annotation.cancelled else told
        tasks = tuple(self._task(annotation.task_id) for annotation, _ in made)
        return Happening(action, Fact(self.bare, tasks, tuple(each for each, _ in made)), verdicts)

    def _task(self, number: int) -> TaskState:
        return TaskState(number, self._now, images(self.bare.id, number))

    def _drawn(self, annotation: Annotation) -> tuple[Annotation, tuple[str, ...]]:
        """Let a person go over what was proposed, and draw some boxes in the image's right part."""
        regions, kinds, deleted = [], [], 0
        for key, label, box in proposals(annotation.project_id, annotation.task_id):
            region = _accepted(key, label, box, origin="prediction-changed")
            kind = self._random.choice(["accepted", "accepted", "moved", "relabelled", "deleted"])
            if kind == "deleted":
                deleted += 1
                continue
            if kind == "accepted":
                region = replace(region, origin="prediction")
            if kind == "moved":
                region = replace(region, value=replace(box, x=box.x + self._random.randint(1, 300) / 100))
            if kind == "relabelled":
                region = replace(region, labels=(LABELS[3],))
            regions.append(region)
            kinds.append(kind)
        for place in range(self._random.randrange(3)):
            drawn = PercentBox(80.0, 1.0 + 30 * place, self._random.randint(100, 1900) / 100, 20.0, place * 2.5)
            name = f"{annotation.id}-{self._now.timestamp()}-{place}"
            label = self._random.choice(LABELS)
            regions.append(AnnotatedRegion(name, "image", (label,), drawn, WIDTH, HEIGHT, "manual"))
            kinds.append("added")
        return replace(annotation, regions=tuple(regions)), (*kinds, *["deleted"] * deleted)


def _accepted(key: str, label: str, box: PercentBox, origin: str | None) -> AnnotatedRegion:
    name = key.rpartition("-")[0]
    return AnnotatedRegion(key, "image", (label,), box, WIDTH, HEIGHT, origin, name, 0.75)


def happenings(random: Random) -> Iterator[Happening]:
    """Two projects' events, mixed; their tasks and annotations share ids, as those of two installations may."""
    streams = [Project(number, random).happenings() for number in (7, 8)]
    while True:
        yield next(random.choice(streams))
