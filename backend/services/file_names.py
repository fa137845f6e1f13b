"""One file name for each image of a data set."""

import sqlite3
from pathlib import PurePosixPath
from types import TracebackType

from backend.domain.file_names import collision_key, flattened, is_fit, readable_name, told_apart


class FileNames:
    """Gives out file names, none twice, and none that is a folder of another.

    Given names are kept in a temporary file, so that memory does not grow with their number.
    """

    def __init__(self) -> None:
        self._given = sqlite3.connect("")  # a temporary file of SQLite's own
        self._given.execute("CREATE TABLE given (name TEXT PRIMARY KEY, is_folder) WITHOUT ROWID")

    def __enter__(self) -> "FileNames":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._given.close()

    def give(self, reference: str, image_id: int, earlier: str | None = None) -> str:
        """Name an image, readable; the first of several with the same name keeps it, the others get their id in it.

        Args:
            reference: where it comes from.
            image_id: from 1.
            earlier: the name it had in another data set; it keeps it if it can.
        """
        name = earlier if earlier is not None and is_fit(earlier) else readable_name(earlier or reference)
        if any(self._is_folder(key) is False for key in _folders(name)):
            name = flattened(name)
        while self._is_folder(collision_key(name)) is not None:
            name = told_apart(name, image_id)
        self._given.execute("INSERT INTO given VALUES (?, FALSE)", (collision_key(name),))
        self._given.executemany("INSERT OR IGNORE INTO given VALUES (?, TRUE)", [(key,) for key in _folders(name)])
        return name

    def _is_folder(self, key: str) -> bool | None:
        """None for what was not given yet."""
        found = self._given.execute("SELECT is_folder FROM given WHERE name = ?", (key,)).fetchone()
        return None if found is None else bool(found[0])


def _folders(name: str) -> list[str]:
    return [collision_key(str(folder)) for folder in PurePosixPath(name).parents if folder.name]
