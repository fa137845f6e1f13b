"""Where a model's files are, and the version that names exactly these files."""

import json
import os
import re
from contextlib import suppress
from hashlib import file_digest, sha256
from pathlib import Path

import glip_model
from backend.errors import GlipLabelError, ModelError
from glip_model.published import PUBLISHED
from integrations.written_aside import write_json

DEMO_MODEL = "glip-nano"
DEMO_REMARK = (
    "glip-nano is a demo-grade model; for real work switch to GLIP-T: "
    "glip-label weights pull glip-t && GLIP_LABEL_MODEL=glip-t glip-label serve"
)


def find_model(model: str, pulled: Path) -> Path:
    """Return the folder of a bundled model, of one in the folder ``pulled``, or of a path.

    Raises:
        ModelError: there is none; the message says how to get one.
    """
    # os.path raises for no name, as pathlib does for one that is too long, or of what nobody may look into.
    if re.fullmatch(r"[\w.-]*\w[\w.-]*", model):
        bundled = Path(glip_model.__file__).parent / "weights" / model
        for folder in (bundled, pulled / model):
            if os.path.isdir(folder):
                return folder
    if os.path.isdir(folder := Path(os.path.expanduser(Path(model)))):
        return folder
    if model in PUBLISHED:
        raise ModelError(f"no model {model!r} here: fetch it with `glip-label weights pull {model}`")
    raise ModelError(f"no model {model!r}: there are {DEMO_MODEL}, {', '.join(PUBLISHED)}, and folders with a model")


def model_version(folder: Path, cache: Path) -> str:
    """Name the weights in a folder: its name and a digest of its files, for example ``glip-nano-3f9a12cd``.

    Args:
        folder: a model folder.
        cache: file that remembers digests by the files' sizes and times, so that only the first call reads them.

    Raises:
        ModelError: the folder cannot be read, or holds no files.
    """
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
        facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        if not files:
            raise ModelError(f"{folder}: holds no model")
        key = sha256(json.dumps([str(folder.absolute()), facts]).encode()).hexdigest()
        known = _read(cache)
        if key not in known:
            known[key] = _digest(files)
            with suppress(GlipLabelError):  # a cache that cannot be written costs time, nothing else
                write_json(cache, known)
    except OSError as error:
        raise ModelError(f"{folder}: cannot be read ({error.strerror})") from error
    name = re.sub(r"[^\w.-]+", "-", folder.absolute().name)
    return f"{name}-{known[key][:8]}"


def _digest(files: list[Path]) -> str:
    digest = sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(f"{path.name}\0{file_digest(file, 'sha256').hexdigest()}\0".encode())
    return digest.hexdigest()


def _read(cache: Path) -> dict[str, str]:
    try:
        known = json.loads(cache.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(key): str(value) for key, value in known.items()} if isinstance(known, dict) else {}
