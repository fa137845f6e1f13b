"""Likely errors in labels: where a model that did not learn from an image disagrees with what people left on it.

Somebody looked at every place that is doubted, and decided: left no box, deleted one, chose another label, moved an
edge. That a person would leave the model's box with probability p counts there only as far as people err: they were
wrong with ``p e / (p e + 1 - p)``, where e is how often they err. So the model must be surer than they are.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from backend.analysis.overlap import Floats, corners, overlaps
from backend.domain.calibration import Calibration
from backend.domain.geometry import Box
from backend.domain.records import Proposal
from backend.domain.review import ACCEPTANCE_IOU
from backend.domain.training_data import LabelledBox, ReviewedImage

SAME_PLACE = 0.5  # overlap from which on a box and a proposal are of one object
_NEAR, _COPY = 0.1, 0.9
_ERROR_RATE = 0.05  # of people, for each kind, before anything is known
_PRIOR_BOXES = 10.0


class DoubtKind(StrEnum):
    """What may be wrong: an object without a box, a box without an object or twice, a wrong label, a sloppy box."""

    MISSING = "missing"
    SPURIOUS = "spurious"
    TWICE = "twice"
    LABEL = "label"
    PLACE = "place"


@dataclass(frozen=True, slots=True)
class Doubt:
    """One box that is perhaps wrong.

    Attributes:
        image: SHA-256 of the image.
        region: place of the doubted box among the image's; None where a box is missing.
        box, label: as people left it, or of the missing object.
        suggestion: what the model would have there; None if nothing.
        probability: that something is wrong, in ``[0, 1]``.
        reason: for people, in one line.
    """

    image: str
    kind: DoubtKind
    region: int | None
    box: Box
    label: str
    suggestion: LabelledBox | None
    probability: float
    reason: str


def doubts(
    images: Sequence[ReviewedImage],
    proposals: Sequence[Sequence[Proposal]],
    calibration: Calibration,
    least: float = 0.5,
    *,
    overlapping_labels: bool = False,
) -> tuple[Doubt, ...]:
    """List the boxes that are wrong with a probability of ``least`` or more, the likeliest first.

    Args:
        images: as people left them.
        proposals: for each image, by a model that did not learn from it, hidden ones too: what a model learned, errors
            among them, it repeats.
        calibration: of that model; the plain scores of a model are seldom high enough to accuse anybody.
        overlapping_labels: whether an object may have several labels, each with a box of its own.
    """
    found_share = _found_shares(images, proposals)
    listed: list[Doubt] = []
    for image, given in zip(images, proposals, strict=True):
        certain = [calibration.probability(each.label, each.score) for each in given]
        shared = overlaps(corners([each.box for each in given]), corners([each.box for each in image.boxes]))
        listed += _missing(image, given, certain, shared)
        for region in range(len(image.boxes)):
            listed += _of_box(image, region, given, (certain, shared), found_share, overlapping_labels)
    return tuple(sorted((each for each in listed if each.probability >= least), key=lambda each: -each.probability))


def _found_shares(images: Sequence[ReviewedImage], proposals: Sequence[Sequence[Proposal]]) -> dict[str, float]:
    """Share of each label's boxes with a proposal of any label in the same place, few drawn towards that of all."""
    found: Counter[str] = Counter()
    boxes: Counter[str] = Counter()
    for image, given in zip(images, proposals, strict=True):
        shared = overlaps(corners([each.box for each in given]), corners([each.box for each in image.boxes]))
        for region, true in enumerate(image.boxes):
            boxes[true.label] += 1
            found[true.label] += bool((shared[:, region] >= SAME_PLACE).any())
    overall = found.total() / max(boxes.total(), 1)
    return {label: (found[label] + _PRIOR_BOXES * overall) / (boxes[label] + _PRIOR_BOXES) for label in boxes}


def _missing(image: ReviewedImage, given: Sequence[Proposal], certain: Sequence[float], shared: Floats) -> list[Doubt]:
    """Accuse of overlooking what is proposed where nothing was drawn; of several proposals in one place the surest."""
    listed: list[Doubt] = []
    unnamed = overlaps(corners([each.box for each in given]), corners(image.doubtful))
    for place in sorted(range(len(given)), key=lambda each: -certain[each]):
        proposal = given[place]
        if (shared[place] >= _NEAR).any() or (unnamed[place] >= _NEAR).any():
            continue
        if listed and overlaps(corners([proposal.box]), corners([each.box for each in listed])).max() >= SAME_PLACE:
            continue
        reason = f"no box here, but {proposal.label} with {certain[place]:.0%}"
        suggestion, wrong = LabelledBox(proposal.box, proposal.label), _wrong(certain[place])
        listed.append(
            Doubt(image.sha256, DoubtKind.MISSING, None, proposal.box, proposal.label, suggestion, wrong, reason)
        )
    return listed


def _wrong(certain: float) -> float:
    """Probability that people were wrong who did not have a box as the model, which is so ``certain``, would."""
    return certain * _ERROR_RATE / (certain * _ERROR_RATE + 1 - certain)


def _of_box(
    image: ReviewedImage,
    region: int,
    given: Sequence[Proposal],
    evidence: tuple[Sequence[float], Floats],
    found_share: dict[str, float],
    overlapping_labels: bool,
) -> list[Doubt]:
    """Doubt one box for its likeliest flaw."""
    certain, shared = evidence
    true, column = image.boxes[region], shared[:, region]
    between = overlaps(corners([each.box for each in image.boxes]), corners([true.box]))[:, 0]
    right = {true.label}
    if overlapping_labels:
        right |= {each.label for each, overlap in zip(image.boxes, between, strict=True) if overlap >= SAME_PLACE}
    same = [place for place, each in enumerate(given) if each.label == true.label]
    other = [place for place, each in enumerate(given) if each.label not in right and column[place] >= SAME_PLACE]
    support = max((certain[place] for place in same if column[place] >= SAME_PLACE), default=0.0)
    listed: list[tuple[float, DoubtKind, Proposal | None, str]] = []
    if other:
        best = max(other, key=lambda place: certain[place])
        probability = _wrong(certain[best]) * (1 - support)
        reason = f"labelled {true.label}, looks like {given[best].label} with {certain[best]:.0%}"
        listed.append((probability, DoubtKind.LABEL, given[best], reason))
    # In a crowd, what is near may be another box's: it tells nothing of this one.
    own = (shared.max(axis=1) < SAME_PLACE) | (column >= shared.max(axis=1))
    near = [place for place in same if column[place] >= _NEAR and own[place]]
    if near:
        best = max(near, key=lambda place: (float(column[place]), certain[place]))
        off = min(max((ACCEPTANCE_IOU - float(column[best])) / (ACCEPTANCE_IOU - SAME_PLACE), 0.0), 1.0)
        reason = f"{true.label} is perhaps elsewhere: overlap {column[best]:.2f} with a box of {certain[best]:.0%}"
        listed.append((_wrong(certain[best]) * off, DoubtKind.PLACE, given[best], reason))
    elif not (column >= _NEAR).any():
        missed = 1 - found_share[true.label]
        reason = f"nothing is found here, where {found_share[true.label]:.0%} of {true.label} boxes are"
        probability = _ERROR_RATE / (_ERROR_RATE + (1 - _ERROR_RATE) * max(missed, 1e-3))
        listed.append((probability, DoubtKind.SPURIOUS, None, reason))
    rivals = [place for place in range(region) if not overlapping_labels or image.boxes[place].label == true.label]
    copies = [place for place in rivals if between[place] >= _COPY]
    if copies:
        copied = max(copies, key=lambda place: float(between[place]))
        reason = f"the same place as {image.boxes[copied].label}, overlap {between[copied]:.2f}"
        listed.append((float(between[copied]), DoubtKind.TWICE, None, reason))
    if not listed:
        return []
    probability, kind, proposal, reason = max(listed, key=lambda each: each[0])
    suggestion = LabelledBox(proposal.box, proposal.label) if proposal else None
    return [Doubt(image.sha256, kind, region, true.box, true.label, suggestion, probability, reason)]
