"""What two model versions cost a person on images whose labels exist already, left by people who saw one of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from backend.analysis.overlap import Floats, corners, overlaps
from backend.analysis.simulated_annotator import IDEAL, Annotator
from backend.domain.calibration import Calibration
from backend.domain.geometry import Box
from backend.domain.records import Proposal
from backend.domain.review import Costs, Judgement, ShowThresholds
from backend.domain.training_data import ReviewedImage
from backend.domain.verdicts import VerdictKind

ACCEPTED_FROM = (0.8, 0.9)
"""Bounds of the overlap from which on people leave a box; each overlap between them is as likely."""
ANCHORED = 0.55
"""With 0.5 candidates that are no better look as fast as production, within 2 %, but more of them pass than is
promised; with 1 they look slower by 7 to 20 %."""
_SAME = 0.99


@dataclass(frozen=True, slots=True)
class Contender:
    """A model version at the gate.

    Attributes:
        proposals: per gate image, all that it proposes, hidden ones too.
        thresholds, calibrations: its own, per gate image, chosen on other images.
        latency: seconds within which 95 of 100 images are answered; None if it was not measured.
    """

    proposals: Sequence[Sequence[Proposal]]
    thresholds: Sequence[ShowThresholds]
    calibrations: Sequence[Calibration]
    latency: float | None = None

    @property
    def shown(self) -> list[list[Proposal]]:
        """Per gate image, what a person sees."""
        pairs = zip(self.thresholds, self.proposals, strict=True)
        return [[each for each in given if thresholds.shows(each)] for thresholds, given in pairs]


def compared_seconds(
    images: Sequence[ReviewedImage], both: tuple[Contender, Contender], costs: Costs
) -> tuple[Floats, Floats]:
    """Seconds ``(I,)`` of a person who errs nowhere, for what production and candidate show.

    From which overlap on the person leaves a box is not known, but for its bounds: what is between them costs its
    share. So a box that is placed a little better counts a little, and not all or nothing, which chance would decide.

    A box that lies exactly where production proposes it was most likely left there, within what the person puts up
    with. The object's edges are as far from it on one side as the candidate's may be on the other, so what the
    candidate's box lacks of it counts `ANCHORED` times.
    """
    production, candidate = both
    left = [_left_by(image, proposals) for image, proposals in zip(images, production.proposals, strict=True)]
    nothing = [frozenset[Box]()] * len(images)
    return _review_seconds(images, production, costs, nothing), _review_seconds(images, candidate, costs, left)


def _left_by(image: ReviewedImage, proposals: Sequence[Proposal]) -> frozenset[Box]:
    """The boxes of an image that are proposals to the pixel."""
    boxes = [each.box for each in image.boxes]
    same = overlaps(corners(boxes), corners([each.box for each in proposals])) >= _SAME  # (boxes, proposals)
    return frozenset(boxes[place] for place in np.flatnonzero(same.sum(axis=1)))


def _review_seconds(
    images: Sequence[ReviewedImage], contender: Contender, costs: Costs, anchored: Sequence[frozenset[Box]]
) -> Floats:
    mends_all = Annotator((), costs, replace(IDEAL, accept_iou=1.0))
    seconds = []
    for image, shown, left in zip(images, contender.shown, anchored, strict=True):
        review = mends_all.review(image.sha256, image.boxes, shown)
        objects = {final.proposal: final.box for final in review.boxes}
        unmoved = (
            _unmoved(judged, costs, ANCHORED if objects.get(place) in left else 1.0)
            for place, judged in enumerate(review.judgements)
        )
        seconds.append(review.seconds - sum(unmoved))
    return np.array(seconds)


def _unmoved(judged: Judgement, costs: Costs, share: float) -> float:
    """Expected seconds less for a box that was mended, as the person might have left it where it was.

    Args:
        share: of what the overlap lacks that counts.
    """
    low, high = ACCEPTED_FROM
    chance = min(max((1 - share * (1 - judged.iou) - low) / (high - low), 0.0), 1.0)
    kind = VerdictKind.ACCEPTED if judged.kind is VerdictKind.MOVED else judged.kind
    return chance * (costs.of(judged.kind, judged.iou) - costs.of(kind))


def image_sizes(images: Sequence[ReviewedImage], costs: Costs) -> Floats:
    """How much of a saving is to be expected of each image ``(I,)``, of mean 1.

    Half of it is the same for all, half goes with the time that drawing takes: some models save more where there are
    more objects, others as much anywhere, and bounds are to be narrow for both.
    """
    drawing: Floats = np.array([costs.of_drawing(len(image.boxes)) for image in images])
    return np.asarray((1 + drawing / drawing.mean()) / 2)
