"""Overlap of many boxes at once, and pairing by it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from backend.domain.geometry import Box

Floats = NDArray[np.float64]


def corners(boxes: Sequence[Box]) -> Floats:
    """Corners ``(N, 4)`` as x1, y1, x2, y2."""
    return np.array([(box.x1, box.y1, box.x2, box.y2) for box in boxes], np.float64).reshape(-1, 4)


def overlaps(a: Floats, b: Floats) -> Floats:
    """IoU ``(N, M)`` of every box of ``a`` (N, 4) with every one of ``b`` (M, 4); 0 where both are without area."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])  # (N, M, 2)
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(-1)  # (N, M)
    area_a, area_b = ((each[:, 2:] - each[:, :2]).prod(-1) for each in (a, b))
    union = area_a[:, None] + area_b[None, :] - shared
    found: Floats = np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)
    return found


def pairs(weights: Floats, least: float) -> dict[int, int]:
    """Pair rows with columns so that the weights sum to the most; a pair below ``least`` is never made."""
    rows, columns = linear_sum_assignment(np.where(weights >= least, weights, 0.0), maximize=True)
    return {int(row): int(column) for row, column in zip(rows, columns, strict=True) if weights[row, column] >= least}
