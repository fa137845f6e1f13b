"""Folders of COCO files: what stands in them, and that they are whole."""

import json
import tracemalloc
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from backend.domain.dataset import AnnotatedImage, DatasetImage, ImageState, Provenance, ScoredBox
from backend.domain.geometry import Box
from backend.domain.policies import Splits
from backend.domain.records import Prediction, Proposal, Region
from backend.errors import GlipLabelError, UsageError
from backend.services.export import ExportRequest
from integrations import coco_export
from integrations.coco_export import CocoFolder
from tests.datasets import EVERYTHING, LABELS, FakeProject, export_to, make_annotation, make_image, make_region
from tests.full_disk import largest_file

EMPTY = DatasetImage(1, "d/a.png", "a.png", 8, 6, None, None, ImageState.REVIEWED_EMPTY)


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="ascii"))


def document(folder: Path, *images: AnnotatedImage, request: ExportRequest = EVERYTHING) -> Any:
    export_to(folder, FakeProject(list(images)), request)
    return read(folder / "annotations.json")


def test_an_image_whose_reference_names_nothing_has_no_original(tmp_path: Path) -> None:
    (image,) = document(tmp_path, make_image(1, make_annotation(), reference="\r"))["images"]
    assert image["file_name"] == "image"
    assert "original" not in image


def test_everything_that_is_known_of_an_image_and_a_box_is_written(tmp_path: Path) -> None:
    provenance = Provenance(1, 11, 5, "moved", "glip-t-1", "kitten", 0.75)
    image = make_image(
        1, make_annotation(make_region(), provenance=provenance), reference="/data/upload/7/0134dd4e-e0.png"
    )
    found = document(tmp_path, image)
    assert found["images"] == [
        {
            "id": 1,
            "file_name": "e0.png",
            "width": 640,
            "height": 480,
            "state": "reviewed",
            "original": "/data/upload/7/0134dd4e-e0.png",
            "task_id": 1,
            "sha256": f"{1:064x}",
        }
    ]
    assert found["annotations"] == [
        {
            "id": 1,
            "image_id": 1,
            "category_id": 1,
            "bbox": [64, 48, 128, 48],
            "area": 6144,
            "segmentation": [[64, 48, 192, 48, 192, 96, 64, 96]],
            "iscrowd": 0,
            "task_id": 1,
            "annotation_id": 11,
            "annotator_id": 5,
            "verdict": "moved",
            "model_version": "glip-t-1",
            "prompt": "kitten",
            "model_score": 0.75,
        }
    ]
    assert found["categories"][2] == {"id": 3, "name": "traffic light", "supercategory": ""}
    assert found["info"].keys() == {"description"}
    assert "licenses" not in found


@pytest.mark.parametrize(
    ("region", "bbox"),
    [
        (make_region(40, 40, 20, 10, 30), [232, 192, 134.85, 105.57]),
        (make_region(80, 10, 10, 20, 90), [416, 48, 96, 64]),
    ],
)
def test_a_rotated_box_has_bounds_polygon_and_its_rotation(region: Any, bbox: list[float], tmp_path: Path) -> None:
    (found,) = document(tmp_path, make_image(1, make_annotation(region)))["annotations"]
    assert found["bbox"] == bbox
    assert found["rotation"] == region.value.rotation
    value = region.value
    assert found["unrotated_bbox"] == [6.4 * value.x, 4.8 * value.y, 6.4 * value.width, 4.8 * value.height]
    assert len(found["segmentation"][0]) == 8
    assert found["area"] == pytest.approx(value.width * 6.4 * value.height * 4.8, abs=2)


def test_boxes_over_the_edge_are_clipped(tmp_path: Path) -> None:
    regions = [make_region(90, 90, 30, 30), make_region(-10, -5, 30, 30), make_region(95, 0, 10, 10, 45)]
    boxes = [each["bbox"] for each in document(tmp_path, make_image(1, make_annotation(*regions)))["annotations"]]
    assert boxes[:2] == [[576, 432, 64, 48], [0, 0, 128, 120]]
    assert boxes[2][0] + boxes[2][2] == 640
    assert boxes[2][1] == 0


def test_a_box_with_two_labels_is_two_annotations_of_one_group(tmp_path: Path) -> None:
    regions = [make_region(labels=["dog", "cat"]), make_region(50)]
    found = document(tmp_path, make_image(3, make_annotation(*regions)))["annotations"]
    assert [(each["id"], each["category_id"], each.get("group_id")) for each in found] == [
        (200_001, 2, 200_001),
        (200_002, 1, 200_001),
        (200_003, 1, None),
    ]


def test_ids_stay_when_other_images_come_or_go(tmp_path: Path) -> None:
    images = [make_image(number, make_annotation(make_region(), make_region(50))) for number in (1, 2, 7)]
    every = document(tmp_path / "every", *images)
    some = document(tmp_path / "some", images[2])
    assert [each for each in every["annotations"] if each["image_id"] == 7] == some["annotations"]
    assert every["images"][2] == some["images"][0]


def test_pycocotools_matches_boxes_whose_ids_need_more_than_32_bits(tmp_path: Path) -> None:
    export_to(tmp_path, FakeProject([make_image(2**33, make_annotation(make_region(), make_region(50)))]))
    truth = COCO(str(tmp_path / "annotations.json"))
    found = [{**each, "score": 0.9} for each in truth.loadAnns(truth.getAnnIds())]
    judged = COCOeval(truth, truth.loadRes(found), "bbox")
    judged.evaluate()
    matched = next(image["dtMatches"][0] for image in judged.evalImgs if image)
    assert sorted(matched) == truth.getAnnIds() == [(2**33 - 1) * 100_000 + place for place in (1, 2)]


def test_the_manifest_has_the_hash_of_every_file(tmp_path: Path) -> None:
    images = [make_image(number, make_annotation(make_region())) for number in range(1, 30)]
    request = ExportRequest(splits=Splits(("train", "val", "test"), (70, 15, 15)), predictions="v1")
    export_to(tmp_path, FakeProject([*images, make_image(30, make_annotation())]), request)
    manifest = read(tmp_path / "manifest.json")
    listed = {row["name"]: (row["sha256"], row["bytes"]) for row in manifest["files"]}
    there = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != "manifest.json"}
    assert listed == {name: (sha256(data).hexdigest(), len(data)) for name, data in there.items()}
    assert sorted(there) == sorted(
        f"{kind}_{part}.json" for kind in ("annotations", "predictions") for part in ("train", "val", "test")
    )
    assert manifest["complete"]
    assert (manifest["images"], manifest["annotations"]) == (30, 29)
    assert manifest["states"] == {"reviewed": 29, "reviewed-empty": 1, "never-reviewed": 0}


def test_an_empty_project_gives_an_empty_data_set(tmp_path: Path) -> None:
    export_to(tmp_path, FakeProject([], ()))
    found = read(tmp_path / "annotations.json")
    assert (found["images"], found["annotations"], found["categories"]) == ([], [], [])


def test_pycocotools_reads_predictions_beside_annotations(tmp_path: Path) -> None:
    regions = (Region("a", Proposal(Box(1, 2, 30, 40), "dog", 0.5, "dog")),)
    image = replace(
        make_image(1, make_annotation(make_region())), predictions=(Prediction(1, "v1", 640, 480, regions, "p"),)
    )
    export_to(tmp_path, FakeProject([image]), ExportRequest(predictions="v1"))
    results = COCO(str(tmp_path / "annotations.json")).loadRes(str(tmp_path / "predictions.json"))
    (result,) = results.loadAnns(results.getAnnIds())
    assert (result["bbox"], result["category_id"], result["score"]) == ([1, 2, 29, 38], 2, 0.5)


def test_putting_the_files_in_place_takes_no_memory_that_grows_with_them(tmp_path: Path) -> None:
    boxes = tuple(ScoredBox(Box(1, 1, 100, 100 + number), 1, 0.5) for number in range(100))
    with CocoFolder(tmp_path, LABELS, with_predictions=True) as folder:
        for number in range(1, 1001):
            folder.add(replace(EMPTY, id=number, file_name=f"{number}.png", proposals=boxes))
        tracemalloc.start()
        try:
            folder.finish({})
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert (tmp_path / "predictions.json").stat().st_size > 6 * 2**20
    assert peak < 4 * 2**20  # a few chunks


def test_an_earlier_export_is_replaced_with_its_parts_and_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    project = FakeProject([make_image(1, make_annotation())])
    export_to(tmp_path, project, ExportRequest(splits=Splits(("train",), (1,))))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with CocoFolder(tmp_path, LABELS) as folder:
        folder.add(EMPTY)
        with pytest.raises(ValueError, match="image 1 comes after image 1"):
            folder.add(EMPTY)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    export_to(tmp_path, project)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["annotations.json", "manifest.json"]


def test_an_export_removes_no_file_of_another_name_than_its_own(tmp_path: Path) -> None:
    request = ExportRequest(splits=Splits(("train", "val", "test"), (1, 1, 1)), predictions="v1")
    export_to(tmp_path, FakeProject(), request)
    names = ["annotations_corrected_by_hand.json", "predictions_of_mine.json"]
    for name in names:
        (tmp_path / name).write_text("mine")
    export_to(tmp_path, FakeProject())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["annotations.json", names[0], "manifest.json", names[1]]
    assert [(tmp_path / name).read_text() for name in names] == ["mine", "mine"]


def test_an_interrupted_export_is_told_by_its_manifest_and_can_be_repeated(tmp_path: Path) -> None:
    with CocoFolder(tmp_path, LABELS) as folder:
        folder.add(EMPTY, b"bytes")
    assert read(tmp_path / "manifest.json") == {"complete": False}
    (tmp_path / ".unfinished").mkdir()
    with CocoFolder(tmp_path, LABELS) as folder:
        folder.add(EMPTY, b"bytes")
        folder.finish({"left_out": {}})
    manifest = read(tmp_path / "manifest.json")
    assert [row["name"] for row in manifest["files"]] == ["annotations.json", "images/d/a.png"]
    assert (tmp_path / "images/d/a.png").read_bytes() == b"bytes"


def test_the_images_of_an_earlier_export_stay_until_the_new_one_is_whole(tmp_path: Path) -> None:
    def hashes_fit() -> bool:
        rows = read(tmp_path / "manifest.json")["files"]
        return all(sha256((tmp_path / row["name"]).read_bytes()).hexdigest() == row["sha256"] for row in rows)

    with CocoFolder(tmp_path, LABELS) as folder:
        folder.add(EMPTY, b"first")
        folder.finish({})
    with CocoFolder(tmp_path, LABELS) as folder:
        folder.add(EMPTY, b"second")
        assert hashes_fit()  # also if it is killed now, and nothing is tidied up
    assert hashes_fit()
    (tmp_path / ".unfinished/images").mkdir(parents=True)
    (tmp_path / ".unfinished/images/left.png").write_bytes(b"of a killed export")
    with CocoFolder(tmp_path, LABELS) as folder:
        folder.add(EMPTY, b"second")
        folder.add(replace(EMPTY, id=2, file_name="b.png"), b"third")
        folder.finish({})
    assert hashes_fit()
    there = {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in tmp_path.rglob("*.png")}
    assert there == {"images/d/a.png": b"second", "images/b.png": b"third"}
    assert not (tmp_path / ".unfinished").exists()


def test_a_killed_last_step_is_told_by_the_manifest_and_can_be_repeated(tmp_path: Path) -> None:
    (tmp_path / "images/d/a.png").mkdir(parents=True)  # in the way: the last step ends in the middle
    (tmp_path / "manifest.json").write_text(json.dumps({"complete": True}, indent=1))
    with CocoFolder(tmp_path, LABELS) as folder:
        folder.add(EMPTY, b"bytes")
        with pytest.raises(GlipLabelError, match=r"cannot write .*/images/d/a\.png: Is a directory"):
            folder.finish({})
    assert read(tmp_path / "manifest.json") == {"complete": False}
    (tmp_path / "images/d/a.png").rmdir()
    with CocoFolder(tmp_path, LABELS) as folder:
        folder.add(EMPTY, b"bytes")
        folder.finish({})
    assert read(tmp_path / "manifest.json")["complete"]


def test_a_name_may_be_as_long_as_file_systems_allow(tmp_path: Path) -> None:
    name = "n" * 251 + ".png"
    with CocoFolder(tmp_path, LABELS) as folder:
        folder.add(replace(EMPTY, file_name=name), b"bytes")
        folder.finish({})
    assert (tmp_path / "images" / name).read_bytes() == b"bytes"


@pytest.mark.parametrize("name", ["thesis.txt", "manifest.json"])
def test_a_folder_with_other_files_is_left_alone(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    with pytest.raises(UsageError, match="holds files that are no export"):
        export_to(tmp_path, FakeProject())


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(GlipLabelError, match=r"cannot write .*file"):
        export_to(tmp_path / "file" / "out", FakeProject())


@pytest.mark.parametrize("images", [30, 300])  # whose rows lie in memory until the end, or not
def test_a_full_disk_is_one_error_and_the_earlier_export_stays(images: int, tmp_path: Path) -> None:
    export_to(tmp_path, FakeProject([make_image(1, make_annotation())]))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    larger = FakeProject([make_image(number, make_annotation()) for number in range(1, images + 1)])
    with largest_file(4096), pytest.raises(GlipLabelError, match=f"^cannot write {tmp_path}: File too large$"):
        export_to(tmp_path, larger)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_more_boxes_than_an_image_has_ids_for_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco_export, "IDS_PER_IMAGE", 2)
    image = make_image(1, make_annotation(make_region(), make_region(), make_region()))
    with pytest.raises(GlipLabelError, match=r"d/1\.png has more than 2 boxes"):
        export_to(tmp_path, FakeProject([image]))
