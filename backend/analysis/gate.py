"""Whether a candidate may replace the model in production: what both would cost a person on the held-out images.

Promoted is only what is faster beyond doubt, or measured as fast and finds more beyond doubt, and has lost nothing else
that is seen. Each further try against the same production spends less of the error that is allowed (6 / (pi k)^2 of it
at the k-th), so that all of them together promote something no better with at most that probability.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from backend.analysis.average_precision import MatchedLabel, average_precision, match_detections
from backend.analysis.bootstrap import CHUNK, RESAMPLES, image_counts, ratio_bounds, resamples_for
from backend.analysis.calibration import binned_gaps, error_of_gaps
from backend.analysis.contenders import Contender, compared_seconds, image_sizes
from backend.analysis.overlap import Floats
from backend.analysis.simulated_annotator import IDEAL, Annotator
from backend.domain.calibration import PLAIN
from backend.domain.review import CARDS, Costs
from backend.domain.training_data import ReviewedImage

_GUARD_ALPHA = 0.05
_AS_FAST = 1.02  # times production's seconds
_PRECISION_TAIL = 10  # resamples of AP50 that should lie beyond its bound


@dataclass(frozen=True, slots=True)
class GateSettings:
    """What is asked of a candidate.

    Attributes:
        costs: of the project's way of reviewing.
        alpha: bounds of a person's seconds and of AP50 are drawn as if they erred with this probability over all tries
            against the same production. Of few and skewed images they err more often than that: it is a tenth below
            what is promised (5 % of projects; `benchmarks.gate` measures it).
        precision_share: what of it AP50 may err by. Few images say more of AP50, which all scores decide, than of
            seconds, which a few boxes near a threshold do.
        precision_images, precision_factor: with fewer images AP50 has to rise by this factor.
        least_images, least_boxes: with fewer nothing is promoted.
        ap_margin: AP50 may not be seen to fall by more. It is not AP that decides: boxes that were left lie exactly
            where production placed them, which stricter overlaps reward.
        label_margin, label_boxes: no label with as many boxes may be seen to lose more AP50.
        latency_ratio: latency may not rise by more.
    """

    costs: Costs = CARDS
    alpha: float = 0.045
    precision_share: float = 0.1
    precision_images: int = 20
    precision_factor: float = 2.0
    least_images: int = 5
    least_boxes: int = 10
    ap_margin: float = 0.005
    label_margin: float = 0.05
    label_boxes: int = 20
    latency_ratio: float = 1.1
    resamples: int = RESAMPLES
    seed: int = 0

    def alpha_of(self, attempt: int) -> float:
        """What the bounds may err by at this try against the same production, the first of which is 1."""
        return self.alpha * 6 / (math.pi * attempt) ** 2

    def alphas_of(self, attempt: int) -> tuple[float, float]:
        """How that is shared by seconds and AP50."""
        alpha = self.alpha_of(attempt)
        return alpha * (1 - self.precision_share), alpha * self.precision_share

    def factor_of(self, images: int) -> float:
        """How many times production's AP50 the candidate's has to be, with so many images."""
        return 1.0 if images >= self.precision_images else self.precision_factor


@dataclass(frozen=True, slots=True)
class Change:
    """A figure of both, and bounds of candidate minus production; bounds are None where none were estimated."""

    production: float
    candidate: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class GateDecision:
    """What was found; ``reasons`` say in words what stands against promotion.

    Attributes:
        seconds: of a person per image; bounds at what seconds may err by, those of all other figures at 0.05.
        ap, ap50: over labels, in ``[0, 1]``; None without true boxes.
        finds_more: AP50 rose, by a factor where images are few, at what it may err by.
        labels: AP50 per label with true boxes.
        calibration: error in ``[0, 1]``; None where one of them proposes nothing. It is told and decides nothing: a
            model that is right about nothing is easily honest, and what a person pays for scores is in the seconds.
        latency: seconds; None if it was not measured.
        attempt, alpha: how many tries against this production there were with this one, and what it may err by.
    """

    promoted: bool
    reasons: tuple[str, ...]
    images: int
    boxes: int
    seconds: Change
    ap: Change | None
    ap50: Change | None
    finds_more: bool
    labels: Mapping[str, Change]
    calibration: Change | None
    latency: Change | None
    attempt: int
    alpha: float

    @property
    def compared(self) -> bool:
        """Whether there were images enough to look."""
        return self.seconds.high is not None

    @property
    def pays(self) -> bool:
        """Whether it is faster beyond doubt, or measured as fast and finds more beyond doubt."""
        clearly = self.seconds.high is not None and self.seconds.high < 0
        return clearly or (self.finds_more and self._as_fast)

    @property
    def may_pay(self) -> bool:
        """Whether it measured faster, or as fast and found more, be it by chance."""
        more = self.ap50 is not None and self.ap50.candidate > self.ap50.production
        return self.seconds.candidate < self.seconds.production or (more and self._as_fast)

    @property
    def _as_fast(self) -> bool:
        return self.seconds.candidate <= _AS_FAST * self.seconds.production

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def decide(
    images: Sequence[ReviewedImage],
    production: Contender,
    candidate: Contender,
    settings: GateSettings,
    attempt: int = 1,
) -> GateDecision:
    """Compare two versions on the same held-out images.

    Args:
        images: reviewed, and seen by neither in training.
        attempt: 1 for the first candidate compared since production last changed, 2 for the next …

    Raises:
        ValueError: the proposals are not of as many images.
    """
    if not len(images) == len(production.proposals) == len(candidate.proposals):
        found = f"{len(production.proposals)} and {len(candidate.proposals)}"
        raise ValueError(f"{len(images)} gate images, but proposals for {found}")
    boxes = sum(len(image.boxes) for image in images)
    alpha = settings.alpha_of(attempt)
    of_seconds, of_precision = settings.alphas_of(attempt)
    if not images or len(images) < settings.least_images or boxes < settings.least_boxes:
        least = f"{settings.least_images} images and {settings.least_boxes} boxes"
        reason = f"{len(images)} gate images with {boxes} boxes are too few: {least} are needed"
        nothing = Change(0.0, 0.0)
        return GateDecision(
            False, (reason,), len(images), boxes, nothing, None, None, False, {}, None, None, attempt, alpha
        )
    both = (production, candidate)
    chance = np.random.default_rng(settings.seed)
    seconds = _seconds(images, both, settings.costs, of_seconds, chance)
    counts = np.concatenate([np.ones((1, len(images))), image_counts(len(images), settings.resamples, chance)])
    matched = _matched_labels(images, both)
    labels = {label: np.stack([average_precision(each, counts) for each in own]) for label, own in matched.items()}
    precisions = np.stack(list(labels.values())) if labels else None  # (L, 2, 1 + B, T)
    ap50 = None if precisions is None else _change(_mean(precisions[..., 0], 0))
    factor = settings.factor_of(len(images))
    decision = GateDecision(
        promoted=False,
        reasons=(),
        images=len(images),
        boxes=boxes,
        seconds=seconds,
        ap=None if precisions is None else _change(_mean(precisions, (0, 3))),
        ap50=ap50,
        finds_more=ap50 is not None
        and ap50.candidate > factor * ap50.production  # resamples, which take long, would not say otherwise
        and _ap50_rises(matched, of_precision, factor, chance),
        labels={label: _change(each[..., 0]) for label, each in labels.items()},
        calibration=_calibration(images, both, counts),
        latency=_latency(both),
        attempt=attempt,
        alpha=alpha,
    )
    reasons = _reasons(decision, settings, _boxes_of(images))
    return replace(decision, promoted=not reasons, reasons=reasons)


def _seconds(
    images: Sequence[ReviewedImage],
    both: tuple[Contender, Contender],
    costs: Costs,
    alpha: float,
    chance: np.random.Generator,
) -> Change:
    production, candidate = compared_seconds(images, both, costs)
    low, high = ratio_bounds(candidate - production, image_sizes(images, costs), alpha, chance)
    return Change(float(production.mean()), float(candidate.mean()), low, high)


def _boxes_of(images: Sequence[ReviewedImage]) -> Counter[str]:
    return Counter(box.label for image in images for box in image.boxes)


def _matched_labels(
    images: Sequence[ReviewedImage], both: tuple[Contender, Contender]
) -> dict[str, tuple[MatchedLabel, MatchedLabel]]:
    """What both find of each label with true boxes."""
    truth = [image.boxes for image in images]
    production, candidate = (each.proposals for each in both)
    return {
        label: (match_detections(truth, production, label), match_detections(truth, candidate, label))
        for label in sorted(_boxes_of(images))
    }


def _calibration(images: Sequence[ReviewedImage], both: tuple[Contender, Contender], counts: Floats) -> Change | None:
    annotator = Annotator((), human=IDEAL)
    errors = []
    for each in both:
        judged = [
            [
                replace(judgement, score=calibration.probability(judgement.label, judgement.score))
                for judgement in annotator.review(image.sha256, image.boxes, given).judgements
            ]
            for image, given, calibration in zip(images, each.proposals, each.calibrations, strict=True)
        ]
        if not any(judged):
            return None
        errors.append(error_of_gaps(*binned_gaps(judged, PLAIN), counts))
    return _change(np.stack(errors))


def _latency(both: tuple[Contender, Contender]) -> Change | None:
    production, candidate = (each.latency for each in both)
    return None if production is None or candidate is None else Change(production, candidate)


def _ap50_rises(
    matched: Mapping[str, tuple[MatchedLabel, MatchedLabel]], alpha: float, factor: float, chance: np.random.Generator
) -> bool:
    """Whether AP50 rises by a factor in all but ``alpha`` of the resamples; False where these are too few to tell."""
    resamples = resamples_for(alpha, _PRECISION_TAIL)
    if alpha * resamples < 1:
        return False
    at_half = [[replace(each, found=each.found[:1]) for each in own] for own in matched.values()]
    images = len(at_half[0][0].objects)
    missed = known = 0  # resamples in which it does not rise, and those that hold a label
    for _ in range(resamples // CHUNK):
        counts = image_counts(images, CHUNK, chance)
        figures = np.array([[average_precision(each, counts)[:, 0] for each in own] for own in at_half])  # (L, 2, B)
        production, candidate = _mean(figures, 0)
        rises = candidate - factor * production
        missed += int((rises <= 0).sum())
        known += int(np.isfinite(rises).sum())
        if missed > alpha * resamples:  # whatever the others say
            return False
    return missed <= alpha * (known - 1)


def _mean(figures: Floats, axes: int | tuple[int, ...]) -> Floats:
    """The mean of what is no NaN; NaN, and no warning as by `np.nanmean`, where a resample lacks all labels."""
    there = ~np.isnan(figures)
    counts = np.asarray(there.sum(axes))
    sums = np.asarray(np.where(there, figures, 0.0).sum(axes))
    return np.asarray(np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0))


def _change(figures: Floats) -> Change:
    """Of figures ``(2, 1 + B)``, the first as measured, the others of resamples, which may lack a label."""
    differences = figures[1, 1:] - figures[0, 1:]
    bounds = (_GUARD_ALPHA, 1 - _GUARD_ALPHA)
    low, high = (math.nan, math.nan) if np.isnan(differences).all() else np.nanquantile(differences, bounds)
    return Change(float(figures[0, 0]), float(figures[1, 0]), float(low), float(high))


def _reasons(decision: GateDecision, settings: GateSettings, boxes: Mapping[str, int]) -> tuple[str, ...]:
    reasons = []
    seconds, ap50 = decision.seconds, decision.ap50
    if not decision.pays:
        reasons.append(f"not clearly faster: {seconds.candidate:.2f} s per image instead of {seconds.production:.2f}")
    if ap50 and ap50.high is not None and ap50.high < -settings.ap_margin:
        reasons.append(f"AP50 fell from {ap50.production:.3f} to {ap50.candidate:.3f}")
    for label, each in decision.labels.items():
        if boxes[label] >= settings.label_boxes and each.high is not None and each.high < -settings.label_margin:
            reasons.append(f"AP50 of {label} fell from {each.production:.3f} to {each.candidate:.3f}")
    latency = decision.latency
    if latency and latency.candidate > settings.latency_ratio * latency.production:
        reasons.append(f"slower: {latency.candidate:.3f} s per image instead of {latency.production:.3f}")
    return tuple(reasons)
