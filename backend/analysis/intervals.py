"""How sure a share of counted things is."""

import math
from dataclasses import dataclass
from statistics import NormalDist


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Bound the true share of successes by the score interval (Wilson 1927, without continuity correction).

    Unlike the plain normal one it stays within ``[0, 1]`` and has a width also at 0 and at all successes.

    Returns:
        Lower and upper bound; 0 and 1 without trials, as nothing is known then.

    Raises:
        ValueError: there are more successes than trials, fewer than none, or the confidence is not between 0 and 1.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials")
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence of {confidence}")
    if not trials:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / trials
    scale = 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / scale
    margin = z / scale * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    # Rounding must not push a bound past what was seen.
    return max(0.0, min(centre - margin, share)), min(1.0, max(centre + margin, share))


@dataclass(frozen=True, slots=True)
class Rate:
    """``count`` of ``total`` things."""

    count: int
    total: int

    @property
    def share(self) -> float | None:
        """In ``[0, 1]``; None of nothing."""
        return self.count / self.total if self.total else None

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the share."""
        return wilson_interval(self.count, self.total)

    def to_json(self) -> dict[str, object]:
        low, high = self.interval
        return {"count": self.count, "total": self.total, "share": self.share, "low": low, "high": high}
