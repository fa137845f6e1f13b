"""COCO files of others: what is taken in, and what is said of the rest."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backend.domain.dataset import DatasetLabel, ImageFacts, ImageState, Provenance
from backend.domain.geometry import RotatedBox
from backend.domain.policies import AnnotatorPolicy, Splits
from backend.errors import ImageError, UsageError
from backend.services.export import ExportRequest
from integrations.coco_import import ImportedDataset, read_dataset
from tests.datasets import EVERYTHING, FakeProject, export_to, import_from, make_annotation, make_image, make_region

IMAGE = {"id": 1, "file_name": "a.png", "width": 640, "height": 480}
BOX = {"id": 1, "image_id": 1, "category_id": 2, "bbox": [0, 0, 4, 4]}


def found_in(folder: Path, **changes: Any) -> ImportedDataset:
    parts: dict[str, Any] = {"images": [IMAGE], "annotations": [BOX], "categories": [{"id": 2, "name": "cat"}]}
    (folder / "set.json").write_text(json.dumps(parts | changes))
    return read_dataset([folder / "set.json"])


def test_a_plain_data_set_is_taken_in_as_reviewed(tmp_path: Path) -> None:
    found = found_in(tmp_path, images=[IMAGE, IMAGE | {"id": 5, "file_name": "b.png"}])
    assert found.labels == (DatasetLabel(2, "cat"),)
    first, second = found.images
    assert (first.state, second.state) == (ImageState.REVIEWED, ImageState.REVIEWED_EMPTY)
    assert (first.boxes[0].box, first.boxes[0].label_ids) == (RotatedBox(0, 0, 4, 4), (2,))
    assert found.problems == []


def test_ids_from_0_are_moved_to_1(tmp_path: Path) -> None:
    found = found_in(
        tmp_path,
        images=[IMAGE | {"id": 0}, IMAGE | {"id": 3, "file_name": "b.png"}],
        categories=[{"id": 0, "name": "cat"}, {"id": 7, "name": "dog"}],
        annotations=[BOX | {"image_id": 0, "category_id": 7}],
    )
    assert [label.id for label in found.labels] == [1, 8]
    assert [(image.id, len(image.boxes)) for image in found.images] == [(1, 1), (4, 0)]
    assert found.images[0].boxes[0].label_ids == (8,)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"categories": [{"id": 2}]}, "categories[0]: malformed (it has no name)"),
        (
            {"categories": [{"id": 2, "name": "cat"}, {"id": 2, "name": "dog"}]},
            "categories[1]: duplicate-category-id (2 is another one's)",
        ),
        (
            {"categories": [{"id": 2, "name": "cat"}, {"id": 3, "name": "cat"}]},
            "categories[1]: duplicate-category-name ('cat' is also category 2)",
        ),
        ({"images": [IMAGE, IMAGE]}, "images[1]: duplicate-image-id (1 is another one's)"),
        (
            {"images": [IMAGE, IMAGE | {"id": 2, "file_name": "d/.././a.png"}]},
            "images[1]: duplicate-file-name ('d/.././a.png' is also image 1)",
        ),
        ({"images": [IMAGE, "b.png"]}, "images[1]: malformed (no object)"),
        ({"images": [IMAGE | {"width": None}]}, "images[0]: malformed (width must be a whole number)"),
        ({"images": [IMAGE | {"width": 0}]}, "images[0]: malformed (0 x 480 pixels)"),
        ({"images": [IMAGE | {"file_name": ""}]}, "images[0]: malformed (it has no file_name)"),
        ({"categories": [{"id": 2, "name": "\ud800"}]}, "categories[0]: malformed (it holds text that is no Unicode)"),
        ({"images": [IMAGE | {"file_name": "\udc80"}]}, "images[0]: malformed (it holds text that is no Unicode)"),
        ({"images": [IMAGE | {"original": "\ud800"}]}, "images[0]: malformed (it holds text that is no Unicode)"),
        ({"annotations": [BOX, BOX]}, "annotations[1]: duplicate-annotation-id (1 is another one's)"),
        ({"annotations": [BOX | {"image_id": 9}]}, "annotations[0]: unknown-image (image 9 is not in images)"),
        (
            {"annotations": [BOX | {"category_id": 9}]},
            "annotations[0]: unknown-category (category 9 is not in categories)",
        ),
        ({"annotations": [BOX | {"bbox": [1, 2, 3]}]}, "annotations[0]: malformed (bbox must be a list of 4 numbers)"),
        (
            {"annotations": [BOX | {"bbox": [1, 2, 3, float("nan")]}]},
            "annotations[0]: malformed (bbox must be of finite numbers)",
        ),
        ({"annotations": [BOX | {"bbox": [0, 0, 0, 4]}]}, "annotations[0]: no-area"),
        ({"annotations": [BOX | {"bbox": [640, 0, 9, 4]}]}, "annotations[0]: outside-the-image"),
        ({"annotations": [BOX | {"iscrowd": 1}]}, "annotations[0]: crowd (a crowd is no object of its own)"),
        (
            {"annotations": [BOX | {"segmentation": {"counts": "x", "size": [4, 4]}}]},
            "annotations[0]: run-length-mask (masks are not taken in)",
        ),
    ],
)
def test_what_cannot_be_taken_in_is_named_with_its_place(changes: dict[str, Any], problem: str, tmp_path: Path) -> None:
    found = found_in(tmp_path, **changes)
    assert [str(each) for each in found.problems][:1] == [f"set.json: {problem}"]


@pytest.mark.parametrize("score", [10**400, float("nan"), "0.5"])
def test_a_score_that_is_none_is_not_known(score: object, tmp_path: Path) -> None:
    found = found_in(tmp_path, annotations=[BOX | {"model_score": score}])
    assert found.images[0].boxes[0].provenance.score is None


def test_an_image_that_lost_its_boxes_is_not_called_empty(tmp_path: Path) -> None:
    found = found_in(tmp_path, annotations=[BOX | {"iscrowd": 1}])
    assert [image.state for image in found.images] == [ImageState.NEVER_REVIEWED]


def test_boxes_of_images_that_are_left_out_are_counted_and_no_problem_of_their_own(tmp_path: Path) -> None:
    found = found_in(tmp_path, images=[IMAGE | {"height": -1}])
    assert (len(found.problems), found.images) == (1, ())
    assert found.notes == {"boxes of images that were left out": 1}


def test_boxes_of_an_id_that_another_file_has_given_are_not_those_of_its_picture(tmp_path: Path) -> None:
    found_in(tmp_path)
    (tmp_path / "set.json").rename(tmp_path / "train.json")
    found_in(tmp_path, images=[IMAGE | {"file_name": "b.png"}, IMAGE | {"id": 2, "file_name": "c.png"}])
    found = read_dataset([tmp_path / "train.json", tmp_path / "set.json"])
    assert [str(problem) for problem in found.problems] == [
        "set.json: images[0]: duplicate-image-id (1 is another one's)"
    ]
    assert [(image.file_name, len(image.boxes)) for image in found.images] == [("a.png", 1), ("c.png", 0)]
    assert found.notes == {"boxes of images that were left out": 1}


def test_boxes_are_of_the_images_of_their_own_file(tmp_path: Path) -> None:
    found_in(tmp_path)
    (tmp_path / "set.json").rename(tmp_path / "train.json")
    found_in(tmp_path, images=[IMAGE | {"id": 2, "file_name": "b.png"}])
    found = read_dataset([tmp_path / "train.json", tmp_path / "set.json"])
    assert [str(problem) for problem in found.problems] == [
        "set.json: annotations[0]: unknown-image (image 1 is not in images)"
    ]
    assert [len(image.boxes) for image in found.images] == [1, 0]


def test_boxes_of_an_id_that_two_pictures_of_a_file_have_are_of_neither(tmp_path: Path) -> None:
    found = found_in(tmp_path, images=[IMAGE, IMAGE | {"file_name": "b.png"}, IMAGE])
    assert [problem.where for problem in found.problems] == ["set.json: images[1]", "set.json: images[2]"]
    ((name, state, boxes),) = [(image.file_name, image.state, image.boxes) for image in found.images]
    assert (name, state, boxes) == ("a.png", ImageState.NEVER_REVIEWED, ())
    assert found.notes == {"boxes of ids that several images of a file have": 1}


def test_boxes_of_a_picture_that_comes_twice_under_its_id_are_its_own(tmp_path: Path) -> None:
    found = found_in(tmp_path, images=[IMAGE, IMAGE])
    assert [len(image.boxes) for image in found.images] == [1]


def test_a_picture_that_comes_once_for_each_annotation_has_the_boxes_of_the_first(tmp_path: Path) -> None:
    rows = [IMAGE, IMAGE | {"id": 2}]  # as in Label Studio's own export
    other = BOX | {"id": 2, "image_id": 2, "bbox": [9, 9, 4, 4]}
    found = found_in(tmp_path, images=rows, annotations=[BOX, other])
    assert [(image.id, [box.box.x for box in image.boxes]) for image in found.images] == [(1, [0])]
    assert found.notes == {"boxes of images that were left out": 1}
    found = found_in(tmp_path, images=rows, annotations=[other])
    assert [(image.state, image.boxes) for image in found.images] == [(ImageState.NEVER_REVIEWED, ())]


def test_a_picture_whose_boxes_are_in_a_file_where_it_is_left_out_is_not_called_empty(tmp_path: Path) -> None:
    found_in(tmp_path, annotations=[])
    (tmp_path / "set.json").rename(tmp_path / "cats.json")
    found_in(tmp_path)
    found = read_dataset([tmp_path / "cats.json", tmp_path / "set.json"])
    assert [(image.state, image.boxes) for image in found.images] == [(ImageState.NEVER_REVIEWED, ())]
    assert found.notes == {"boxes of images that were left out": 1}


def test_what_is_taken_in_only_in_part_is_noted(tmp_path: Path) -> None:
    triangle = BOX | {"id": 2, "segmentation": [[0, 0, 4, 0, 0, 4]]}
    turned = BOX | {"id": 3, "rotation": 30, "unrotated_bbox": [0, 0, 99, 99]}
    found = found_in(tmp_path, annotations=[BOX | {"bbox": [-2, 0, 4, 4]}, triangle, turned])
    assert found.notes == {
        "clipped boxes": 1,
        "outlines that are taken in as boxes": 1,
        "rotations that contradict their bbox": 1,
    }
    assert len(found.images[0].boxes) == 3


def test_files_are_looked_at_where_they_are_to_be(tmp_path: Path) -> None:
    def measure(name: str) -> ImageFacts:
        if name == "gone.png":
            raise ImageError("gone.png: cannot be read (No such file or directory)")
        return ImageFacts(480, 640, "ab") if name == "turned.png" else ImageFacts(640, 480, "ab")

    rows = [
        IMAGE,
        IMAGE | {"id": 2, "file_name": "gone.png"},
        IMAGE | {"id": 3, "file_name": "turned.png"},
        IMAGE | {"id": 4, "file_name": "b.png", "sha256": "cd"},
    ]
    found_in(tmp_path, images=rows)
    found = read_dataset([tmp_path / "set.json"], measure)
    assert [(image.id, image.sha256) for image in found.images] == [(1, "ab")]
    assert [str(problem) for problem in found.problems] == [
        "set.json: images[1]: file-cannot-be-had (gone.png: cannot be read (No such file or directory))",
        "set.json: images[2]: file-has-other-size "
        "(turned.png is 480 x 640, turned by its EXIF orientation, not 640 x 480)",
        "set.json: images[3]: file-has-other-content (b.png has another SHA-256)",
    ]


@pytest.mark.parametrize("text", ["", "[]", '{"images": []}', "\xff", "[" * 100_000])
def test_what_is_no_coco_file_is_refused_by_name(text: str, tmp_path: Path) -> None:
    (tmp_path / "set.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=r"set\.json is no"):
        read_dataset([tmp_path / "set.json"])
    with pytest.raises(UsageError, match=r"cannot read .*none\.json"):
        read_dataset([tmp_path / "none.json"])


REQUESTS = {
    "plain": EVERYTHING,
    "consensus": ExportRequest(policy=AnnotatorPolicy.CONSENSUS),
    "unreviewed": ExportRequest(include_unreviewed=True),
}


def busy_project() -> FakeProject:
    provenance = Provenance(9, 11, 5, "moved", "glip-t-1", "größer Hund", 0.75)
    regions = (
        make_region(40, 40, 20, 10, 30, ["dog", "cat"]),
        make_region(-10, -5, 30, 30),
        make_region(-3, 7, 30.123456, 30, 77.7, ["traffic light"]),
        make_region(120, 120),
    )
    images = [
        make_image(1, make_annotation(regions[0], cancelled=True), reference="/data/upload/1/00000000-a.png"),
        make_image(3, make_annotation(*regions, provenance=provenance), reference="/data/upload/1/00000001-a.png"),
        make_image(4, make_annotation(number=4), reference="s3://bucket/a.png"),
        make_image(8, reference="https://me:secret@host/ü.jpg?signature=secret"),
        make_image(9, make_annotation(*regions), make_annotation(*regions[:2], number=2, annotator=2)),
    ]
    return FakeProject([*images[:4], replace(images[4], sha256=None)])


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_export_import_export_gives_the_same_bytes(request_: ExportRequest, tmp_path: Path) -> None:
    export_to(tmp_path / "one", busy_project(), request_)
    other = FakeProject()
    found = import_from(tmp_path / "one", other)
    assert found.problems == []
    export_to(tmp_path / "two", other, replace(request_, policy=AnnotatorPolicy.NEWEST))
    assert (tmp_path / "one/annotations.json").read_bytes() == (tmp_path / "two/annotations.json").read_bytes()
    assert b"secret" not in (tmp_path / "one/annotations.json").read_bytes()


def test_parts_come_back_as_one_data_set_and_divide_as_before(tmp_path: Path) -> None:
    project = FakeProject([make_image(number, make_annotation(make_region())) for number in range(1, 40)])
    request = ExportRequest(splits=Splits(("train", "val"), (60, 40)))
    export_to(tmp_path / "one", project, request)
    other = FakeProject()
    names = ("annotations_train.json", "annotations_val.json")
    assert import_from(tmp_path / "one", other, names).problems == []
    export_to(tmp_path / "two", other, request)
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
