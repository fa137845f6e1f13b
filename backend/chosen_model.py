"""The model a command works with, named on stderr."""

from dataclasses import replace
from os.path import expanduser, isdir

import click

from backend.bootstrap import build_detector, open_database
from backend.domain.learning import PRODUCTION, Mode, ModelVersion
from backend.domain.records import Label
from backend.errors import UsageError
from backend.glip_models import GlipModels
from backend.model_folders import DEMO_MODEL
from backend.ports import Detector
from backend.services.projects import find_project
from backend.services.promotion import production_version
from backend.settings import Settings
from backend.version_folders import VersionFolders
from integrations.label_studio.labels import parse_labeling_config

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
    detector, settings, _ = _open(model, settings)
    return detector, settings


def _open(model: str | None, settings: Settings) -> tuple[Detector, Settings, ModelVersion | None]:
    """The detector, said on stderr; the settings of its base; and the version, where it is a project's own."""
    named = _project_and_version(model)
    if named is None:
        settings = replace(settings, model=model or settings.model)
    base = build_detector(settings)
    detector: Detector = base
    version = None if named is None else _version(settings, *named, base.version)
    if named is not None:
        detector = GlipModels(base, VersionFolders(settings.home)).open(version)
    remark = f" ({_DEMO_GRADE})" if settings.model == DEMO_MODEL and detector is base else ""
    click.echo(f"glip-label: model {detector.version}{remark}", err=True)
    return detector, settings, version


def open_base(model: str | None) -> Settings:
    """Find the model that learning is to begin with, and say on stderr which it is; ``model`` as of `open_detector`.

    Returns:
        Settings of which it is the configured model; a project's version is so by its folder.

    Raises:
        ModelError: there is no such model.
        UsageError: there is no such project or version, or it is an adapter.
    """
    detector, settings, version = _open(model, Settings.from_env())
    if version is None:
        return settings
    if version.mode is not Mode.FULL:
        raise UsageError(
            f"{detector.version} is an adapter of {version.base}, and learning begins with whole models: name the "
            "model itself, or a version of mode full"
        )
    return replace(settings, model=str(VersionFolders(settings.home).folder(version)))


def project_labels(model: str | None) -> tuple[Label, ...]:
    """What the project asks of which ``model`` is a version, with its prompts.

    Nothing where it is no project's, or where the labelling config was not told.

    Raises:
        LabelConfigError: the labelling config cannot be served.
        UsageError: there is no such project.
    """
    named = _project_and_version(model)
    if named is None:
        return ()
    with open_database(Settings.from_env(), reads_only=True)() as unit:
        config = find_project(unit.projects.all(), named[0]).label_config
    return parse_labeling_config(config).labels if config else ()


def _project_and_version(model: str | None) -> tuple[str, str] | None:
    """The halves of ``PROJECT@VERSION``; None where ``model`` is something else."""
    project, at, name = (model or "").rpartition("@")
    return (project, name) if at and not isdir(expanduser(model or "")) else None


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
