"""A person at work, simulated: what becomes of the boxes shown on an image, how long it takes, what labels result.

Shown boxes are paired with true ones by overlap whatever their labels (Hungarian method). The person leaves a good box,
adjusts a mediocre one, corrects a wrong label, throws away what is on no object, and draws what is missing.
"""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import pi, sqrt

import numpy as np

from backend.analysis.overlap import Floats, corners, overlaps, pairs
from backend.domain.geometry import Box, iou
from backend.domain.matching import MIN_IOU
from backend.domain.records import Proposal
from backend.domain.review import ACCEPTANCE_IOU, CARDS, Costs, Judgement, ReviewMode
from backend.domain.training_data import LabelledBox
from backend.domain.verdicts import VerdictKind

POINTING_IOU = 0.1  # at less, a box does not even point at an object
_TEMPTING = 0.1  # how far below acceptance a box may be for a tired person to let it pass
_QUALITY_IOU = 0.5


@dataclass(frozen=True, slots=True)
class Human:
    """How the person errs.

    Attributes:
        miss: share of objects overlooked where no box points at them.
        false_accept: share of boxes just below ``accept_iou`` that are let pass.
        drawn_iou: mean overlap of a drawn or adjusted box with the object.
        confusion: share of wrong labels where the person chooses one.
        accept_iou: overlap from which on a box is left as it is.
    """

    miss: float = 0.03
    false_accept: float = 0.05
    drawn_iou: float = 0.93
    confusion: float = 0.01
    accept_iou: float = ACCEPTANCE_IOU


IDEAL = Human(miss=0.0, false_accept=0.0, drawn_iou=1.0, confusion=0.0)


@dataclass(frozen=True, slots=True)
class FinalBox:
    """A box as the person left it; ``proposal`` is the place of the shown box it was, None if drawn."""

    box: Box
    label: str
    proposal: int | None


@dataclass(frozen=True, slots=True)
class Review:
    """One image's review.

    Attributes:
        seconds: the person's.
        actions: clicks, drags and keys, the one that submits among them.
        drawing_seconds: of the same person drawing every box of the same image, with the same oversights.
        judgements: one per shown box, in their order.
        boxes: the labels that result.
    """

    image: str
    seconds: float
    actions: int
    drawing_seconds: float
    judgements: tuple[Judgement, ...]
    boxes: tuple[FinalBox, ...]

    @property
    def drawn(self) -> tuple[str, ...]:
        return tuple(final.label for final in self.boxes if final.proposal is None)


@dataclass(frozen=True, slots=True)
class Annotator:
    """A person who knows the project's ``labels``; the same ``seed`` errs the same way on the same image."""

    labels: tuple[str, ...]
    costs: Costs = CARDS
    human: Human = Human()
    seed: int = 0

    def review(self, image: str, truth: Sequence[LabelledBox], shown: Sequence[Proposal]) -> Review:
        """Review the boxes shown on an image whose objects are ``truth``.

        What happens to an object by chance (whether it is overlooked, how it is drawn) does not depend on what is
        shown, so that two models are compared on the same person.
        """
        luck = self._luck(image, truth)
        found = _found(truth, shown)
        settled = {place: self._settle(shown[place], truth[index], luck[index]) for place, index in found.items()}
        judgements = tuple(_judgement(image, each, settled.get(place)) for place, each in enumerate(shown))
        boxes = [FinalBox(final.box, final.label, place) for place, final in sorted(settled.items())]
        pointed = set(found.values())
        for index, each in enumerate(luck):
            if each.noticed and index not in pointed:
                boxes.append(FinalBox(each.drawn, each.label, None))
        costs, drawn = self.costs, len(boxes) - len(settled)
        seconds = costs.of_image(len(shown)) + drawn * costs.draw
        return Review(
            image=image,
            seconds=seconds + sum(costs.of(each.kind, each.iou) for each in judgements),
            actions=1 + drawn + sum(_actions(each, costs.mode) for each in judgements),
            drawing_seconds=costs.of_drawing(sum(each.noticed for each in luck)),
            judgements=judgements,
            boxes=tuple(boxes),
        )

    def _luck(self, image: str, truth: Sequence[LabelledBox]) -> list["_Luck"]:
        human = self.human
        chance = np.random.default_rng((self.seed, zlib.crc32(image.encode("utf-8", "surrogatepass"))))
        drawn = chance.random((len(truth), 4))
        # Each of four edges takes its mean absolute shift off the overlap, to first order.
        spread = (1 - human.drawn_iou) / (4 * sqrt(2 / pi))
        shifts = spread * chance.standard_normal((len(truth), 4))
        return [
            _Luck(
                noticed=bool(missed >= human.miss),
                tempted=bool(tempted < human.false_accept),
                drawn=_shifted(true.box, shift),
                label=self.labels[int(other * len(self.labels))] if confused < human.confusion else true.label,
            )
            for true, shift, (missed, tempted, confused, other) in zip(truth, shifts, drawn, strict=True)
        ]

    def _settle(self, proposal: Proposal, true: LabelledBox, luck: "_Luck") -> LabelledBox:
        """Leave, adjust or relabel a box that is on an object."""
        least, overlap = self.human.accept_iou, iou(proposal.box, true.box)
        same = proposal.label == true.label
        good = overlap >= least or (same and luck.tempted and overlap >= least - _TEMPTING)
        return LabelledBox(proposal.box if good else luck.drawn, true.label if same else luck.label)


@dataclass(frozen=True, slots=True)
class _Luck:
    """What happens to one object by chance: whether it is seen at all, and how it is drawn and named."""

    noticed: bool
    tempted: bool
    drawn: Box
    label: str


def _shifted(box: Box, shift: Floats) -> Box:
    x1, y1, x2, y2 = np.array((box.x1, box.y1, box.x2, box.y2)) + shift * np.tile((box.width, box.height), 2)
    return Box(float(min(x1, x2)), float(min(y1, y2)), float(max(x1, x2)), float(max(y1, y2)))


def _found(truth: Sequence[LabelledBox], shown: Sequence[Proposal]) -> dict[int, int]:
    """Which shown box is on which object; one of little overlap is not worth mending."""
    found = overlaps(corners([each.box for each in shown]), corners([each.box for each in truth]))
    return {place: index for place, index in pairs(found, POINTING_IOU).items() if found[place, index] >= MIN_IOU}


def _judgement(image: str, proposal: Proposal, final: LabelledBox | None) -> Judgement:
    if final is None:
        return Judgement(image, proposal.label, proposal.score, VerdictKind.DELETED, 0.0)
    overlap = 1.0 if final.box == proposal.box else iou(proposal.box, final.box)
    kind = VerdictKind.ACCEPTED if final.box == proposal.box else VerdictKind.MOVED
    if final.label != proposal.label:
        kind = VerdictKind.RELABELLED
    return Judgement(image, proposal.label, proposal.score, kind, overlap)


def _actions(judgement: Judgement, mode: ReviewMode) -> int:
    """Clicks, drags and keys for one shown box."""
    if judgement.kind is VerdictKind.ACCEPTED:
        return int(mode is ReviewMode.CARDS)
    return 2 if judgement.kind is VerdictKind.RELABELLED and judgement.iou < 1 else 1


@dataclass(frozen=True, slots=True)
class LabelQuality:
    """How good labels are against the truth, at an overlap of 0.5 and the right label; None where nothing is counted.

    ``mean_iou`` is over the right boxes.
    """

    right: int
    labelled: int
    objects: int
    mean_iou: float | None

    @property
    def precision(self) -> float | None:
        return self.right / self.labelled if self.labelled else None

    @property
    def recall(self) -> float | None:
        return self.right / self.objects if self.objects else None

    @property
    def f1(self) -> float | None:
        return 2 * self.right / (self.labelled + self.objects) if self.labelled + self.objects else None


def label_quality(images: Iterable[tuple[Sequence[FinalBox], Sequence[LabelledBox]]]) -> LabelQuality:
    """Hold the labels of images, ``(boxes, truth)`` each, against the truth."""
    labelled, objects = 0, 0
    matched: list[float] = []
    for boxes, truth in images:
        labelled, objects = labelled + len(boxes), objects + len(truth)
        found = overlaps(corners([each.box for each in boxes]), corners([each.box for each in truth]))
        same = np.array([[each.label == true.label for true in truth] for each in boxes]).reshape(found.shape)
        found = np.where(same, found, 0.0)
        matched += [float(found[pair]) for pair in pairs(found, _QUALITY_IOU).items()]
    return LabelQuality(len(matched), labelled, objects, sum(matched) / len(matched) if matched else None)
