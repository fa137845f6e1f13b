"""Which of a project's annotations are likely wrong, and why."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from backend.analysis.label_errors import Doubt, doubts
from backend.domain.annotations import Annotation
from backend.domain.calibration import PLAIN
from backend.domain.geometry import visible_bounds
from backend.domain.learning import LabelledBox, ReviewedImage
from backend.domain.records import Prediction
from backend.ports import UnitOfWork
from backend.services.corrections import known_predictions
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
class _Case:
    annotation: Annotation
    prediction: Prediction
    image: ReviewedImage
    regions: tuple[str, ...]


def project_doubts(unit_of_work: Callable[[], UnitOfWork], project: str, least: float) -> list[ProjectDoubt]:
    """Hold each current annotation against the newest prediction from before it, whose model cannot know it.

    Tasks with several pictures are left out, as are skipped annotations and those without a prediction.

    Args:
        project: its title or Label Studio's id.
        least: probability of an error from which on it is listed.

    Returns:
        The likeliest errors first.

    Raises:
        UsageError: no project is called so, or several are.
        StorageError: the database cannot be read.
    """
    cases: defaultdict[str, list[_Case]] = defaultdict(list)
    with unit_of_work() as unit:
        uid = find_project(unit.projects.all(), project).uid
        for annotation in list(unit.corrections.current(uid)):
            task = unit.corrections.task(uid, annotation.task_id)
            predictions = known_predictions(unit, annotation)
            if predictions and not annotation.cancelled and task is not None and len(task.images) < 2:
                cases[predictions[-1].model_version].append(_case(annotation, predictions[-1]))
        fits = {version: unit.fits.newest(uid, version) for version in cases}
    found = []
    for version, own in cases.items():
        fit = fits[version]
        calibration = PLAIN if fit is None else fit.calibration
        by_name = {case.image.sha256: case for case in own}
        proposals = [case.prediction.proposals for case in own]
        for doubt in doubts([case.image for case in own], proposals, calibration, least):
            found.append(_beside(by_name[doubt.image], doubt))
    return sorted(found, key=lambda each: -each.doubt.probability)


def _case(annotation: Annotation, prediction: Prediction) -> _Case:
    width, height = prediction.width, prediction.height
    labelled = [region for region in annotation.regions if region.labels]
    boxes = [LabelledBox(visible_bounds(each.value, width, height), each.labels[0]) for each in labelled]
    # One task may have several annotations: their id names the image here.
    image = ReviewedImage(str(annotation.id), width, height, boxes=tuple(boxes))
    return _Case(annotation, prediction, image, tuple(region.id for region in labelled))


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
