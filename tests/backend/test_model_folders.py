"""Finding a model's folder, and naming exactly its files."""

import os
from pathlib import Path

import pytest

from backend.errors import ModelError
from backend.model_folders import find_model, model_version


def make_folder(folder: Path, weights: bytes = b"weights") -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def test_a_pulled_model_is_found_by_name_and_any_by_its_folder(tmp_path: Path) -> None:
    pulled = make_folder(tmp_path / "models" / "glip-t")
    assert find_model("glip-t", tmp_path / "models") == pulled
    assert find_model(str(pulled), tmp_path / "empty") == pulled


@pytest.mark.parametrize(
    ("model", "cure"),
    [
        ("glip-t", "fetch it with `glip-label weights pull glip-t`"),
        ("glip-x", "there are glip-nano, glip-t"),
        ("no/such/folder", "there are glip-nano, glip-t"),
        ("~nobody-here/model", "there are glip-nano, glip-t"),
        ("long/" + 300 * "x", "there are glip-nano, glip-t"),
        (300 * "x", "there are glip-nano, glip-t"),
    ],
)
def test_a_model_that_is_not_there_is_said_with_the_cure(model: str, cure: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=cure):
        find_model(model, tmp_path)


@pytest.mark.parametrize("model", ["..", ".", ""])
def test_dots_and_nothing_are_folders_and_no_names(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_model(model, tmp_path / "models") == Path(model)


def test_the_version_names_the_content_and_not_the_place(tmp_path: Path) -> None:
    cache = tmp_path / "versions.json"
    here = model_version(make_folder(tmp_path / "a" / "my model"), cache)
    there = model_version(make_folder(tmp_path / "b" / "my model"), cache)
    other = model_version(make_folder(tmp_path / "c" / "my model", b"others"), cache)
    assert here == there != other
    assert here.startswith("my-model-")


def test_the_weights_are_read_once_and_again_when_they_change(tmp_path: Path) -> None:
    folder, cache = make_folder(tmp_path / "m"), tmp_path / "versions.json"
    first = model_version(folder, cache)
    weights = folder / "model.safetensors"
    stamp = weights.stat().st_mtime_ns
    weights.write_bytes(b"WEIGHTS")
    os.utime(weights, ns=(stamp, stamp))
    assert model_version(folder, cache) == first  # same size and time: the cache answers
    os.utime(weights, ns=(stamp, stamp + 1))
    assert model_version(folder, cache) != first


def test_a_cache_that_cannot_be_used_costs_nothing_but_time(tmp_path: Path) -> None:
    folder, cache = make_folder(tmp_path / "m"), tmp_path / "versions.json"
    first = model_version(folder, cache)
    for content in ("", "[]", "{"):
        cache.write_text(content)
        assert model_version(folder, cache) == first
    assert model_version(folder, Path(os.devnull) / "x" / "versions.json") == first


def test_a_folder_without_files_is_no_model(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "gone"):
        with pytest.raises(ModelError, match=str(folder)):
            model_version(folder, tmp_path / "cache" / "versions.json")
