"""``glip-label evaluate`` from the words typed to the table printed."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from backend.bootstrap import open_database
from backend.cli import run
from backend.commands.evaluate import found_results, table
from backend.domain.facts import ProjectState
from backend.domain.geometry import Box
from backend.domain.records import Label, Picture, Proposal, Query
from backend.errors import ImageError
from backend.settings import Settings
from glip_model.evaluation import evaluate_detections
from integrations.coco import Category, CocoDataset, LabelledBox, LabelledImage, dataset_to_coco
from tests.facts import UID
from tests.fakes import FakeDetector
from tests.glip_model.tiny import noise, tiny_model, tiny_processor
from tests.make import CONFIG

CATS = Box(4, 4, 34, 34)
DATASET = CocoDataset(
    (Category(3, "cat"), Category(9, "dog")),
    (
        LabelledImage(7, "a.png", 80, 60, (LabelledBox(CATS, 3), LabelledBox(Box(40, 10, 70, 50), 9))),
        LabelledImage(8, "b.png", 80, 60, (LabelledBox(CATS, 3),)),
    ),
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GLIP_LABEL_HOME", str(tmp_path / "home"))
    for seed, name in enumerate(("a.png", "b.png")):
        Image.fromarray(noise(60, 80, seed)).save(tmp_path / name)
    write(DATASET, tmp_path)
    return tmp_path


def write(dataset: CocoDataset, folder: Path) -> None:
    (folder / "true.json").write_text(json.dumps(dataset_to_coco(dataset)))


def evaluate(folder: Path, *words: str) -> int:
    return run(["evaluate", "--images", str(folder), "--annotations", str(folder / "true.json"), *words])


def finds_cats(picture: Picture, query: Query) -> list[Proposal]:
    return [Proposal(CATS, "cat", 0.9, "cat")]


def test_results_carry_the_annotations_own_numbers(folder: Path) -> None:
    results = found_results(DATASET, folder, FakeDetector(finds_cats))
    assert [(row["image_id"], row["category_id"], row["bbox"]) for row in results] == [
        (7, 3, [4, 4, 30, 30]),
        (8, 3, [4, 4, 30, 30]),
    ]


def test_the_table_has_a_row_per_class_and_one_for_all(folder: Path) -> None:
    results = found_results(DATASET, folder, FakeDetector(finds_cats))
    lines = list(table(evaluate_detections(folder / "true.json", results)))
    assert [line.split() for line in lines[:4]] == [
        ["class", "boxes", "AP", "AP50"],
        ["cat", "2", "100.0", "100.0"],
        ["dog", "1", "0.0", "0.0"],
        ["all", "3", "50.0", "50.0"],
    ]
    assert lines[4].startswith("2 images, AP75 50.0")


def test_a_model_is_measured_and_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_model().save_pretrained(folder / "tiny")
    tiny_processor().save_pretrained(folder / "tiny")
    assert evaluate(folder, "--model", str(folder / "tiny"), "--json") == 0
    figures: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert figures["model"].startswith("tiny-")
    assert [each["name"] for each in figures["classes"]] == ["cat", "dog"]
    assert 0 <= figures["ap"] <= 1
    assert evaluate(folder, "--model", str(folder / "tiny")) == 0
    assert capsys.readouterr().out.startswith("class")


def test_what_is_in_production_for_a_project_is_measured(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_model().save_pretrained(folder / "tiny")
    tiny_processor().save_pretrained(folder / "tiny")
    monkeypatch.setenv("GLIP_LABEL_MODEL", str(folder / "tiny"))
    with open_database(Settings.from_env())() as unit:
        unit.projects.put(ProjectState(UID, 7, "cats"))
        unit.commit()
    assert evaluate(folder, "--project", "cats", "--json") == 0
    assert json.loads(capsys.readouterr().out)["model"].startswith("tiny-")
    assert evaluate(folder, "--project", "dogs") == 2
    assert "no project 'dogs' is known" in capsys.readouterr().err
    assert evaluate(folder, "--project", "cats", "--model", "glip-nano") == 2
    assert "--model and --project name two models" in capsys.readouterr().err


def test_categories_are_asked_with_the_words_of_the_labels_that_have_their_names(folder: Path) -> None:
    detector, cat = FakeDetector(finds_cats), Label("cat", ("kitten", "tabby"))
    found_results(DATASET, folder, detector, (cat, Label("bird", ("parrot",))))
    ((_, query),) = detector.asked
    assert query == (cat, Label("dog"))


@pytest.mark.parametrize("words", [["--project", "cats"], ["--model", "cats@production"]])
def test_a_projects_model_is_asked_what_the_project_asks(
    words: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_model().save_pretrained(folder / "tiny")
    tiny_processor().save_pretrained(folder / "tiny")
    monkeypatch.setenv("GLIP_LABEL_MODEL", str(folder / "tiny"))
    with open_database(Settings.from_env())() as unit:
        # Words that no model can be asked with: the complaint tells that they were.
        unit.projects.put(ProjectState(UID, 7, "cats", label_config=CONFIG.replace('"cat"', '"cat" prompt="!!!"')))
        unit.commit()
    assert evaluate(folder, *words) == 2
    assert "!!!" in capsys.readouterr().err


def test_images_that_nobody_reviewed_are_not_searched(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_model().save_pretrained(folder / "tiny")
    tiny_processor().save_pretrained(folder / "tiny")
    true = dataset_to_coco(DATASET)
    true["images"][1]["state"] = "never-reviewed"
    (folder / "true.json").write_text(json.dumps(true))
    (folder / "b.png").unlink()
    assert evaluate(folder, "--model", str(folder / "tiny"), "--json") == 0
    out, error = capsys.readouterr()
    assert f"glip-label: left out 1 images of {folder / 'true.json'} that nobody reviewed\n" in error
    figures: dict[str, Any] = json.loads(out)
    assert (figures["images"], [each["boxes"] for each in figures["classes"]]) == (1, [1, 1])


def test_a_missing_image_is_refused_before_any_work(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "b.png").unlink()
    assert evaluate(folder) == 2
    assert capsys.readouterr().err == (
        f"glip-label: 1 of 2 images are not in {folder}, the first is b.png: check --images\n"
    )


def test_a_name_that_no_file_can_have_is_of_a_missing_image(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = DATASET.images
    write(replace(DATASET, images=(first, replace(second, file_name=300 * "b"))), folder)
    assert evaluate(folder) == 2
    assert "1 of 2 images are not in" in capsys.readouterr().err


def test_a_number_that_is_text_is_refused_before_any_work(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    true = dataset_to_coco(DATASET)
    true["annotations"][1]["iscrowd"] = "0"
    (folder / "true.json").write_text(json.dumps(true))
    assert evaluate(folder) == 2
    assert capsys.readouterr().err == (
        f"glip-label: {folder / 'true.json'}: iscrowd of annotation 2 must be a number, not '0'\n"
    )


def test_a_damaged_image_ends_the_measurement(folder: Path) -> None:
    (folder / "b.png").write_bytes(b"\x89PNG damaged")
    with pytest.raises(ImageError, match=r"b\.png"):
        found_results(DATASET, folder, FakeDetector(finds_cats))


def test_annotations_of_another_size_are_refused(folder: Path) -> None:
    Image.fromarray(noise(80, 60)).save(folder / "b.png")
    with pytest.raises(ImageError, match=r"b\.png is 60 x 80 upright, its annotations are of 80 x 60"):
        found_results(DATASET, folder, FakeDetector(finds_cats))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is no JSON file"),
        ("[]", "not a COCO data set"),
        ('{"images": [], "annotations": []}', "'categories' must be a list"),
        ('{"images": [], "annotations": [], "categories": []}', "has no images"),
        (
            '{"images": [], "annotations": [], "categories": [{"id": "1", "name": "cat"}]}',
            "true.json: categories[0] is malformed: id must be a whole number, not '1'",
        ),
    ],
)
def test_a_file_that_is_no_data_set_is_one_line_and_exit_code_2(
    text: str, complaint: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "true.json").write_text(text)
    assert evaluate(folder) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1
