"""Self-training: what the version in production is sure of on images that nobody reviewed teaches its successor.

The recipe of GLIP's section 3.3, where a teacher's confident boxes on pictures from the web join what people drew. Only
as many images join as people reviewed, so that they do not drown what people said.
"""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from backend.domain.dataset import AnnotatedImage
from backend.domain.facts import ProjectState
from backend.domain.fits import Fit
from backend.domain.learning import TrainingProgress, TrainingRequest
from backend.domain.records import Prediction
from backend.domain.training_data import FrozenData, LabelledBox, Part, PseudoImage, split_of
from backend.errors import ImageError, TrainingError
from backend.ports import Models, ReviewedProjects, UnitOfWork
from backend.services.gathering import Gather, place_in_draw
from backend.services.promotion import production_version

SURE = 0.8  # probability that people leave a box, from which on it is taken for an object
DOUBTFUL = 0.1  # probability from which on there may be an object: nothing is taught there
LEAST_JUDGED = 10  # of its boxes, before a version's scores mean anything
MOST_PER_REVIEWED = 1.0  # images for each reviewed one that is learnt from

log = logging.getLogger("glip_label.training")

_Candidate = tuple[AnnotatedImage, PseudoImage]


class SelfTraining:
    """Gathers what people said and, where a request wants it, what the version in production is sure of besides.

    Args:
        gather: gathers what people said.
        projects: have the images.
        reading: makes transactions that only read; a project may have very many predictions.
        models: know the base model, which is in production where no version is.
    """

    def __init__(
        self, gather: Gather, projects: ReviewedProjects, reading: Callable[[], UnitOfWork], models: Models
    ) -> None:
        self._gather = gather
        self._projects = projects
        self._reading = reading
        self._models = models

    def __call__(
        self, project: ProjectState, request: TrainingRequest, progress: Callable[[TrainingProgress], None]
    ) -> FrozenData:
        """Gather; of images that were left out, the reasons begin with ``pseudo-`` where nobody reviewed them.

        Raises:
            TrainingError: also where nobody knows yet what the scores of the version in production are worth.
            ModelError, LabelConfigError, StorageError, LabelStudioError: as whatever gathers.
        """
        if not request.self_training:
            return self._gather(project, request, progress)
        teacher = self._teacher(project)  # first, as gathering fetches files
        gathered = self._gather(project, request, progress)
        left_out: Counter[str] = Counter()
        found = self._candidates(project, teacher, gathered, left_out)
        found.sort(key=lambda each: place_in_draw(request.seed, each[1].sha256))
        drawn = found[: int(MOST_PER_REVIEWED * len(gathered.part(Part.TRAIN)))]
        left_out["pseudo-not-drawn"] = len(found) - len(drawn)
        pseudo = []
        for number, (image, labelled) in enumerate(drawn):
            progress(TrainingProgress("data", number, len(drawn)))
            if why_not := self._why_not(image, labelled):
                left_out[why_not] += 1
            else:
                pseudo.append(labelled)
        return replace(gathered, pseudo=tuple(pseudo), left_out={**gathered.left_out, **+left_out})

    def _teacher(self, project: ProjectState) -> Fit:
        """What the scores of the version in production are worth."""
        with self._reading() as unit:
            production = production_version(unit, project.uid, self._models.base)
            version = self._models.base if production is None else production.name
            fit = unit.fits.newest(project.uid, version)
        if fit is None or fit.judgements < LEAST_JUDGED:
            raise TrainingError(
                f"no self-training of project {project.title or project.uid!r} yet: review more images first, while "
                f"`glip-label serve` runs; scores of {version} mean nothing before {LEAST_JUDGED} of its boxes were "
                "judged"
            )
        return fit

    def _candidates(
        self, project: ProjectState, teacher: Fit, data: FrozenData, left_out: Counter[str]
    ) -> list[_Candidate]:
        """The images that may teach, each content once."""
        labelled = self._labelled(project, teacher, [name for name, _ in data.labels])
        taken: set[str | None] = {image.sha256 for image in data.images}
        found = []
        with self._projects.open(project) as source:
            for image in source.images():
                if image.annotations:  # also where all were skipped: it is not wanted
                    taken.add(image.sha256)
                    continue
                pseudo = labelled.get((image.task_id, image.reference), "pseudo-not-predicted")
                if isinstance(pseudo, str):
                    left_out[pseudo] += 1
                else:
                    found.append((image, pseudo))
        candidates = []
        for image, pseudo in found:
            if pseudo.sha256 in taken:
                left_out["pseudo-copy"] += 1
            else:
                taken.add(pseudo.sha256)
                candidates.append((image, pseudo))
        return candidates

    def _labelled(
        self, project: ProjectState, teacher: Fit, labels: Collection[str]
    ) -> Mapping[tuple[int | None, str | None], PseudoImage | str]:
        """What the teacher says of each picture, by task and reference; a string says why it does not count."""
        with self._reading() as unit:
            return {
                (each.task_id, each.look.reference): pseudo_image(each, teacher, labels)
                for each in unit.predictions.newest_by_picture(project.uid, teacher.model_version)
            }

    def _why_not(self, image: AnnotatedImage, labelled: PseudoImage) -> str | None:
        """The reason why the picture that was labelled cannot be had; None where it lies on this machine by now."""
        if self._projects.has(labelled.sha256):
            return None
        try:
            file = self._projects.read(image)
        except ImageError as error:
            log.warning("task=%s left out: %s", image.task_id, error)
            return "pseudo-file-cannot-be-had"
        return None if file.facts.sha256 == labelled.sha256 else "pseudo-file-has-changed"


def pseudo_image(prediction: Prediction, teacher: Fit, labels: Collection[str]) -> PseudoImage | str:
    """Take what the teacher is sure of for objects; a string says why its prediction does not count.

    What people did not see is never sure: nobody could have deleted it.
    """
    digest = prediction.look.sha256
    if digest is None:
        return "pseudo-not-predicted"  # an earlier release did not keep which picture it looked at
    if split_of(digest) is not Part.TRAIN:
        return "pseudo-held-out"
    sure, doubtful = [], []
    for place, proposal in enumerate(prediction.proposals):
        if proposal.label not in labels:
            continue
        probability = teacher.calibration.probability(proposal.label, proposal.score)
        if probability >= SURE and place < len(prediction.regions):
            sure.append(LabelledBox(proposal.box, proposal.label))
        elif probability >= DOUBTFUL:
            doubtful.append(proposal.box)
    if not sure:
        return "pseudo-nothing-sure"
    return PseudoImage(
        sha256=digest,
        width=prediction.width,
        height=prediction.height,
        teacher=teacher.model_version,
        boxes=tuple(sure),
        doubtful=tuple(doubtful),
    )
