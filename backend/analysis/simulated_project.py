"""What a simulated project is made of: how images are taken and boxes shown, and what came of each batch."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from backend.analysis.simulated_annotator import Human, Review
from backend.domain.learning import Ruling
from backend.domain.review import Costs
from backend.domain.training_data import LabelledBox

STRICT_IOU = 0.9


class Strategy(StrEnum):
    """Whether the model learns, and in which order the images come."""

    ZERO_SHOT = "zero-shot"
    RANDOM = "random"
    ACTIVE = "active"


@dataclass(frozen=True, slots=True)
class Display:
    """Which boxes a person sees, those from ``cut`` on or by learned thresholds, and what the person's acts cost.

    A ``strict`` person adjusts what overlaps its object by less than `STRICT_IOU`, as tight as drawn boxes nearly are.
    """

    costs: Costs
    cut: float | None = None
    strict: bool = False

    def person(self, human: Human) -> Human:
        """Who errs like ``human``, and is as strict as asked for."""
        return replace(human, accept_iou=STRICT_IOU) if self.strict else human


@dataclass(frozen=True, slots=True)
class Round:
    """One batch of a simulated project.

    Attributes:
        number: from 1.
        model: version that proposed the boxes.
        ap, ap50: of that model on the test images, in ``[0, 1]``; None where they hold no object.
        truth: the true objects of each image.
        reviews: of each image, per display.
        drawn: of each image, by the same person with no box shown.
        ruling: on what learned from everything up to this round; None where nothing learned.
        training_seconds: of that learning.
        looked_again: ruling on what was refused a round before, with the images of this round; None where nothing was.
    """

    strategy: Strategy
    seed: int
    number: int
    model: str
    ap: float | None
    ap50: float | None
    truth: tuple[tuple[LabelledBox, ...], ...]
    reviews: Mapping[Display, tuple[Review, ...]]
    drawn: tuple[Review, ...]
    ruling: Ruling | None = None
    training_seconds: float = 0.0
    looked_again: Ruling | None = None
