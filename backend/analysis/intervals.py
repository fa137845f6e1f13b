"""How sure a share of counted things is."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist


def wilson_interval(
    successes: int, trials: int, confidence: float = 0.95, design_effect: float = 1.0
) -> tuple[float, float]:
    """Bound the true share of successes by the score interval (Wilson 1927, without continuity correction).

    Unlike the plain normal one it stays within ``[0, 1]`` and has a width also at 0 and at all successes.

    Args:
        design_effect: how many of these trials tell as much as one that is independent of the others.

    Returns:
        Lower and upper bound; 0 and 1 without trials, as nothing is known then.

    Raises:
        ValueError: there are more successes than trials, fewer than none, the confidence is not between 0 and 1, or the
            design effect is below 1.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials")
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence of {confidence}")
    if not 1 <= design_effect < math.inf:
        raise ValueError(f"a design effect of {design_effect}")
    if not trials:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / trials
    told = trials / design_effect
    scale = 1 + z * z / told
    centre = (share + z * z / (2 * told)) / scale
    margin = z / scale * math.sqrt(share * (1 - share) / told + z * z / (4 * told * told))
    # Rounding must not push a bound past what was seen.
    return max(0.0, min(centre - margin, share)), min(1.0, max(centre + margin, share))


@dataclass(frozen=True, slots=True)
class Rate:
    """``count`` of ``total`` things, of which as many as ``design_effect`` tell as much as one that is independent."""

    count: int
    total: int
    design_effect: float = 1.0

    @classmethod
    def of_annotations(cls, counts: Iterable[tuple[int, int]]) -> "Rate":
        """Of things that may be alike within an annotation, from the count and the total of each annotation.

        The design effect is the variance of the ratio estimator over that of independent things (Rao and Scott 1992,
        "A simple method for the analysis of clustered binary data"), but at least 1. Where nothing tells of it, as of
        one annotation, or where all things count or none, it is 1.
        """
        parts = [(count, total) for count, total in counts if total]
        count, total = sum(part for part, _ in parts), sum(whole for _, whole in parts)
        if len(parts) < 2 or count in (0, total):
            return cls(count, total)
        # Whole numbers until the end, so that the order of annotations does not matter.
        squares = sum((part * total - count * whole) ** 2 for part, whole in parts)
        effect = len(parts) * squares / ((len(parts) - 1) * total * count * (total - count))
        return cls(count, total, max(1.0, effect))

    @property
    def share(self) -> float | None:
        """In ``[0, 1]``; None of nothing."""
        return self.count / self.total if self.total else None

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the share."""
        return wilson_interval(self.count, self.total, design_effect=self.design_effect)

    def to_json(self) -> dict[str, object]:
        low, high = self.interval
        return {"count": self.count, "total": self.total, "share": self.share, "low": low, "high": high}
