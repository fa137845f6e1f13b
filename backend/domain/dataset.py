"""A data set as it leaves and enters: images with settled boxes, independent of database and file format.

Frame: pixels of the upright image, as in ``backend.domain.geometry``.
"""

from dataclasses import dataclass
from enum import StrEnum

from backend.domain.annotations import Annotation
from backend.domain.geometry import Box, Point, RotatedBox
from backend.domain.polygons import polygon_area, polygon_bounds, shared_polygon
from backend.domain.records import Prediction

DECIMALS = 2  # of pixels: what is written is at most 0.01 from what was meant, also after a turn
_UNITS: int = 10**DECIMALS  # in a pixel
_TURN_DECIMALS = 4  # of degrees: 0.02 pixels at the far end of a box of 20,000


class ImageState(StrEnum):
    """What people said about an image. Only the first two may teach a model or judge one."""

    REVIEWED = "reviewed"
    REVIEWED_EMPTY = "reviewed-empty"
    SKIPPED = "skipped"
    NEVER_REVIEWED = "never-reviewed"


@dataclass(frozen=True, slots=True)
class DatasetLabel:
    """A label under its number, from 1, which it keeps for ever."""

    id: int
    name: str


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a box comes from; None where it is not known or there is nothing to know.

    Attributes:
        task_id, annotation_id, annotator: Label Studio's.
        verdict: what the annotator did with the model's proposal: accepted, moved, relabelled or added.
        model_version, prompt, score: which model proposed it, asked with which words, and how sure it was.
        votes, voters: of a consensus: how many annotators drew this box, out of how many.
    """

    task_id: int | None = None
    annotation_id: int | None = None
    annotator: int | None = None
    verdict: str | None = None
    model_version: str | None = None
    prompt: str | None = None
    score: float | None = None
    votes: int | None = None
    voters: int | None = None


@dataclass(frozen=True, slots=True)
class Outline:
    """The part of a rotated box that is inside the image; ``bounds`` and ``area`` follow from the polygon."""

    polygon: tuple[Point, ...]
    bounds: Box
    area: float


@dataclass(frozen=True, slots=True)
class DatasetBox:
    """One box as it was drawn, what of it is inside the image, and the ids of its labels (at least one, each once)."""

    box: RotatedBox
    outline: Outline
    label_ids: tuple[int, ...]
    provenance: Provenance = Provenance()


@dataclass(frozen=True, slots=True)
class ScoredBox:
    """One box that a model proposed, inside the image, with a score in ``[0, 1]``."""

    box: Box
    label_id: int
    score: float


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What an image file says of itself: upright size in pixels, and the hex digest of its bytes."""

    width: int
    height: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image file's bytes, as they are (a turned photo stays turned), and what they say."""

    content: bytes
    facts: ImageFacts


@dataclass(frozen=True, slots=True)
class DatasetImage:
    """One image of a data set.

    Attributes:
        id: from 1, as `AnnotatedImage.id`.
        file_name: relative, with slashes; no two images have the same, also where case does not count.
        original: as the project names it, without anything secret.
        width, height: of the upright image.
        sha256: hex digest of the file, None where no one looked at it.
        task_id: Label Studio's.
        split: name of its part of the data set, None where it is not split.
        boxes: in the order they were drawn; none unless the state is ``reviewed``.
        proposals: of one model version, if they are wanted; best score first.
    """

    id: int
    file_name: str
    original: str
    width: int
    height: int
    sha256: str | None
    task_id: int | None
    state: ImageState
    split: str | None = None
    boxes: tuple[DatasetBox, ...] = ()
    proposals: tuple[ScoredBox, ...] = ()


@dataclass(frozen=True, slots=True)
class AttributedAnnotation:
    """An annotation in its current version, and where each of its regions comes from, in the same order."""

    annotation: Annotation
    provenance: tuple[Provenance, ...]


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """All that is stored about one image, before it is decided whose annotation counts.

    Attributes:
        id: from 1, the task's where tasks have one image. Where they have several it follows from the task's id, and
            from how many there are: when the project begins or ceases to show one, the ids of all its images change.
        reference: as the task's data names it; may hold an address with secrets in it.
        width, height: of the upright image; None where no one looked at it.
        annotations: of its task, also cancelled ones, with the regions of this image only.
        file_name: the one it had in the data set it was imported from; None where it was not.
    """

    id: int
    reference: str
    width: int | None
    height: int | None
    sha256: str | None
    task_id: int | None
    annotations: tuple[AttributedAnnotation, ...] = ()
    predictions: tuple[Prediction, ...] = ()
    file_name: str | None = None


def rounded(number: float) -> float:
    """Round pixels to `DECIMALS`; never -0.0. A data set has millions: ``round(number, 2)`` takes twice as long."""
    return round(number * _UNITS) / _UNITS


def on_grid(box: RotatedBox) -> RotatedBox:
    """Round to what is written: `DECIMALS` of a pixel, the rotation into ``[0, 360)``; twice is as good as once."""
    return RotatedBox(
        rounded(box.x),
        rounded(box.y),
        rounded(box.width),
        rounded(box.height),
        round(box.rotation % 360, _TURN_DECIMALS) % 360.0,
    )


def outline_in_image(box: RotatedBox, width: int, height: int) -> Outline | None:
    """Clip a box to an image of ``width`` x ``height`` pixels; None where nothing of it is inside, or it has no area.

    Corners are rounded to `DECIMALS`, and everything else follows from the rounded ones.
    """
    if not (box.width > 0 and box.height > 0):
        return None
    if box.rotation == 0:
        return _upright_outline(box, float(width), float(height))
    window = ((0.0, 0.0), (float(width), 0.0), (float(width), float(height)), (0.0, float(height)))
    corners = [(rounded(x), rounded(y)) for x, y in shared_polygon(box.corners, window)]
    polygon = tuple(point for index, point in enumerate(corners) if point != corners[index - 1])
    area = _rounded_area(polygon_area(polygon)) if len(polygon) > 2 else 0.0
    return Outline(polygon, polygon_bounds(polygon), area) if area > 0 else None


def is_inside(box: RotatedBox, width: int, height: int) -> bool:
    """Tell whether all of a box is inside an image of ``width`` x ``height`` pixels."""
    if box.rotation == 0:
        return box.x >= 0 and box.y >= 0 and box.x + box.width <= width and box.y + box.height <= height
    return all(0 <= x <= width and 0 <= y <= height for x, y in box.corners)


def _upright_outline(box: RotatedBox, width: float, height: float) -> Outline | None:
    x1, x2 = rounded(max(box.x, 0.0)), rounded(min(box.x + box.width, width))
    y1, y2 = rounded(max(box.y, 0.0)), rounded(min(box.y + box.height, height))
    if not (x1 < x2 and y1 < y2):
        return None
    area = _rounded_area((x2 - x1) * (y2 - y1))
    return Outline(((x1, y1), (x2, y1), (x2, y2), (x1, y2)), Box(x1, y1, x2, y2), area)


def _rounded_area(number: float) -> float:
    return round(number * _UNITS**2) / _UNITS**2
