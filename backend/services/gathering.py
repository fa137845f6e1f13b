"""What a training job learns from: everything that people said about a project's images, frozen."""

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from hashlib import sha256

from backend.domain.annotations import Annotation
from backend.domain.dataset import AnnotatedImage, DatasetImage, ImageFile
from backend.domain.facts import ProjectState
from backend.domain.file_names import shown_reference
from backend.domain.geometry import Box, iou, visible_bounds
from backend.domain.learning import TrainingProgress, TrainingRequest
from backend.domain.policies import AnnotatorPolicy, Splits, decisive
from backend.domain.training_data import FrozenData, LabelledBox, Part, ReviewedImage
from backend.domain.verdicts import VerdictKind
from backend.errors import TrainingError
from backend.ports import AnnotatedImages, ReviewedProjects, UnitOfWork
from backend.services.corrections import known_predictions
from backend.services.export import Export, ExportRequest

SAME_OBJECT_IOU = 0.5
# Parts are by content, so that the export finds every image's hash.
_REQUEST = ExportRequest(policy=AnnotatorPolicy.GROUND_TRUTH, splits=Splits(("all",), (1.0,)))

log = logging.getLogger("glip_label.training")


Gather = Callable[[ProjectState, TrainingRequest, Callable[[TrainingProgress], None]], FrozenData]


class Gathering:
    """Looks at every reviewed image of a project; files that are not on this machine yet are fetched and hashed.

    Boxes that people accepted, moved, relabelled or added are objects; deleted proposals are rejected boxes; an image
    that was submitted without boxes has no objects; skipped and never reviewed ones are left out. Of a label that was
    added after an image was reviewed it is not known whether it is there, nor what was drawn without a label.

    ``reading`` makes the transactions in which verdicts are read: they may be very many.
    """

    def __init__(
        self, projects: ReviewedProjects, unit_of_work: Callable[[], UnitOfWork], reading: Callable[[], UnitOfWork]
    ) -> None:
        self._projects = projects
        self._unit_of_work = unit_of_work
        self._reading = reading

    def __call__(
        self, project: ProjectState, request: TrainingRequest, progress: Callable[[TrainingProgress], None]
    ) -> FrozenData:
        """Gather and freeze; of the part ``train``, at most ``request.images`` images.

        Raises:
            TrainingError: there is no image to learn from, or most of them cannot be had.
            LabelConfigError: the project asks for nothing.
            StorageError, LabelStudioError: these are away.
        """
        labels = self._projects.labels(project)
        left_out: Counter[str] = Counter()
        images: list[ReviewedImage] = []
        with self._reading() as unit:
            count, seen = unit.corrections.count_reviewed(project.uid), unit.corrections.newest_version(project.uid)
            deleted, known = _deleted(unit, project.uid), unit.projects.labels(project.uid)
        since = {label.name: known.get(label.name) for label in labels}
        with self._projects.open(project) as source:
            settle = _Settle(source, self._projects.read)
            for image in source.images():
                if all(each.annotation.cancelled for each in image.annotations):
                    continue
                progress(TrainingProgress("data", len(images), count))
                settled = self._settled(settle, project, image)
                if isinstance(settled, str):
                    left_out[settled] += 1
                else:
                    rejected = self._rejected(project, image, settled, deleted)
                    images.append(_reviewed(settled, image, settle.names, rejected, since))
        name, failures = repr(project.title or project.uid), settle.failures
        if len(failures) > len(images):
            raise TrainingError(f"{len(failures)} images of project {name} cannot be had, the first: {failures[0]}")
        chosen = _chosen(images, request)
        if not any(image.part is Part.TRAIN for image in chosen):
            raise TrainingError(f"project {name} has no image to learn from: annotate some, then train again")
        asked = tuple((label.name, label.asked) for label in labels)
        return FrozenData(asked, chosen, left_out=left_out, seen=seen)

    def _settled(self, settle: "_Settle", project: ProjectState, image: AnnotatedImage) -> DatasetImage | str:
        if image.sha256 is not None and self._projects.has(image.sha256):
            return settle(image)
        settled = settle(replace(image, width=None, height=None, sha256=None))
        if settle.file is not None and image.sha256 not in (None, settle.file.facts.sha256):
            return settled if isinstance(settled, str) else settle.changed(image)
        if settle.file is not None and image.task_id is not None:
            with self._unit_of_work() as unit:
                unit.corrections.put_facts(project.uid, image.task_id, image.reference, settle.file.facts)
                unit.commit()
        return settled

    def _rejected(
        self, project: ProjectState, image: AnnotatedImage, settled: DatasetImage, deleted: Mapping[int, Sequence[str]]
    ) -> list[LabelledBox]:
        """The proposals on an image that its annotators deleted."""
        found = []
        for annotation in (each.annotation for each in image.annotations if each.annotation.id in deleted):
            with self._reading() as unit:
                predictions = known_predictions(unit, project.uid, annotation)
            found += [
                LabelledBox(region.proposal.box, region.proposal.label)
                for prediction in predictions
                if prediction.look.sha256 == settled.sha256
                for region in prediction.regions
                if region.id in deleted[annotation.id]
            ]
        return found


class _Settle:
    """Decides on one image after the other as an export does; ``file`` is what the last one had to read.

    ``failures`` are lines about images that could not be had; each is logged with its task.
    """

    def __init__(self, source: AnnotatedImages, read: Callable[[AnnotatedImage], ImageFile]) -> None:
        self._read = read
        self._export = Export(source, _REQUEST, self._reading)
        self.failures = self._export.tally.failures
        self.names = {label.id: label.name for label in self._export.labels}
        self.file: ImageFile | None = None

    def __call__(self, image: AnnotatedImage) -> DatasetImage | str:
        self.file = None
        known = len(self.failures)
        settled = self._export.settled(image, shown_reference(image.reference))
        for failure in self.failures[known:]:
            log.warning("task=%s left out: %s", image.task_id, failure)
        return settled if isinstance(settled, str) else settled[0]

    def changed(self, image: AnnotatedImage) -> str:
        """Say why an image is left out whose file is not the one that people saw with their proposals."""
        failure = (
            f"{shown_reference(image.reference)}: is not the picture that was predicted or learnt from before: "
            "import a changed one as a new task"
        )
        self.failures.append(failure)
        log.warning("task=%s left out: %s", image.task_id, failure)
        return "file-has-other-content"

    def _reading(self, image: AnnotatedImage) -> ImageFile:
        self.file = self._read(image)
        return self.file


def _deleted(unit: UnitOfWork, project: str) -> Mapping[int, Sequence[str]]:
    """Ids of the deleted regions, by the annotation they are missing in."""
    deleted: defaultdict[int, list[str]] = defaultdict(list)
    for verdict in unit.corrections.current_verdicts(project):
        if verdict.kind is VerdictKind.DELETED and verdict.emitted_region is not None:
            deleted[verdict.annotation_id].append(verdict.emitted_region)
    return dict(deleted)


def _reviewed(
    settled: DatasetImage,
    image: AnnotatedImage,
    names: Mapping[int, str],
    rejected: Sequence[LabelledBox],
    since: Mapping[str, datetime | None],
) -> ReviewedImage:
    """``since`` tells of each label that is asked for when it was added."""
    boxes = tuple(
        LabelledBox(drawn.outline.bounds, names[number])
        for drawn in settled.boxes
        for number in drawn.label_ids
        if names[number] in since
    )
    gone = tuple(dict.fromkeys(each for each in rejected if each.label in since and not is_there(each, boxes)))
    reviewed = [each for each in image.annotations if not each.annotation.cancelled]
    counted = decisive(reviewed).annotation  # whose boxes these are
    looked_for = {each.label for each in (*boxes, *gone)}
    return ReviewedImage(
        sha256=str(settled.sha256),
        width=settled.width,
        height=settled.height,
        annotations=tuple(sorted(_version(each.annotation) for each in reviewed)),
        boxes=boxes,
        rejected=gone,
        unasked=tuple(
            name for name, added in since.items() if added and added >= counted.updated_at and name not in looked_for
        ),
        doubtful=tuple(_doubtful(counted, settled, set(names.values()))),
    )


def _doubtful(counted: Annotation, settled: DatasetImage, known: Set[str]) -> Iterator[Box]:
    """Where somebody saw an object and gave it no label, or none that is known: it must not pass for background."""
    for region in counted.regions:
        if known.isdisjoint(region.labels):
            with suppress(ValueError):  # numbers that are not finite say of no place
                place = visible_bounds(region.value, settled.width, settled.height)
                if place.area > 0:
                    yield place


def _version(annotation: Annotation) -> tuple[int, str]:
    return annotation.id, annotation.updated_at.isoformat()


def is_there(rejected: LabelledBox, boxes: Sequence[LabelledBox]) -> bool:
    """Whoever deletes a poor box and draws the object anew does not mean that there is none."""
    return any(each.label == rejected.label and iou(each.box, rejected.box) >= SAME_OBJECT_IOU for each in boxes)


def _chosen(images: Sequence[ReviewedImage], request: TrainingRequest) -> tuple[ReviewedImage, ...]:
    if request.images is None:
        return tuple(images)
    held_out = [image for image in images if image.part is not Part.TRAIN]
    drawn = sorted(
        (image for image in images if image.part is Part.TRAIN),
        key=lambda image: place_in_draw(request.seed, image.sha256),
    )
    return tuple(drawn[: request.images] + held_out)


def place_in_draw(seed: int, digest: str) -> bytes:
    """Images (by SHA-256) in the order of this are in random order, whichever others there are."""
    return sha256(f"{seed} {digest}".encode()).digest()
