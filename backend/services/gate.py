"""The gate: each model with thresholds and calibration of its own, compared by what it costs a person."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median, quantiles

from backend.analysis.calibration import fit_calibration
from backend.analysis.contenders import Contender
from backend.analysis.gate import GateDecision, GateSettings, decide
from backend.analysis.thresholds import fit_thresholds
from backend.domain.calibration import Calibration
from backend.domain.learning import Answers, Contest, Ruling
from backend.domain.records import Proposal
from backend.domain.review import LABEL_STUDIO, Costs, Judgement, ShowThresholds
from backend.domain.training_data import ReviewedImage
from backend.services.fitting import rehearse

SETTINGS = GateSettings(costs=LABEL_STUDIO)
_FOLDS = 5


def judge(contest: Contest, settings: GateSettings = SETTINGS) -> Ruling:
    """Decide on all held-out images, which `contender` shows."""
    slowest = _slowest(contest.production)
    production, candidate = (
        contender(contest.images, answers.proposals, settings.costs)
        for answers in (contest.production, contest.candidate)
    )
    if slowest is not None:
        # Taken in pairs, so that what else the machine did meanwhile weighs on both.
        pairs = zip(contest.candidate.seconds, contest.production.seconds, strict=True)
        production = replace(production, latency=slowest)
        candidate = replace(candidate, latency=slowest * median(new / old for new, old in pairs))
    decision = decide(contest.images, production, candidate, settings, contest.attempt)
    return Ruling(decision.promoted, _reason(decision), decision.to_json(), decision.compared, decision.may_pay)


def contender(
    images: Sequence[ReviewedImage],
    proposals: Sequence[Sequence[Proposal]],
    costs: Costs,
    calibrate: Callable[[Sequence[Judgement]], Calibration] = fit_calibration,
) -> Contender:
    """A model as production would show it: each fifth of the images by what the other four tell of its scores.

    In production all of them tell it. Half of so few images would tell much less.
    """
    # By content, so that the order of the images changes nothing.
    ranked = sorted(range(len(images)), key=lambda place: images[place].sha256)
    folds = {place: rank % _FOLDS for rank, place in enumerate(ranked)}
    judged = [rehearse([each], costs) for each in zip(images, proposals, strict=True)]
    read = [
        _read([each for place, own in enumerate(judged) if folds[place] != fold for each in own], costs, calibrate)
        for fold in range(_FOLDS)
    ]
    own = [read[folds[place]] for place in range(len(images))]
    return Contender(proposals, [thresholds for thresholds, _ in own], [curves for _, curves in own])


def _read(
    judgements: Sequence[Judgement], costs: Costs, calibrate: Callable[[Sequence[Judgement]], Calibration]
) -> tuple[ShowThresholds, Calibration]:
    """Thresholds and calibration as these judgements tell them."""
    return fit_thresholds(judgements, costs), calibrate(judgements) if judgements else Calibration()


def _slowest(answers: Answers) -> float | None:
    """Seconds within which 95 of 100 images are answered."""
    return quantiles(answers.seconds, n=20, method="inclusive")[-1] if len(answers.seconds) > 1 else None


def _reason(decision: GateDecision) -> str:
    if not decision.promoted:
        return "; ".join(decision.reasons)
    seconds, ap50 = decision.seconds, decision.ap50
    told = f"{seconds.candidate:.1f} s of a person for each image instead of {seconds.production:.1f}"
    if decision.finds_more and ap50 is not None:
        told += f" and AP50 {ap50.candidate:.3f} instead of {ap50.production:.3f}"
    return f"{told}, on {decision.images} held-out images"
