"""Generated projects for `benchmarks.store`: as rows of the database, as Label Studio's JSON export, as its events.

Picture ``number`` (from 1) is the same in all three. Ten pictures have a hundred boxes: none on one of them, 35 on
another. A model proposed three of four boxes, people moved every fourth and drew the rest; every twentieth is turned,
and every twentieth picture was annotated a second time.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from PIL import Image
from sqlalchemy import Connection, insert

from backend.db.engine import open_engine
from backend.db.schema import upgrade
from backend.db.tables import (
    AnnotationRegionRow,
    AnnotationRow,
    AnnotationVersionRow,
    Base,
    ImageRow,
    LabelRow,
    PredictionRegionRow,
    PredictionRow,
    ProjectRow,
    TaskRow,
    VerdictRow,
)

PROJECT = 7
TITLE = "street scenes"
MODEL_VERSION = "glip-t-0001"
LABELS = tuple(f"thing {number}" for number in range(1, 21))
CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
    + "".join(f'<Label value="{name}"/>' for name in LABELS)
    + "</RectangleLabels></View>"
)
SIZES = ((640, 480), (1280, 720), (800, 1066), (1920, 1080))
BOXES = (0, 1, 2, 3, 5, 8, 10, 14, 22, 35)  # on ten pictures that follow each other

_START = datetime(2026, 1, 1, tzinfo=UTC)
_UID = f"{PROJECT}.{int(_START.timestamp())}"
_AT_A_TIME = 1000  # pictures

Json = dict[str, Any]
Row = tuple[type[Base], Json]


class Drawn(NamedTuple):
    """A box in percent of its picture, and what became of the model's proposal: accepted, moved or added."""

    id: str
    label: str
    x: float
    y: float
    width: float
    height: float
    rotation: float
    verdict: str
    score: float | None


@dataclass(frozen=True, slots=True)
class Picture:
    """A task with one image and one annotation, which was changed for the last time at ``updated_at``."""

    number: int
    width: int
    height: int
    boxes: tuple[Drawn, ...]

    @property
    def file_name(self) -> str:
        return f"{self.number:08x}-street {self.number}.png"

    @property
    def reference(self) -> str:
        return f"/data/upload/{PROJECT}/{self.file_name}"

    @property
    def prediction(self) -> str:
        return f"{self.number:032x}"

    @property
    def updated_at(self) -> datetime:
        return _START + timedelta(minutes=self.number)


def picture(number: int) -> Picture:
    """Make picture ``number``: always the same one."""
    random = Random(number)
    boxes = tuple(_box(random, number, place) for place in range(BOXES[number % len(BOXES)]))
    return Picture(number, *SIZES[number % len(SIZES)], boxes)


def _box(random: Random, number: int, place: int) -> Drawn:
    verdict = ("accepted", "accepted", "moved", "added")[place % 4]
    key = f"{number:x}-{place}" if verdict == "added" else f"{number:032x}-{place}"
    return Drawn(
        id=key,
        label=random.choice(LABELS),
        x=100 * random.random() * 0.8,
        y=100 * random.random() * 0.8,
        width=1 + 25 * random.random(),  # some reach over the edge
        height=1 + 25 * random.random(),
        rotation=random.randrange(360) if (number + place) % 20 == 0 else 0.0,
        verdict=verdict,
        score=None if verdict == "added" else round(0.3 + 0.7 * random.random(), 6),
    )


def fill(file: Path, first: int, last: int) -> None:
    """Add pictures ``first`` to ``last`` to the SQLite database in ``file``, which is made with the project."""
    engine = open_engine(f"sqlite:///{file}")
    upgrade(engine)
    with engine.begin() as connection:
        if first == 1:
            _insert(connection, _project_rows())
        for start in range(first, last + 1, _AT_A_TIME):
            numbers = range(start, min(start + _AT_A_TIME, last + 1))
            _insert(connection, (row for number in numbers for row in _rows(picture(number))))
    engine.dispose()


def _insert(connection: Connection, rows: Iterable[Row]) -> None:
    by_table: dict[type[Base], list[Json]] = defaultdict(list)
    for table, row in rows:
        by_table[table].append(row)
    for table, found in by_table.items():  # parents come first in what `_rows` yields
        connection.execute(insert(table), found)


def _project_rows() -> Iterator[Row]:
    project = {"uid": _UID, "label_studio_id": PROJECT, "title": TITLE, "label_config": CONFIG, "updated_at": _START}
    yield ProjectRow, project
    for number, name in enumerate(LABELS, 1):
        yield LabelRow, {"project_uid": _UID, "number": number, "name": name}


def _rows(made: Picture) -> Iterator[Row]:
    number, when = made.number, made.updated_at
    yield TaskRow, _of_project(number) | {"updated_at": when}
    yield ImageRow, {"task_id": number, "data_key": "image", "reference": made.reference}
    yield AnnotationRow, _of_project(number)
    for version in (2 * number, 2 * number + 1) if number % 20 == 7 else (2 * number + 1,):
        yield AnnotationVersionRow, _version_row(made, version)
        for place, box in enumerate(made.boxes):
            yield AnnotationRegionRow, _region_row(made, version, place, box)
            yield VerdictRow, _verdict_row(made, version, place, box)
    yield (
        PredictionRow,
        {
            "id": made.prediction,
            "project_uid": _UID,
            "task_id": number,
            "model_version": MODEL_VERSION,
            "query_key": "labels",
            "width": made.width,
            "height": made.height,
            "image": "image",
            "reference": made.reference,
            "sha256": sha256(made.file_name.encode()).hexdigest(),
            "created_at": when - timedelta(days=1),
        },
    )
    for place, box in enumerate(made.boxes):
        if box.verdict != "added":
            yield PredictionRegionRow, _proposal_row(made, place, box)


def _of_project(number: int) -> Json:
    return {"id": number, "project_uid": _UID, "label_studio_id": number, "deleted": False}


def _version_row(made: Picture, version: int) -> Json:
    return {
        "id": version,
        "annotation_id": made.number,
        "task_id": made.number,
        "created_at": made.updated_at - timedelta(hours=2),
        "updated_at": made.updated_at - timedelta(hours=1 - version % 2),
        "annotator": 1 + made.number % 5,
        "cancelled": False,
        "ground_truth": False,
        "lead_time": 12.5,
    }


def _region_row(made: Picture, version: int, place: int, box: Drawn) -> Json:
    return {
        "version_id": version,
        "position": place,
        "region_id": box.id,
        "image": "image",
        "labels": json.dumps([box.label]),
        "x": box.x,
        "y": box.y,
        "width": box.width,
        "height": box.height,
        "rotation": box.rotation,
        "image_width": made.width,
        "image_height": made.height,
        "origin": _ORIGINS[box.verdict],
        "prediction": None if box.verdict == "added" else made.prediction,
        "score": box.score,
    }


_ORIGINS = {"accepted": "prediction", "moved": "prediction-changed", "added": "manual"}


def _verdict_row(made: Picture, version: int, place: int, box: Drawn) -> Json:
    proposed = box.verdict != "added"
    return {
        "version_id": version,
        "position": place,
        "kind": box.verdict,
        "emitted_region": box.id if proposed else None,
        "final_region": box.id,
        "label_before": box.label if proposed else None,
        "label_after": box.label,
        "iou": 0.9 if proposed else None,
        "model_version": MODEL_VERSION,
        "prompt": box.label if proposed else None,
        "score": box.score,
        "annotator": 1 + made.number % 5,
        "lead_time": 12.5,
    }


def _proposal_row(made: Picture, place: int, box: Drawn) -> Json:
    x1, y1 = box.x * made.width / 100, box.y * made.height / 100
    return {
        "id": box.id,
        "prediction_id": made.prediction,
        "position": place,
        "label": box.label,
        "prompt": box.label,
        "score": box.score,
        "x1": x1,
        "y1": y1,
        "x2": min(x1 + box.width * made.width / 100, made.width),
        "y2": min(y1 + box.height * made.height / 100, made.height),
    }


def write_label_studio_json(file: Path, last: int) -> None:
    """Write pictures 1 to ``last`` as Label Studio exports a project to JSON: a list of tasks with annotations."""
    with file.open("w", encoding="utf-8") as out:
        for number in range(1, last + 1):
            out.write("[" if number == 1 else ",\n")
            made = picture(number)
            out.write(json.dumps(_task(made) | {"annotations": [_annotation(made, number, made.updated_at)]}))
        out.write("]")


def event(number: int, made: Picture) -> Json:
    """What Label Studio sends as event ``number`` (from 0): an update of a picture's annotation, or one more of it."""
    when = datetime(2026, 11, 1, tzinfo=UTC) + timedelta(seconds=number)
    updates = number % 2 == 0
    annotation = _annotation(made, made.number if updates else 1_000_000_000 + number, when)
    return {
        "action": "ANNOTATION_UPDATED" if updates else "ANNOTATION_CREATED",
        "project": {
            "id": PROJECT,
            "title": TITLE,
            "label_config": CONFIG,
            "created_at": _START.isoformat(),
            "updated_at": _START.isoformat(),
        },
        "task": _task(made),
        "annotation": annotation,
    }


def _task(made: Picture) -> Json:
    when = made.updated_at.isoformat()
    data = {"image": made.reference}
    return {"id": made.number, "data": data, "meta": {}, "created_at": when, "updated_at": when, "project": PROJECT}


def _annotation(made: Picture, number: int, updated_at: datetime) -> Json:
    return {
        "id": number,
        "task": made.number,
        "completed_by": 1 + made.number % 5,
        "result": [_result(made, box) for box in made.boxes],
        "was_cancelled": False,
        "ground_truth": False,
        "created_at": (updated_at - timedelta(hours=2)).isoformat(),
        "updated_at": updated_at.isoformat(),
        "lead_time": 12.5,
        "parent_prediction": None,
    }


def _result(made: Picture, box: Drawn) -> Json:
    value = {"x": box.x, "y": box.y, "width": box.width, "height": box.height, "rotation": box.rotation}
    glip = {"glip": {"prediction": made.prediction, "version": MODEL_VERSION}}
    return {
        "id": box.id,
        "type": "rectanglelabels",
        "value": value | {"rectanglelabels": [box.label]},
        "origin": _ORIGINS[box.verdict],
        "to_name": "image",
        "from_name": "label",
        "image_rotation": 0,
        "original_width": made.width,
        "original_height": made.height,
        **({} if box.score is None else {"score": box.score, "meta": glip}),
    }


def write_upload_folder(folder: Path, last: int) -> None:
    """Lay out the files of pictures 1 to ``last`` as Label Studio keeps uploads: links to one file of each size."""
    uploads = folder / str(PROJECT)
    uploads.mkdir(parents=True)
    for size in SIZES:
        Image.new("RGB", size).save(folder / f"{size[0]}.png")
    for number in range(1, last + 1):
        made = picture(number)
        (uploads / made.file_name).symlink_to(folder / f"{made.width}.png")
