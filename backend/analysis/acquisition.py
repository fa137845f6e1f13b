"""Which images are worth a person's next minutes: those that teach most per second, unlike each other, some at random.

Uncertainty is the entropy of calibrated probabilities, difficult labels counting a little more (PPAL, Yang et al.
2024, section 3.2). A random part keeps the figures of a project unbiased and shows whether choosing pays.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from backend.analysis.bootstrap import RESAMPLES, image_counts
from backend.analysis.expected_seconds import Expectation
from backend.analysis.overlap import Floats
from backend.domain.calibration import Calibration
from backend.domain.records import Proposal
from backend.domain.review import FLOOR, Costs, Judgement, ShowThresholds

RANDOM_SHARE = 0.2
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
    random_share: float = RANDOM_SHARE


@dataclass(frozen=True, slots=True)
class Batch:
    """Images to review next: first those ``chosen`` for what they teach, best first, then the ``random`` ones."""

    chosen: tuple[str, ...]
    random: tuple[str, ...]


def label_weights(judgements: Sequence[Judgement], calibration: Calibration) -> dict[str, float]:
    """Weigh labels by difficulty, from 1 to 1.2: how far right boxes are from sure and exactly placed."""
    qualities: defaultdict[str, list[float]] = defaultdict(list)
    for each in judgements:
        if each.right:
            probability = calibration.probability(each.label, each.score)
            qualities[each.label].append(probability**_QUALITY_BY_SCORE * each.iou ** (1 - _QUALITY_BY_SCORE))
    return {label: _weight(1 - sum(own) / len(own)) for label, own in qualities.items()}


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
    seconds = acquisition.expectation.seconds(candidate.proposals, acquisition.thresholds, acquisition.costs)
    doubt = uncertainty(candidate.proposals, acquisition.expectation.calibration, acquisition.weights)
    return doubt / seconds if seconds > 0 else 0.0


def choose_batch(
    candidates: Sequence[Candidate],
    size: int,
    acquisition: Acquisition,
    reviewed: Sequence[Candidate] = (),
    seed: int = 0,
) -> Batch:
    """Choose images greedily by worth times distance to the nearest one reviewed or chosen, and some at random.

    Args:
        size: of the batch, or all candidates if they are fewer.
        acquisition: with a random share of 1, as where choosing does not `pay`, the batch is drawn at random.
        reviewed: images already known.
    """
    size = min(size, len(candidates))
    if size <= 0:
        return Batch((), ())
    chance = np.random.default_rng(seed)
    at_random = min(size, math.ceil(acquisition.random_share * size))
    drawn = [int(place) for place in chance.choice(len(candidates), at_random, replace=False)]
    everything = [*candidates, *reviewed]
    features = _features(everything, acquisition.expectation.calibration)
    values = np.array([worth(each, acquisition) for each in candidates])
    known = [*range(len(candidates), len(everything)), *drawn]
    nearest = np.full(len(candidates), np.inf)
    for place in known:
        nearest = np.minimum(nearest, _distances(features[: len(candidates)], features[place]))
    taken = np.zeros(len(candidates), bool)
    taken[drawn] = True
    chosen: list[int] = []
    while len(chosen) < size - at_random:
        # The first has nothing to be far from.
        gains = np.where(taken, -1.0, values * np.where(np.isinf(nearest), 1.0, nearest))
        best = int(gains.argmax())
        chosen.append(best)
        taken[best] = True
        nearest = np.minimum(nearest, _distances(features[: len(candidates)], features[best]))
    names = [candidate.image for candidate in candidates]
    return Batch(tuple(names[place] for place in chosen), tuple(names[place] for place in drawn))


def _features(images: Sequence[Candidate], calibration: Calibration) -> Floats:
    """How the expected objects of each image are shared among the labels, square roots ``(I, C)`` of unit variance.

    Shares, not numbers: a crowded image would be unlike all others, and come first when the model helps least with it.
    """
    labels = sorted({proposal.label for each in images for proposal in each.proposals})
    expected = [[_expected_objects(each.proposals, label, calibration) for label in labels] for each in images]
    counts = np.array(expected, np.float64).reshape(len(images), len(labels))
    totals = counts.sum(1, keepdims=True)
    features = np.sqrt(counts / np.where(totals > 0, totals, 1.0))
    spread = features.std(0) if len(features) else np.ones(len(labels))
    return np.asarray(features / np.where(spread > 0, spread, 1.0))


def _expected_objects(proposals: Sequence[Proposal], label: str, calibration: Calibration) -> float:
    return sum(calibration.probability(label, each.score) for each in proposals if each.label == label)


def _distances(features: Floats, other: Floats) -> Floats:
    # A little is added so that of many like images the most uncertain still comes first.
    return np.asarray(0.01 + np.sqrt(((features - other) ** 2).sum(1)))


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
    resampled = image_counts(len(drawn), RESAMPLES, np.random.default_rng(seed)) @ drawn  # (B, 2)
    rates = resampled[:, 0] / np.where(resampled[:, 1] > 0, resampled[:, 1], 1.0)
    bound = float(np.quantile(rates, 0.95))
    return any(sum(gain for gain, _ in each.chosen) > bound * sum(spent for _, spent in each.chosen) for each in last)
