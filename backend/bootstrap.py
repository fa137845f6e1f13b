"""The one place that picks implementations for the ports."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from backend.db.engine import open_engine
from backend.db.letterbox import open_letterbox
from backend.db.schema import prepare
from backend.db.unit_of_work import SqlUnitOfWork
from backend.detector import GlipModelDetector
from backend.domain.records import Picture
from backend.errors import LabelStudioError
from backend.model_folders import DEMO_MODEL, DEMO_REMARK, find_model
from backend.pictures import decode_picture
from backend.ports import Detector, UnitOfWork
from backend.services.corrections import CorrectionsService
from backend.services.predict import Predict, PredictLimits
from backend.services.sync import Sync
from backend.settings import Settings
from backend.worker import Chore, Worker
from integrations.label_studio.client import LabelStudioCredentials
from integrations.label_studio.images import LabelStudioSite, TaskImages
from integrations.label_studio.tasks import LabelStudioTasks

log = logging.getLogger("glip_label.worker")


@dataclass(frozen=True, slots=True)
class Backend:
    """The service's parts, ready to be put behind a web server.

    Attributes:
        model_state: tells ``idle``, ``loading``, ``ready`` or ``failed``.
        model_remark: a line that users should know about the model, or None.
        basic_auth: user and password that every request must carry, or None.
        webhook_secret: what lets an event in without them, or None.
    """

    detector: Detector
    predict: Predict
    unit_of_work: Callable[[], UnitOfWork]
    corrections: CorrectionsService
    model_state: Callable[[], str]
    model_remark: str | None = None
    basic_auth: tuple[str, str] | None = None
    webhook_secret: str | None = None


def build_detector(settings: Settings) -> GlipModelDetector:
    """Find the configured model; its weights are loaded on first use.

    Raises:
        ModelError: there is no such model.
    """
    folder = find_model(settings.model, settings.models_folder)
    return GlipModelDetector(folder, settings.home / "versions.json", settings.device)


def build_backend(settings: Settings, detector: GlipModelDetector) -> Backend:
    """Put the service together; an empty database gets its tables.

    Raises:
        StorageError: the database cannot be used, or needs an upgrade.
    """
    unit_of_work = open_database(settings)
    limits = PredictLimits(score_threshold=settings.score_threshold, seconds=settings.predict_seconds)
    return Backend(
        detector=detector,
        predict=Predict(detector, build_images(settings), unit_of_work, limits),
        unit_of_work=unit_of_work,
        corrections=CorrectionsService(unit_of_work),
        model_state=lambda: detector.state,
        model_remark=DEMO_REMARK if settings.model == DEMO_MODEL else None,
        basic_auth=settings.basic_auth,
        webhook_secret=settings.webhook_secret,
    )


def open_database(settings: Settings, *, reads_only: bool = False) -> Callable[[], UnitOfWork]:
    """Return what makes units of work (that only read: they keep no writer waiting); an empty database gets its tables.

    Raises:
        StorageError: the database cannot be used, or needs an upgrade.
    """
    engine = open_engine(settings.database_url)
    prepare(engine)
    if reads_only:
        return partial(SqlUnitOfWork, engine, reads_only=True)
    return partial(SqlUnitOfWork, engine, open_letterbox(engine))


def build_worker(settings: Settings, unit_of_work: Callable[[], UnitOfWork]) -> Worker:
    """Make the loop that applies events; where Label Studio's URL and token are set, it also syncs on a timer."""
    polls = settings.label_studio_url is not None and settings.label_studio_token is not None and settings.sync_minutes
    chores = [Chore("sync", 60 * settings.sync_minutes, lambda: _sync_all(settings, unit_of_work))] if polls else []
    return Worker(CorrectionsService(unit_of_work), chores)


def build_sync(settings: Settings, unit_of_work: Callable[[], UnitOfWork]) -> Sync:
    """Make what repairs our state by polling Label Studio.

    Raises:
        LabelStudioError: no URL is set.
    """
    if settings.label_studio_url is None:
        raise LabelStudioError("which Label Studio? Set GLIP_LABEL_LABEL_STUDIO_URL, such as http://localhost:8080")
    credentials = LabelStudioCredentials(settings.label_studio_url, settings.label_studio_token)
    return Sync(LabelStudioTasks(settings.label_studio_url, credentials.header), unit_of_work)


def _sync_all(settings: Settings, unit_of_work: Callable[[], UnitOfWork]) -> None:
    sync = build_sync(settings, unit_of_work)
    with unit_of_work() as unit:
        projects = sorted({project.id for project in unit.projects.all() if project.id > 0})
    for project_id in projects:
        try:
            report = sync(project_id)
        except LabelStudioError as error:  # one of them may be gone, or another account's
            log.error("sync project=%d: %s", project_id, error)
            continue
        log.info("sync project=%d repaired=%d %s", project_id, report.repaired, report.summary())
        for problem in report.problems:
            log.warning("sync project=%d: %s", project_id, problem)


def build_images(settings: Settings, decode: Callable[[bytes, str], Picture] = decode_picture) -> TaskImages:
    """Make the fetcher of tasks' pictures; ``decode`` makes them of bytes and a name for errors."""
    site = None
    if settings.label_studio_url is not None:
        credentials = LabelStudioCredentials(settings.label_studio_url, settings.label_studio_token)
        site = LabelStudioSite(settings.label_studio_url, credentials.header)
    return TaskImages(decode, site, settings.image_hosts)
