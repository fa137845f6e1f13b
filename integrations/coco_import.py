"""Read COCO files that others made, and say of everything that is wrong with them where it is.

Files that `integrations.coco_export` wrote come back as they were, with rotations, groups and provenance.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from posixpath import normpath
from typing import Any

from backend.domain.dataset import (
    DatasetBox,
    DatasetImage,
    DatasetLabel,
    ImageFacts,
    ImageState,
    Outline,
    Provenance,
    is_inside,
    on_grid,
    outline_in_image,
)
from backend.domain.geometry import RotatedBox
from backend.errors import ImageError, UsageError
from integrations.coco import box_to_coco, whole

_SAME_PIXELS = 0.5

# Why boxes are nobody's: what they are counted under.
_LEFT_OUT = "boxes of images that were left out"
_OF_TWO = "boxes of ids that several images of a file have"


class _RowError(Exception):
    """What is wrong with a row: the reason it is counted under, and a remark."""

    def __init__(self, reason: str, remark: str = "") -> None:
        super().__init__(reason, remark)
        self.reason, self.remark = reason, remark


@dataclass(frozen=True, slots=True)
class Problem:
    """What cannot be taken in: ``where`` names file, list and place, ``reason`` is what it is counted under."""

    where: str
    reason: str
    remark: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}" + (f" ({self.remark})" if self.remark else "")


@dataclass(slots=True)
class ImportedDataset:
    """What COCO files say.

    Attributes:
        labels: in the order of their ids, which are the files' own, or follow on them where those begin at 0.
        images: in the order of their ids, likewise.
        problems: what was left out.
        notes: how often something was taken in, but not all of it: clipped boxes, outlines that are no rectangles.
    """

    labels: tuple[DatasetLabel, ...] = ()
    images: tuple[DatasetImage, ...] = ()
    problems: list[Problem] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)


def read_dataset(files: Sequence[Path], measure: Callable[[str], ImageFacts] | None = None) -> ImportedDataset:
    """Read COCO files as one data set.

    Args:
        files: such as the parts of a split data set.
        measure: looks at the file of a relative name, and raises ``ImageError`` where it cannot; None trusts the files.

    Raises:
        UsageError: a file cannot be read, or is no COCO data set.
    """
    reader = _Reader(measure)
    for file in files:
        reader.read(file)
    return reader.dataset()


class _Reader:
    def __init__(self, measure: Callable[[str], ImageFacts] | None) -> None:
        self._measure = measure
        self._found = ImportedDataset()
        self._labels: dict[int, str] = {}
        self._images: dict[int, DatasetImage] = {}
        self._pictures: dict[str, int] = {}  # numbers of the images that are in
        self._boxes: dict[int, dict[object, DatasetBox]] = {}
        self._here: dict[int, DatasetImage | str] = {}  # whose the boxes of an image id are; a string says why nobody's
        self._annotations: set[int] = set()
        self._without: set[int] = set()  # images whose boxes were left out: nobody says that they are empty

    def read(self, file: Path) -> None:
        document = _document(file)
        self._here.clear()  # what an id refers to is in the same file,
        self._annotations.clear()  # and these ids count within it
        label_ids: dict[int, int] = {}
        for rows, take in (
            ("categories", lambda row: self._take_category(row, label_ids)),
            ("images", self._take_image),
            ("annotations", lambda row: self._take_annotation(row, label_ids)),
        ):
            for position, row in enumerate(document[rows]):
                try:
                    if not isinstance(row, dict):
                        raise _RowError("malformed", "no object")
                    take(row)
                except _RowError as wrong:
                    where = f"{file.name}: {rows}[{position}]"
                    self._found.problems.append(Problem(where, wrong.reason, wrong.remark))

    def dataset(self) -> ImportedDataset:
        """Number from 1 what began at 0, and settle the images' states."""
        label_shift = 1 - min([1, *self._labels])
        image_shift = 1 - min([1, *self._images])
        found = self._found
        found.labels = tuple(DatasetLabel(number + label_shift, name) for number, name in sorted(self._labels.items()))
        images = []
        for number, image in sorted(self._images.items()):
            boxes = tuple(
                replace(box, label_ids=tuple(each + label_shift for each in box.label_ids))
                for box in self._boxes[number].values()
            )
            state = ImageState.REVIEWED if boxes else image.state
            if not boxes and number in self._without:
                state = ImageState.NEVER_REVIEWED
            images.append(replace(image, id=number + image_shift, state=state, boxes=boxes))
        found.images = tuple(images)
        return found

    def _take_category(self, row: Mapping[str, Any], label_ids: dict[int, int]) -> None:
        number, name = _integer(row, "id"), _text(row.get("name"))
        if name is None or not name.strip():
            raise _RowError("malformed", "it has no name")
        if number in label_ids or self._labels.get(number, name) != name:
            raise _RowError("duplicate-category-id", f"{number} is another one's")
        same = [each for each, known in self._labels.items() if known == name]
        label_ids[number] = same[0] if same else number
        if same and same[0] != number:
            raise _RowError("duplicate-category-name", f"{name!r} is also category {same[0]}")
        self._labels[number] = name

    def _take_image(self, row: Mapping[str, Any]) -> None:
        number, picture = _integer(row, "id"), _picture(row)
        if number in self._images or number in self._here:
            self._doubt(number, picture)
            raise _RowError("duplicate-image-id", f"{number} is another one's")
        if picture in self._pictures:
            self._doubt(number, picture)
            raise _RowError("duplicate-file-name", f"{row['file_name']!r} is also image {self._pictures[picture]}")
        self._here[number] = _LEFT_OUT  # unless all is well with it
        self._here[number] = self._images[number] = self._image(number, row)
        self._pictures[picture] = number
        self._boxes[number] = {}

    def _doubt(self, number: int, picture: str) -> None:
        """Take from this file's boxes of an image id their owner, unless it is the same picture once more."""
        here, same = self._here.get(number), self._pictures.get(picture)
        if here is not None and same == number:
            return
        if isinstance(here, DatasetImage):
            self._here[number] = _OF_TWO
            self._without.add(number)
        self._here.setdefault(number, _LEFT_OUT)
        if same is not None:
            self._without.add(same)

    def _image(self, number: int, row: Mapping[str, Any]) -> DatasetImage:
        name = _text(row.get("file_name"))
        if name is None:
            raise _RowError("malformed", "it has no file_name")
        width, height = _integer(row, "width"), _integer(row, "height")
        if width < 1 or height < 1:
            raise _RowError("malformed", f"{width} x {height} pixels")
        sha256 = _text(row.get("sha256"))
        if self._measure is not None:
            try:
                facts = self._measure(name)
            except ImageError as error:
                raise _RowError("file-cannot-be-had", str(error)) from error
            if (facts.width, facts.height) != (width, height):
                turned = ", turned by its EXIF orientation" if (facts.height, facts.width) == (width, height) else ""
                raise _RowError(
                    "file-has-other-size", f"{name} is {facts.width} x {facts.height}{turned}, not {width} x {height}"
                )
            if sha256 not in (None, facts.sha256):
                raise _RowError("file-has-other-content", f"{name} has another SHA-256")
            sha256 = facts.sha256
        unseen = row.get("state") == ImageState.NEVER_REVIEWED
        return DatasetImage(
            id=number,
            file_name=name,
            original=_text(row.get("original")) or name,
            width=width,
            height=height,
            sha256=sha256,
            task_id=whole(row.get("task_id")),
            state=ImageState.NEVER_REVIEWED if unseen else ImageState.REVIEWED_EMPTY,
            split=_text(row.get("split")),
        )

    def _take_annotation(self, row: Mapping[str, Any], label_ids: Mapping[int, int]) -> None:
        image_id = _integer(row, "image_id")
        image = self._here.get(image_id)
        if image is None:
            raise _RowError("unknown-image", f"image {image_id} is not in images")
        if isinstance(image, str):
            self._found.notes[image] += 1
            return
        try:
            box = self._box(row, image, label_ids)
        except _RowError:
            self._without.add(image_id)
            raise
        boxes, group = self._boxes[image_id], whole(row.get("group_id"))
        key = len(boxes) if group is None else ("group", group, box.outline)
        if key in boxes:
            both = dict.fromkeys((*boxes[key].label_ids, *box.label_ids))
            box = replace(box, label_ids=tuple(both))
        boxes[key] = box

    def _box(self, row: Mapping[str, Any], image: DatasetImage, label_ids: Mapping[int, int]) -> DatasetBox:
        self._refuse_known_id(row)
        category = _integer(row, "category_id")
        if category not in label_ids:
            raise _RowError("unknown-category", f"category {category} is not in categories")
        segmentation = row.get("segmentation")
        if row.get("iscrowd"):
            raise _RowError("crowd", "a crowd is no object of its own")
        if isinstance(segmentation, dict):
            raise _RowError("run-length-mask", "masks are not taken in")
        drawn, outline = self._turned(row, image)
        if outline is None:
            raise _RowError("outside-the-image" if drawn.width > 0 and drawn.height > 0 else "no-area")
        if not is_inside(drawn, image.width, image.height):
            self._found.notes["clipped boxes"] += 1
        if segmentation and _flat(segmentation) != [number for point in outline.polygon for number in point]:
            self._found.notes["outlines that are taken in as boxes"] += 1
        return DatasetBox(drawn, outline, (label_ids[category],), _provenance(row))

    def _turned(self, row: Mapping[str, Any], image: DatasetImage) -> tuple[RotatedBox, Outline | None]:
        """The box as it was drawn: turned, if it is one of ours that still has the bounds we gave it."""
        bbox = _numbers(row, "bbox")
        if "unrotated_bbox" in row and "rotation" in row:
            (rotation,) = _numbers({"rotation": [row["rotation"]]}, "rotation", 1)
            x, y, width, height = _numbers(row, "unrotated_bbox")
            drawn = on_grid(RotatedBox(x, y, width, height, rotation))
            outline = outline_in_image(drawn, image.width, image.height)
            bounds = None if outline is None else box_to_coco(outline.bounds)
            if bounds and all(abs(ours - theirs) <= _SAME_PIXELS for ours, theirs in zip(bounds, bbox, strict=True)):
                return drawn, outline
            self._found.notes["rotations that contradict their bbox"] += 1
        drawn = on_grid(RotatedBox(*bbox))
        return drawn, outline_in_image(drawn, image.width, image.height)

    def _refuse_known_id(self, row: Mapping[str, Any]) -> None:
        if "id" in row:
            number = _integer(row, "id")
            if number in self._annotations:
                raise _RowError("duplicate-annotation-id", f"{number} is another one's")
            self._annotations.add(number)


def _document(file: Path) -> dict[str, list[Any]]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, or not JSON
        raise UsageError(f"{file} is no JSON file: {error}") from error
    names = ("categories", "images", "annotations")
    if not isinstance(document, dict) or not all(isinstance(document.get(name), list) for name in names):
        raise UsageError(f"{file} is no COCO data set: it must hold lists of images, annotations and categories")
    return {name: document[name] for name in names}


def _picture(row: Mapping[str, Any]) -> str:
    """The file that a row names: ``./a.png`` is ``a.png``."""
    name = row.get("file_name")
    return normpath(name) if isinstance(name, str) else ""


def _numbers(row: Mapping[str, Any], key: str, count: int = 4) -> list[float]:
    value = row.get(key)
    if not isinstance(value, list) or len(value) != count:
        raise _RowError("malformed", f"{key} must be a list of {count} numbers")
    plain = all(isinstance(number, int | float) and not isinstance(number, bool) for number in value)
    if not plain or not all(abs(number) < 1e8 and math.isfinite(number) for number in value):
        raise _RowError("malformed", f"{key} must be of finite numbers")
    return [float(number) for number in value]


def _flat(segmentation: object) -> list[object]:
    polygons = segmentation if isinstance(segmentation, list) else []
    return [number for polygon in polygons if isinstance(polygon, list) for number in polygon]


def _provenance(row: Mapping[str, Any]) -> Provenance:
    score = row.get("model_score")
    return Provenance(
        task_id=whole(row.get("task_id")),
        annotation_id=whole(row.get("annotation_id")),
        annotator=whole(row.get("annotator_id")),
        verdict=_text(row.get("verdict")),
        model_version=_text(row.get("model_version")),
        prompt=_text(row.get("prompt")),
        score=float(score) if isinstance(score, int | float) and abs(score) < 1e300 else None,
        votes=whole(row.get("votes")),
        voters=whole(row.get("voters")),
    )


def _integer(row: Mapping[str, Any], key: str) -> int:
    number = whole(row.get(key))
    if number is None:
        raise _RowError("malformed", f"{key} must be a whole number")
    return number


def _text(value: object) -> str | None:
    if not isinstance(value, str) or not value:
        return None
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which no database takes
        raise _RowError("malformed", "it holds text that is no Unicode") from None
    return value
