"""COCO's box measures, overall and per class.

Ground truth is a COCO data set (``images``, ``annotations``, ``categories``); results are COCO results
(``image_id``, ``category_id``, ``bbox``, ``score``). Boxes are ``[x, y, width, height]`` in pixels.
"""

import contextlib
import copy
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

# Lists of a data set: what one entry is called, and what it needs.
_NEEDED = {
    "images": ("image", ("id",)),
    "annotations": ("annotation", ("image_id", "category_id", "bbox")),
    "categories": ("category", ("id", "name")),
}


@dataclass(frozen=True, slots=True)
class ClassScore:
    """Average precision of one class in ``[0, 1]``; ``None`` where the ground truth has no box of it.

    ``boxes`` are those that count: in images of the data set, and no crowds.
    """

    category_id: int
    name: str
    boxes: int
    ap: float | None
    ap50: float | None


@dataclass(frozen=True, slots=True)
class DetectionScores:
    """COCO's measures in ``[0, 1]``; ``None`` where there is nothing to measure.

    ``ap`` is averaged over the overlaps 0.50 to 0.95, ``ap50`` and ``ap75`` are at one; small, medium and large are
    areas below 32², below 96² and above; ``ar`` is the recall with at most 100 boxes per image.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    ap_small: float | None
    ap_medium: float | None
    ap_large: float | None
    ar: float | None
    images: int
    classes: tuple[ClassScore, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain values for ``json.dumps``, keys as the fields."""
        return asdict(self)


def evaluate_detections(
    ground_truth: Mapping[str, Any] | Path, results: Sequence[Mapping[str, Any]]
) -> DetectionScores:
    """Measure detections against a COCO data set; images without results count as searched in vain.

    Args:
        ground_truth: the data set, or the path of its JSON file.
        results: detections in any order; there may be none.

    Raises:
        ValueError: the ground truth is no COCO data set, or a result names an image or a category that it lacks.
    """
    data = read_ground_truth(ground_truth)
    known = {image["id"] for image in data["images"]}
    categories = {category["id"] for category in data["categories"]}
    for result in results:
        if result["image_id"] not in known:
            raise ValueError(f"image {result['image_id']!r} of the results is not in the ground truth")
        if result["category_id"] not in categories:
            raise ValueError(f"category {result['category_id']!r} of the results is not in the ground truth")
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports its steps there
        truth = COCO()
        truth.dataset = data
        truth.createIndex()
        found = COCO()
        found.dataset = {**data, "annotations": _as_annotations(results)}
        found.createIndex()
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"]  # (overlaps, recalls, classes, areas, limits)
    recall = evaluation.eval["recall"]  # (overlaps, classes, areas, limits)
    counts = Counter(
        each["category_id"] for each in data["annotations"] if each["image_id"] in known and not each["iscrowd"]
    )
    return DetectionScores(
        ap=_mean(precision[..., 0, -1]),
        ap50=_mean(precision[0, ..., 0, -1]),
        ap75=_mean(precision[5, ..., 0, -1]),
        ap_small=_mean(precision[..., 1, -1]),
        ap_medium=_mean(precision[..., 2, -1]),
        ap_large=_mean(precision[..., 3, -1]),
        ar=_mean(recall[..., 0, -1]),
        images=len(known),
        classes=tuple(
            ClassScore(
                category_id=int(category_id),
                name=str(truth.cats[category_id]["name"]),
                boxes=counts[category_id],
                ap=_mean(precision[:, :, index, 0, -1]),
                ap50=_mean(precision[0, :, index, 0, -1]),
            )
            for index, category_id in enumerate(evaluation.params.catIds)
        ),
    )


def read_ground_truth(ground_truth: Mapping[str, Any] | Path) -> dict[str, Any]:
    """Return a copy of a COCO data set, or of the one in a file, with all that pycocotools needs.

    Raises:
        ValueError: it is none, an entry of it lacks something, or an annotation has something else for a number.
    """
    name = "the ground truth"
    if isinstance(ground_truth, Path):
        name = str(ground_truth)
        try:
            ground_truth = json.loads(ground_truth.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{name}: cannot be read as COCO JSON ({error})") from error
    if not isinstance(ground_truth, Mapping):
        raise ValueError(f"{name}: not a COCO data set")
    for key in _NEEDED:
        if not isinstance(ground_truth.get(key), list):
            raise ValueError(f"{name}: not a COCO data set, it has no list {key!r}")
    _refuse_incomplete(name, ground_truth)
    data = copy.deepcopy(dict(ground_truth))  # pycocotools writes into the annotations
    for number, annotation in enumerate(data["annotations"], start=1):
        which, box = annotation.get("id", number), annotation["bbox"]
        if not isinstance(box, list | tuple) or len(box) != 4 or not all(isinstance(side, Real) for side in box):
            raise ValueError(f"{name}: bbox of annotation {which} must be four numbers, not {box!r}")
        # pycocotools needs what many exporters leave out or empty, and takes text for true: "0" for a crowd.
        for key, usual in (("iscrowd", 0), ("area", box[2] * box[3])):
            if annotation.get(key) is None:
                annotation[key] = usual
            elif not isinstance(annotation[key], int | float):
                raise ValueError(f"{name}: {key} of annotation {which} must be a number, not {annotation[key]!r}")
        annotation["id"] = number  # 0 would be "unmatched" to it
    return data


def _refuse_incomplete(name: str, ground_truth: Mapping[str, Any]) -> None:
    for key, (kind, needed) in _NEEDED.items():
        for number, entry in enumerate(ground_truth[key], start=1):
            if not isinstance(entry, Mapping):
                raise ValueError(f"{name}: {kind} {number} is no object but {entry!r}")
            if not entry.keys() >= set(needed):
                raise ValueError(f"{name}: {kind} {entry.get('id', number)} lacks {' or '.join(needed)}")


def _as_annotations(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {**result, "id": number, "area": result["bbox"][2] * result["bbox"][3], "iscrowd": 0}
        for number, result in enumerate(results, start=1)
    ]


def _mean(values: NDArray[np.float64]) -> float | None:
    """Average what was measured; pycocotools writes -1 where a class has no boxes of that size."""
    measured = values[values > -1]
    return float(measured.mean()) if measured.size else None
