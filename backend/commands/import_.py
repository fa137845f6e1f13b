"""``glip-label import``: data sets that were annotated elsewhere."""

import json
from collections import Counter
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from backend.errors import UsageError

if TYPE_CHECKING:
    from integrations.coco_import import ImportedDataset

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group()
def command() -> None:
    """Bring in data sets that were annotated elsewhere.

    \b
    Example:
      glip-label import coco instances.json --images photos/ --project "street scenes"
    """


@command.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=_FILE)
@click.option(
    "--images",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    required=True,
    help="The folder that the file names in FILE are relative to.",
)
@click.option("--project", required=True, help="Name of the new project.")
@click.option(
    "--on-error",
    type=click.Choice(["refuse", "skip"]),
    default="refuse",
    show_default=True,
    help="What to do about images and boxes that cannot be taken in.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def coco(files: tuple[Path, ...], images: Path, project: str, on_error: str, as_json: bool) -> None:
    """Import COCO data sets (several FILEs are parts of one) as a new project of reviewed annotations.

    Ids of images stay as they are, so those of several FILEs must differ; boxes are of images of their own FILE.

    Every image is looked at: size and content must be those that FILE tells, if it does. What cannot be taken in is
    listed, and refused as a whole unless --on-error skip. An image that lost boxes that way and has none left counts
    as never reviewed. Rotations, groups and provenance of our own exports come back; masks of others become boxes.

    \b
    Examples:
      glip-label import coco instances.json --images photos/ --project "street scenes"
      glip-label import coco train.json val.json --images photos/ --project birds --on-error skip
    """
    from backend.db.dataset_import import SqlImportedImages
    from backend.db.engine import open_engine
    from backend.db.schema import prepare
    from backend.local_images import measure_below
    from backend.services.import_ import import_images
    from backend.settings import Settings
    from integrations.coco_import import read_dataset

    if not project.strip():
        raise UsageError("--project is empty: name the new project")
    found = read_dataset(files, partial(measure_below, images))
    for problem in found.problems:
        click.echo(f"glip-label: left out {problem}", err=True)
    if found.problems and on_error == "refuse":
        raise UsageError(
            f"nothing was imported: {len(found.problems)} things cannot be taken in ({_counted(found)}); mend them, or "
            "leave them out with --on-error skip"
        )
    engine = open_engine(Settings.from_env().database_url)
    prepare(engine)
    import_images(SqlImportedImages(engine, project), found.labels, found.images, datetime.now(UTC))
    boxes = sum(len(image.boxes) for image in found.images)
    if as_json:
        figures = {
            "project": project,
            "images": len(found.images),
            "boxes": boxes,
            "labels": len(found.labels),
            "left_out": Counter(problem.reason for problem in found.problems),
            "notes": found.notes,
        }
        click.echo(json.dumps(figures, ensure_ascii=False, indent=1))
        return
    click.echo(f"{len(found.images)} images, {boxes} boxes, {len(found.labels)} labels -> project {project}")
    if found.problems:
        click.echo(f"left out: {_counted(found)}")
    for note, count in sorted(found.notes.items()):
        click.echo(f"{count} {note}")


def _counted(found: "ImportedDataset") -> str:
    reasons = Counter(problem.reason for problem in found.problems)
    return ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
