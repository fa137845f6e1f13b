"""Which images people are to see first: those from which most is learnt per second, and a share drawn by chance."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from hashlib import sha256

from backend.analysis.expected_seconds import Expectation
from backend.domain.calibration import Calibration
from backend.domain.fits import Fit
from backend.domain.records import Proposal
from backend.domain.review import LABEL_STUDIO, ShowThresholds

RANDOM_SHARE = 0.2


def chance(project: str, task_id: int) -> float:
    """Draw a number in ``[0, 1)`` for a task, the same one at any time."""
    return int.from_bytes(sha256(f"order {project} {task_id}".encode()).digest()[:8], "big") / 2**64


def is_random(project: str, task_id: int) -> bool:
    """Whether chance alone decides when a task is shown: one in five, so that figures over these are unbiased."""
    return chance(project, task_id) < RANDOM_SHARE


def urgency(proposals: Sequence[Proposal], calibration: Calibration, thresholds: ShowThresholds) -> float:
    """How uncertain an image's proposals are, per second that a person is expected to take for it.

    It is the sum of their binary entropies, in nats, so that hidden proposals count as well as shown ones.
    """
    seconds = Expectation(calibration).seconds(proposals, thresholds, LABEL_STUDIO)
    return sum(_entropy(calibration.probability(each.label, each.score)) for each in proposals) / seconds


def order_of(fit: Fit | None, task_id: int, proposals: Sequence[Proposal]) -> float | None:
    """Place a task among the project's others, in ``[0, 1]``: people see low ones first.

    Returns:
        Its rank by urgency among the images that the fit knows, the most urgent first. Random for a fifth of all tasks,
        and for all where the order does not pay. None without a fit.
    """
    if fit is None:
        return None
    drawn = chance(fit.project, task_id)
    if not fit.ordering:
        return drawn
    if drawn < RANDOM_SHARE:
        return drawn / RANDOM_SHARE
    rank = bisect_right(fit.ordering, urgency(proposals, fit.calibration, fit.thresholds))
    return 1 - rank / len(fit.ordering)


def _entropy(probability: float) -> float:
    return -sum(each * math.log(each) for each in (probability, 1 - probability) if each > 0)
