"""What people made of a task's images: annotations as Label Studio keeps them, every version of each.

Frame: percent of the displayed (upright) image, as in Label Studio, because that is the fact that was recorded; pixels
follow from it once the image's size is known. Rotation is in degrees, clockwise, around the top-left corner, in pixels.
"""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class PercentBox:
    """A rectangle as Label Studio keeps it: ``x, y`` is the top-left corner before the rotation."""

    x: float
    y: float
    width: float
    height: float
    rotation: float = 0.0


@dataclass(frozen=True, slots=True)
class AnnotatedRegion:
    """One rectangle of an annotation, or the bounds of what was drawn with another tool.

    Attributes:
        id: Label Studio's, or ours where the box began as a prediction.
        image: name of the ``<Image>`` tag it lies on (``to_name``).
        labels: most often one; none where a person drew a box without a label, or with another tool.
        value: where it is.
        image_width, image_height: pixels of the upright image as the editor saw them; None where it did not say.
        origin: ``prediction``, ``prediction-changed`` or ``manual``; None after a bulk accept. It may lie.
        prediction: id of our prediction out of ``meta.glip``, or None.
        score: the model's, as it came back; None for boxes drawn by hand.
        tool: Label Studio's type of what is no rectangle with labels, as ``polygonlabels``: there is something, but
            no box of it, and nothing is known of what a model was asked about it.
    """

    id: str
    image: str
    labels: tuple[str, ...]
    value: PercentBox
    image_width: int | None
    image_height: int | None
    origin: str | None = None
    prediction: str | None = None
    score: float | None = None
    tool: str | None = None


@dataclass(frozen=True, slots=True)
class Annotation:
    """All regions one person submitted for one task, as they stood at ``updated_at``; immutable, later ones replace it.

    Attributes:
        id, task_id, project_id: Label Studio's.
        created_at, updated_at: Label Studio's own times, UTC. (id, updated_at) names a version.
        annotator: Label Studio's user id; None where it is not known.
        cancelled: skipped: its regions say nothing, and it is no true negative.
        ground_truth: a person starred it.
        lead_time: seconds the person took, None after a bulk accept.
        parent_prediction: Label Studio's id of the prediction it began from; null after a draft.
        regions: in Label Studio's order, what was drawn with other tools last.
    """

    id: int
    task_id: int
    project_id: int
    created_at: datetime
    updated_at: datetime
    annotator: int | None
    cancelled: bool
    ground_truth: bool
    lead_time: float | None
    parent_prediction: int | None
    regions: tuple[AnnotatedRegion, ...]
