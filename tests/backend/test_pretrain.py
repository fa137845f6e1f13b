"""``glip-label pretrain``: what it refuses before any training."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from backend.commands.pretrain import command
from backend.errors import ModelError, UsageError
from glip_model.pretraining.measure import MeasuredSet
from tests.glip_model.tiny import tiny_model, tiny_processor


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    if result.exception is not None:
        raise result.exception
    return result


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a model; of generated scenes there are none to measure it on."""
    monkeypatch.setattr("glip_model.pretraining.measure.scene_set", lambda kind: MeasuredSet(("cat",), ()))
    tiny_model().save_pretrained(tmp_path / "tiny")
    tiny_processor().save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def test_real_sets_without_their_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--data is missing"):
        run(tmp_path)


def test_two_lengths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--minutes and --steps"):
        run(tmp_path, "--stage", "scenes", "--minutes", 1, "--steps", 1)


def test_a_set_without_annotations_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cats.train\.json"):
        run(tmp_path / "out", "--data", tmp_path, "--sets", "cats", "--steps", 1)


def test_measuring_a_folder_without_a_model_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json"):
        run(tmp_path, "--stage", "scenes", "--measure", "val")


def test_a_set_whose_annotations_are_no_coco_is_named(tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "train.json").write_text(json.dumps({"images": {}}))
    with pytest.raises(UsageError, match=r"cats.train\.json: no COCO data set"):
        run(tmp_path / "out", "--data", tmp_path, "--sets", "cats", "--steps", 1)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot write to .*file.out: Not a directory"):
        run(tmp_path / "file" / "out", "--stage", "words", "--steps", 1)


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (["Cat", "cat"], "cats val: names 'Cat' and 'cat' are the same tokens"),
        (["cat", "cat"], r"val\.json: category name 'cat' comes twice"),
    ],
)
def test_a_set_whose_names_cannot_be_told_apart_is_not_measured(
    names: list[str], complaint: str, tiny: Path, tmp_path: Path
) -> None:
    (tmp_path / "cats" / "images").mkdir(parents=True)
    categories = [{"id": number, "name": name} for number, name in enumerate(names)]
    coco = {"images": [], "annotations": [], "categories": categories}
    (tmp_path / "cats" / "val.json").write_text(json.dumps(coco))
    with pytest.raises(UsageError, match=complaint):
        run(tiny, "--data", tmp_path, "--sets", "cats", "--measure", "val")


def test_a_split_without_objects_has_no_figures(tiny: Path) -> None:
    assert run(tiny, "--stage", "scenes", "--measure", "val").output.count("AP50     -  AP     -") == 2
