"""Files from Hugging Face, with progress on stderr and interrupted downloads resumed."""

import re
from pathlib import Path
from typing import Protocol

import requests

from backend.errors import GlipLabelError, StorageError

_SECONDS = 10.0  # to learn whether the hub answers at all: its client alone would retry for half a minute per file
_SHA256 = re.compile("[0-9a-f]{64}")


def _download_errors() -> tuple[type[Exception], ...]:
    """What huggingface_hub raises: its own errors, which are OSErrors, and those of what it fetches with.

    That is a library for HTTP, which one depends on its release; or one in Rust, which raises RuntimeError.
    """
    from huggingface_hub.errors import HfHubHTTPError

    bases = [base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError" and issubclass(base, Exception)]
    return (OSError, RuntimeError, *bases)


class HubError(GlipLabelError):
    """The hub is away, or has no such file."""


class Hub(Protocol):
    """Where published files come from."""

    def digest(self, repository: str, file: str) -> str | None:
        """Return the sha256 that the hub publishes for a file, or None if it publishes none.

        Raises:
            HubError: the hub is away, or has no such file.
        """
        ...

    def download(self, repository: str, file: str, folder: Path) -> Path:
        """Fetch a file into ``folder``, going on where an earlier call stopped.

        Raises:
            HubError: the hub is away, has no such file, or broke off.
            StorageError: ``folder`` cannot be written.
        """
        ...

    def cached(self, repository: str, file: str) -> Path | None:
        """Return where a file lies on this machine already, without asking the hub."""
        ...


class HuggingFaceHub:
    """The ``Hub`` that huggingface_hub reaches; its environment variables (``HF_HOME``, proxies, …) apply."""

    def digest(self, repository: str, file: str) -> str | None:
        """As ``Hub``."""
        from huggingface_hub import hf_hub_url, is_offline_mode

        if is_offline_mode():
            raise HubError("Hugging Face is switched off (HF_HUB_OFFLINE)")
        try:
            answer = requests.head(hf_hub_url(repository, file), timeout=_SECONDS)
        except requests.RequestException as error:
            raise HubError(f"Hugging Face cannot be reached ({type(error).__name__})") from error
        if answer.status_code >= 400:
            raise HubError(f"Hugging Face answers {answer.status_code} for {file} of {repository}")
        tag = answer.headers.get("X-Linked-ETag", "").strip('"')  # the sha256 of files in large file storage
        return tag if _SHA256.fullmatch(tag) else None

    def download(self, repository: str, file: str, folder: Path) -> Path:
        """As ``Hub``."""
        from huggingface_hub import hf_hub_download

        try:
            return Path(hf_hub_download(repository, file, local_dir=folder))
        except _download_errors() as error:
            if isinstance(error, OSError) and error.errno is not None:  # the system's, those of the hub have none
                raise StorageError(f"cannot write {folder}: {error.strerror or error}") from error
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise HubError(f"Hugging Face broke off ({reason}); run it again to go on") from error

    def cached(self, repository: str, file: str) -> Path | None:
        """As ``Hub``."""
        from huggingface_hub import try_to_load_from_cache

        path = try_to_load_from_cache(repository, file)
        return Path(path) if isinstance(path, str) else None
