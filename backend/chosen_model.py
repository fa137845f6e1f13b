"""The model a command works with, named on stderr."""

from dataclasses import replace

import click

from backend.bootstrap import build_detector
from backend.model_folders import DEMO_MODEL
from backend.ports import Detector
from backend.settings import Settings

_DEMO_GRADE = "demo grade; for real work: glip-label weights pull glip-t, then --model glip-t"


def open_detector(model: str | None) -> tuple[Detector, Settings]:
    """Find the model that was asked for, or the configured one, and say on stderr which it is.

    Args:
        model: name or folder, or None.

    Raises:
        ModelError: there is no such model.
    """
    settings = Settings.from_env()
    settings = replace(settings, model=model or settings.model)
    detector = build_detector(settings)
    remark = f" ({_DEMO_GRADE})" if settings.model == DEMO_MODEL else ""
    click.echo(f"glip-label: model {detector.version}{remark}", err=True)
    return detector, settings
