"""The model a command works with, named on stderr."""

from dataclasses import replace
from pathlib import Path

import click

from backend.bootstrap import build_detector, open_database
from backend.domain.learning import PRODUCTION, ModelVersion
from backend.errors import UsageError
from backend.glip_models import GlipModels
from backend.model_folders import DEMO_MODEL
from backend.ports import Detector
from backend.services.projects import find_project
from backend.services.promotion import production_version
from backend.settings import Settings
from backend.version_folders import VersionFolders

_DEMO_GRADE = "demo grade; for real work: glip-label weights pull glip-t, then --model glip-t"


def open_detector(model: str | None, *, as_published: bool = False) -> tuple[Detector, Settings]:
    """Find the model that was asked for, or the configured one, and say on stderr which it is.

    Args:
        model: name, folder, or a project's version (``PROJECT@production``, ``PROJECT@glip-nano-0003``), or None.
        as_published: detect as the official network does, which may give an object several names.

    Raises:
        ModelError: there is no such model.
        UsageError: there is no such project or version.
    """
    settings = Settings.from_env()
    if as_published:
        settings = replace(settings, overlapping_labels=True, box_voting=False, mirrored=False)
    project, at, name = (model or "").rpartition("@")
    is_version = bool(at) and not Path(model or "").expanduser().is_dir()
    if not is_version:
        settings = replace(settings, model=model or settings.model)
    base = build_detector(settings)
    detector: Detector = base
    if is_version:
        version = _version(settings, project, name, base.version)
        detector = GlipModels(base, VersionFolders(settings.home)).open(version)
    remark = f" ({_DEMO_GRADE})" if settings.model == DEMO_MODEL and detector is base else ""
    click.echo(f"glip-label: model {detector.version}{remark}", err=True)
    return detector, settings


def _version(settings: Settings, project: str, name: str, base: str) -> ModelVersion | None:
    with open_database(settings, reads_only=True)() as unit:
        uid = find_project(unit.projects.all(), project).uid
        if name == PRODUCTION:
            return production_version(unit, uid, base)
        version = unit.versions.find(uid, name)
        names = [each.name for each in unit.versions.all(uid)]
    if version is None:
        raise UsageError(f"no version {name!r} of project {project!r}; there are {', '.join([PRODUCTION, *names])}")
    if version.base != base:
        raise UsageError(f"{name} was trained from {version.base}: set GLIP_LABEL_MODEL to that model")
    return version
