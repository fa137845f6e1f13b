"""Published files: fetched once, verified always."""

import json
from hashlib import sha256
from pathlib import Path

import pytest

from backend.errors import ModelError
from backend.hub import HubError
from backend.model_store import ModelStore
from glip_model.published import PUBLISHED

MODEL = PUBLISHED["glip-t"]


class FakeHub:
    """A hub with the files it is given, or away."""

    def __init__(self, content: bytes | None = None, digest: str | None = None, cache: Path | None = None) -> None:
        self.content = content
        self.published = digest
        self.cache = cache
        self.downloads: list[str] = []

    def digest(self, repository: str, file: str) -> str | None:
        if self.content is None:
            raise HubError("Hugging Face cannot be reached (no network)")
        return self.published

    def download(self, repository: str, file: str, folder: Path) -> Path:
        assert self.content is not None
        self.downloads.append(f"{repository}/{file}")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(self.content)
        return folder / file

    def cached(self, repository: str, file: str) -> Path | None:
        return self.cache


def test_a_file_is_downloaded_once_and_its_checksum_recorded(tmp_path: Path) -> None:
    hub = FakeHub(b"weights", sha256(b"weights").hexdigest())
    file = ModelStore(tmp_path, hub).fetch(MODEL)
    assert ModelStore(tmp_path, hub).fetch(MODEL) == file
    assert hub.downloads == [f"GLIPModel/GLIP/{MODEL.file}"]
    recorded = json.loads((tmp_path / "downloads" / "checksums.json").read_text())
    assert recorded == {MODEL.file: sha256(b"weights").hexdigest()}


def test_a_file_that_changed_since_its_first_pull_is_refused(tmp_path: Path) -> None:
    store = ModelStore(tmp_path, FakeHub(b"weights"))
    store.fetch(MODEL).write_bytes(b"other weights")
    with pytest.raises(ModelError, match=r"delete it and pull again"):
        store.fetch(MODEL)


def test_a_download_that_is_not_what_the_hub_publishes_is_refused(tmp_path: Path) -> None:
    store = ModelStore(tmp_path, FakeHub(b"weights", sha256(b"others").hexdigest()))
    with pytest.raises(ModelError, match=r"instead of"):
        store.fetch(MODEL)
    assert list((tmp_path / "downloads").iterdir()) == []


def test_a_file_put_there_by_hand_needs_no_network(tmp_path: Path) -> None:
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / MODEL.file).write_bytes(b"weights")
    assert ModelStore(tmp_path, FakeHub()).fetch(MODEL).read_bytes() == b"weights"


def test_without_a_network_the_error_says_which_file_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        ModelStore(tmp_path, FakeHub()).fetch(MODEL)
    assert f"put {MODEL.file} of its repository GLIPModel/GLIP at {tmp_path / 'downloads' / MODEL.file}" in str(
        caught.value
    )


def test_a_damaged_record_of_checksums_is_named(tmp_path: Path) -> None:
    store = ModelStore(tmp_path, FakeHub(b"weights"))
    store.fetch(MODEL)
    (tmp_path / "downloads" / "checksums.json").write_text("{")
    with pytest.raises(ModelError, match=r"checksums\.json is damaged"):
        store.fetch(MODEL)


def test_the_tokenizer_comes_from_the_cache_before_the_hub_is_asked(tmp_path: Path) -> None:
    assert ModelStore(tmp_path, FakeHub(cache=tmp_path / "cache" / "vocab.txt")).tokenizer() == tmp_path / "cache"


def test_the_tokenizer_is_downloaded_once(tmp_path: Path) -> None:
    hub = FakeHub(b"[UNK]\n")
    folder = ModelStore(tmp_path, hub).tokenizer()
    assert (folder / "vocab.txt").is_file()
    assert ModelStore(tmp_path, FakeHub()).tokenizer() == folder
