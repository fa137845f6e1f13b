"""The one place that picks implementations for the ports."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from backend.db.letterbox import open_letterbox
from backend.db.schema import open_prepared
from backend.db.unit_of_work import SqlUnitOfWork
from backend.detector import GlipModelDetector
from backend.domain.records import Picture
from backend.errors import LabelStudioError, ValueRefusedError
from backend.glip_models import GlipModels
from backend.model_folders import DEMO_MODEL, DEMO_REMARK, find_model, model_version
from backend.pictures import decode_picture
from backend.ports import Images, Models, UnitOfWork
from backend.ports.learning import Trainer
from backend.services.corrections import CorrectionsService
from backend.services.predict import Predict, PredictLimits
from backend.services.promotion import Production, Promotion, production_version
from backend.services.sync import Sync
from backend.services.training import Training, TrainingPolicy
from backend.settings import Settings, child_environment
from backend.training_process import TrainingProcess
from backend.version_folders import VersionFolders
from backend.worker import Chore, Worker
from integrations.label_studio.client import LabelStudioCredentials
from integrations.label_studio.images import LabelStudioSite, TaskImages
from integrations.label_studio.tasks import LabelStudioTasks

if TYPE_CHECKING:
    from backend.services.learn import Learn

log = logging.getLogger("glip_label.worker")


@dataclass(frozen=True, slots=True)
class Backend:
    """The service's parts, ready to be put behind a web server.

    Attributes:
        reading: makes units of work that only read, and wait for nobody.
        model_state: tells ``idle``, ``loading``, ``ready`` or ``failed``.
        model_remark: a line that users should know about the model, or None.
        basic_auth: user and password that every request must carry, or None.
        webhook_secret: what lets an event in without them, or None.
    """

    production: Production
    predict: Predict
    training: Training
    unit_of_work: Callable[[], UnitOfWork]
    reading: Callable[[], UnitOfWork]
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
    return GlipModelDetector(
        folder,
        _version_cache(settings),
        settings.device,
        overlapping_labels=settings.overlapping_labels,
        box_voting=settings.box_voting,
        mirrored=settings.mirrored,
    )


def base_version(settings: Settings) -> str:
    """Return the version of the configured model without loading anything.

    Raises:
        ModelError: there is no such model.
    """
    return model_version(find_model(settings.model, settings.models_folder), _version_cache(settings))


def _version_cache(settings: Settings) -> Path:
    return settings.home / "versions.json"


def build_backend(settings: Settings, detector: GlipModelDetector) -> Backend:
    """Put the service together; an empty database gets its tables.

    Raises:
        StorageError: the database cannot be used, or needs an upgrade.
    """
    engine = open_prepared(settings.database_url)
    unit_of_work = partial(SqlUnitOfWork, engine, open_letterbox(engine))
    limits = PredictLimits(score_threshold=settings.score_threshold, seconds=settings.predict_seconds)
    models = GlipModels(detector, VersionFolders(settings.home))
    reading = partial(SqlUnitOfWork, engine, reads_only=True)
    production = Production(reading, models)
    return Backend(
        production=production,
        predict=Predict(production, build_images(settings), unit_of_work, reading, limits),
        training=Training(unit_of_work, reading=reading),
        unit_of_work=unit_of_work,
        reading=reading,
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
    engine = open_prepared(settings.database_url)
    if reads_only:
        return partial(SqlUnitOfWork, engine, reads_only=True)
    return partial(SqlUnitOfWork, engine, open_letterbox(engine))


def build_worker(settings: Settings, unit_of_work: Callable[[], UnitOfWork]) -> Worker:
    """Make the loop that applies events, fits scores and has jobs trained; with Label Studio set, it syncs, too."""
    from backend.services.fitting import Fitting  # takes seconds: scikit-learn

    # What only looks keeps no writer waiting, however much it reads.
    reading = open_database(settings, reads_only=True)
    training = Training(unit_of_work, reading=reading)
    policy = TrainingPolicy(settings.train_after, settings.train_hours)
    process = TrainingProcess(lambda: bool(training.claimable()), child_environment(MODEL=settings.model))
    chores = [
        Chore("training", 1.0, process),
        Chore("training policy", 60.0, lambda: training.request_due(policy)),
        Chore("fits", 60.0, Fitting(unit_of_work, reading, settings.correct_edges)),
    ]
    if settings.label_studio_url is not None and settings.label_studio_token is not None and settings.sync_minutes:
        chores.append(Chore("sync", 60 * settings.sync_minutes, lambda: _sync_all(settings, unit_of_work, reading)))
    return Worker(CorrectionsService(unit_of_work), chores, at_end=process.close)


def build_learn(settings: Settings) -> tuple[Training, "Learn"]:
    """Make what works on training jobs, and the queue that it claims them from.

    Raises:
        ModelError: there is no such model.
        StorageError: the database cannot be used, or needs an upgrade.
    """
    from backend.db.dataset_store import annotated_images
    from backend.reviewed_projects import KeptImages, StoredProjects
    from backend.services.contests import LearnParts
    from backend.services.gate import judge
    from backend.services.gathering import Gathering
    from backend.services.learn import Learn
    from backend.services.self_training import SelfTraining
    from backend.task_files import TaskFiles
    from backend.trainer import GlipTrainer

    engine = open_prepared(settings.database_url)
    unit_of_work = partial(SqlUnitOfWork, engine)
    detector = build_detector(settings)
    kept = KeptImages(settings.home / "images")
    folders = VersionFolders(settings.home)
    projects = StoredProjects(partial(annotated_images, engine), kept, TaskFiles(settings).read)
    reading, models = partial(SqlUnitOfWork, engine, reads_only=True), GlipModels(detector, folders)
    parts = LearnParts(
        unit_of_work=unit_of_work,
        reading=reading,
        gathering=SelfTraining(Gathering(projects, unit_of_work, reading), projects, reading, models),
        images=kept,
        models=models,
        trainer=GlipTrainer(detector.folder, kept, settings.device, settings.train_minutes),
        files=folders,
        judge=judge,
        announce=lambda project: announce(settings, unit_of_work, project),
    )
    return Training(unit_of_work, reading=reading), Learn(parts)


def build_learning(settings: Settings, images: Images) -> tuple[Models, Trainer]:
    """Make the configured model, and what fine-tunes it on images that are found by their SHA-256.

    Raises:
        ModelError: there is no such model.
    """
    from backend.trainer import GlipTrainer

    detector = build_detector(settings)
    trainer = GlipTrainer(detector.folder, images, settings.device, settings.train_minutes)
    return GlipModels(detector, VersionFolders(settings.home)), trainer


def build_promotion(settings: Settings, unit_of_work: Callable[[], UnitOfWork]) -> Promotion:
    """Make what moves a project's production by hand."""
    return Promotion(
        unit_of_work, lambda: base_version(settings), lambda project: announce(settings, unit_of_work, project)
    )


def announce(settings: Settings, unit_of_work: Callable[[], UnitOfWork], project: str) -> None:
    """Tell Label Studio which version a project's predictions have by now; what keeps it from that is only logged."""
    base = base_version(settings)
    with unit_of_work() as unit:
        state = unit.projects.state(project)
        version = production_version(unit, project, base)
    if state is None or state.is_imported:
        return
    from integrations.label_studio.api import label_studio_api
    from integrations.label_studio.connect import Backend as Connected
    from integrations.label_studio.connect import follow

    name = base if version is None else version.name
    credentials = Connected("", settings.basic_auth, settings.webhook_secret)
    try:
        with label_studio_api(settings.label_studio_url, settings.label_studio_token) as api:
            followed, strangers = follow(api, state.id, name, credentials)
    except LabelStudioError as error:
        log.warning("Label Studio does not know of %s yet: %s; then run `glip-label connect` again", name, error)
    else:
        log.info("project=%d version=%s backends followed=%d", state.id, name, len(followed))
        for url in strangers:
            log.warning(
                "project=%d ML backend %s answers %s but was connected without this service's credentials: if it is "
                "this service, run `glip-label connect` with its --url",
                state.id,
                url,
                name,
            )


def build_sync(settings: Settings, unit_of_work: Callable[[], UnitOfWork], reading: Callable[[], UnitOfWork]) -> Sync:
    """Make what repairs our state by polling Label Studio; ``reading`` makes units of work that only read.

    Raises:
        LabelStudioError: no URL is set.
    """
    if settings.label_studio_url is None:
        raise LabelStudioError("which Label Studio? Set GLIP_LABEL_LABEL_STUDIO_URL, such as http://localhost:8080")
    credentials = LabelStudioCredentials(settings.label_studio_url, settings.label_studio_token)
    return Sync(LabelStudioTasks(settings.label_studio_url, credentials.header), unit_of_work, reading)


def _sync_all(settings: Settings, unit_of_work: Callable[[], UnitOfWork], reading: Callable[[], UnitOfWork]) -> None:
    sync = build_sync(settings, unit_of_work, reading)
    with reading() as unit:
        projects = [(project.id, project.uid) for project in unit.projects.all() if not project.is_imported]
    for project_id, uid in projects:
        try:
            report = sync(project_id, uid)
        except (LabelStudioError, ValueRefusedError) as error:  # one may be gone, or not ours, or hold nonsense
            log.error("sync project=%d: %s", project_id, error)
            continue
        log.info("sync project=%d repaired=%d %s", project_id, report.repaired, report.summary())
        for problem in report.problems:
            log.warning("sync project=%d: %s", project_id, problem)
        announce(settings, unit_of_work, uid)


def build_images(settings: Settings, decode: Callable[[bytes, str], Picture] = decode_picture) -> TaskImages:
    """Make the fetcher of tasks' pictures; ``decode`` makes them of bytes and a name for errors."""
    site = None
    if settings.label_studio_url is not None:
        credentials = LabelStudioCredentials(settings.label_studio_url, settings.label_studio_token)
        site = LabelStudioSite(settings.label_studio_url, credentials.header)
    return TaskImages(decode, site, settings.image_hosts)
