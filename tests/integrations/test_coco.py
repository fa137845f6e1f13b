"""COCO data sets and results, there and back."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools.coco import COCO

from backend.domain.geometry import Box
from backend.errors import UsageError
from integrations.coco import (
    Category,
    CocoDataset,
    LabelledBox,
    LabelledImage,
    coco_to_dataset,
    dataset_to_coco,
    labels_to_categories,
    read_coco,
    results_to_coco,
)

# Two decimals are what is written; sums of such numbers need not have two again, so corners are on a quarter grid.
corners = st.integers(0, 4000).map(lambda quarter: quarter / 4)
boxes = st.tuples(corners, corners, corners, corners).map(
    lambda c: Box(min(c[0], c[1]), min(c[2], c[3]), max(c[0], c[1]), max(c[2], c[3]))
)
scores = st.none() | st.floats(0, 1)
labelled = st.builds(LabelledBox, boxes, st.sampled_from([1, 5]), scores)
images = st.lists(
    st.tuples(st.text(min_size=1), st.lists(labelled, max_size=3)), max_size=4, unique_by=lambda image: image[0]
)


@given(images)
def test_a_data_set_survives_the_file_format(rows: list[tuple[str, list[LabelledBox]]]) -> None:
    dataset = CocoDataset(
        (Category(1, "cat"), Category(5, "größer Hund")),
        tuple(LabelledImage(3 * n, name, 640, 480, tuple(found)) for n, (name, found) in enumerate(rows)),
        "made up",
    )
    assert coco_to_dataset(json.loads(json.dumps(dataset_to_coco(dataset)))) == dataset


def test_pycocotools_reads_data_set_and_results(tmp_path: Path) -> None:
    image = LabelledImage(4, "a/b.jpg", 100, 80, (LabelledBox(Box(10, 20, 40, 60), 2, 0.75),))
    dataset = CocoDataset((Category(1, "cat"), Category(2, "dog")), (image,))
    (tmp_path / "set.json").write_text(json.dumps(dataset_to_coco(dataset)))
    (tmp_path / "results.json").write_text(json.dumps(results_to_coco([image])))
    found = COCO(str(tmp_path / "set.json")).loadRes(str(tmp_path / "results.json"))
    (annotation,) = found.loadAnns(found.getAnnIds())
    assert (annotation["bbox"], annotation["category_id"], annotation["score"]) == ([10, 20, 30, 40], 2, 0.75)


def test_labels_are_numbered_from_one_and_once_each() -> None:
    assert labels_to_categories(["dog", "cat", "dog"]) == (Category(1, "dog"), Category(2, "cat"))


def test_a_box_without_score_is_no_result() -> None:
    with pytest.raises(ValueError, match=r"a box of a\.png has no score"):
        results_to_coco([LabelledImage(1, "a.png", 8, 8, (LabelledBox(Box(0, 0, 1, 1), 1),))])


IMAGE = {"id": 1, "file_name": "a.png", "width": 8, "height": 6}
ANNOTATION = {"image_id": 1, "category_id": 2, "bbox": [0, 0, 4, 4]}


def document(**changes: Any) -> dict[str, Any]:
    parts: dict[str, Any] = {
        "images": [IMAGE],
        "annotations": [ANNOTATION],
        "categories": [{"id": 2, "name": "cat"}],
    }
    return parts | changes


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"images": None}, "'images' must be a list"),
        ({"images": [{"id": 1, "width": 8, "height": 6}]}, r"images\[0\] lacks 'file_name'"),
        ({"images": ["a.png"]}, r"images\[0\] is malformed"),
        ({"images": 2 * document()["images"]}, "image id 1 comes twice"),
        ({"categories": [{"id": 2, "name": "cat"}, {"id": 3, "name": "cat"}]}, "category name 'cat' comes twice"),
        ({"annotations": [{"image_id": 1, "category_id": 2}]}, r"annotations\[0\] lacks 'bbox'"),
        ({"annotations": [{"image_id": 1, "category_id": 2, "bbox": [0, 0, 4]}]}, r"annotations\[0\] is malformed"),
        ({"annotations": [{"image_id": 1, "category_id": 2, "bbox": [0, 0, -4, 4]}]}, r"annotations\[0\] is malformed"),
        ({"images": [{**IMAGE, "id": "1"}]}, r"images\[0\] is malformed: id must be a whole number, not '1'"),
        ({"images": [{**IMAGE, "width": "8"}]}, r"width must be a whole number, not '8'"),
        ({"categories": [{"id": "2", "name": "cat"}]}, r"categories\[0\] .* id must be a whole number, not '2'"),
        ({"categories": [{"id": 2.5, "name": "cat"}]}, r"id must be a whole number, not 2\.5"),
        ({"annotations": [{**ANNOTATION, "image_id": "1"}]}, r"image_id must be a whole number, not '1'"),
        ({"annotations": [{**ANNOTATION, "category_id": "2"}]}, r"category_id must be a whole number, not '2'"),
        ({"annotations": [{**ANNOTATION, "bbox": [0, 0, "4", 4]}]}, r"bbox must be of numbers, not '4'"),
        ({"annotations": [{**ANNOTATION, "bbox": [0, 0, 10**400, 4]}]}, r"annotations\[0\] is malformed"),
        ({"categories": [{"id": 2, "name": "\ud800"}]}, r"categories\[0\] is malformed"),
        ({"images": [{**IMAGE, "file_name": "\ud800"}]}, r"images\[0\] is malformed"),
        ({"annotations": [{"image_id": 7, "category_id": 2, "bbox": [0, 0, 4, 4]}]}, "of image 7"),
        ({"annotations": [{"image_id": 1, "category_id": 7, "bbox": [0, 0, 4, 4]}]}, "of category 7"),
    ],
)
def test_a_malformed_data_set_is_refused_naming_the_place(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        coco_to_dataset(document(**changes))


@pytest.mark.parametrize("state", ["never-reviewed", "skipped"])
def test_images_that_nobody_reviewed_are_counted_and_left_out(state: str) -> None:
    rows = [IMAGE, {**IMAGE, "id": 2, "state": state}, {**IMAGE, "id": 3, "state": "reviewed-empty"}]
    found = coco_to_dataset(document(images=rows, annotations=[ANNOTATION, {**ANNOTATION, "image_id": 2}]))
    assert [(image.id, len(image.boxes)) for image in found.images] == [(1, 1), (3, 0)]
    assert found.unreviewed == 1


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*none\.json"):
        read_coco(tmp_path / "none.json")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(UsageError, match=r"deep\.json is no JSON file"):
        read_coco(tmp_path / "deep.json")
