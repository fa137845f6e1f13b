"""Which images are worth a person's next minutes: those that stand for what the model is unsure of.

Uncertainty is the entropy of calibrated probabilities, difficult labels counting a little more (PPAL, Yang et al.
2024, section 3.2). What chance chose beside them shows whether choosing pays.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from backend.analysis.bootstrap import RESAMPLES, resampled_sums
from backend.analysis.expected_seconds import Expectation
from backend.analysis.overlap import Floats
from backend.domain.calibration import Calibration
from backend.domain.records import Proposal
from backend.domain.review import FLOOR, Costs, Judgement, ShowThresholds

_WIDTH = 0.5  # of likeness, in roots of numbers of objects: one object and none have a likeness of 0.14
_MOST_ASKED = 4000  # waiting images whose doubts stand for all
_MOST_LIKENESSES = 2_000_000  # in memory at once
_QUALITY_BY_SCORE, _SHARPNESS, _STRENGTH = 0.6, 0.3, 0.2  # PPAL's xi, alpha, beta


@dataclass(frozen=True, slots=True)
class Candidate:
    """An image that nobody reviewed, and all that the model proposes for it."""

    image: str
    proposals: tuple[Proposal, ...]


@dataclass(frozen=True, slots=True)
class Acquisition:
    """How images are chosen: what is expected of them, and the weight of each label (1 where it has none)."""

    expectation: Expectation
    thresholds: ShowThresholds
    costs: Costs
    weights: Mapping[str, float] = field(default_factory=dict)


def label_weights(judgements: Sequence[Judgement], calibration: Calibration) -> dict[str, float]:
    """Weigh judged labels by difficulty, from 1 to 1.2: how far right boxes are from sure and exactly placed.

    One of which no box was ever right is the most difficult.
    """
    qualities: defaultdict[str, list[float]] = defaultdict(list)
    for each in judgements:
        own = qualities[each.label]
        if each.right:
            probability = calibration.probability(each.label, each.score)
            own.append(probability**_QUALITY_BY_SCORE * each.iou ** (1 - _QUALITY_BY_SCORE))
    return {label: _weight(1 - sum(own) / max(1, len(own))) for label, own in qualities.items()}


def _weight(difficulty: float) -> float:
    return 1 + _SHARPNESS * _STRENGTH * math.log((math.exp(1 / _SHARPNESS) - 1) * difficulty + 1)


def uncertainty(proposals: Sequence[Proposal], calibration: Calibration, weights: Mapping[str, float]) -> float:
    """Sum of the weighted binary entropies, in nats, of all boxes above `FLOOR`; 0 where the model is sure."""
    total = 0.0
    for each in proposals:
        if each.score >= FLOOR:
            p = calibration.probability(each.label, each.score)
            entropy = -p * math.log(p) - (1 - p) * math.log(1 - p) if 0 < p < 1 else 0.0
            total += weights.get(each.label, 1.0) * entropy
    return total


def worth(candidate: Candidate, acquisition: Acquisition) -> float:
    """Uncertainty per expected second of a person, before any regard to what other images teach; 0 or more."""
    seconds = _seconds(candidate, acquisition)
    return _doubt(candidate, acquisition) / seconds if seconds > 0 else 0.0


def choose_batch(
    candidates: Sequence[Candidate],
    size: int,
    acquisition: Acquisition,
    reviewed: Sequence[Candidate] = (),
    seed: int = 0,
) -> tuple[str, ...]:
    """Choose images that stand for what the model is unsure of, of each group that takes about as long one.

    What is learnt about an image shrinks with the number of reviewed ones that are like it, m, as 1 / (1 + m), so that
    a batch is made up as the doubts about the waiting images are. Only images that take about as long compete: else
    cheap ones would come first, of which a training learns less, or crowded ones, while the model helps least.

    Args:
        size: of the batch, or all candidates if they are fewer.
        reviewed: images already known.

    Returns:
        The chosen images' names.
    """
    size = min(size, len(candidates))
    if size <= 0:
        return ()
    chance = np.random.default_rng(seed)
    features = _features([*candidates, *reviewed], acquisition.expectation.calibration)
    waiting, known = features[: len(candidates)], features[len(candidates) :]
    asked = chance.choice(len(candidates), min(len(candidates), _MOST_ASKED), replace=False)
    doubt = np.array([_doubt(candidates[place], acquisition) for place in asked])
    seen = _likened(waiting[asked], known, np.ones(len(known)))
    seconds = np.array([_seconds(each, acquisition) for each in candidates])
    groups = np.array_split(np.argsort(seconds, kind="stable"), size)
    chosen: list[int] = []
    # In any order: whoever does only the first of them is to see cheap and crowded ones alike.
    for turn in chance.permutation(size):
        group = groups[turn]
        best = int(group[_likened(waiting[group], waiting[asked], doubt / (1 + seen)).argmax()])
        chosen.append(best)
        seen += _likeness(waiting[[best]], waiting[asked])[0]
    return tuple(candidates[place].image for place in chosen)


def _doubt(candidate: Candidate, acquisition: Acquisition) -> float:
    return uncertainty(candidate.proposals, acquisition.expectation.calibration, acquisition.weights)


def _seconds(candidate: Candidate, acquisition: Acquisition) -> float:
    return acquisition.expectation.seconds(candidate.proposals, acquisition.thresholds, acquisition.costs)


def _features(images: Sequence[Candidate], calibration: Calibration) -> Floats:
    """Square roots ``(I, C)`` of the number of objects of each label that is expected in each image."""
    labels = sorted({proposal.label for each in images for proposal in each.proposals})
    expected = [[_expected_objects(each.proposals, label, calibration) for label in labels] for each in images]
    return np.sqrt(np.array(expected, np.float64).reshape(len(images), len(labels)))


def _expected_objects(proposals: Sequence[Proposal], label: str, calibration: Calibration) -> float:
    return sum(calibration.probability(label, each.score) for each in proposals if each.label == label)


def _likened(images: Floats, others: Floats, weights: Floats) -> Floats:
    """Sum for each of these images the weights ``(J,)`` of the others by their likeness to it ``(I,)``."""
    rows = max(1, _MOST_LIKENESSES // max(1, len(others)))
    return np.concatenate([_likeness(images[at : at + rows], others) @ weights for at in range(0, len(images), rows)])


def _likeness(images: Floats, others: Floats) -> Floats:
    """How alike images with these features are to others ``(I, J)``: 1 for the same objects, near 0 for others."""
    apart = (images**2).sum(1)[:, None] + (others**2).sum(1) - 2 * images @ others.T
    return np.asarray(np.exp(-apart / (2 * _WIDTH**2)))


@dataclass(frozen=True, slots=True)
class RoundGains:
    """What a round's images brought: (gain, seconds) of each chosen one and of each random one.

    A gain is anything that learning lives on and that is known at once, such as the number of corrections.
    """

    chosen: tuple[tuple[float, float], ...]
    random: tuple[tuple[float, float], ...]


def choosing_pays(rounds: Sequence[RoundGains], seed: int = 0) -> bool:
    """Whether to go on choosing: not if in the last two rounds what was chosen brought less per second than random may.

    Random's upper 95 % bound is by bootstrap over the random images of all rounds. Two rounds are needed to stop.
    """
    drawn = np.array([each for gains in rounds for each in gains.random], np.float64).reshape(-1, 2)
    last = [gains for gains in rounds if gains.chosen][-2:]
    if len(last) < 2 or not drawn[:, 1].sum() > 0:
        return True
    resampled = resampled_sums(drawn, RESAMPLES, np.random.default_rng(seed))  # (B, 2)
    rates = resampled[:, 0] / np.where(resampled[:, 1] > 0, resampled[:, 1], 1.0)
    bound = float(np.quantile(rates, 0.95))
    return any(sum(gain for gain, _ in each.chosen) > bound * sum(spent for _, spent in each.chosen) for each in last)
