"""The ``Models`` port: one base model in memory, and light views of it for the versions that are adapters."""

from collections import OrderedDict
from pathlib import Path
from threading import Lock

from backend.detector import GlipModelDetector, VersionDetector
from backend.domain.learning import Mode, ModelVersion
from backend.ports import Detector
from backend.version_folders import VersionFolders

_ADAPTERS = 256  # below 1 MB each
_WHOLE_MODELS = 2


class GlipModels:
    """Versions of all projects on one base; those that nobody asked for of late are let go.

    Args:
        base: the configured model.
        folders: where versions are.
    """

    def __init__(self, base: GlipModelDetector, folders: VersionFolders) -> None:
        self._base = base
        self._folders = folders
        self._lock = Lock()
        self._adapted: OrderedDict[tuple[str, str], Detector] = OrderedDict()
        self._whole: OrderedDict[tuple[str, str], Detector] = OrderedDict()

    @property
    def base(self) -> str:
        """As ``ports.Models``."""
        return self._base.version

    def open(self, version: ModelVersion | None) -> Detector:
        """As ``ports.Models``."""
        if version is None:
            return self._base
        kept, limit = (self._whole, _WHOLE_MODELS) if version.mode is Mode.FULL else (self._adapted, _ADAPTERS)
        key = (version.project, version.name)
        with self._lock:
            if key not in kept:
                kept[key] = VersionDetector(self._base, version.name, lambda: self._folders.folder(version))
            kept.move_to_end(key)
            while len(kept) > limit:
                kept.popitem(last=False)
            return kept[key]

    def open_folder(self, folder: Path) -> Detector:
        """As ``ports.Models``."""
        return VersionDetector(self._base, "candidate", lambda: folder)
