"""Honest scores: from a model's score to the share of such boxes that people leave with their label.

Few verdicts: logistic curves (Platt 1999) whose slope and intercept may differ by label, each label's drawn towards the
common curve, and that one towards leaving scores as they are. Many: isotonic regression, where it errs less on images
that it was not fitted to. Scores stay as they are unless curves clearly beat them on such images, too. Fit it on what
the model serves, that is after suppression of duplicates, and anew for each model version.

What is shown depends on its score alone, so that the share of right boxes at each score needs no weights: with them a
few explored boxes that stand for hundreds of others would bend the curve, and have the only say on what it gains.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression

from backend.analysis.overlap import Floats
from backend.domain.calibration import Calibration, KnotCurve, PlattCurve, logit
from backend.domain.review import Judgement

ISOTONIC_FROM = 300  # verdicts of a label
BINS = 10
_FOLDS = 5
# How far curves stray before verdicts speak: the common slope and intercept, then each label's from the common ones.
_OF_SCORES = (0.5, 2.0, 0.25, 1.0)  # that are to be honest: they stay near what they are
_OF_CUTS = (4.0, 2.0, 0.25, 0.25)  # which lie where people's verdicts turn, often within a small range of scores
_LEAST_SLOPE = 0.05
_SURE = 2.0  # standard errors by which a calibration must beat the plain scores


@dataclass(frozen=True, slots=True)
class _Sample:
    """N judgements as columns; ``labels`` are numbered in ``names``, ``images`` by first appearance."""

    names: tuple[str, ...]
    labels: NDArray[np.intp]
    images: NDArray[np.intp]
    scores: Floats
    right: Floats
    weights: Floats

    @classmethod
    def of(cls, judgements: Sequence[Judgement]) -> "_Sample":
        names = tuple(sorted({each.label for each in judgements}))
        places = {name: place for place, name in enumerate(names)}
        images = {image: place for place, image in enumerate(dict.fromkeys(each.image for each in judgements))}
        return cls(
            names,
            np.array([places[each.label] for each in judgements], np.intp),
            np.array([images[each.image] for each in judgements], np.intp),
            np.array([each.score for each in judgements], np.float64),
            np.array([each.right for each in judgements], np.float64),
            np.array([each.weight for each in judgements], np.float64),
        )

    def of_rows(self, rows: NDArray[np.bool_]) -> "_Sample":
        columns = ("labels", "images", "scores", "right", "weights")
        return replace(self, **{name: getattr(self, name)[rows] for name in columns})

    def probabilities(self, calibration: Calibration) -> Floats:
        pairs = zip(self.labels, self.scores, strict=True)
        return np.array([calibration.probability(self.names[label], float(score)) for label, score in pairs])


def fit_calibration(judgements: Sequence[Judgement]) -> Calibration:
    """Fit a curve per label, and one for labels without judgements.

    Returns:
        Rising curves; `Calibration()`, which changes nothing, where five-fold cross-fitting by image shows no clear
        gain in squared error over the plain scores.
    """
    sample = _Sample.of(judgements)
    counts = np.bincount(sample.labels, minlength=len(sample.names))
    many = frozenset(np.flatnonzero(counts >= ISOTONIC_FROM).tolist())
    plain = (sample.scores - sample.right) ** 2
    logistic, isotonic = (_held_out_errors(sample, labels) for labels in (frozenset[int](), many))
    gained = np.bincount(sample.labels, logistic - isotonic, len(sample.names))
    stepped = frozenset(label for label in many if gained[label] > 0)
    errors = np.where(np.isin(sample.labels, list(stepped)), isotonic, logistic)
    gains = np.bincount(sample.images, plain - errors)
    if not gains.sum() > _SURE * float(np.sqrt((gains**2).sum())):
        return Calibration()
    return _fit(sample, stepped)


@dataclass(frozen=True, slots=True)
class LogisticCurves:
    """The logistic curve common to all labels, and each label's."""

    default: PlattCurve
    labels: Mapping[str, PlattCurve]


def fit_logistic(judgements: Sequence[Judgement], good: Callable[[Judgement], bool]) -> LogisticCurves:
    """Fit curves for cuts, however little they gain: to the share that is ``good``, as steep as need be."""
    kinds = np.array([good(each) for each in judgements], np.float64)
    return _platt(replace(_Sample.of(judgements), right=kinds), _OF_CUTS)


def _held_out_errors(sample: _Sample, isotonic: frozenset[int]) -> Floats:
    """Squared error of each judgement under the curves of the other folds' images."""
    folds, errors = sample.images % _FOLDS, np.zeros(len(sample.right))
    for fold in np.unique(folds):
        held_out = sample.of_rows(folds == fold)
        probabilities = held_out.probabilities(_fit(sample.of_rows(folds != fold), isotonic))
        errors[folds == fold] = (probabilities - held_out.right) ** 2
    return errors


def _fit(sample: _Sample, isotonic: frozenset[int]) -> Calibration:
    logistic = _platt(sample, _OF_SCORES)
    there = isotonic.intersection(sample.labels.tolist())  # a fold may have all of a label that few images have
    stepped = {sample.names[label]: _isotonic(sample.of_rows(sample.labels == label)) for label in there}
    return Calibration(logistic.default, {**logistic.labels, **stepped})


def _isotonic(sample: _Sample) -> KnotCurve:
    fitted = IsotonicRegression(y_min=0, y_max=1).fit(sample.scores, sample.right)
    return KnotCurve(tuple(map(float, fitted.X_thresholds_)), tuple(map(float, fitted.y_thresholds_)))


def _platt(sample: _Sample, prior: tuple[float, float, float, float]) -> LogisticCurves:
    """Most probable curves under the prior's spreads: the common one, and each label's."""
    labels = len(sample.names)
    odds = np.array([logit(float(score)) for score in sample.scores])
    spreads = np.repeat(prior, (1, 1, labels, labels))

    def curves(values: Floats) -> tuple[Floats, Floats]:
        """Slope and intercept per label."""
        return 1 + values[0] + values[2 : 2 + labels], values[1] + values[2 + labels :]

    def loss(values: Floats) -> tuple[float, Floats]:
        slopes, intercepts = curves(values)
        z = slopes[sample.labels] * odds + intercepts[sample.labels]
        data = np.logaddexp(0, z) - sample.right * z
        pull = expit(z) - sample.right
        by_slope, by_intercept = (np.bincount(sample.labels, each, labels) for each in (pull * odds, pull))
        gradient = np.concatenate([[by_slope.sum(), by_intercept.sum()], by_slope, by_intercept])
        scaled = values / spreads
        return float(data.sum() + (scaled**2).sum() / 2), gradient + scaled / spreads

    rising = [(_LEAST_SLOPE - 1, None), *[(None, None)] * (1 + 2 * labels)]
    best = minimize(loss, np.zeros(2 + 2 * labels), jac=True, method="L-BFGS-B", bounds=rising).x
    slopes, intercepts = curves(best)
    default = PlattCurve(float(1 + best[0]), float(best[1]))
    pairs = zip(sample.names, slopes, intercepts, strict=True)
    own = {name: PlattCurve(max(float(a), _LEAST_SLOPE), float(b)) for name, a, b in pairs}
    return LogisticCurves(default, own)


def calibration_error(judgements: Sequence[Judgement], calibration: Calibration) -> float:
    """How far probabilities are from what happens, in ``[0, 1]``: the mean over labels of the detection ECE.

    Per label, judgements are put into ten bins of equal number by probability; it is the mean over bins of the gap
    between mean probability and share of right boxes (D-ECE, Kuppers et al. 2020, with bins of equal number). Even for
    perfect probabilities a small sample shows some error.

    Raises:
        ValueError: there are no judgements.
    """
    if not judgements:
        raise ValueError("no judgements to measure a calibration error on")
    gaps, weights = binned_gaps([judgements], calibration)
    return float(error_of_gaps(gaps, weights, np.ones((1, 1)))[0])


def binned_gaps(images: Sequence[Sequence[Judgement]], calibration: Calibration) -> tuple[Floats, Floats]:
    """Sum up what `calibration_error` needs, image by image.

    Returns:
        ``(I, L, BINS)`` sums of probability minus outcome, and ``(I, L)`` sums of weights, for labels that occur.
    """
    sample = _Sample.of([each for image in images for each in image])
    places = np.repeat(np.arange(len(images)), [len(image) for image in images])
    probabilities = sample.probabilities(calibration)
    bins = np.zeros(len(places), np.intp)
    for label in range(len(sample.names)):
        rows = np.flatnonzero(sample.labels == label)
        rows = rows[np.argsort(probabilities[rows], kind="stable")]
        bins[rows] = np.arange(len(rows)) * BINS // len(rows)
    gaps = np.zeros((len(images), len(sample.names), BINS))
    weights = np.zeros((len(images), len(sample.names)))
    np.add.at(gaps, (places, sample.labels, bins), sample.weights * (probabilities - sample.right))
    np.add.at(weights, (places, sample.labels), sample.weights)
    return gaps, weights


def error_of_gaps(gaps: Floats, weights: Floats, counts: Floats) -> Floats:
    """Calibration error ``(B,)`` where image i counts ``counts[b, i]`` times."""
    summed = np.abs(np.tensordot(counts, gaps, 1)).sum(-1)  # (B, L)
    weighed = counts @ weights
    means = np.divide(summed, weighed, out=np.zeros_like(summed), where=weighed > 0)
    return np.asarray(means.sum(1) / np.maximum((weighed > 0).sum(1), 1))
