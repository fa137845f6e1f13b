"""The gate: each model with thresholds and calibration of its own, compared by what it costs a person."""

from collections.abc import Mapping
from dataclasses import replace
from statistics import median, quantiles

from backend.analysis.calibration import fit_calibration
from backend.analysis.gate import Contender, GateDecision, GateSettings, decide
from backend.analysis.thresholds import fit_thresholds
from backend.domain.calibration import Calibration
from backend.domain.learning import Answers, Contest, Ruling
from backend.domain.review import LABEL_STUDIO, Costs, ShowThresholds
from backend.domain.training_data import Part
from backend.services.fitting import judged_again

SETTINGS = GateSettings(costs=LABEL_STUDIO)

_Learnt = tuple[ShowThresholds, Calibration]


def judge(contest: Contest, settings: GateSettings = SETTINGS) -> Ruling:
    """Decide on all held-out images; each half of them is shown by what the other half tells of a model's scores."""
    slowest = _slowest(contest.production)
    own = {
        name: {part: _read(contest, answers, part, settings.costs) for part in (Part.TUNE, Part.GATE)}
        for name, answers in (("production", contest.production), ("candidate", contest.candidate))
    }
    production = replace(_contender(contest, contest.production, own["production"]), latency=slowest)
    candidate = _contender(contest, contest.candidate, own["candidate"])
    if slowest is not None:
        # Taken in pairs, so that what else the machine did meanwhile weighs on both.
        pairs = zip(contest.candidate.seconds, contest.production.seconds, strict=True)
        candidate = replace(candidate, latency=slowest * median(new / old for new, old in pairs))
    decision = decide(contest.images, production, candidate, settings, contest.attempt)
    learnt = {name: {part: _to_json(read) for part, read in parts.items()} for name, parts in own.items()}
    return Ruling(decision.promoted, _reason(decision), {**decision.to_json(), "own": learnt})


def _read(contest: Contest, answers: Answers, part: Part, costs: Costs) -> _Learnt:
    """Thresholds and calibration as the images of one part tell them."""
    both = zip(contest.images, answers.proposals, strict=True)
    judgements = judged_again([each for each in both if each[0].part is part], costs)
    return fit_thresholds(judgements, costs), fit_calibration(judgements) if judgements else Calibration()


def _contender(contest: Contest, answers: Answers, own: Mapping[Part, _Learnt]) -> Contender:
    others = {Part.TUNE: own[Part.GATE], Part.GATE: own[Part.TUNE]}
    read = [others[image.part] for image in contest.images]
    return Contender(answers.proposals, [thresholds for thresholds, _ in read], [curves for _, curves in read])


def _to_json(read: _Learnt) -> dict[str, object]:
    thresholds, calibration = read
    return {"thresholds": thresholds.to_json(), "calibration": calibration.to_json()}


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
