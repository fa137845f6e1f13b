"""Downloads that break off, and folders that cannot take them."""

import errno
from pathlib import Path

import pytest
from huggingface_hub.errors import HfHubHTTPError

from backend.errors import GlipLabelError, StorageError
from backend.hub import HubError, HuggingFaceHub

TRANSPORT_ERROR = next(base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError")


@pytest.mark.parametrize(
    ("error", "kind", "complaint"),
    [
        (TRANSPORT_ERROR("peer closed connection"), HubError, r"broke off \(peer closed connection\); run it again"),
        (RuntimeError("Data processing error"), HubError, r"broke off \(Data processing error\); run it again"),
        (
            OSError("Consistency check failed:\nretry"),
            HubError,
            r"broke off \(Consistency check failed:\); run it again",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), StorageError, "cannot write .*downloads: No space left"),
    ],
)
def test_a_download_that_fails_is_one_line_with_its_cause(
    error: Exception, kind: type[GlipLabelError], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(kind, match=complaint):
        HuggingFaceHub().download("GLIPModel/GLIP", "glip.pth", tmp_path / "downloads")


def test_a_download_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "downloads").touch()
    with pytest.raises(StorageError, match=r"cannot write .*downloads: (Not a directory|File exists)"):
        HuggingFaceHub().download("GLIPModel/GLIP", "glip.pth", tmp_path / "downloads")
