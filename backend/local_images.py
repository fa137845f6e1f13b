"""Pictures on this machine's disk: which there are, and what is in them."""

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from backend.domain.dataset import ImageFacts, ImageFile
from backend.domain.records import Picture
from backend.errors import ImageError, UsageError
from backend.pictures import decode_picture, measure_picture
from glip_model.image import DEFAULT_LIMITS

SUFFIXES = (".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpeg", ".jpg", ".mpo", ".png", ".ppm", ".tif", ".tiff", ".webp")


class LocalImages:
    """The ``Images`` port for files."""

    def fetch(self, reference: str, task_id: int | None = None) -> Picture:
        """Decode the file at the path ``reference``, upright.

        Raises:
            ImageError: it cannot be read, is no image, is damaged or too large, or its name is no text, which no file
                that we write could hold.
        """
        if (shown := path_as_text(reference)) != reference:
            raise ImageError(f"{shown}: its name is no UTF-8: rename it")
        return decode_picture(_read(reference), reference)


def path_as_text(path: str) -> str:
    """The path with a mark for each byte that is no UTF-8, so that it can be printed."""
    return re.sub("[\ud800-\udfff]", "\ufffd", path)


def measure_below(folder: Path, name: str) -> ImageFacts:
    """Look at the image that `read_below` reads, and raise what it raises."""
    return read_below(folder, name).facts


def read_below(folder: Path, name: str) -> ImageFile:
    """Read the image with the relative name ``name`` below ``folder``.

    Raises:
        ImageError: there is none, the name leads out of the folder, or the file is no image.
    """
    path = Path(folder, name)
    if "\0" in name or not _is_inside(path, folder):
        raise ImageError(f"{name!r} leads out of {folder}")
    return measure_picture(_read(str(path)), str(path))


def _read(reference: str) -> bytes:
    path = Path(reference)
    try:
        if path.stat().st_size > DEFAULT_LIMITS.max_bytes:  # before reading it
            raise ImageError(f"{reference}: larger than {DEFAULT_LIMITS.max_bytes:,} bytes")
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"{reference}: cannot be read ({error.strerror or error})") from error


def find_images(arguments: Sequence[str], outside: Path | None = None) -> list[Path]:
    """Find the images that paths, folders (with all below them) and glob patterns name, sorted, each once.

    A file that is named itself counts whatever its ending; in folders and patterns the ending tells, and hidden files
    are left out.

    Args:
        arguments: what the user typed.
        outside: a folder to leave out, also where links lead to it, such as the one drawings go to.

    Raises:
        UsageError: a path does not exist, a folder cannot be listed, or one of the arguments yields no image.
    """
    found: dict[str, Path] = {}  # by absolute path, so that two ways to name a file count once
    for argument in arguments:
        named = list(_named(argument))
        images = [path for path in named if outside is None or not _belongs_to(path, outside)]
        if named and not images:
            raise UsageError(
                f"all images in {argument} lie in {outside}, where drawings go: give another folder for these"
            )
        if not images:
            endings = " ".join(SUFFIXES)
            raise UsageError(f"no images in {argument}: looked for files ending in {endings}")
        found.update({os.path.abspath(path): path for path in images})
    return [path for _, path in sorted(found.items())]


def relative_names(paths: Sequence[Path]) -> list[str]:
    """Return each path's name relative to the deepest folder that holds them all, with slashes; none comes twice."""
    absolute = [os.path.abspath(path) for path in paths]
    root = os.path.commonpath([os.path.dirname(path) for path in absolute])
    return [Path(path).relative_to(root).as_posix() for path in absolute]


def refuse_overwriting(read: Iterable[Path], written: Iterable[Path]) -> None:
    """Find out before anything is written whether a file that is read would be lost, as where links lead to it.

    Raises:
        UsageError: one of the files to write is read.
    """
    places = {os.path.realpath(path) for path in read}
    for path in written:
        if os.path.realpath(path) in places:
            raise UsageError(f"{path} is read, and would be overwritten: write to another place")


def _named(argument: str) -> Iterator[Path]:
    path = Path(argument)
    if os.path.isdir(path):  # pathlib raises where a folder may not be entered, or the name is too long
        yield from _below(path)
    elif os.path.isfile(path):
        yield path
    else:
        matches = [Path(match) for match in glob.glob(argument, recursive=True)]
        if not matches:
            raise UsageError(f"no such file or folder: {argument}")
        for match in matches:
            if os.path.isdir(match):
                yield from _below(match)
            elif match.suffix.lower() in SUFFIXES:
                yield match


def _below(folder: Path, above: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Every image below a folder, also where links lead, but for folders whose real paths are ``above``: a circle."""
    real = os.path.realpath(folder)
    if real in above:
        return
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise UsageError(f"cannot list {folder}: {error.strerror}") from error
    for path in (folder / name for name in names if not name.startswith(".")):
        if os.path.isdir(path):
            yield from _below(path, above | {real})
        elif path.suffix.lower() in SUFFIXES:
            yield path


def _belongs_to(path: Path, folder: Path) -> bool:
    """Tell whether a file lies in a folder, by its name or where links lead: there a drawing would replace it."""
    return _is_inside(path, folder) or _is_inside(Path(os.path.realpath(path)), Path(os.path.realpath(folder)))


def _is_inside(path: Path, folder: Path) -> bool:
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))
