"""``glip-label simulate`` from the words typed to the figures printed."""

import json
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from backend.bootstrap import base_version, open_database
from backend.cli import run
from backend.commands.simulate import build_tools, measured, read_data
from backend.domain.facts import Fact, ProjectState
from backend.domain.geometry import Box
from backend.domain.learning import Mode
from backend.domain.records import Proposal
from backend.services.corrections import apply_fact
from backend.settings import Settings
from integrations.coco import Category, CocoDataset, LabelledBox, LabelledImage, dataset_to_coco
from tests.backend.test_learning_stores import make_version
from tests.facts import UID
from tests.glip_model.tiny import noise, tiny_model, tiny_processor

CATS = LabelledBox(Box(4, 4, 34, 34), 3)
DOG = LabelledBox(Box(40, 10, 70, 50), 9)
CATEGORIES = (Category(3, "cat"), Category(9, "dog"))
NAMES = ("a.png", "b.png", "c.png", "d.png")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three images to annotate and one to measure on."""
    monkeypatch.setenv("GLIP_LABEL_HOME", str(tmp_path / "home"))
    for seed, name in enumerate(NAMES):
        Image.fromarray(noise(60, 80, seed)).save(tmp_path / name)
    write(tmp_path / "train.json", NAMES[:3])
    write(tmp_path / "test.json", NAMES[3:])
    return tmp_path


def write(path: Path, names: tuple[str, ...], categories: tuple[Category, ...] = CATEGORIES) -> None:
    images = tuple(LabelledImage(number, name, 80, 60, (CATS, DOG)) for number, name in enumerate(names))
    path.write_text(json.dumps(dataset_to_coco(CocoDataset(categories, images))))


def simulate(folder: Path, *words: str) -> int:
    files = ["--train", str(folder / "train.json"), "--test", str(folder / "test.json")]
    return run(["simulate", "--images", str(folder), *files, *words])


def test_a_project_is_simulated_reported_and_drawn(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_model().save_pretrained(folder / "tiny")
    tiny_processor().save_pretrained(folder / "tiny")
    words = ["--model", str(folder / "tiny"), "--strategy", "zero-shot", "--seeds", "1", "--batch", "2"]
    assert simulate(folder, *words, "--json", "--plot", str(folder / "saved.png")) == 0
    out, err = capsys.readouterr()
    figures: dict[str, Any] = json.loads(out)
    assert (figures["images"], figures["boxes"], figures["seeds"]) == (3, 6, 1)
    assert [each["reviewed"] for each in figures["stages"]] == [2, 3]
    assert {each["draw_seconds"] for each in figures["savings"]} == {7.0, 25.5}
    assert "zero-shot seed 0 round 2" in err
    with Image.open(folder / "saved.png") as picture:
        assert picture.width > 300


def test_what_is_annotated_and_measured_on_is_found_by_content(folder: Path) -> None:
    data = read_data(folder, folder / "train.json", folder / "test.json")
    assert [image.name for image in data.project.pool] == list(NAMES[:3])
    assert [box.label for box in data.project.pool[0].objects] == ["cat", "dog"]
    assert [data.files[image.sha256] for image in data.project.test] == [folder / "d.png"]
    assert [label.name for label in data.project.labels] == ["cat", "dog"]


def test_images_that_nobody_reviewed_are_neither_annotated_nor_measured_on(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [folder / "train.json", folder / "test.json"]
    for file in files:
        true = json.loads(file.read_text())
        true["images"].append({**true["images"][0], "id": 99, "file_name": "gone.png", "state": "never-reviewed"})
        file.write_text(json.dumps(true))
    data = read_data(folder, *files)
    assert [len(images) for images in (data.project.pool, data.project.test, data.test.images)] == [3, 1, 1]
    assert capsys.readouterr().err == "".join(
        f"glip-label: left out 1 images of {file} that nobody reviewed\n" for file in files
    )


def test_precision_is_that_of_the_test_file(folder: Path) -> None:
    data = read_data(folder, folder / "train.json", folder / "test.json")
    assert measured(data.test, [[Proposal(CATS.box, "cat", 0.9, "cat")]])[1] == pytest.approx(0.5)


def test_an_image_to_measure_on_must_not_be_learned_from(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder / "test.json", NAMES[2:])
    assert simulate(folder) == 2
    assert "1 images are in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "categories", "complaint"),
    [
        (NAMES[3:], (*CATEGORIES, Category(10, "owl")), "differ in their categories: list owl in both files"),
        ((), CATEGORIES, "has no images"),
    ],
)
def test_files_that_cannot_be_simulated_are_refused(
    folder: Path,
    names: tuple[str, ...],
    categories: tuple[Category, ...],
    complaint: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(folder / "test.json", names, categories)
    assert simulate(folder) == 2
    assert complaint in capsys.readouterr().err


def test_an_image_of_another_size_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(noise(30, 40, 7)).save(folder / "b.png")
    assert simulate(folder) == 1
    assert "b.png is 40 x 30 upright, its annotations are of 80 x 60" in capsys.readouterr().err


def test_curves_that_cannot_be_drawn_are_refused_before_any_work(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert simulate(folder, "--plot", str(folder / "curves.doc")) == 2
    assert "must end in .png, .svg, .pdf" in capsys.readouterr().err
    assert simulate(folder, "--plot", str(folder / "nowhere" / "curves.png")) == 2
    assert "there is no folder" in capsys.readouterr().err
    (folder / "curves.svg").mkdir()
    assert simulate(folder, "--plot", str(folder / "curves.svg")) == 2
    assert "is a folder, not a picture" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert simulate(folder, "--plot", str(folder / "curves.png")) == 2
    assert 'pip install "glip-label[plot]"' in capsys.readouterr().err


def test_curves_are_not_drawn_over_an_image_also_where_a_link_leads_to_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "saved.png").symlink_to("a.png")
    before = (folder / "a.png").read_bytes()
    tiny_model().save_pretrained(folder / "tiny")
    tiny_processor().save_pretrained(folder / "tiny")
    words = ["--model", str(folder / "tiny"), "--strategy", "zero-shot", "--seeds", "1"]
    assert simulate(folder, *words, "--plot", str(folder / "saved.png")) == 2
    assert capsys.readouterr().err.endswith("saved.png is read, and would be overwritten: write to another place\n")
    assert (folder / "a.png").read_bytes() == before


def test_a_disk_without_room_for_a_passing_folder_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(folder / "gone"))
    assert simulate(folder) == 1
    error = capsys.readouterr().err
    assert error == "glip-label: what is trained has no folder (No such file or directory): name one with --work\n"


def test_figures_outlive_a_picture_that_cannot_be_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_model().save_pretrained(folder / "tiny")
    tiny_processor().save_pretrained(folder / "tiny")
    (folder / "full.png").symlink_to("/dev/full")
    words = ["--model", str(folder / "tiny"), "--strategy", "zero-shot", "--seeds", "1", "--json"]
    assert simulate(folder, *words, "--plot", str(folder / "full.png")) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["images"] == 3
    assert err.endswith("full.png: cannot be written (No space left on device)\n")


def test_a_project_may_begin_with_a_version_of_another_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("tiny", "whole"):
        tiny_model().save_pretrained(folder / name)
        tiny_processor().save_pretrained(folder / name)
    monkeypatch.setenv("GLIP_LABEL_MODEL", str(folder / "tiny"))
    home = Settings.from_env().home
    adapter = make_version(1, base_version(Settings.from_env()))
    files = tuple((file.name, sha256(file.read_bytes()).hexdigest()) for file in (folder / "whole").iterdir())
    whole = replace(adapter, name="tiny-0002", mode=Mode.FULL, files=files)
    (home / "versions" / UID).mkdir(parents=True)
    (folder / "whole").rename(home / "versions" / UID / whole.name)
    with open_database(Settings.from_env())() as unit:
        apply_fact(unit, Fact(ProjectState(UID, 7, "cats")))
        unit.versions.add(adapter)
        unit.versions.add(whole)
        unit.commit()
    data = read_data(folder, folder / "train.json", folder / "test.json")
    assert build_tools("cats@tiny-0002", data, folder).models.base.startswith("tiny-0002-")
    assert build_tools("cats@production", data, folder).models.base == adapter.base
    assert simulate(folder, "--model", f"cats@{adapter.name}") == 2
    assert "is an adapter of tiny-" in capsys.readouterr().err


def test_a_folder_for_trainings_that_cannot_be_made_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate(folder, "--work", str(folder / "a.png" / "work")) == 1
    assert "work: cannot be made (Not a directory)" in capsys.readouterr().err
