"""Files that appear whole or not at all."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from backend.errors import GlipLabelError


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` to write to, and rename it to ``path`` when the block succeeds.

    Raises:
        GlipLabelError: the folder cannot be made or written to, or the disk is full.
    """
    # Of the name only a hash: a name may be as long as the file system allows, and then there is no room for more.
    aside = path.with_name(f".{sha256(os.fsencode(path.name)).hexdigest()[:16]}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield aside
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise GlipLabelError(f"cannot write {path}: {error.strerror or error}") from error


def write_json(path: Path, document: Any) -> None:
    """Write ``document`` as UTF-8 JSON, whole or not at all.

    Raises:
        GlipLabelError: the file cannot be written.
    """
    with written_aside(path) as aside:
        aside.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
