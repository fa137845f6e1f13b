"""What would other images have shown? Drawing images at random, again and again, with replacement."""

import math

import numpy as np

from backend.analysis.overlap import Floats

RESAMPLES = 2000
_MOST_RESAMPLES = 20_000
_TAIL = 50  # resamples that should lie beyond a bound
CHUNK = 500
_MOST_COUNTS = 1_000_000  # in memory at once


def resamples_for(alpha: float, tail: int = _TAIL) -> int:
    """How many resamples tell of a bound that errs with probability ``alpha``: ``tail`` of them lie beyond it.

    There are never more than 20,000, which tell nothing of bounds that all but one in more of them keep.
    """
    return min(max(RESAMPLES, math.ceil(tail / alpha)), _MOST_RESAMPLES)


def image_counts(images: int, resamples: int, chance: np.random.Generator) -> Floats:
    """How often each image is drawn in each resample ``(B, images)``."""
    drawn = chance.multinomial(images, np.full(images, 1 / images), resamples)
    return np.asarray(drawn, np.float64)


def resampled_sums(values: Floats, resamples: int, chance: np.random.Generator) -> Floats:
    """What ``values`` (I, K) of images sum up to in each resample ``(B, K)``.

    It draws what `image_counts` draws, but never counts more than a few MB at once, as all counts of a large project
    take more than everything else that is known of it.
    """
    most = max(1, _MOST_COUNTS // max(1, len(values)))
    draws = (min(most, resamples - done) for done in range(0, resamples, most))
    return np.concatenate([image_counts(len(values), draw, chance) @ values for draw in draws])


def ratio_bounds(values: Floats, sizes: Floats, alpha: float, chance: np.random.Generator) -> tuple[float, float]:
    """Bound what ``values`` (I,) sum up to for each unit of ``sizes`` (I,), which are above 0: it is below the lower
    bound, or above the upper one, with probability ``alpha`` each.

    What all images have in common for their size does not widen the bounds, as it would widen those of a mean. Ratio
    estimator (Cochran 1977, 6.3) with a studentised bootstrap (Efron and Tibshirani 1993, 12.5), which stays honest for
    skewed values and few of them. Negated values have the bounds negated and swapped.
    """
    count = len(values)
    ratio, error = (float(figure) for figure in _ratio_and_error(values, sizes))
    if error <= 1e-12 * abs(ratio):
        return ratio, ratio
    distances = []
    for _ in range(resamples_for(alpha) // CHUNK):
        drawn = chance.integers(count, size=(CHUNK, count))
        ratios, errors = _ratio_and_error(values[drawn], sizes[drawn])
        shifts = ratios - ratio
        # All drawn images alike: as far out as can be, unless they are as all together are.
        distances.append(np.divide(shifts, errors, out=np.sign(shifts) * 1e9, where=errors > 1e-12 * error))
    low, high = np.quantile(np.concatenate(distances), (alpha, 1 - alpha))
    return ratio - float(high) * error, ratio - float(low) * error


def _ratio_and_error(values: Floats, sizes: Floats) -> tuple[Floats, Floats]:
    """The ratio of sums over the last axis, and its standard error, each of the shape of the other axes."""
    ratios = np.asarray(values.sum(-1) / sizes.sum(-1))
    residuals = values - ratios[..., None] * sizes  # of mean 0
    return ratios, residuals.std(-1) / (math.sqrt(values.shape[-1]) * sizes.mean(-1))
