"""From a model's score to the probability that a person leaves the box with its label: curves to apply and to keep."""

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field

# Scores of exactly 0 and 1 have no logit.
_EDGE = 1e-6


def logit(score: float) -> float:
    """Log odds of a score, which is kept a millionth away from 0 and 1."""
    score = min(max(score, _EDGE), 1 - _EDGE)
    return math.log(score / (1 - score))


@dataclass(frozen=True, slots=True)
class PlattCurve:
    """``sigmoid(slope * logit(score) + intercept)`` (Platt 1999); as it stands it changes nothing.

    Raises:
        ValueError: the slope is not above 0, or a number is not finite.
    """

    slope: float = 1.0
    intercept: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.slope < 1e9 or not -1e9 < self.intercept < 1e9:
            raise ValueError(f"not a rising curve: slope {self.slope}, intercept {self.intercept}")

    def probability(self, score: float) -> float:
        if self == IDENTITY:
            return score
        z = self.slope * logit(score) + self.intercept
        return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))

    def to_json(self) -> dict[str, object]:
        return {"slope": self.slope, "intercept": self.intercept}


@dataclass(frozen=True, slots=True)
class KnotCurve:
    """Straight lines between knots, level beyond the first and the last, as isotonic regression finds them.

    Raises:
        ValueError: there are no knots, scores do not rise, or probabilities fall or leave ``[0, 1]``.
    """

    scores: tuple[float, ...]
    probabilities: tuple[float, ...]

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip(self.scores, self.scores[1:], strict=False))
        level = all(a <= b for a, b in zip(self.probabilities, self.probabilities[1:], strict=False))
        if not (self.scores and len(self.scores) == len(self.probabilities) and rising and level):
            raise ValueError("not a rising curve: its knots must be as many scores as probabilities, in order")
        if not 0 <= self.probabilities[0] <= self.probabilities[-1] <= 1:
            raise ValueError(f"not probabilities: {self.probabilities[0]} to {self.probabilities[-1]}")

    def probability(self, score: float) -> float:
        above = bisect_right(self.scores, score)
        if above in (0, len(self.scores)):
            return self.probabilities[0 if above == 0 else -1]
        left, right = self.scores[above - 1], self.scores[above]
        low, high = self.probabilities[above - 1], self.probabilities[above]
        # Rounding must not make the curve fall at a knot.
        return min(low + (score - left) / (right - left) * (high - low), high)

    def to_json(self) -> dict[str, object]:
        return {"scores": list(self.scores), "probabilities": list(self.probabilities)}


Curve = PlattCurve | KnotCurve
IDENTITY = PlattCurve()


def _curve(data: object) -> Curve:
    match data:
        case {"slope": int() | float() as slope, "intercept": int() | float() as intercept}:
            return PlattCurve(float(slope), float(intercept))
        case {"scores": list(scores), "probabilities": list(probabilities)}:
            return KnotCurve(tuple(map(float, scores)), tuple(map(float, probabilities)))
    raise ValueError("a calibration curve needs slope and intercept, or scores and probabilities")


@dataclass(frozen=True, slots=True)
class Calibration:
    """One rising curve per label, and one for labels without verdicts. As it stands, or `PLAIN`, it changes nothing."""

    default: Curve = IDENTITY
    labels: Mapping[str, Curve] = field(default_factory=dict)

    def probability(self, label: str, score: float) -> float:
        """Probability in ``[0, 1]`` that a person leaves a box of this label and score, be it moved a little."""
        return self.labels.get(label, self.default).probability(score)

    def to_json(self) -> dict[str, object]:
        labels = {label: curve.to_json() for label, curve in self.labels.items()}
        return {"default": self.default.to_json(), "labels": labels}

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> "Calibration":
        """Undo `to_json`.

        Raises:
            ValueError: it is not what `to_json` writes.
        """
        match data:
            case {"default": default, "labels": Mapping() as labels}:
                return cls(_curve(default), {str(label): _curve(curve) for label, curve in labels.items()})
        raise ValueError("a calibration needs a default and labels")


PLAIN = Calibration()
