"""What became of each proposed and each final region of an annotation.

Verdicts are derived: `backend.domain.matching` makes the same ones of the same annotation and predictions at any time.
"""

from dataclasses import dataclass
from enum import StrEnum

from backend.domain.records import Region


class VerdictKind(StrEnum):
    """What a person did with one region.

    A region that got another label is ``RELABELLED``, also where its box was changed too: its overlap and offsets tell.
    """

    ACCEPTED = "accepted"
    MOVED = "moved"
    RELABELLED = "relabelled"
    DELETED = "deleted"
    ADDED = "added"


@dataclass(frozen=True, slots=True)
class EdgeOffsets:
    """How far each edge went, final minus proposed, in pixels of the upright image.

    A box that grew has ``left`` and ``top`` below zero and ``right`` and ``bottom`` above.
    """

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """One region's fate in one annotation.

    Attributes:
        annotation_id: Label Studio's.
        position: 0, 1, 2 … within the annotation: final regions in its order, then the deleted ones.
        kind: what the person did.
        emitted_region: id of the region as we proposed it; None if added.
        final_region: id of the region in the annotation; None if deleted. The editor's copies may share one.
        label_before: as proposed; None if added.
        label_after: the proposed label where the region still has it, else its first; None if deleted or unlabelled.
        iou: overlap of proposed and final box; 1 if accepted, None if added or deleted.
        offsets: of the edges; all 0 if accepted, None if added or deleted.
        model_version: which proposed it; if added, the one that missed it; None where no prediction is known.
        prompt: the words that found it; None if added.
        score: the model's, in ``[0, 1]``; None if added.
        annotator: Label Studio's user id; None where it is not known.
        lead_time: seconds the person took for the whole annotation; None after a bulk accept.
    """

    annotation_id: int
    position: int
    kind: VerdictKind
    emitted_region: str | None
    final_region: str | None
    label_before: str | None
    label_after: str | None
    iou: float | None
    offsets: EdgeOffsets | None
    model_version: str | None
    prompt: str | None
    score: float | None
    annotator: int | None
    lead_time: float | None


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict beside what it is about.

    Attributes:
        task_id: Label Studio's.
        region: as it was shown; None if added, or proposed by nobody that we know.
        fit: id of the fit that the region was shown by; if added, that the task was last shown by until then.
    """

    verdict: Verdict
    task_id: int
    region: Region | None
    fit: str | None
