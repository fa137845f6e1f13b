"""Builders: a test states only what it is about."""

import gc
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from backend.bootstrap import Backend
from backend.domain.records import Label, Look, Picture, Query
from backend.ports import Detector, Images
from backend.services.corrections import CorrectionsService
from backend.services.predict import Ask, Predict, PredictLimits
from backend.services.promotion import Production
from backend.services.training import Training
from tests.fake_learning import FakeModels
from tests.fakes import FakeDatabase, FakeDetector, FakeImages

RECORDINGS = Path(__file__).parent / "recordings"

CONFIG = """<View>
  <Image name="image" value="$image"/>
  <RectangleLabels name="label" toName="image"><Label value="cat"/><Label value="dog"/></RectangleLabels>
</View>"""


def recorded(name: str) -> dict[str, Any]:
    """What Label Studio sent: ``method``, ``path`` and ``json`` of a recorded request."""
    request: dict[str, Any] = json.loads((RECORDINGS / f"{name}.json").read_text(encoding="utf-8"))["request"]
    return request


def recordings(path: str) -> list[str]:
    """Names of the recorded requests to a path."""
    return sorted(file.stem for file in RECORDINGS.glob("*.json") if recorded(file.stem)["path"] == path)


def make_ask(task_id: int = 1, reference: str = "/data/upload/1/a.png", query: Query | None = None) -> Ask:
    return Ask(
        "7.1795423412",
        task_id,
        reference,
        (Label("cat"), Label("dog")) if query is None else query,
        Look("image", reference),
    )


def make_body(
    *references: object, config: str = CONFIG, context: Sequence[object] | None = None, first_id: int = 1
) -> dict[str, Any]:
    """Body of ``POST /predict`` for one task per reference."""
    return {
        "tasks": [{"id": first_id + index, "data": {"image": each}} for index, each in enumerate(references)],
        "project": "7.1795423412",
        "label_config": config,
        "params": {"context": None if context is None else {"result": list(context)}},
    }


def make_backend(
    detector: Detector | None = None,
    images: Images | None = None,
    database: FakeDatabase | None = None,
    limits: PredictLimits | None = None,
    basic_auth: tuple[str, str] | None = None,
    webhook_secret: str | None = None,
) -> Backend:
    """The service on fakes."""
    database = database or FakeDatabase()
    production = Production(database, FakeModels(detector or FakeDetector()))
    return Backend(
        production=production,
        predict=Predict(production, images or FakeImages(), database, database, limits or PredictLimits()),
        training=Training(database),
        unit_of_work=database,
        reading=database,
        corrections=CorrectionsService(database),
        model_state=lambda: "ready",
        basic_auth=basic_auth,
        webhook_secret=webhook_secret,
    )


def pictures_held() -> int:
    """How many decoded pictures are in memory."""
    gc.collect()
    return sum(type(each) is Picture for each in gc.get_objects())


def image_bytes(width: int = 8, height: int = 6, kind: str = "PNG", orientation: int | None = None) -> bytes:
    """An image file; ``width`` and ``height`` are as stored, before the EXIF orientation is applied."""
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    file = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(file, kind, exif=exif)
    return file.getvalue()
