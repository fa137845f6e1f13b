"""One file name for each image of a data set."""

import sqlite3
from types import TracebackType

from backend.domain.file_names import collision_key, is_fit, readable_name, told_apart


class FileNames:
    """Gives out file names, none twice.

    Given names are kept in a temporary file, so that memory does not grow with their number.
    """

    def __init__(self) -> None:
        self._given = sqlite3.connect("")  # a temporary file of SQLite's own
        self._given.execute("CREATE TABLE given (name TEXT PRIMARY KEY) WITHOUT ROWID")

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
        while not self._take(collision_key(name)):
            name = told_apart(name, image_id)
        return name

    def _take(self, key: str) -> bool:
        return self._given.execute("INSERT OR IGNORE INTO given VALUES (?)", (key,)).rowcount == 1
