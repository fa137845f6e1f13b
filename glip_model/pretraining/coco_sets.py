"""Real detection sets for pre-training: folders with ``images/`` and COCO files named after their splits."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from glip_model.image import ImageDecodeError, read_image, resize_rgb
from glip_model.training.samples import Handling, Sample


class DataError(ValueError):
    """A data set that cannot be read; the message names the file."""


HANDLING: Mapping[str, Handling] = {
    "blood_cells": Handling(quarter_turns=True),
    "cards": Handling(mirror=False, quarter_turns=True),
    "microcontrollers": Handling(mirror=False, quarter_turns=True),
}
"""By folder name; every other set is treated as photographs that may be mirrored."""


@dataclass(frozen=True)
class RealSet:
    """One split in memory: each sample asks for all names of the set, which are labelled exhaustively."""

    name: str
    names: tuple[str, ...]
    samples: tuple[Sample, ...]
    handling: Handling = field(default_factory=Handling)


def read_coco_set(folder: Path, split: str) -> RealSet:
    """Read ``folder/split.json`` and decode its images into memory, upright.

    Args:
        folder: holds ``images/`` and the COCO files.
        split: name of the COCO file without its ending.

    Raises:
        DataError: the file is missing, is no COCO data set, has a category twice, or names an image that cannot be
            read.
    """
    path = folder / f"{split}.json"
    handling = HANDLING.get(folder.name, Handling())
    try:
        coco = json.loads(path.read_text(encoding="utf-8"))
        names = {category["id"]: str(category["name"]) for category in coco["categories"]}
        annotations: dict[int, list[tuple[list[float], str]]] = {image["id"]: [] for image in coco["images"]}
        for annotation in coco["annotations"]:
            annotations[annotation["image_id"]].append((annotation["bbox"], names[annotation["category_id"]]))
        files = {image["id"]: str(image["file_name"]) for image in coco["images"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else repr(error)
        raise DataError(f"{path}: no COCO data set ({reason})") from error
    asked = tuple(names.values())
    if twice := [name for name in asked if asked.count(name) > 1]:
        # A caption would hold it twice, and teach that one of them names nothing.
        raise DataError(f"{path}: category name {twice[0]!r} comes twice")
    samples = [
        _read_sample(folder / "images" / files[image], annotations[image], asked, handling.longest_side)
        for image in sorted(files)
    ]
    return RealSet(folder.name, asked, tuple(samples), handling)


def _read_sample(
    path: Path, annotations: list[tuple[list[float], str]], asked: tuple[str, ...], longest_side: int
) -> Sample:
    try:
        rgb = read_image(path)
    except ImageDecodeError as error:
        raise DataError(str(error)) from error
    height, width = rgb.shape[:2]
    scale = min(1.0, longest_side / max(height, width))
    rgb = resize_rgb(rgb, (round(height * scale), round(width * scale)))
    boxes = np.array([bbox for bbox, _ in annotations], dtype=np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return Sample(rgb, boxes * np.float32(scale), tuple((name,) for _, name in annotations), asked, pixel=scale)
