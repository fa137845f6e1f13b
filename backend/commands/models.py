"""``glip-label models``: a project's model versions, and which of them is in production."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from backend.errors import UsageError

if TYPE_CHECKING:
    from backend.domain.facts import ProjectState
    from backend.domain.learning import AliasMove, ModelVersion
    from backend.services.promotion import Promotion

_project = click.option("--project", required=True, help="Name or id of the Label Studio project.")
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def command() -> None:
    """List, show, promote and roll back a project's model versions.

    \b
    Example:
      glip-label models list --project 7
    """


@command.command(name="list")
@_project
@_json
def list_versions(project: str, as_json: bool) -> None:
    """List a project's versions, oldest first; a star marks what is in production.

    \b
    Example:
      glip-label models list --project 7
    """
    from backend.bootstrap import base_version, open_database
    from backend.domain.learning import PRODUCTION
    from backend.services.promotion import production_version
    from backend.settings import Settings

    settings = Settings.from_env()
    base = base_version(settings)
    with open_database(settings, reads_only=True)() as unit:
        state = _found(unit, project)
        versions = unit.versions.all(state.uid)
        production = production_version(unit, state.uid, base)
        moves = unit.versions.moves(state.uid, PRODUCTION)
    name = base if production is None else production.name
    if as_json:
        rows = [version_to_json(version) for version in versions]
        click.echo(json.dumps({"base": base, "production": name, "versions": rows}, ensure_ascii=False, indent=1))
        return
    click.echo("\n".join(_table(base, name, versions, moves)))


@command.command()
@_project
@click.argument("version")
@_json
def show(project: str, version: str, as_json: bool) -> None:
    """Show what a version was made of, how it did at the gate, and when it was in production.

    \b
    Example:
      glip-label models show --project 7 glip-nano-0003
    """
    from backend.bootstrap import open_database
    from backend.domain.learning import PRODUCTION
    from backend.settings import Settings

    with open_database(Settings.from_env(), reads_only=True)() as unit:
        state = _found(unit, project)
        found = unit.versions.find(state.uid, version)
        names = ", ".join(each.name for each in unit.versions.all(state.uid)) or "none yet"
        moves = [move for move in unit.versions.moves(state.uid, PRODUCTION) if move.version == version]
    if found is None:
        raise UsageError(f"no version {version!r}; there are {names}")
    told = version_to_json(found) | {"promotions": [move_to_json(move) for move in moves]}
    click.echo(json.dumps(told, ensure_ascii=False, indent=1) if as_json else "\n".join(_lines(told)))


@command.command()
@_project
@click.argument("version")
@click.option("--reason", default="chosen by hand", show_default=True, help="Why, for the history.")
@_json
def promote(project: str, version: str, reason: str, as_json: bool) -> None:
    """Put a version, or the base model by its name, into production; the service follows at its next request.

    \b
    Example:
      glip-label models promote --project 7 glip-nano-0003
    """
    promotion, state = _promotion(project)
    _tell(promotion.promote(state.uid, version, "command", reason), as_json)


@command.command()
@_project
@_json
def rollback(project: str, as_json: bool) -> None:
    """Put into production what was there before the present version was promoted.

    \b
    Example:
      glip-label models rollback --project 7
    """
    promotion, state = _promotion(project)
    _tell(promotion.rollback(state.uid, "command"), as_json)


def _promotion(project: str) -> "tuple[Promotion, ProjectState]":
    from backend.bootstrap import build_promotion, open_database
    from backend.settings import Settings

    settings = Settings.from_env()
    unit_of_work = open_database(settings)
    with unit_of_work() as unit:
        state = _found(unit, project)
    return build_promotion(settings, unit_of_work), state


def _found(unit: Any, project: str) -> "ProjectState":
    from backend.services.projects import find_project

    return find_project(unit.projects.all(), project)


def _tell(move: "AliasMove", as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(move_to_json(move), ensure_ascii=False))
    else:
        click.echo(f"{move.version or 'the base model'} is in production ({move.reason})")


def version_to_json(version: "ModelVersion") -> dict[str, Any]:
    """Show a version to programs."""
    return asdict(version) | {"files": dict(version.files), "created_at": version.created_at.isoformat()}


def move_to_json(move: "AliasMove") -> dict[str, Any]:
    """Show a promotion or a rollback to programs."""
    return asdict(move) | {"moved_at": move.moved_at.isoformat()}


def _table(
    base: str, production: str, versions: "Sequence[ModelVersion]", moves: "Iterable[AliasMove]"
) -> Iterator[str]:
    promoted = {move.version: move.reason for move in moves if move.actor == "gate"}
    rows = [(base, "", "", "", "the configured model")]
    rows += [
        (each.name, each.mode.value, _images(each), f"{each.created_at:%Y-%m-%d %H:%M}", _gate(each, base, promoted))
        for each in versions
    ]
    header = ("version", "mode", "images", "made (UTC)", "gate")
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    for row in (header, *rows):
        cells = "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        yield ("* " if row[0] == production else "  ") + cells.rstrip()


def _images(version: "ModelVersion") -> str:
    return str(version.metrics.get("images", {}).get("train", ""))


def _gate(version: "ModelVersion", base: str, promoted: Mapping[str | None, str]) -> str:
    """What the gate said last: what it refused it may have promoted later."""
    if version.base != base:
        return f"trained from {version.base}"
    return promoted.get(version.name) or str(version.metrics.get("gate", {}).get("reason", ""))


def _lines(told: dict[str, Any]) -> Iterator[str]:
    for name in ("name", "parent", "base", "mode", "fingerprint", "created_at"):
        yield f"{name}: {told[name]}"
    yield "files: " + ", ".join(f"{name} {digest[:12]}…" for name, digest in told["files"].items())
    for move in told["promotions"]:
        yield f"{move['kind']} {move['moved_at']} by {move['actor']}: {move['reason']}"
    yield "metrics: " + json.dumps(told["metrics"], ensure_ascii=False, indent=1)
