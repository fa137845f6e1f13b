"""Which of a project's annotations are likely wrong, and why."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from backend.analysis.label_errors import SAME_PLACE, Doubt, doubts
from backend.domain.annotations import Annotation
from backend.domain.calibration import PLAIN, Calibration
from backend.domain.geometry import Box, iou, visible_bounds
from backend.domain.records import Prediction
from backend.domain.training_data import LabelledBox, ReviewedImage
from backend.errors import UsageError
from backend.ports import UnitOfWork
from backend.services.projects import find_project


@dataclass(frozen=True, slots=True)
class ProjectDoubt:
    """A doubt beside what it is about.

    Attributes:
        task, annotation: Label Studio's ids.
        region: Label Studio's id of the doubted region; None where one is missing.
        width, height: of the picture, in whose pixels the doubt's boxes are.
        model_version: whose proposals disagree.
    """

    task: int
    annotation: int
    region: str | None
    width: int
    height: int
    model_version: str
    doubt: Doubt


@dataclass(frozen=True, slots=True)
class ProjectDoubts:
    """What was found where somebody could look.

    Attributes:
        found: the likeliest errors first.
        reviewed: how many annotations there are, without skipped ones.
        unpredicted: how many of these have no prediction that they can be held against: nothing is known of them.
    """

    found: tuple[ProjectDoubt, ...]
    reviewed: int
    unpredicted: int


@dataclass(frozen=True, slots=True)
class _Case:
    annotation: Annotation
    prediction: Prediction
    image: ReviewedImage
    regions: tuple[str, ...]


def project_doubts(
    unit_of_work: Callable[[], UnitOfWork], project: str, least: float, *, overlapping_labels: bool = False
) -> ProjectDoubts:
    """Hold each current annotation against the newest prediction from before anybody annotated its task.

    What a model learned from a picture it repeats, errors among them: a later prediction may be by such a one, also of
    an annotation that was only touched later, or of another person's. Skipped annotations are left out, and pictures
    without such a prediction; annotations without any are counted.

    Args:
        unit_of_work: makes the transaction; it only reads.
        project: its title or Label Studio's id.
        least: probability of an error from which on it is listed.
        overlapping_labels: whether an object may have several labels, each with a box of its own.

    Raises:
        UsageError: no project is called so, or several are; or no annotation has a prediction from before it.
        StorageError: the database cannot be read.
    """
    answered: defaultdict[str, list[tuple[Annotation, Prediction]]] = defaultdict(list)
    with unit_of_work() as unit:
        uid = find_project(unit.projects.all(), project).uid
        beginnings = _beginnings(unit, uid)
        reviewed = [each for each in unit.corrections.current(uid) if not each.cancelled]
        unpredicted = 0
        for annotation in reviewed:
            known = unit.predictions.of_task(uid, annotation.task_id, *beginnings[annotation.task_id])
            asked = _newest_by_picture(known)
            unpredicted += not asked
            for prediction in asked:
                answered[prediction.model_version].append((annotation, prediction))
        fits = {version: unit.fits.newest(uid, version) for version in answered}
    if not answered:  # an empty list would say that nothing is wrong
        raise UsageError(
            f"project {project!r}: no annotation is of a task that was predicted before, so none can be doubted yet: "
            "predict tasks, then annotate them"
        )
    found = []
    for version, pairs in answered.items():
        fit = fits[version]
        calibration = PLAIN if fit is None else fit.calibration
        own = [_case(*pair, calibration) for pair in pairs]
        by_name = {case.image.sha256: case for case in own}
        proposals = [case.prediction.proposals for case in own]
        images = [case.image for case in own]
        for doubt in doubts(images, proposals, calibration, least, overlapping_labels=overlapping_labels):
            found.append(_beside(by_name[doubt.image], doubt))
    likeliest_first = sorted(found, key=lambda each: -each.doubt.probability)
    return ProjectDoubts(tuple(likeliest_first), len(reviewed), unpredicted)


def _beginnings(unit: UnitOfWork, project: str) -> dict[int, tuple[datetime, Collection[str]]]:
    """When each task was first annotated, and from which predictions, as far as regions tell: clocks may differ.

    It counts also where that annotation was deleted since.
    """
    beginnings: dict[int, tuple[datetime, Collection[str]]] = {}
    for each in unit.corrections.versions(project):  # lower ids and earlier versions first
        if each.task_id not in beginnings:
            named = {region.prediction for region in each.regions if region.prediction is not None}
            beginnings[each.task_id] = each.created_at, named
    return beginnings


def _newest_by_picture(predictions: Iterable[Prediction]) -> Collection[Prediction]:
    """Take the newest prediction of each picture; an earlier release did not keep which one it was of."""
    return {each.look.image: each for each in predictions if not each.look.prompted}.values()


def _case(annotation: Annotation, prediction: Prediction, calibration: Calibration) -> _Case:
    picture, width, height = prediction.look.image, prediction.width, prediction.height
    drawn = [
        (each, visible_bounds(each.value, width, height))
        for each in annotation.regions
        if picture in (None, each.image)
    ]
    named = [(each, place) for each, place in drawn if each.labels]
    # A task may have several annotations, each with its doubts.
    image = ReviewedImage(
        f"{annotation.id} {picture}",
        width,
        height,
        boxes=tuple(LabelledBox(place, _label(each.labels, place, prediction, calibration)) for each, place in named),
        doubtful=tuple(place for each, place in drawn if not each.labels),
    )
    return _Case(annotation, prediction, image, tuple(each.id for each, _ in named))


def _label(labels: Sequence[str], place: Box, prediction: Prediction, calibration: Calibration) -> str:
    """Of a region's labels, the one that the model is surest of in its place; else the first, as in a verdict."""
    if len(labels) == 1:
        return labels[0]
    there = [each for each in prediction.proposals if each.label in labels and iou(each.box, place) >= SAME_PLACE]
    surest = max(there, key=lambda each: calibration.probability(each.label, each.score), default=None)
    return labels[0] if surest is None else surest.label


def _beside(case: _Case, doubt: Doubt) -> ProjectDoubt:
    return ProjectDoubt(
        task=case.annotation.task_id,
        annotation=case.annotation.id,
        region=None if doubt.region is None else case.regions[doubt.region],
        width=case.prediction.width,
        height=case.prediction.height,
        model_version=case.prediction.model_version,
        doubt=doubt,
    )
