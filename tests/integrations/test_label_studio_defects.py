"""A real project that Label Studio 1.23.2 exports with faults, exported by us (``recordings/exports/all_tasks.json``).

Its COCO export lists an image once for each annotation, rotates in percent, keeps boxes outside the image, mixes up
turned photos, takes unseen images for empty ones, begins ids at 0, drops second labels and names no file usably.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from backend.domain.dataset import AnnotatedImage, AttributedAnnotation, DatasetLabel, ImageFacts, ImageFile, Provenance
from backend.services.export import Export, ExportRequest
from integrations.coco_export import CocoFolder
from integrations.label_studio.annotations import parse_annotation
from tests.datasets import FakeProject
from tests.make import RECORDINGS

LABELS = tuple(DatasetLabel(number, name) for number, name in enumerate(["cat", "person", "traffic light"], 1))


def image(task: Any) -> AnnotatedImage:
    annotations = [parse_annotation(each | {"task": task["id"]}, 7) for each in task["annotations"]]
    attributed = [
        AttributedAnnotation(each, (Provenance(task["id"], each.id, each.annotator),) * len(each.regions))
        for each in annotations
    ]
    return AnnotatedImage(task["id"], task["data"]["image"], None, None, None, task["id"], tuple(attributed))


@pytest.fixture
def exported(tmp_path: Path) -> tuple[Any, Export]:
    tasks = json.loads((RECORDINGS / "exports/all_tasks.json").read_text(encoding="utf-8"))
    # Where no box tells the size, the file does.
    file = ImageFile(b"", ImageFacts(640, 480, "ab"))
    export = Export(FakeProject([image(task) for task in tasks], LABELS), ExportRequest(), lambda _: file)
    with CocoFolder(tmp_path, export.labels) as folder:
        for each, _ in export.images():
            folder.add(each)
        folder.finish({})
    return json.loads((tmp_path / "annotations.json").read_text()), export


def test_each_reviewed_task_is_one_image_and_the_others_are_counted(exported: tuple[Any, Export]) -> None:
    document, export = exported
    states = {each["id"]: each["state"] for each in document["images"]}
    assert states == dict.fromkeys([36, 37, 38, 42, 43, 46, 47, 48], "reviewed") | {39: "reviewed-empty"}
    assert export.tally.images == {"skipped": 1, "never-reviewed": 3}  # unlabelled, predicted only, drafted only


def test_names_are_usable_and_sizes_those_of_the_upright_images(exported: tuple[Any, Export]) -> None:
    document, _ = exported
    found = {each["id"]: (each["file_name"], each["width"], each["height"]) for each in document["images"]}
    assert found[36] == ("e0.png", 640, 480)
    assert found[42] == ("two_exif6.jpg", 400, 800)
    assert [found[number][0] for number in (46, 47, 48)] == ["loc/d1/a b.png", "loc/d2/same.png", "loc/d1/same.png"]


def test_boxes_are_right_to_the_pixel(exported: tuple[Any, Export]) -> None:
    document, export = exported
    boxes: dict[int, list[Any]] = defaultdict(list)
    for each in document["annotations"]:
        boxes[each["image_id"]].append((each["category_id"], each["bbox"]))
    assert boxes[36] == [(1, [70.4, 52.8, 128, 144])]  # of the newest of two annotations
    assert boxes[37][:2] == [(1, [232, 192, 134.85, 105.57]), (3, [416, 48, 96, 64])]
    assert boxes[38] == [(1, [576, 432, 64, 48]), (1, [0, 0, 128, 120])]
    assert boxes[42] == [(1, [8, 8, 100, 200])]
    assert boxes[43] == [(1, [192, 144, 64, 48]), (2, [192, 144, 64, 48]), (1, [320.79, 240, 64, 48])]
    reasons = ("unknown-label", "no-label", "other-shape", "outside-the-image", "no-area")
    assert export.tally.boxes == dict.fromkeys(reasons, 1)
    assert export.tally.clipped == 2
