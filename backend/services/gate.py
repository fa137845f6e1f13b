"""The gate: each model with thresholds and calibration of its own, compared by what it costs a person."""

from dataclasses import replace
from statistics import median, quantiles

from backend.analysis.calibration import fit_calibration
from backend.analysis.gate import Contender, GateDecision, GateSettings, decide
from backend.analysis.thresholds import fit_thresholds
from backend.domain.calibration import Calibration
from backend.domain.learning import Answers, Contest, Part, Ruling
from backend.domain.review import LABEL_STUDIO, Costs
from backend.services.fitting import judged_again

SETTINGS = GateSettings(costs=LABEL_STUDIO)


def judge(contest: Contest, settings: GateSettings = SETTINGS) -> Ruling:
    """Choose thresholds and calibration on the images of part ``tune``, and decide on those of part ``gate``."""
    slowest = _slowest(contest.production)
    production = replace(_contender(contest, contest.production, settings.costs), latency=slowest)
    candidate = _contender(contest, contest.candidate, settings.costs)
    if slowest is not None:
        # Taken in pairs, so that what else the machine did meanwhile weighs on both.
        pairs = zip(contest.candidate.seconds, contest.production.seconds, strict=True)
        candidate = replace(candidate, latency=slowest * median(new / old for new, old in pairs))
    images = [image for image in contest.images if image.part is Part.GATE]
    decision = decide(images, production, candidate, settings, contest.attempt)
    own = {
        name: {"thresholds": each.thresholds.to_json(), "calibration": each.calibration.to_json()}
        for name, each in (("production", production), ("candidate", candidate))
    }
    return Ruling(decision.promoted, _reason(decision), {**decision.to_json(), "own": own})


def _contender(contest: Contest, answers: Answers, costs: Costs) -> Contender:
    both = list(zip(contest.images, answers.proposals, strict=True))
    judgements = judged_again([each for each in both if each[0].part is Part.TUNE], costs)
    return Contender(
        [proposals for image, proposals in both if image.part is Part.GATE],
        fit_thresholds(judgements, costs),
        fit_calibration(judgements) if judgements else Calibration(),
    )


def _slowest(answers: Answers) -> float | None:
    """Seconds within which 95 of 100 images are answered."""
    return quantiles(answers.seconds, n=20, method="inclusive")[-1] if len(answers.seconds) > 1 else None


def _reason(decision: GateDecision) -> str:
    if not decision.promoted:
        return "; ".join(decision.reasons)
    seconds = decision.seconds
    return (
        f"{seconds.candidate:.1f} s of a person for each image instead of {seconds.production:.1f}, "
        f"on {decision.images} held-out images"
    )
