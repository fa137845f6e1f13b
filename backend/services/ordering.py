"""Which images people are to see first: those from which most is learnt per second, and a share drawn by chance."""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from backend.analysis.acquisition import Acquisition, Candidate, RoundGains, worth
from backend.analysis.expected_seconds import Expectation
from backend.analysis.work_saved import worked_seconds
from backend.domain.calibration import Calibration
from backend.domain.fits import Fit
from backend.domain.records import Proposal
from backend.domain.review import LABEL_STUDIO, ShowThresholds
from backend.domain.verdicts import Judged, VerdictKind

RANDOM_SHARE = 0.2  # keeps figures unbiased, and shows whether choosing pays
_ROUND = 25  # tasks


def chance(project: str, task_id: int) -> float:
    """Draw a number in ``[0, 1)`` for a task, the same one at any time."""
    return _drawn(f"order {project} {task_id}")


def place(project: str, task_id: int) -> float:
    """Draw a task's place among those that chance places, in ``[0, 1)``.

    Independent of ``is_random``: else the random tasks would come first wherever chance places all, and be used up when
    others are chosen again.
    """
    return _drawn(f"place {project} {task_id}")


def _drawn(text: str) -> float:
    return int.from_bytes(sha256(text.encode()).digest()[:8], "big") / 2**64


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
        and for all where the fit has no order. None without a fit.
    """
    if fit is None:
        return None
    if not fit.ordering or is_random(fit.project, task_id):
        return place(fit.project, task_id)
    rank = bisect_right(fit.ordering, urgency(proposals, fit.calibration, fit.thresholds))
    return 1 - rank / len(fit.ordering)


@dataclass(frozen=True, slots=True)
class Work:
    """What a person did on one task that a fit placed.

    Attributes:
        ordered: the fit placed tasks by urgency; else it left all of them to chance.
        kinds: of the verdicts on it.
    """

    task_id: int
    ordered: bool
    kinds: tuple[VerdictKind, ...]
    seconds: float


def works_of(judged: Iterable[Judged], ordering: Collection[str]) -> list[Work]:
    """Tell what people did on each annotated task that a fit placed, in the order of their annotations.

    Seconds are the person's, but at the usual pace where they are not known or a tab was left open.

    Args:
        judged: verdicts of one model version, by annotation.
        ordering: ids of the fits that have an ordering.
    """
    verdicts: dict[int, list[Judged]] = {}
    for each in judged:
        verdicts.setdefault(each.verdict.annotation_id, []).append(each)
    placed = [own for own in verdicts.values() if any(each.fit is not None for each in own)]
    told = [own[0].verdict.lead_time or None for own in placed]
    seconds = worked_seconds(told, list(map(_standard_seconds, placed)))
    return [
        Work(
            own[0].task_id,
            any(each.fit in ordering for each in own),
            tuple(each.verdict.kind for each in own),
            float(spent),
        )
        for own, spent in zip(placed, seconds, strict=True)
    ]


def _standard_seconds(judged: Sequence[Judged]) -> float:
    shown = sum(each.region is not None for each in judged)
    acts = (LABEL_STUDIO.of(each.verdict.kind, each.verdict.iou or 0.0) for each in judged)
    return LABEL_STUDIO.of_image(shown) + sum(acts)


def rounds_of(project: str, works: Iterable[Work]) -> list[RoundGains]:
    """Tell what ordered tasks and those placed by chance brought, 25 tasks at a time, the last ones together.

    A task brings what people changed on it. An image without any box has no verdict, and so it is not counted. What was
    done while chance placed all tasks comes first, as one round in which none was chosen.

    Args:
        works: in the order in which they were done.
    """
    done = [each for each in works if each.kinds]
    ordered = [each for each in done if each.ordered]
    parts = [[each for each in done if not each.ordered]]
    parts += [ordered[max(0, end - _ROUND) : end] for end in range(len(ordered), 0, -_ROUND)][::-1]
    return [
        RoundGains(
            tuple(map(_gain, (each for each in part if each.ordered and not is_random(project, each.task_id)))),
            tuple(map(_gain, (each for each in part if not each.ordered or is_random(project, each.task_id)))),
        )
        for part in parts
        if part
    ]


def _gain(work: Work) -> tuple[float, float]:
    return float(sum(kind is not VerdictKind.ACCEPTED for kind in work.kinds)), work.seconds
