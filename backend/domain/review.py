"""What reviewing costs a person, which proposals are worth showing, and what became of them.

Times are seconds of one person. The standard ones are published where a source is named and ours where none is.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from hashlib import sha256

from backend.domain.records import Proposal
from backend.domain.verdicts import Verdict, VerdictKind

# At this overlap with the object and more, a person leaves a box as it is.
ACCEPTANCE_IOU = 0.85
# GLIP's own lowest score: nothing below it is shown even where everything is.
FLOOR = 0.05
# Before anybody judged a model, boxes are shown from here on. All that glip-nano finds from 0.3 on costs people time on
# four of five small sets, from 0.45 on it saves some on each. GLIP's own demonstrations begin at 0.5 to 0.7.
FIRST_THRESHOLD = 0.45
# By this share of it where a person waits for a few boxes of one image, or asks for something.
ASKED_SHARE = 2 / 3
EXPLORED_SHARE = 0.05
# Of what is hidden, as many are shown on an explored image: a model that knows little proposes a hundred boxes.
EXPLORED_PROPOSALS = 1


@dataclass(frozen=True, slots=True)
class Judgement:
    """What became of one proposal, by a person or by the simulated annotator.

    Attributes:
        image: names the image; what belongs together when images are drawn at random.
        label, score: as proposed, the score before any calibration.
        kind: never ``ADDED``.
        iou: of proposed and final box; 1 if accepted, 0 if deleted.
        weight: how many such proposals it stands for; above 1 where only some images were explored.
    """

    image: str
    label: str
    score: float
    kind: VerdictKind
    iou: float
    weight: float = 1.0

    @property
    def right(self) -> bool:
        """Whether the label was right and the box on the object, be it moved a little."""
        return self.kind in (VerdictKind.ACCEPTED, VerdictKind.MOVED)


def judgement_of(verdict: Verdict, weight: float = 1.0) -> Judgement | None:
    """What a person's verdict says of the proposal; None of an added box, which was none."""
    if verdict.label_before is None or verdict.score is None:
        return None
    image, overlap = str(verdict.annotation_id), verdict.iou or 0.0
    return Judgement(image, verdict.label_before, verdict.score, verdict.kind, overlap, weight)


class ReviewMode(StrEnum):
    """One verdict per box, or Label Studio's Submit for all at once, where only wrong boxes are touched."""

    CARDS = "cards"
    LABEL_STUDIO = "label-studio"


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds of a person per act.

    Attributes:
        draw: one box by extreme clicking (Papadopoulos et al. 2017).
        accept, reject: one proposed box (Konyushkova et al. 2018: the same for either answer).
        edit, relabel: one proposed box.
        image, scan: opening an image, and ``scan * sqrt(boxes shown)`` to look it over.
        mode: accepting takes no act of its own in Label Studio.

    Raises:
        ValueError: a time is negative or not finite.
    """

    draw: float = 7.0
    accept: float = 1.8
    edit: float = 4.0
    relabel: float = 2.0
    reject: float = 1.8
    image: float = 1.0
    scan: float = 0.3
    mode: ReviewMode = ReviewMode.CARDS

    def __post_init__(self) -> None:
        for each in fields(self)[:-1]:
            if not 0 <= getattr(self, each.name) < math.inf:
                raise ValueError(f"not a time in seconds: {each.name} {getattr(self, each.name)}")

    def of(self, kind: VerdictKind, iou: float = 1.0) -> float:
        """Seconds for one region; nobody mends a box where throwing it away and drawing is faster.

        Args:
            iou: of proposed and final box; a relabelled region below 1 was moved as well.
        """
        anew = self.reject + self.draw
        match kind:
            case VerdictKind.ACCEPTED:
                return self.accept
            case VerdictKind.MOVED:
                return min(self.edit, anew)
            case VerdictKind.RELABELLED:
                return min(self.relabel + (self.edit if iou < 1 else 0.0), anew)
            case VerdictKind.DELETED:
                return self.reject
            case VerdictKind.ADDED:
                return self.draw

    def of_image(self, shown: int) -> float:
        """Seconds for an image before any of its ``shown`` boxes is touched."""
        return self.image + self.scan * math.sqrt(shown)

    def of_drawing(self, objects: int) -> float:
        """Seconds for an image on which nothing is shown, and every one of its ``objects`` is drawn."""
        return self.of_image(0) + self.draw * objects

    def gain(self, judgement: Judgement) -> float:
        """Seconds that showing the box saves: the object behind it, if there is one, need not be drawn."""
        drawn = 0.0 if judgement.kind is VerdictKind.DELETED else self.draw
        return drawn - self.of(judgement.kind, judgement.iou)


CARDS = Costs()
LABEL_STUDIO = Costs(accept=0.5, reject=2.0, mode=ReviewMode.LABEL_STUDIO)


def slow(costs: Costs) -> Costs:
    """The same review by a person who draws at ILSVRC's pace: 25.5 s per box, 8 s to adjust one."""
    return replace(costs, draw=25.5, edit=8.0)


@dataclass(frozen=True, slots=True)
class ShowThresholds:
    """A proposal is shown from its label's score on, ``default`` where the label has none; before any calibration."""

    default: float
    labels: Mapping[str, float] = field(default_factory=dict)

    def of(self, label: str) -> float:
        return self.labels.get(label, self.default)

    def shows(self, proposal: Proposal) -> bool:
        return proposal.score >= self.of(proposal.label)

    def to_json(self) -> dict[str, object]:
        return {"default": self.default, "labels": dict(self.labels)}

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> "ShowThresholds":
        """Undo `to_json`.

        Raises:
            ValueError: it is not what `to_json` writes.
        """
        match data:
            case {"default": int() | float() as default, "labels": Mapping() as labels}:
                return cls(float(default), {str(label): float(score) for label, score in labels.items()})
        raise ValueError("show-thresholds need a default and labels")


def is_explored(image_sha256: str, share: float = EXPLORED_SHARE) -> bool:
    """Whether an image is one of the few on which some of what is hidden elsewhere is shown.

    Without them nobody would ever see what a threshold hides, and thresholds could only rise. An image stays explored
    or not for ever; the choice is independent of the split, which reads the same hash.
    """
    drawn = int.from_bytes(sha256(f"explore {image_sha256}".encode()).digest()[:8], "big") / 2**64
    return drawn < share
