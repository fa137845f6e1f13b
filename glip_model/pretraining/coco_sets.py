"""Real detection sets for pre-training: folders with ``images/`` and COCO files named after their splits."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from glip_model.caption import plan_captions
from glip_model.image import ImageDecodeError, read_image, resize_rgb
from glip_model.sentence import CaptionError
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


def refuse_unusable_sets(sets: Sequence[RealSet], tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that each set has images, and names that fit one caption, where training puts them.

    Raises:
        DataError: there is no image or no name, a name has no token that the tokenizer knows, two are the same tokens,
            or they are too long.
    """
    for real in sets:
        if not real.samples:
            raise DataError(f"{real.name}: has no images: leave the set out")
        try:
            captions = plan_captions(tokenizer, [[name] for name in real.names])
        except CaptionError as error:
            raise DataError(f"{real.name}: {error}") from error
        if len(captions) > 1:
            raise DataError(f"{real.name}: its names fill more than one caption: give fewer or shorter ones")


def read_coco_set(folder: Path, split: str) -> RealSet:
    """Read ``folder/split.json`` and decode its images into memory, upright.

    Args:
        folder: holds ``images/`` and the COCO files.
        split: name of the COCO file without its ending.

    Raises:
        DataError: the file is missing, is no COCO data set, has a category or an image twice, refers to what is not in
            it, or names an image that cannot be read.
    """
    path = folder / f"{split}.json"
    handling = HANDLING.get(folder.name, Handling())
    try:
        coco = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"no JSON: {error}"
        raise DataError(f"{path}: no COCO data set ({reason})") from error
    try:
        names = {category["id"]: _encodable(category["name"]) for category in coco["categories"]}
        files = {image["id"]: str(image["file_name"]) for image in coco["images"]}
        annotations: dict[int, list[tuple[list[float], str]]] = {image: [] for image in files}
        for position, annotation in enumerate(coco["annotations"]):
            image, category = annotation["image_id"], annotation["category_id"]
            if image not in files:
                raise DataError(f"{path}: annotations[{position}] is of image {image!r}, which is not in images")
            if category not in names:
                raise DataError(f"{path}: annotations[{position}] is of category {category!r}, which is not there")
            annotations[image].append((_four_numbers(annotation["bbox"]), names[category]))
        order = sorted(files)
    except DataError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        fault = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise DataError(f"{path}: no COCO data set ({fault})") from error
    if len(names) < len(coco["categories"]) or len(files) < len(coco["images"]):
        raise DataError(f"{path}: an id of its categories or images comes twice")
    asked = tuple(names.values())
    if twice := [name for name in asked if asked.count(name) > 1]:
        # A caption would hold it twice, and teach that one of them names nothing.
        raise DataError(f"{path}: category name {twice[0]!r} comes twice")
    samples = [
        _read_sample(folder / "images" / files[image], annotations[image], asked, handling.longest_side)
        for image in order
    ]
    return RealSet(folder.name, asked, tuple(samples), handling)


def _encodable(name: object) -> str:
    text = str(name)
    text.encode()  # half of a surrogate pair is a ValueError here, and in the tokenizer
    return text


def _four_numbers(bbox: list[float]) -> list[float]:
    numbers = np.asarray(bbox, dtype=np.float32)
    if numbers.shape != (4,) or not np.isfinite(numbers).all():
        raise ValueError(f"bbox {bbox!r} is not of four finite numbers")
    return bbox


def _read_sample(
    path: Path, annotations: list[tuple[list[float], str]], asked: tuple[str, ...], longest_side: int
) -> Sample:
    try:
        rgb = read_image(path)
    except ImageDecodeError as error:
        raise DataError(str(error)) from error
    except OSError as error:  # a name that no file system takes
        raise DataError(f"{path}: {error.strerror}") from error
    height, width = rgb.shape[:2]
    scale = min(1.0, longest_side / max(height, width))
    rgb = resize_rgb(rgb, (max(1, round(height * scale)), max(1, round(width * scale))))
    boxes = np.array([bbox for bbox, _ in annotations], dtype=np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return Sample(rgb, boxes * np.float32(scale), tuple((name,) for _, name in annotations), asked, pixel=scale)
