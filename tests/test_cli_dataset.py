"""``glip-label import coco`` and ``export coco``, from the words typed to the files written."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from backend.cli import run
from tests.make import image_bytes


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLIP_LABEL_HOME", str(tmp_path / "home"))


def data_set(folder: Path, **changes: Any) -> Path:
    """A file beside two pictures, one of them turned by its EXIF orientation."""
    pictures = folder / "pictures"
    (pictures / "d").mkdir(parents=True, exist_ok=True)
    (pictures / "d/a.png").write_bytes(image_bytes(64, 48))
    (pictures / "b.jpg").write_bytes(image_bytes(64, 48, "JPEG", orientation=6))
    parts: dict[str, Any] = {
        "images": [
            {"id": 0, "file_name": "d/a.png", "width": 64, "height": 48},
            {"id": 1, "file_name": "b.jpg", "width": 48, "height": 64},
        ],
        "annotations": [{"id": 1, "image_id": 0, "category_id": 0, "bbox": [1, 2, 3, 4]}],
        "categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}],
    }
    (folder / "set.json").write_text(json.dumps(parts | changes))
    return folder / "set.json"


def imported(folder: Path, *more: str, name: str = "mine", file: Path | None = None) -> int:
    chosen = str(file or data_set(folder))
    return run(["import", "coco", chosen, "--images", str(folder / "pictures"), "--project", name, *more])


def exported(folder: Path, out: str, *more: str, name: str = "mine") -> int:
    return run(["export", "coco", "--project", name, str(folder / out), *more])


def test_what_was_imported_is_exported_and_comes_back_byte_for_byte(tmp_path: Path) -> None:
    assert imported(tmp_path) == 0
    assert exported(tmp_path, "one", "--copy-images", "--images", str(tmp_path / "pictures")) == 0
    manifest = json.loads((tmp_path / "one/manifest.json").read_text())
    listed = {row["name"]: row["sha256"] for row in manifest["files"]}
    assert listed.keys() == {"annotations.json", "images/d/a.png", "images/b.jpg"}
    for name, digest in listed.items():
        assert sha256((tmp_path / "one" / name).read_bytes()).hexdigest() == digest
    again = ["import", "coco", str(tmp_path / "one/annotations.json"), "--images", str(tmp_path / "one/images")]
    assert run([*again, "--project", "again"]) == 0
    assert exported(tmp_path, "two", name="again") == 0
    assert (tmp_path / "one/annotations.json").read_bytes() == (tmp_path / "two/annotations.json").read_bytes()
    found = json.loads((tmp_path / "two/annotations.json").read_text())
    assert [(each["file_name"], each["width"], each["state"]) for each in found["images"]] == [
        ("d/a.png", 64, "reviewed"),
        ("b.jpg", 48, "reviewed-empty"),
    ]


def test_problems_are_listed_and_refused_or_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"id": 2, "file_name": "../home/x.png", "width": 64, "height": 48}
    file = data_set(tmp_path, images=[row, {**row, "id": 3, "file_name": "gone.png"}])
    assert imported(tmp_path, file=file) == 2
    error = capsys.readouterr().err
    assert "set.json: images[0]: file-cannot-be-had ('../home/x.png' leads out of" in error
    assert "set.json: images[1]: file-cannot-be-had" in error
    assert "nothing was imported: 3 things cannot be taken in (2 file-cannot-be-had, 1 unknown-image)" in error
    assert imported(tmp_path, "--on-error", "skip", "--json", file=file) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["images"], figures["left_out"]) == (0, {"file-cannot-be-had": 2, "unknown-image": 1})


def test_what_is_left_out_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert imported(tmp_path) == 0
    assert exported(tmp_path, "out", "--label", "dog", "--splits", "50,50") == 0
    assert "boxes left out: 1 other-labels" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "annotations_train.json",
        "annotations_val.json",
        "manifest.json",
    ]
    assert exported(tmp_path, "out", "--merge", "cat=dog", "--json", "--until", "2020-01-01") == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["left_out"]["images"] == {"other-annotators-or-dates": 2}
    assert figures["request"]["merge"] == {"cat": "dog"}


def test_a_picture_that_cannot_be_copied_is_left_out_with_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert imported(tmp_path) == 0
    (tmp_path / "pictures/b.jpg").unlink()
    assert exported(tmp_path, "out", "--copy-images", "--images", str(tmp_path / "pictures")) == 1
    captured = capsys.readouterr()
    assert "glip-label: left out" in captured.err
    assert "images left out: 1 file-cannot-be-had" in captured.out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--splits", "a,b"], "--splits 'a,b': say the shares of train, val and test, as in 70,15,15"),
        (["--splits", "1,1,1,1"], "--splits '1,1,1,1'"),
        (["--merge", "cat"], "--merge 'cat': say OLD=NEW"),
        (["--label", "wolf"], "no label 'wolf'; there are cat, dog"),
        (["--label", "cat", "--merge", "cat=dog"], "no box is 'cat' where that becomes 'dog': ask for that one"),
        (["--split", "val"], "--split chooses a part of --splits: give that, too, as in --splits 70,15,15"),
        (["--split", "test", "--splits", "50,50"], "no part 'test'; there are train, val"),
        (["--predictions", "glip-nano-9999"], "no predictions of 'glip-nano-9999'; there are none"),
        (["--copy-images"], "say with --images DIR where its image files lie"),
    ],
)
def test_a_wish_that_cannot_be_met_is_one_line(
    words: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert imported(tmp_path) == 0
    capsys.readouterr()
    assert exported(tmp_path, "out", *words) == 2
    assert complaint in capsys.readouterr().err


def test_a_project_needs_a_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert imported(tmp_path, name=" ") == 2
    assert "--project is empty: name the new project" in capsys.readouterr().err


def test_an_unknown_project_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exported(tmp_path, "out", name="nobody") == 2
    assert "no project 'nobody' is known" in capsys.readouterr().err
