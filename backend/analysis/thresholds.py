"""From which score on a label's proposals are worth a person's time.

Showing a box saves the drawing of its object, if there is one, and costs the judging. Over the judged proposals of a
label the sum of these gains above a cut is largest at the best cut, which some dozens of kept boxes tell, and no number
of thrown away ones. With fewer it is drawn towards the score at which the label's logistic curve reaches the
probability that pays; that curve leans on those of the other labels. The curve is of boxes that people keep, be it
moved or with another label: these save time, the others cost what deleting costs, whatever their scores.

Explored boxes count as one each: whether boxes of a score pay is in what became of those that were seen, however many
they stand for. Weighted, two of them in a hundred images decide on a label.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from backend.analysis.calibration import fit_logistic
from backend.domain.calibration import PlattCurve, logit
from backend.domain.review import FLOOR, Costs, Judgement, ShowThresholds
from backend.domain.verdicts import VerdictKind

_SHRINKAGE = 30.0  # kept boxes of a label at which its own best cut counts half
_BEYOND = 0.05  # how far above all scores that were judged a cut may be: of better boxes nothing is known
_CREDIT = 1.0  # kept boxes that are thought to have been right as they were


def break_even(costs: Costs) -> float:
    """Probability of being right from which on showing a box saves time, if it is either right as it is or wrong.

    0.257 for one verdict per box, 0.235 in Label Studio; 0.071 and 0.074 where drawing takes 25.5 s. 1 if it never is.
    """
    saved = max(costs.draw - costs.accept, 0.0)
    return costs.reject / (saved + costs.reject) if saved else 1.0


def fit_thresholds(judgements: Sequence[Judgement], costs: Costs) -> ShowThresholds:
    """Choose the cuts that minimise a person's expected seconds at these costs.

    Args:
        judgements: of what was shown; without exploration nothing is known below the cuts that were in force, and they
            are kept where everything above them paid.

    Returns:
        Cuts on the model's own score, in ``[FLOOR, 1]``, for each label that was judged, and one for all others.
        Without judgements `break_even`, as if scores were honest.
    """
    if not judgements:
        return ShowThresholds(break_even(costs))
    curves = fit_logistic(judgements, _kept)
    pay = _Pay.of(judgements, costs)
    by_label: dict[str, list[Judgement]] = {}
    for each in judgements:
        by_label.setdefault(each.label, []).append(each)
    cuts = {label: pay.cut(own, curves.labels[label]) for label, own in sorted(by_label.items())}
    return ShowThresholds(pay.cut(judgements, curves.default), cuts)


def _kept(judgement: Judgement) -> bool:
    return judgement.kind is not VerdictKind.DELETED


@dataclass(frozen=True, slots=True)
class _Pay:
    """What showing a box saves at these costs: ``gain`` in the mean if it is kept, ``-costs.reject`` if not.

    ``highest`` is where the cut is if nothing seems to pay.
    """

    costs: Costs
    gain: float
    highest: float

    @classmethod
    def of(cls, judgements: Sequence[Judgement], costs: Costs) -> "_Pay":
        gains = [costs.gain(each) for each in judgements if _kept(each)]
        gain = (sum(gains) + _CREDIT * (costs.draw - costs.accept)) / (len(gains) + _CREDIT)
        return cls(costs, gain, min(1.0, max(each.score for each in judgements) + _BEYOND))

    def cut(self, judgements: Sequence[Judgement], curve: PlattCurve) -> float:
        """The best cut, drawn towards where the curve reaches the probability that pays; at least `FLOOR`."""
        paying = self.costs.reject / (self.gain + self.costs.reject) if self.gain > 0 else 1.0
        smooth = min(float(expit((logit(paying) - curve.intercept) / curve.slope)), self.highest)
        kept = sum(map(_kept, judgements))
        own = kept / (kept + _SHRINKAGE)
        return max(FLOOR, own * self._best_cut(judgements) + (1 - own) * smooth)

    def _best_cut(self, judgements: Sequence[Judgement]) -> float:
        """Score from which on gains sum to the most, between two scores that were seen; of equal cuts the lowest."""
        scores = np.array([each.score for each in judgements])
        gains = np.array([self.costs.gain(each) for each in judgements])
        order = np.argsort(-scores, kind="stable")
        # Rounded, as equal sums of other terms may differ in the last bits.
        scores, totals = scores[order], np.round(np.cumsum(gains[order]), 6)
        # A cut cannot part equal scores: only the last of them ends a group.
        ends = np.flatnonzero(np.append(scores[1:] < scores[:-1], True))
        best = int(ends[len(ends) - 1 - np.argmax(totals[ends][::-1])])
        if totals[best] <= 0:
            return self.highest
        return float(scores[best] if best == len(scores) - 1 else (scores[best] + scores[best + 1]) / 2)
