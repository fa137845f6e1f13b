"""COCO data sets and results, to and from records.

A COCO box is ``[x, y, width, height]`` in pixels of the upright image. What we write is deterministic, with ids from 1
and relative file names; boxes that a model proposed carry their ``score``, which COCO readers ignore in a data set.
"""

import json
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from backend.domain.dataset import ImageState, rounded
from backend.domain.geometry import Box
from backend.errors import ImageError, UsageError

Record = TypeVar("Record")

_UNREVIEWED = (ImageState.NEVER_REVIEWED, ImageState.SKIPPED)


@dataclass(frozen=True, slots=True)
class Category:
    """A label under the number COCO knows it by."""

    id: int
    name: str


@dataclass(frozen=True, slots=True)
class LabelledBox:
    """One box of an image. ``score`` is None where a human drew it."""

    box: Box
    category_id: int
    score: float | None = None


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """One image and its boxes; ``file_name`` is relative to the folder of images, with forward slashes."""

    id: int
    file_name: str
    width: int
    height: int
    boxes: tuple[LabelledBox, ...] = ()

    def refuse_other_size(self, width: int, height: int, shown: str) -> None:
        """Hold the size of the upright picture, which ``shown`` names, against what the data set says.

        Raises:
            ImageError: they differ: its boxes would lie elsewhere.
        """
        if (width, height) != (self.width, self.height):
            raise ImageError(
                f"{shown} is {width} x {height} upright, its annotations are of {self.width} x {self.height}: correct "
                "the annotations, or the file's EXIF orientation"
            )


@dataclass(frozen=True, slots=True)
class CocoDataset:
    """What a COCO file says, without segmentations.

    Attributes:
        categories: in the file's order.
        images: those that people reviewed, and all of a file that does not tell.
        description: tells people where it comes from.
        unreviewed: how many other images there are, whose boxes are not known, not even that there are none.
    """

    categories: tuple[Category, ...]
    images: tuple[LabelledImage, ...]
    description: str = ""
    unreviewed: int = 0


def labels_to_categories(labels: Iterable[str]) -> tuple[Category, ...]:
    """Number the labels from 1 in the order they come, each once."""
    return tuple(Category(number, label) for number, label in enumerate(dict.fromkeys(labels), start=1))


def dataset_to_coco(dataset: CocoDataset) -> dict[str, Any]:
    """Turn a data set into the object of a COCO file; annotation ids run from 1 in the order of the boxes."""
    boxes = [(image, box) for image in dataset.images for box in image.boxes]
    return {
        "info": {"description": dataset.description},
        "images": [
            {"id": image.id, "file_name": image.file_name, "width": image.width, "height": image.height}
            for image in dataset.images
        ],
        "annotations": [
            _annotation_to_coco(number, image.id, box) for number, (image, box) in enumerate(boxes, start=1)
        ],
        "categories": [{"id": category.id, "name": category.name} for category in dataset.categories],
    }


def results_to_coco(images: Sequence[LabelledImage]) -> list[dict[str, Any]]:
    """Turn scored boxes into COCO's results format, which ``pycocotools`` loads beside the true annotations.

    Raises:
        ValueError: a box has no score.
    """
    results = []
    for image in images:
        for labelled in image.boxes:
            if labelled.score is None:
                raise ValueError(f"a box of {image.file_name} has no score")
            results.append(
                {
                    "image_id": image.id,
                    "category_id": labelled.category_id,
                    "bbox": box_to_coco(labelled.box),
                    "score": labelled.score,
                }
            )
    return results


def box_to_coco(box: Box) -> list[float]:
    """Turn a box into ``[x, y, width, height]``, rounded as everywhere in our files."""
    return [rounded(box.x1), rounded(box.y1), rounded(box.x2 - box.x1), rounded(box.y2 - box.y1)]


def whole(value: object) -> int | None:
    """What a JSON file says if it is a whole number that every reader keeps, else None: ``1.0`` is, ``"1"`` is not."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53 else None


def read_coco(path: Path) -> CocoDataset:
    """Read a COCO file of boxes.

    Raises:
        UsageError: it cannot be read, is no JSON, or is not a COCO data set; the message names file and field.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, or not JSON
        raise UsageError(f"{path} is no JSON file: {error}") from error
    try:
        return coco_to_dataset(document)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def coco_to_dataset(document: object) -> CocoDataset:
    """Turn the object of a COCO file into records; images keep the file's order, boxes their order in it.

    Images that our own exports call never reviewed or skipped are counted and left out.

    Raises:
        UsageError: a part is missing or malformed, an id or a category name comes twice, or an annotation refers to
            an image or a category that is not there.
    """
    if not isinstance(document, dict):
        raise UsageError("not a COCO data set: it must be an object with images, annotations and categories")
    categories = _parsed(document, "categories", _category)
    images = _parsed(document, "images", _image)
    annotations = _parsed(document, "annotations", lambda row: (_integer(row, "image_id"), _labelled_box(row)))
    _refuse_twice("category id", [category.id for category in categories])
    _refuse_twice("category name", [category.name for category in categories])
    _refuse_twice("image id", [image.id for image in images])
    boxes: dict[int, list[LabelledBox]] = {image.id: [] for image in images}
    known = {category.id for category in categories}
    for position, (image_id, labelled) in enumerate(annotations):
        if image_id not in boxes:
            raise UsageError(f"annotations[{position}] is of image {image_id}, which is not in images")
        if labelled.category_id not in known:
            category = labelled.category_id
            raise UsageError(f"annotations[{position}] is of category {category}, which is not in categories")
        boxes[image_id].append(labelled)
    reviewed = tuple(
        replace(image, boxes=tuple(boxes[image.id]))
        for image, row in zip(images, document["images"], strict=True)
        if row.get("state") not in _UNREVIEWED
    )
    info = document.get("info")
    description = str(info.get("description", "")) if isinstance(info, dict) else ""
    return CocoDataset(tuple(categories), reviewed, description, len(images) - len(reviewed))


def _parsed(document: Mapping[str, Any], key: str, parse: Callable[[Mapping[str, Any]], Record]) -> list[Record]:
    rows = document.get(key)
    if not isinstance(rows, list):
        raise UsageError(f"not a COCO data set: {key!r} must be a list")
    records = []
    for position, row in enumerate(rows):
        try:
            records.append(parse(row))
        except KeyError as error:
            raise UsageError(f"{key}[{position}] lacks {error}") from error
        except (TypeError, ValueError, OverflowError) as error:
            raise UsageError(f"{key}[{position}] is malformed: {error}") from error
    return records


def _category(row: Mapping[str, Any]) -> Category:
    return Category(_integer(row, "id"), _text(row, "name"))


def _image(row: Mapping[str, Any]) -> LabelledImage:
    width, height = _integer(row, "width"), _integer(row, "height")
    return LabelledImage(_integer(row, "id"), _text(row, "file_name"), width, height)


def _labelled_box(row: Mapping[str, Any]) -> LabelledBox:
    x, y, width, height = (_real(number, "bbox") for number in row["bbox"])
    score = None if row.get("score") is None else _real(row["score"], "score")
    return LabelledBox(Box(x, y, x + width, y + height), _integer(row, "category_id"), score)


def _integer(row: Mapping[str, Any], key: str) -> int:
    """Text that reads as a number is none: pycocotools, which reads the same files, would find no match for it."""
    number = whole(row[key])
    if number is None:
        raise ValueError(f"{key} must be a whole number, not {row[key]!r}")
    return number


def _text(row: Mapping[str, Any], key: str) -> str:
    text = str(row[key])
    text.encode()  # half of a surrogate pair is a ValueError here, and nothing that could be asked or written later
    return text


def _real(number: object, key: str) -> float:
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise ValueError(f"{key} must be of numbers, not {number!r}")
    return float(number)


def _annotation_to_coco(number: int, image_id: int, labelled: LabelledBox) -> dict[str, Any]:
    annotation = {
        "id": number,
        "image_id": image_id,
        "category_id": labelled.category_id,
        "bbox": box_to_coco(labelled.box),
        "area": round(labelled.box.area, 2),
        "iscrowd": 0,
    }
    return annotation if labelled.score is None else {**annotation, "score": labelled.score}


def _refuse_twice(what: str, values: Sequence[Hashable]) -> None:
    seen = set()
    for value in values:
        if value in seen:
            raise UsageError(f"{what} {value!r} comes twice")
        seen.add(value)
