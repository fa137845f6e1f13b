"""The pictures of the demo: generated scenes, or a folder of the user's, below Label Studio's document root."""

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from backend.errors import GlipLabelError
from integrations.written_aside import written_aside

SCENE_LABELS = ("red circle", "blue square", "green triangle", "yellow star", "purple heart", "orange arrow")
_SIDE = 640  # pixels


def write_scenes(folder: Path, count: int, seed: int = 0) -> tuple[Path, ...]:
    """Draw ``count`` scenes, each with some of what ``SCENE_LABELS`` name among other shapes; kept ones stay.

    Raises:
        GlipLabelError: one cannot be written.
    """
    import numpy as np
    from PIL import Image

    from glip_model.pretraining.scenes import draw_scene, random_looks
    from glip_model.pretraining.words import Looks

    paths = tuple(folder / f"scene-{number:03}.png" for number in range(1, count + 1))
    for number, path in enumerate(paths):
        if path.exists():
            continue
        rng = np.random.default_rng([seed, number])
        named = [label.split() for label in rng.choice(SCENE_LABELS, int(rng.integers(3, 6)))]
        wanted = [Looks(shape, colour, "plain", None) for colour, shape in named]
        others = [random_looks(rng, wanted) for _ in range(3)]
        with written_aside(path) as aside:
            Image.fromarray(draw_scene(_SIDE, [*wanted, *others], rng).rgb).save(aside, "PNG")
    return paths


def copy_pictures(pictures: Sequence[Path], source: Path, files: Path) -> tuple[Path, tuple[Path, ...]]:
    """Copy pictures into a folder of their own below ``files``; those that are there and unchanged stay.

    Args:
        pictures: found below ``source`` as that was typed; each may be a link.
        source: the user's folder.
        files: the document root.

    Returns:
        The folder, and the copies in the order of ``pictures`` under their names relative to ``source``.

    Raises:
        GlipLabelError: a picture cannot be read, or a copy not be written.
    """
    # The digest tells folders of one name apart.
    digest = hashlib.sha256(str(source.resolve()).encode()).hexdigest()[:8]
    folder = files / f"{source.resolve().name}-{digest}"
    copies = tuple(folder / path.relative_to(source) for path in pictures)
    for path, copy in zip(pictures, copies, strict=True):
        try:
            if not copy.exists() or _state(copy) != _state(path):
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, copy)
        except OSError as error:
            raise GlipLabelError(f"cannot copy {path} to {copy}: {error.strerror or error}") from error
    return folder, copies


def _state(path: Path) -> tuple[int, int]:
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns
