"""A candidate held against the version in production: what both find in the same images, and what was tried before."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from time import perf_counter
from typing import Any

from backend.domain.fits import Fit
from backend.domain.geometry import iou
from backend.domain.learning import PRODUCTION, Answers, Contest, ModelVersion, Ruling, TrainingProgress
from backend.domain.records import Label, Proposal, Query
from backend.domain.review import LABEL_STUDIO, Judgement
from backend.domain.training_data import LabelledBox, ReviewedImage
from backend.ports import Detector, Images, Models, UnitOfWork
from backend.ports.learning import Trainer, VersionFiles
from backend.services.fitting import fit_judgements, rehearse
from backend.services.gathering import SAME_OBJECT_IOU, Gather, is_there
from backend.services.promotion import production_version

GATE_THRESHOLD = 0.05  # lowest score that the gate sees


@dataclass(frozen=True, slots=True)
class LearnParts:
    """What learning works with; ``images`` takes an image's SHA-256 for its reference.

    ``reading`` makes transactions that only read: what earlier jobs learned from may be very much.
    """

    unit_of_work: Callable[[], UnitOfWork]
    reading: Callable[[], UnitOfWork]
    gathering: Gather
    images: Images
    models: Models
    trainer: Trainer
    files: VersionFiles
    judge: Callable[[Contest], Ruling]
    announce: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What became of a version's proposals on images that nobody saw them on, and what that tells of its scores."""

    judgements: Sequence[Judgement]
    fit: Fit


def hold(
    parts: LearnParts,
    labels: Query,
    images: Sequence[ReviewedImage],
    detectors: tuple[Detector, Detector],
    attempt: int,
    report: Callable[[TrainingProgress], None],
) -> Contest:
    """Let production and candidate answer for every image, one at a time as people wait for them.

    Of a picture's copies the one that was annotated last counts: they are no further evidence. What is found of an
    image's ``unasked`` labels or in a ``doubtful`` place is left out, unless there is such a box: nobody can say
    whether it is right.
    """
    newest = {each.sha256: each for each in sorted(images, key=_annotated_at)}
    images = [newest[digest] for digest in dict.fromkeys(each.sha256 for each in images)]
    answers: list[list[tuple[Sequence[Proposal], float]]] = [[], []]
    for index, image in enumerate(images):
        report(TrainingProgress("gate", index, len(images)))
        picture = parts.images.fetch(image.sha256)
        for detector, given in zip(detectors, answers, strict=True):
            if index == 0:  # weights are loaded and names encoded once, which nobody waits for
                detector.detect([picture], labels, score_threshold=GATE_THRESHOLD)
            begun = perf_counter()
            (found,) = detector.detect([picture], labels, score_threshold=GATE_THRESHOLD)
            seconds = perf_counter() - begun
            given.append(([each for each in found if _tells(image, each)], seconds))
    production, candidate = (
        Answers(tuple(tuple(found) for found, _ in given), tuple(seconds for _, seconds in given)) for given in answers
    )
    return Contest(tuple(images), production, candidate, attempt)


def _annotated_at(image: ReviewedImage) -> str:
    return max((moment for _, moment in image.annotations), default="")


def _tells(image: ReviewedImage, found: Proposal) -> bool:
    if found.label in image.unasked:
        return False
    in_doubt = any(iou(place, found.box) >= SAME_OBJECT_IOU for place in image.doubtful)
    return not in_doubt or is_there(LabelledBox(found.box, found.label), image.boxes)


def query_of(labels: Sequence[tuple[str, tuple[str, ...]]]) -> Query:
    """What frozen labels are asked with."""
    return tuple(Label(name, words) for name, words in labels)


def rehearsal(
    project: str, version: str, contest: Contest, now: datetime, earlier: Sequence[Judgement] = ()
) -> Rehearsal:
    """Let the images tell what the candidate's scores are worth, beside what ``earlier`` ones told.

    Returns:
        What is new, and a fit to all of it.
    """
    known = {each.image for each in earlier}
    pairs = list(zip(contest.images, contest.candidate.proposals, strict=True))
    judgements = rehearse([pair for pair in pairs if pair[0].sha256 not in known], LABEL_STUDIO)
    fit = fit_judgements(project, version, [*earlier, *judgements], contest.candidate.proposals, now)
    return Rehearsal(judgements, fit)


def production_and_tries(unit: UnitOfWork, project: str, base: str) -> tuple[ModelVersion | None, list[ModelVersion]]:
    """What is in production, None for the ``base``, and what was held against it since it got there, oldest first."""
    production = production_version(unit, project, base)
    parent = base if production is None else production.name
    moves = unit.versions.moves(project, PRODUCTION)
    tries = [
        version
        for version in unit.versions.all(project)
        if version.parent == parent and (not moves or version.created_at > moves[-1].moved_at)
    ]
    return production, tries


def next_attempt(tries: Sequence[ModelVersion]) -> int:
    """Number the next comparison with the version in production: those when versions were made, and later looks."""
    return 1 + sum(version.judged + _in_vain(version.metrics.get("looked_again")) for version in tries)


def _in_vain(look: Mapping[str, Any] | None) -> bool:
    """Whether a second look, as its job's version tells of it, compared something and promoted nothing."""
    return look is not None and bool(look["compared"]) and not look["promote"]
