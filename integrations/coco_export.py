"""Write a data set as COCO files, one image at a time.

The same images give the same bytes: keys and rows have one order, pixels two decimals, and nothing tells the time.
What each key means, also those beyond COCO's own, is in docs/export.md.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from hashlib import sha256
from itertools import chain, product, starmap
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from backend.domain.dataset import DatasetBox, DatasetImage, DatasetLabel, ImageState
from backend.domain.policies import PARTS
from backend.errors import GlipLabelError, UsageError
from integrations.coco import box_to_coco
from integrations.written_aside import write_json

MANIFEST = "manifest.json"
IMAGES = "images"
# Image 1 has the annotations 1 to this, image 2 the next ones, and so on: nothing elsewhere changes an annotation's id.
# No known data set has as many on one image. Ids may need more than 32 bits, as those of COCO's own crowds do.
IDS_PER_IMAGE = 100_000
_UNFINISHED = ".unfinished"
_BYTES_AT_A_TIME = 1 << 20

# ASCII only: readers that open files in the locale's encoding read the same. NaN would be no JSON.
_encode = json.JSONEncoder(ensure_ascii=True, allow_nan=False).encode


class CocoFolder:
    """A folder of COCO files, written within a ``with`` block; an earlier export in it stays whole until `finish`.

    Until then everything is written below ``.unfinished``; what a killed export left there the next one removes.

    ``annotations.json``, or ``annotations_PART.json`` for each part; ``predictions.json`` likewise where proposals are
    wanted; copied images below ``images/``; ``manifest.json`` with the SHA-256 of every file.

    Args:
        folder: made if it is not there.
        labels: the categories, in the order of their ids.
        parts: names of the parts, of `PARTS`; empty writes one file for all.
        with_predictions: whether to write COCO results.

    Raises:
        UsageError: the folder holds files that no export wrote.
        GlipLabelError: it cannot be written to.
    """

    def __init__(
        self, folder: Path, labels: Sequence[DatasetLabel], parts: Sequence[str] = (), with_predictions: bool = False
    ) -> None:
        self._folder, self._labels = folder, labels
        self._parts = {part: _Part(part) for part in parts or ("",)}
        self._with_predictions = with_predictions
        self._last_id = 0
        self._stack = ExitStack()

    def __enter__(self) -> "CocoFolder":
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if not _is_ours(self._folder / MANIFEST):
                if any(self._folder.iterdir()):
                    raise UsageError(f"{self._folder} holds files that are no export: name an empty folder")
                write_json(self._folder / MANIFEST, {"complete": False})
            self._aside = self._folder / _UNFINISHED
            shutil.rmtree(self._aside, ignore_errors=True)  # of an export that was interrupted
            self._aside.mkdir()
            self._stack.callback(shutil.rmtree, self._aside, ignore_errors=True)
            self._copied = _Rows(self._stack, self._aside / "copied.rows")
            for part in self._parts.values():
                part.open(self._stack, self._aside)
        except OSError as error:
            self._stack.close()
            raise self._unwritable(error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # What a full disk left in memory cannot be written now either. It goes with its files, and was told of before.
        with suppress(OSError):
            self._stack.close()

    def add(self, image: DatasetImage, content: bytes | None = None) -> None:
        """Write one image, its boxes and, if there is any, its file.

        Raises:
            ValueError: images do not come in the order of their ids, from 1, or this one is of no part.
            GlipLabelError: it has too many boxes, or the disk is full.
        """
        if image.id <= self._last_id:
            raise ValueError(f"image {image.id} comes after image {self._last_id}")
        self._last_id = image.id
        part = self._parts.get(image.split or "", self._parts.get(""))
        if part is None:
            raise ValueError(f"image {image.id} is of no part that is written")
        try:
            part.add(image, self._with_predictions)
            if content is not None:
                name = f"{IMAGES}/{image.file_name}"
                path = self._aside / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                self._copied.add(_manifest_row(name, sha256(content).hexdigest(), len(content)))
        except OSError as error:
            raise self._unwritable(error) from error

    def finish(self, notes: Mapping[str, Any]) -> list[Path]:
        """Put the files in place, then the manifest with ``notes``, and return the paths of the COCO files.

        Meanwhile the manifest says that the folder is not complete. Of an earlier export copied images stay.

        Raises:
            GlipLabelError: they cannot be written.
        """
        try:
            rows, finished = [], []
            for part in self._parts.values():
                for name, chunks in part.documents(self._labels, self._with_predictions):
                    finished.append(name)
                    rows.append(_written(self._aside / name, name, chunks))
            write_json(self._folder / MANIFEST, {"complete": False})
            for stale in starmap(_file_name, product(("annotations", "predictions"), ("", *PARTS))):
                (self._folder / stale).unlink(missing_ok=True)
            for name in chain((row["name"] for row in self._copied.rows()), finished):
                (self._folder / name).parent.mkdir(parents=True, exist_ok=True)
                (self._aside / name).replace(self._folder / name)
            self._write_manifest(notes, rows)
        except OSError as error:
            raise self._unwritable(error) from error
        return [self._folder / name for name in finished]

    def figures(self) -> dict[str, Any]:
        """Count what was added: images, annotations, and images by their states."""
        counts = sum((part.counts for part in self._parts.values()), Counter[str]())
        states = (ImageState.REVIEWED, ImageState.REVIEWED_EMPTY, ImageState.NEVER_REVIEWED)
        return {
            "images": counts["images"],
            "annotations": counts["annotations"],
            "states": {state.value: counts[state] for state in states},
        }

    def _write_manifest(self, notes: Mapping[str, Any], rows: Sequence[str]) -> None:
        head = {"complete": True, **self.figures(), **notes}
        path = self._aside / MANIFEST
        with path.open("wb") as file:
            text = json.dumps(head, indent=1, allow_nan=False).removesuffix("\n}")
            file.write(f'{text},\n "files": [\n'.encode() + ",\n".join(rows).encode())
            for chunk in self._copied.chunks(first=b",\n" if rows else b""):
                file.write(chunk)
            file.write(b"\n]\n}\n")
        path.replace(self._folder / MANIFEST)

    def _unwritable(self, error: OSError) -> GlipLabelError:
        path = error.filename2 or error.filename or self._folder  # the second one is where a file was to be moved
        return GlipLabelError(f"cannot write {path}: {error.strerror or error}")


class _Rows:
    """Rows of a JSON list in a file of their own, until it is known what stands before them."""

    def __init__(self, stack: ExitStack, path: Path) -> None:
        self._file: IO[bytes] = stack.enter_context(path.open("w+b"))
        self._empty = True

    def add(self, row: str) -> None:
        """Add a row, or several with commas between them."""
        if row:
            self._file.write((b"" if self._empty else b",\n") + row.encode("ascii"))
            self._empty = False

    def chunks(self, first: bytes = b"") -> Iterator[bytes]:
        """Read the rows back; ``first`` goes before them if there are any."""
        if not self._empty:
            yield first
        self._file.seek(0)
        while chunk := self._file.read(_BYTES_AT_A_TIME):
            yield chunk

    def rows(self) -> Iterator[Any]:
        """Read the rows back one by one, where they were added so."""
        self._file.seek(0)
        for line in self._file:
            yield json.loads(line.rstrip(b",\n"))


class _Part:
    """The rows of one part of the data set."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.counts = Counter[str]()

    def open(self, stack: ExitStack, folder: Path) -> None:
        names = ("images", "boxes", "results")
        self._images, self._boxes, self._results = (
            _Rows(stack, folder / f"{name}_{self._name}.rows") for name in names
        )

    def add(self, image: DatasetImage, with_predictions: bool) -> None:
        annotations = list(_annotation_rows(image))
        self._images.add(_encode(_image_row(image)))
        # All rows of an image in one line: that many calls of the encoder would cost more than the encoding.
        self._boxes.add(_encode(annotations)[1:-1])
        if with_predictions:
            self._results.add(_encode(list(_result_rows(image)))[1:-1])
        self.counts["images"] += 1
        self.counts["annotations"] += len(annotations)
        self.counts[image.state] += 1

    def documents(
        self, labels: Sequence[DatasetLabel], with_predictions: bool
    ) -> Iterator[tuple[str, Iterable[bytes]]]:
        yield _file_name("annotations", self._name), self._dataset(labels)
        if with_predictions:
            yield _file_name("predictions", self._name), chain((b"[\n",), self._results.chunks(), (b"\n]\n",))

    def _dataset(self, labels: Sequence[DatasetLabel]) -> Iterator[bytes]:
        categories = [_encode({"id": label.id, "name": label.name, "supercategory": ""}) for label in labels]
        yield b'{\n"info": {"description": "annotations exported by glip-label"},\n"categories": [\n'
        yield ",\n".join(categories).encode("ascii")
        yield b'\n],\n"images": [\n'
        yield from self._images.chunks()
        yield b'\n],\n"annotations": [\n'
        yield from self._boxes.chunks()
        yield b"\n]\n}\n"


def _file_name(kind: str, part: str) -> str:
    return f"{kind}_{part}.json" if part else f"{kind}.json"


def _is_ours(manifest: Path) -> bool:
    """Tell whether a file begins as our manifests do; it may be long."""
    try:
        with manifest.open("rb") as file:
            return file.read(40).startswith(b'{\n "complete": ')
    except FileNotFoundError:
        return False


def _image_row(image: DatasetImage) -> dict[str, Any]:
    extra = {
        "original": None if image.original in ("", image.file_name) else image.original,
        "task_id": image.task_id,
        "sha256": image.sha256,
        "split": image.split,
    }
    return {
        "id": image.id,
        "file_name": image.file_name,
        "width": image.width,
        "height": image.height,
        "state": image.state.value,
        **_known(extra),
    }


def _annotation_rows(image: DatasetImage) -> Iterator[dict[str, Any]]:
    number = (image.id - 1) * IDS_PER_IMAGE
    for drawn in image.boxes:
        group = number + 1
        shape = _shape(drawn) | ({"group_id": group} if len(drawn.label_ids) > 1 else {}) | _provenance(drawn)
        for label_id in drawn.label_ids:
            number += 1
            yield {"id": number, "image_id": image.id, "category_id": label_id, **shape}
    if number > image.id * IDS_PER_IMAGE:
        raise GlipLabelError(f"{image.file_name} has more than {IDS_PER_IMAGE:,} boxes: that many have no ids")


def _shape(drawn: DatasetBox) -> dict[str, Any]:
    box, outline = drawn.box, drawn.outline
    shape = {
        "bbox": box_to_coco(outline.bounds),
        "area": outline.area,
        "segmentation": [list(chain.from_iterable(outline.polygon))],
        "iscrowd": 0,
    }
    if box.rotation == 0:
        return shape
    return {**shape, "rotation": box.rotation, "unrotated_bbox": [box.x, box.y, box.width, box.height]}


def _provenance(drawn: DatasetBox) -> dict[str, Any]:
    known = drawn.provenance
    return _known(
        {
            "task_id": known.task_id,
            "annotation_id": known.annotation_id,
            "annotator_id": known.annotator,
            "verdict": known.verdict,
            "model_version": known.model_version,
            "prompt": known.prompt,
            "model_score": known.score,
            "votes": known.votes,
            "voters": known.voters,
        }
    )


def _result_rows(image: DatasetImage) -> Iterator[dict[str, Any]]:
    for proposal in image.proposals:
        bbox = box_to_coco(proposal.box)
        yield {"image_id": image.id, "category_id": proposal.label_id, "bbox": bbox, "score": round(proposal.score, 5)}


def _known(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value is not None}


def _written(path: Path, name: str, chunks: Iterable[bytes]) -> str:
    digest, size = sha256(), 0
    with path.open("wb") as file:
        for chunk in chunks:
            file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
    return _manifest_row(name, digest.hexdigest(), size)


def _manifest_row(name: str, digest: str, size: int) -> str:
    return "  " + _encode({"name": name, "sha256": digest, "bytes": size})
