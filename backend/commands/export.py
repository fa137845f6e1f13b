"""``glip-label export``: a project's annotations as a data set."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backend.domain.dataset import AnnotatedImage, ImageFile
from backend.domain.facts import ProjectState
from backend.domain.policies import PARTS, AnnotatorPolicy, Splits
from backend.errors import LabelConfigError, UsageError
from backend.services.export import Export, ExportRequest

if TYPE_CHECKING:
    from backend.db.dataset_store import SqlAnnotatedImages
    from backend.settings import Settings

_DAY = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"])


@click.group()
def command() -> None:
    """Write a project's annotations as a data set.

    \b
    Example:
      glip-label export coco --project "street scenes" dataset/
    """


@command.command()
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--project", required=True, help="Name or id of the project.")
@click.option(
    "--policy",
    type=click.Choice([policy.value for policy in AnnotatorPolicy]),
    default=AnnotatorPolicy.GROUND_TRUTH.value,
    show_default=True,
    help="Whose annotation counts: the starred one, else the newest; the newest; or what most annotators drew.",
)
@click.option("--label", "labels", multiple=True, help="Only boxes of this label; may be given several times.")
@click.option("--merge", multiple=True, metavar="OLD=NEW", help="Write boxes of the label OLD as NEW.")
@click.option("--annotator", "annotators", type=int, multiple=True, help="Only annotations of this user id.")
@click.option("--since", type=_DAY, help="Only annotations changed at this time (UTC) or later.")
@click.option("--until", type=_DAY, help="Only annotations changed before this time (UTC).")
@click.option("--splits", metavar="70,15,15", help="Divide into train, val and test by the images' contents.")
@click.option("--split", "parts", multiple=True, type=click.Choice(PARTS), help="Only this part of --splits.")
@click.option("--include-unreviewed", is_flag=True, help="Also images that no one annotated, marked so.")
@click.option("--predictions", metavar="VERSION", help="Also COCO results with the proposals of this model version.")
@click.option("--copy-images", is_flag=True, help="Also the image files, below OUT/images.")
@click.option(
    "--images", type=click.Path(path_type=Path, file_okay=False, exists=True), help="Where an imported project's lie."
)
@click.option("--json", "as_json", is_flag=True, help="Print the manifest's figures as JSON.")
def coco(out: Path, project: str, images: Path | None, as_json: bool, copy_images: bool, **wanted: Any) -> None:
    """Write COCO files to the folder OUT: annotations.json, or one file for each part, and manifest.json.

    The same database gives the same bytes, and the manifest has the SHA-256 of every file and counts what was left
    out and why. docs/export.md explains every key. OUT may hold an earlier export, which is replaced.

    \b
    Examples:
      glip-label export coco --project 7 dataset/ --splits 70,15,15 --copy-images
      glip-label export coco --project "street scenes" dataset/ --policy consensus --label car --label bus
    """
    from backend.db.dataset_store import SqlAnnotatedImages
    from backend.db.engine import open_engine, snapshot
    from backend.db.schema import prepare
    from backend.db.unit_of_work import SqlUnitOfWork
    from backend.services.projects import find_project
    from backend.settings import Settings

    request = _request(**wanted)
    settings = Settings.from_env()
    engine = open_engine(settings.database_url)
    prepare(engine)
    with SqlUnitOfWork(engine, reads_only=True) as unit:
        state = find_project(unit.projects.all(), project)
    read = _reader(settings, images)
    with snapshot(engine) as connection:
        source = SqlAnnotatedImages(connection, state, _image_keys(state), request.predictions)
        _refuse_unknown_version(request.predictions, source.model_versions())
        export = Export(source, request, read, copy_images)
        figures = _write(export, source, request, out, state.title)
    for failure in export.tally.failures:
        click.echo(f"glip-label: left out {failure}", err=True)
    click.echo(json.dumps(figures, ensure_ascii=False, indent=1) if as_json else _summary(figures, out))
    if export.tally.failures:
        raise click.exceptions.Exit(1)


def _refuse_unknown_version(wanted: str | None, there: Sequence[str]) -> None:
    if wanted is not None and wanted not in there:
        raise UsageError(f"no predictions of {wanted!r}; there are " + (", ".join(there) or "none"))


def _write(
    export: Export, source: "SqlAnnotatedImages", request: ExportRequest, out: Path, title: str
) -> dict[str, Any]:
    from tqdm import tqdm

    from integrations.coco_export import CocoFolder

    parts = [] if request.splits is None else [n for n in request.splits.names if n in (request.parts or PARTS)]
    with ExitStack() as stack:
        folder = stack.enter_context(CocoFolder(out, export.labels, parts, request.predictions is not None))
        bar = stack.enter_context(tqdm(export.images(), unit="image", file=sys.stderr, disable=None))
        for image, content in bar:
            folder.add(image, content)
        tally = export.tally
        notes = {
            "project": title,
            "request": _request_to_json(request),
            "left_out": {
                "images": dict(sorted(tally.images.items())),
                "boxes": dict(sorted(tally.boxes.items())),
                "tasks_without_image": source.without_image,
                "regions_on_no_image": source.unplaced,
            },
            "clipped_boxes": tally.clipped,
        }
        folder.finish(notes)
        return {**folder.figures(), **notes}


def _summary(figures: Mapping[str, Any], out: Path) -> str:
    lines = [f"{figures['images']} images, {figures['annotations']} annotations -> {out}"]
    for what in ("images", "boxes"):
        if left_out := figures["left_out"][what]:
            lines.append(f"{what} left out: " + ", ".join(f"{count} {why}" for why, count in left_out.items()))
    return "\n".join(lines)


def _request(
    policy: str,
    merge: tuple[str, ...],
    splits: str | None,
    since: datetime | None,
    until: datetime | None,
    **plain: Any,
) -> ExportRequest:
    if plain["parts"] and splits is None:
        raise UsageError("--split chooses a part of --splits: give that, too, as in --splits 70,15,15")
    for pair in merge:
        if not all(pair.partition("=")[::2]):
            raise UsageError(f"--merge {pair!r}: say OLD=NEW")
    return ExportRequest(
        policy=AnnotatorPolicy(policy),
        labels=frozenset(plain["labels"]),
        renamed=tuple((old, new) for old, _, new in (pair.partition("=") for pair in merge)),
        annotators=frozenset(plain["annotators"]),
        since=None if since is None else since.replace(tzinfo=UTC),
        until=None if until is None else until.replace(tzinfo=UTC),
        splits=None if splits is None else _splits(splits),
        parts=frozenset(plain["parts"]),
        include_unreviewed=plain["include_unreviewed"],
        predictions=plain["predictions"],
    )


def _splits(text: str) -> Splits:
    try:
        shares = tuple(float(share) for share in text.split(","))
        return Splits(PARTS[: len(shares)], shares)
    except ValueError as error:
        raise UsageError(f"--splits {text!r}: say the shares of train, val and test, as in 70,15,15") from error


def _request_to_json(request: ExportRequest) -> dict[str, Any]:
    return {
        "policy": request.policy.value,
        "labels": sorted(request.labels),
        "merge": dict(request.renamed),
        "annotators": sorted(request.annotators),
        "since": None if request.since is None else request.since.isoformat(),
        "until": None if request.until is None else request.until.isoformat(),
        "splits": None if request.splits is None else dict(zip(PARTS, request.splits.shares, strict=False)),
        "parts": sorted(request.parts),
        "include_unreviewed": request.include_unreviewed,
        "predictions": request.predictions,
    }


def _image_keys(state: ProjectState) -> Mapping[str, str | None]:
    """Those of the labelling config; nothing where it is not known."""
    from integrations.label_studio.labels import parse_labeling_config

    if not state.label_config:
        return {}
    try:
        return parse_labeling_config(state.label_config).image_keys
    except LabelConfigError:
        return {}


def _reader(settings: "Settings", folder: Path | None) -> Callable[[AnnotatedImage], ImageFile]:
    """What gets an image's file: from the folder of an imported project, or from where its task says."""
    from backend.local_images import read_below
    from backend.task_files import TaskFiles

    files = TaskFiles(settings)

    def read(image: AnnotatedImage) -> ImageFile:
        if image.file_name is None:
            return files.read(image)
        if folder is None:
            raise UsageError("this project was imported: say with --images DIR where its image files lie")
        return read_below(folder, image.file_name)

    return read
