"""Whether people move the edges of a label's boxes the same way every time, and by how much."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from scipy.stats import binom

from backend.domain.edges import EdgeCorrection, EdgeShift
from backend.domain.geometry import Box
from backend.domain.verdicts import EdgeOffsets

_CONFIDENCE = 0.99  # high, as four edges of each label are asked about
_MOST = 0.2  # of the box's side: more is no systematic shift, but another idea of the object


@dataclass(frozen=True, slots=True)
class EdgeMove:
    """A proposed box that people kept with its label, and how far they moved its edges: 0 if they left it alone."""

    label: str
    box: Box
    offsets: EdgeOffsets


def fit_edges(moves: Iterable[EdgeMove]) -> EdgeCorrection:
    """Take the median offset of each label's edge, as a share of the side, where its 99 % interval excludes 0.

    Boxes that were left alone belong in: where most are, medians are 0 and nothing is corrected.
    """
    by_label: dict[str, list[tuple[float, float, float, float]]] = {}
    for each in moves:
        width, height, offsets = each.box.width, each.box.height, each.offsets
        if width > 0 and height > 0:
            shares = (offsets.left / width, offsets.top / height, offsets.right / width, offsets.bottom / height)
            by_label.setdefault(each.label, []).append(shares)
    shifts = {label: EdgeShift(*map(_shift, zip(*rows, strict=True))) for label, rows in sorted(by_label.items())}
    return EdgeCorrection({label: shift for label, shift in shifts.items() if shift != EdgeShift()})


def _shift(shares: Sequence[float]) -> float:
    ordered = sorted(shares)
    # The interval of a median is between two of the ordered values, whatever their distribution.
    below = int(binom.ppf((1 - _CONFIDENCE) / 2, len(ordered), 0.5)) - 1
    if below < 0:
        return 0.0
    low, high = ordered[below], ordered[len(ordered) - 1 - below]
    return min(max(median(ordered), -_MOST), _MOST) if low > 0 or high < 0 else 0.0
