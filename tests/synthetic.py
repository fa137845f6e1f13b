"""Objects and a detector made by chance, with knobs for what it finds, how well, and how honest its scores are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from backend.domain.geometry import Box
from backend.domain.records import Proposal
from backend.domain.training_data import LabelledBox

LABELS = ("cat", "dog", "owl")
SIDE = 640.0


def make_scene(chance: np.random.Generator, mean_objects: float = 5.0) -> tuple[LabelledBox, ...]:
    """An image's objects: their number varies as counts do, the third label is rare."""
    objects = []
    for _ in range(int(chance.poisson(mean_objects))):
        x, y = chance.uniform(0, SIDE - 200, 2)
        width, height = chance.uniform(40, 160, 2)
        label = LABELS[int(chance.choice(3, p=(0.55, 0.35, 0.1)))]
        objects.append(LabelledBox(Box(float(x), float(y), float(x + width), float(y + height)), label))
    return tuple(objects)


@dataclass(frozen=True)
class SyntheticDetector:
    """Finds objects and invents others; scores are logistic, and honest only as ``shift`` and ``stretch`` leave them.

    Attributes:
        recall: share of objects found above a score of 0.05.
        invented: mean number of false boxes per image.
        spread: standard deviation of each edge, as a share of the side.
        separation: distance of true and false boxes' mean log odds, in standard deviations.
        confusion: share of found objects under another label.
        shift, stretch: of the log odds that are told, per label the shift may differ (``shifts``).
    """

    recall: float = 0.9
    invented: float = 2.0
    spread: float = 0.04
    separation: float = 2.0
    confusion: float = 0.03
    shift: float = 0.0
    stretch: float = 1.0
    shifts: Mapping[str, float] = field(default_factory=dict)

    def propose(self, truth: Sequence[LabelledBox], chance: np.random.Generator) -> tuple[Proposal, ...]:
        found: list[Proposal] = []
        for true in truth:
            if chance.random() < self.recall:
                label = LABELS[int(chance.integers(3))] if chance.random() < self.confusion else true.label
                found.append(self._proposal(_moved(true.box, self.spread, chance), label, True, chance))
        for false in make_scene(chance, self.invented):
            found.append(self._proposal(false.box, false.label, False, chance))
        return tuple(sorted((each for each in found if each.score >= 0.05), key=lambda each: -each.score))

    def _proposal(self, box: Box, label: str, true: bool, chance: np.random.Generator) -> Proposal:
        odds = chance.normal(self.separation / 2 if true else -self.separation / 2)
        told = self.stretch * self.separation * odds + self.shift + self.shifts.get(label, 0.0)
        return Proposal(box, label, float(1 / (1 + np.exp(-told))), label)


def _moved(box: Box, spread: float, chance: np.random.Generator) -> Box:
    left, top, right, bottom = (float(each) for each in chance.normal(0, spread, 4))
    x1, x2 = sorted((box.x1 + left * box.width, box.x2 + right * box.width))
    y1, y2 = sorted((box.y1 + top * box.height, box.y2 + bottom * box.height))
    return Box(x1, y1, x2, y2)
