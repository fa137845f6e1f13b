"""How much of a person's time the proposals saved in a real project, with a 95 % interval.

It tells one time per annotation. The times per act follow by least squares without negative times from the
numbers of acts (drawn towards standard times where an act is rare); with them, drawing the same boxes is priced.
A time that is too long for its acts is no work, but a tab left open.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy.optimize import nnls

from backend.analysis.bootstrap import RESAMPLES, resampled_sums
from backend.analysis.overlap import Floats
from backend.domain.review import Costs
from backend.domain.verdicts import Verdict, VerdictKind

PACES = {"7 s per box": 7.0, "25.5 s per box": 25.5}
_PRIOR_ANNOTATIONS = 1.0  # how many annotations with one such act the standard time counts for
LEAST_ACTS = 20  # below it a fitted time leans on the standard one, and its interval misses the true pace too often
_IDLE = 10.0  # times as long for their acts as three of four annotations, or as usual: nobody worked all the time
_LEAST_ANNOTATIONS = 10


@dataclass(frozen=True, slots=True)
class SavedShare:
    """A share of the time for drawing every box; below 0 the proposals cost time. Bounds are of 95 %."""

    share: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class WorkSaved:
    """What a project's verdicts say about time.

    Attributes:
        annotations: that tell their time and were made on proposals; ``untimed`` do not, as after a bulk accept.
        seconds: that people took for them; where a tab was left open, as much as others take for such acts.
        times: fitted seconds per act, and per image, of those seen at least `LEAST_ACTS` times.
        savings: against drawing every box at the usual paces, and at the people's own (``own pace``) if there is a time
            of what they added; empty with fewer than ten annotations.
    """

    annotations: int
    untimed: int
    seconds: float
    times: Mapping[str, float]
    savings: Mapping[str, SavedShare]

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def work_saved(verdicts: Iterable[Verdict], standard: Costs, seed: int = 0) -> WorkSaved:
    """Measure what proposals saved; annotations made where nothing was proposed only help to fit the times.

    An image without any box has no verdict, and so it is not counted.

    Args:
        standard: times that the fit leans on, those of the project's way of reviewing.
    """
    counts: dict[int, Floats] = {}
    lead_times: dict[int, float] = {}
    assisted: set[int] = set()
    kinds = list(VerdictKind)
    for each in verdicts:
        row = counts.setdefault(each.annotation_id, np.append(np.zeros(len(kinds)), 1.0))
        row[kinds.index(each.kind)] += 1
        if each.lead_time is not None:
            lead_times[each.annotation_id] = each.lead_time
        if each.model_version is not None:
            assisted.add(each.annotation_id)
    timed = [annotation for annotation in counts if annotation in lead_times]
    measured = np.array([annotation in assisted for annotation in timed], bool)
    acts = np.array([counts[annotation] for annotation in timed]).reshape(-1, len(kinds) + 1)  # (A, acts + image)
    prior = np.array([*(standard.of(kind) for kind in kinds), standard.image])
    seconds = worked_seconds([lead_times[annotation] for annotation in timed], acts @ prior)
    times = zip([*(kind.value for kind in kinds), "image"], fit_times(acts, seconds, prior), acts.sum(0), strict=True)
    savings = _savings(acts, seconds, measured, prior, seed) if measured.sum() >= _LEAST_ANNOTATIONS else {}
    return WorkSaved(
        annotations=int(measured.sum()),
        untimed=len(assisted - lead_times.keys()),
        seconds=float(seconds[measured].sum()),
        times={act: float(fitted) for act, fitted, seen in times if seen >= LEAST_ACTS},
        savings=savings,
    )


def worked_seconds(told: Sequence[float | None], standard: Sequence[float] | Floats) -> Floats:
    """Seconds of work on annotations ``(A,)``: those told, but at the others' pace where none are or nobody worked.

    Times are held against what their acts cost. Cut at a quantile of the times themselves, crowded images would lose
    work that is honest, and at a quantile of the ratios the slow ones would, while a long break still counted as slow
    work. So only what no pace explains is put aside, and altogether: where nobody idles, nothing is.

    Args:
        told: None where no time is.
        standard: standard seconds of the same acts, above 0.
    """
    seconds, usual = np.array(told, np.float64), np.array(standard, np.float64)
    ratios = seconds / usual
    known = ratios[~np.isnan(ratios)]
    if not len(known):
        return usual
    # Whoever accepts faster than usual is not to make drawing suspicious: it may be slower than usual all the same.
    pace = max(1.0, float(np.quantile(known, 0.75, method="lower")))
    worked = ratios <= _IDLE * pace
    return np.where(worked, seconds, usual * (seconds[worked].sum() / usual[worked].sum()))


def fit_times(acts: Floats, seconds: Floats, prior: Floats) -> Floats:
    """Seconds per act ``(K,)``, none negative, from numbers of acts ``(A, K)`` and seconds ``(A,)`` of annotations."""
    return _fit(acts.T @ acts, acts.T @ seconds, prior)


def _fit(squares: Floats, products: Floats, prior: Floats) -> Floats:
    # Least squares by its normal equations, so that a resample costs no more than a small matrix.
    pull = _PRIOR_ANNOTATIONS * np.eye(len(prior))
    triangle = np.linalg.cholesky(squares + pull).T
    times, _ = nnls(triangle, np.linalg.solve(triangle.T, products + pull @ prior))
    return np.asarray(times, np.float64)


def _savings(acts: Floats, seconds: Floats, measured: Floats, prior: Floats, seed: int) -> dict[str, SavedShare]:
    """Resample annotations; the own pace is fitted anew in each resample."""
    kinds = list(VerdictKind)
    left = [kinds.index(kind) for kind in kinds if kind is not VerdictKind.DELETED]
    boxes = acts[:, left].sum(1) * measured
    added = kinds.index(VerdictKind.ADDED)
    count, width = acts.shape
    squares = (acts[:, :, None] * acts[:, None, :]).reshape(count, -1)
    told = np.column_stack([seconds * measured, boxes, measured, acts * seconds[:, None], squares])
    sums = np.concatenate([told.sum(0)[None], resampled_sums(told, RESAMPLES, np.random.default_rng(seed))])
    taken, drawn, images = sums[:, :3].T
    normal = zip(sums[:, 3 + width :].reshape(-1, width, width), sums[:, 3 : 3 + width], strict=True)
    times = np.stack([_fit(square, product, prior) for square, product in normal])
    totals = {name: pace * drawn + times[:, -1] * images for name, pace in PACES.items()}
    if acts[:, added].sum() >= LEAST_ACTS:
        totals["own pace"] = times[:, added] * drawn + times[:, -1] * images
    found = {}
    for name, total in totals.items():
        usable = np.stack([taken, total], 1)[1:][total[1:] > 0]
        if total[0] > 0 and len(usable):
            low, high = np.quantile(1 - usable[:, 0] / usable[:, 1], (0.025, 0.975))
            found[name] = SavedShare(1 - float(taken[0] / total[0]), float(low), float(high))
    return found
