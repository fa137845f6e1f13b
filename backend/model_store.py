"""Published models on this machine: fetched, verified, and where they lie."""

import json
from hashlib import file_digest
from pathlib import Path

from backend.errors import ModelError, UsageError
from backend.hub import Hub, HubError
from glip_model.published import PUBLISHED, REPOSITORY, TEXT_ENCODER, PublishedModel
from integrations.written_aside import write_json

_VOCABULARY = "vocab.txt"


class ModelStore:
    """Checkpoints in ``HOME/downloads`` with the checksums of their first pull, model folders in ``HOME/models``."""

    def __init__(self, home: Path, hub: Hub) -> None:
        self._downloads = home / "downloads"
        self._models = home / "models"
        self._checksums = self._downloads / "checksums.json"
        self._hub = hub

    def model(self, name: str) -> PublishedModel:
        """Look a published model up.

        Raises:
            UsageError: there is none of this name.
        """
        if name not in PUBLISHED:
            raise UsageError(f"no published model {name!r}; there are {', '.join(PUBLISHED)}")
        return PUBLISHED[name]

    def folder(self, model: PublishedModel) -> Path:
        """Return where the converted model belongs, or lies already."""
        return self._models / model.name

    def is_installed(self, model: PublishedModel) -> bool:
        """Tell whether the converted weights are there."""
        return (self.folder(model) / "model.safetensors").is_file()

    def fetch(self, model: PublishedModel) -> Path:
        """Return the official checkpoint, downloaded if it is not there yet, and verified.

        The sha256 is compared with the one that the hub publishes when the file is downloaded, and with the one
        recorded at the first pull ever after.

        Raises:
            ModelError: the file cannot be had, or is not the one it was.
            StorageError: the folder of downloads cannot be written.
        """
        file = self._downloads / model.file
        if file.is_file():
            self._verify(file, self._recorded().get(file.name))
            return file
        try:
            published = self._hub.digest(REPOSITORY, model.file)
            self._hub.download(REPOSITORY, model.file, self._downloads)
        except HubError as error:
            raise ModelError(
                f"{error}: put {model.file} of its repository {REPOSITORY} at {file} and run "
                f"`glip-label weights pull {model.name}` again"
            ) from error
        try:
            self._verify(file, published)
        except ModelError:
            file.unlink()  # or the next pull would take it for one that was put there
            raise
        return file

    def tokenizer(self) -> Path:
        """Return a folder with the tokenizer of all published models, downloaded if it is nowhere on this machine.

        Raises:
            HubError: it cannot be had.
            StorageError: the folder of downloads cannot be written.
        """
        kept = self._downloads / TEXT_ENCODER.rpartition("/")[2]
        if (kept / _VOCABULARY).is_file():
            return kept
        for repository in (TEXT_ENCODER, TEXT_ENCODER.rpartition("/")[2]):  # the second is its name before 2024
            if cached := self._hub.cached(repository, _VOCABULARY):
                return cached.parent
        self._hub.digest(TEXT_ENCODER, _VOCABULARY)
        return self._hub.download(TEXT_ENCODER, _VOCABULARY, kept).parent

    def _verify(self, file: Path, expected: str | None) -> None:
        """Refuse a file of another sha256 than expected, and record what it has."""
        with file.open("rb") as opened:
            actual = file_digest(opened, "sha256").hexdigest()
        if expected not in (None, actual):
            raise ModelError(
                f"{file} has the sha256 {actual[:12]}… instead of {str(expected)[:12]}…: delete it and pull again"
            )
        recorded = self._recorded()
        if recorded.get(file.name) != actual:
            write_json(self._checksums, {**recorded, file.name: actual})

    def _recorded(self) -> dict[str, str]:
        if not self._checksums.is_file():
            return {}
        try:
            return {str(file): str(digest) for file, digest in json.loads(self._checksums.read_text()).items()}
        except (OSError, ValueError, AttributeError) as error:
            raise ModelError(f"{self._checksums} is damaged: delete it, and the checksums are recorded anew") from error
