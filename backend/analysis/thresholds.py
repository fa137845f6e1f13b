"""From which score on a label's proposals are worth a person's time.

Showing a box saves the drawing of its object, if there is one, and costs the judging. Over the judged proposals of a
label the sum of these gains above a cut is largest at the best cut, which a few hundred judgements tell. With fewer it
is drawn towards the score at which the label's logistic curve reaches the probability that pays; that curve leans on
those of the other labels.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.special import expit

from backend.analysis.calibration import fit_logistic
from backend.domain.calibration import PlattCurve, logit
from backend.domain.review import FLOOR, Costs, Judgement, ShowThresholds

_SHRINKAGE = 300.0  # judgements at which a label's own cut counts half
_CAUTION = 20.0  # judgements that wrong boxes are thought to have had, all of them deleted


def break_even(costs: Costs) -> float:
    """Probability of being right from which on showing a box saves time, if it is either right as it is or wrong.

    0.257 for one verdict per box, 0.235 in Label Studio; 0.071 and 0.074 where drawing takes 25.5 s. 1 if it never is.
    """
    saved = max(costs.draw - costs.accept, 0.0)
    return costs.reject / (saved + costs.reject) if saved else 1.0


def fit_thresholds(judgements: Sequence[Judgement], costs: Costs, prior: float | None = None) -> ShowThresholds:
    """Choose the cuts that minimise a person's expected seconds at these costs.

    Args:
        judgements: of what was shown, weighted where only explored images show it; without exploration nothing is
            known below the cuts that were in force, and they are kept where everything above them paid.
        prior: the cut without judgements; `break_even` by default, as if scores were honest.

    Returns:
        Cuts on the model's own score, in ``[FLOOR, 1]``, for each label that was judged, and one for all others.
    """
    if not judgements:
        return ShowThresholds(break_even(costs) if prior is None else prior)
    # What is shown depends on its score alone, so the share of right ones at each score needs no weights; with them a
    # few explored boxes that stand for hundreds of others would bend the curve.
    curves = fit_logistic([replace(each, weight=1.0) for each in judgements])
    paying = _paying_probability(judgements, costs)
    by_label: dict[str, list[Judgement]] = {}
    for each in judgements:
        by_label.setdefault(each.label, []).append(each)
    cuts = {label: _cut(own, costs, curves.labels[label], paying) for label, own in sorted(by_label.items())}
    return ShowThresholds(_cut(judgements, costs, curves.default, paying), cuts)


def _paying_probability(judgements: Sequence[Judgement], costs: Costs) -> float:
    """Probability of being right from which on a box saves time, at what right and wrong ones save in the mean."""
    gains = {True: costs.draw - costs.accept, False: -costs.reject}
    for right in gains:
        own = [each for each in judgements if each.right is right]
        if own:
            mean = sum(each.weight * costs.gain(each) for each in own) / sum(each.weight for each in own)
            # Two explored boxes that were worth a new label stand for hundreds, and do not prove that all boxes are.
            caution = 0.0 if right else _CAUTION / (_CAUTION + _evidence(own))
            gains[right] = (1 - caution) * mean + caution * gains[right]
    if gains[True] <= max(gains[False], 0.0):
        return 0.0 if gains[False] > 0 else 1.0
    return min(max(-gains[False] / (gains[True] - gains[False]), 0.0), 1.0)


def _evidence(judgements: Sequence[Judgement]) -> float:
    """How many judgements of equal weight would tell as much (Kish's effective sample size)."""
    return sum(each.weight for each in judgements) ** 2 / sum(each.weight**2 for each in judgements)


def _cut(judgements: Sequence[Judgement], costs: Costs, curve: PlattCurve, paying: float) -> float:
    """The best cut, drawn towards where the curve reaches the probability that pays; at least `FLOOR`."""
    smooth = float(expit((logit(paying) - curve.intercept) / curve.slope))
    evidence = _evidence(judgements)
    own = evidence / (evidence + _SHRINKAGE)
    return max(FLOOR, own * _best_cut(judgements, costs) + (1 - own) * smooth)


def _best_cut(judgements: Sequence[Judgement], costs: Costs) -> float:
    """Score from which on the gains sum to the most, between two scores that were seen; of equal cuts the lowest."""
    scores = np.array([each.score for each in judgements])
    gains = np.array([each.weight * costs.gain(each) for each in judgements])
    order = np.argsort(-scores, kind="stable")
    # Rounded, as equal sums of other terms may differ in the last bits.
    scores, totals = scores[order], np.round(np.cumsum(gains[order]), 6)
    # A cut cannot part equal scores: only the last of them ends a group.
    ends = np.flatnonzero(np.append(scores[1:] < scores[:-1], True))
    best = int(ends[len(ends) - 1 - np.argmax(totals[ends][::-1])])
    if totals[best] <= 0:
        return float(scores[0] + 1) / 2
    return float(scores[best] if best == len(scores) - 1 else (scores[best] + scores[best + 1]) / 2)
