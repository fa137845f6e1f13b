"""What would other images have shown? Drawing images at random, again and again, with replacement."""

import math

import numpy as np

from backend.analysis.overlap import Floats

RESAMPLES = 2000
_MOST_RESAMPLES = 20_000
_TAIL = 50  # resamples that should lie beyond a bound
_CHUNK = 500


def image_counts(images: int, resamples: int, chance: np.random.Generator) -> Floats:
    """How often each image is drawn in each resample ``(B, images)``."""
    drawn = chance.multinomial(images, np.full(images, 1 / images), resamples)
    return np.asarray(drawn, np.float64)


def mean_bounds(values: Floats, alpha: float, chance: np.random.Generator) -> tuple[float, float]:
    """Bound the mean that ``values`` (N,) are drawn from: it is below the lower bound, or above the upper one, with
    probability ``alpha`` each.

    Studentised bootstrap (Efron and Tibshirani 1993, 12.5), which stays honest for skewed values and few of them.
    Negated values have the bounds negated and swapped.
    """
    size, mean = len(values), float(values.mean())
    error = float(values.std()) / math.sqrt(size)
    if error == 0:
        return mean, mean
    ratios = []
    for _ in range(min(max(RESAMPLES, math.ceil(_TAIL / alpha)), _MOST_RESAMPLES) // _CHUNK):
        drawn = values[chance.integers(size, size=(_CHUNK, size))]
        shifts, errors = drawn.mean(1) - mean, drawn.std(1) / math.sqrt(size)
        # All drawn values equal: as far out as can be, unless they are the mean itself.
        ratios.append(np.divide(shifts, errors, out=np.sign(shifts) * 1e9, where=errors > 1e-12 * error))
    low, high = np.quantile(np.concatenate(ratios), (alpha, 1 - alpha))
    return mean - float(high) * error, mean - float(low) * error
