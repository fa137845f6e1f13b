"""Which images people are to see first: those from which most is learnt per second, and a share drawn by chance."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from hashlib import sha256

from backend.analysis.acquisition import Acquisition, Candidate, RoundGains, worth
from backend.analysis.expected_seconds import Expectation
from backend.domain.calibration import Calibration
from backend.domain.fits import Fit
from backend.domain.records import Proposal
from backend.domain.review import LABEL_STUDIO, ShowThresholds
from backend.domain.verdicts import Judged, VerdictKind

RANDOM_SHARE = 0.2  # keeps figures unbiased, and shows whether choosing pays
_ROUND = 25  # tasks


def chance(project: str, task_id: int) -> float:
    """Draw a number in ``[0, 1)`` for a task, the same one at any time."""
    return int.from_bytes(sha256(f"order {project} {task_id}".encode()).digest()[:8], "big") / 2**64


def is_random(project: str, task_id: int) -> bool:
    """Whether chance alone decides when a task is shown: one in five, so that figures over these are unbiased."""
    return chance(project, task_id) < RANDOM_SHARE


def urgency(proposals: Sequence[Proposal], calibration: Calibration, thresholds: ShowThresholds) -> float:
    """How uncertain an image's proposals are, hidden ones too, per second that a person is expected to take for it."""
    acquisition = Acquisition(Expectation(calibration), thresholds, LABEL_STUDIO)
    return worth(Candidate("", tuple(proposals)), acquisition)


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


def rounds_of(project: str, judged: Iterable[Judged]) -> list[RoundGains]:
    """Tell what ordered tasks and those placed by chance brought, 25 tasks at a time in the order of their annotations.

    A task brings what people changed on it. Only those count that were placed by a fit.

    Args:
        judged: verdicts of one model version, by annotation.
    """
    verdicts: dict[int, list[Judged]] = {}
    for each in judged:
        verdicts.setdefault(each.verdict.annotation_id, []).append(each)
    placed = [own for own in verdicts.values() if any(each.fit is not None for each in own)]
    rounds = []
    for start in range(0, len(placed), _ROUND):
        gains: tuple[list[tuple[float, float]], list[tuple[float, float]]] = ([], [])
        for own in placed[start : start + _ROUND]:
            gains[is_random(project, own[0].task_id)].append(_gain(own))
        rounds.append(RoundGains(tuple(gains[False]), tuple(gains[True])))
    return rounds


def _gain(judged: Sequence[Judged]) -> tuple[float, float]:
    """Changes on one annotation, and seconds: the person's, or standard ones where they are not known."""
    verdicts = [each.verdict for each in judged]
    shown = sum(each.region is not None for each in judged)
    standard = LABEL_STUDIO.of_image(shown) + sum(LABEL_STUDIO.of(each.kind, each.iou or 0.0) for each in verdicts)
    changes = sum(each.kind is not VerdictKind.ACCEPTED for each in verdicts)
    return float(changes), verdicts[0].lead_time or standard
