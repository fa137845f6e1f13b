"""Reads COCO folders with somebody else's reader; run by the Python that has it, which needs nothing of ours.

    python tests/readers.py supervision|ultralytics|fiftyone FOLDER...

Prints the reader's version and, for each folder and each file name below ``images/``, its boxes as
``[label, x, y, width, height]`` in pixels. Exit code 3: the reader is not installed.
"""

import importlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

Boxes = dict[str, list[list[Any]]]


def read_supervision(folder: Path) -> Boxes:
    """Read as ``DetectionDataset.from_coco``."""
    supervision = importlib.import_module("supervision")
    found = supervision.DetectionDataset.from_coco(str(folder / "images"), str(folder / "annotations.json"))
    boxes: Boxes = {}
    for path, detections in found.annotations.items():  # without their pixels, which are for OpenCV to read
        corners = zip(detections.xyxy.tolist(), detections.class_id.tolist(), strict=True)
        name = Path(path).relative_to(folder / "images").as_posix()
        boxes[name] = [[found.classes[label], x1, y1, x2 - x1, y2 - y1] for (x1, y1, x2, y2), label in corners]
    return boxes


def read_ultralytics(folder: Path) -> Boxes:
    """Convert as ``convert_coco`` and read the labels of each image, which are shares of its width and height."""
    converter = importlib.import_module("ultralytics.data.converter")
    document = json.loads((folder / "annotations.json").read_text())
    names = {category["id"]: category["name"] for category in document["categories"]}
    boxes: Boxes = {}
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "in").mkdir()
        (Path(scratch) / "in/annotations.json").symlink_to(folder / "annotations.json")
        converter.convert_coco(str(Path(scratch) / "in"), str(Path(scratch) / "out"), cls91to80=False)
        for image in document["images"]:
            file = (Path(scratch) / "out/labels/annotations" / image["file_name"]).with_suffix(".txt")
            rows = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
            boxes[image["file_name"]] = [
                [names[int(row[0]) + 1], *_pixels(list(map(float, row[1:])), image["width"], image["height"])]
                for row in rows
            ]
    return boxes


def _pixels(shares: list[float], width: int, height: int) -> list[float]:
    x, y, wide, high = (share * side for share, side in zip(shares, (width, height) * 2, strict=True))
    return [x - wide / 2, y - high / 2, wide, high]


def read_fiftyone(folder: Path) -> Boxes:
    """Read with ``COCODetectionDatasetImporter``, which is all that needs no database."""
    coco = importlib.import_module("fiftyone.utils.coco")
    importer = coco.COCODetectionDatasetImporter(
        data_path=str(folder / "images"), labels_path=str(folder / "annotations.json"), label_types="detections"
    )
    boxes: Boxes = {}
    with importer:
        for path, metadata, labels in importer:
            sides = (metadata.width, metadata.height) * 2
            boxes[Path(path).relative_to(folder / "images").as_posix()] = [
                [each.label, *(share * side for share, side in zip(each.bounding_box, sides, strict=True))]
                for each in (labels.detections if labels else [])
            ]
    return boxes


READERS = {"supervision": read_supervision, "ultralytics": read_ultralytics, "fiftyone": read_fiftyone}


def main(name: str, *folders: str) -> int:
    """Print what a reader finds, as one line of JSON: the last one."""
    try:
        version = importlib.import_module(name).__version__
    except ModuleNotFoundError:
        return 3
    found = {folder: READERS[name](Path(folder)) for folder in folders}
    print(json.dumps({"version": version, "folders": found}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
