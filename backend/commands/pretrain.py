"""``glip-label pretrain``: the recipe of the bundled model."""

import json
import sys
from pathlib import Path

import click

from backend.commands.numbers import RealRange, percent
from backend.errors import GlipLabelError, ModelError, UsageError

_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
_SETS = "blood_cells,aquarium,cards,microcontrollers"


@click.command(short_help="Train the bundled glip-nano from scratch.")
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--data", type=click.Path(path_type=Path), help="Folder with a folder per real set: images/, train.json.")
@click.option("--sets", default=_SETS, show_default=True, help="Real sets to train on, or to measure.")
@click.option("--stage", type=click.Choice(["words", "scenes", "mixture"]), default="mixture", show_default=True)
@click.option("--minutes", type=RealRange(min=0, min_open=True), help="Training time, 75 by default.")
@click.option("--steps", type=click.IntRange(min=1), help="Length in steps instead.")
@click.option("--no-fusion", is_flag=True, help="The layout of GLIP-T (A), for comparison.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
@click.option("--processes", type=click.IntRange(min=1), default=2, show_default=True, help="One batch each per step.")
@click.option("--init", type=_FOLDER, help="Model folder to start from.")
@click.option("--measure", "split", metavar="SPLIT", help="Train nothing: AP50 of the model in OUT, on this split.")
@click.option("--json", "as_json", is_flag=True, help="Print figures as JSON.")
def command(out: Path, data: Path | None, sets: str, split: str | None, as_json: bool, **options: object) -> None:
    """Train glip-nano into the folder OUT, or measure what is there.

    Three stages, each from the one before: the image encoder learns the words of small generated scenes, the whole
    model learns to find what they name, then the real sets are mixed in. A stopped run goes on from OUT/checkpoint.pt
    when it is started again with the same arguments.

    \b
    Examples:
      glip-label pretrain runs/words --stage words --minutes 36
      glip-label pretrain runs/scenes --stage scenes --minutes 42 --init runs/words
      glip-label pretrain runs/nano --data datasets/ --minutes 45 --init runs/scenes
      glip-label pretrain runs/nano --data datasets/ --measure val
    """
    names = [name.strip() for name in sets.split(",") if name.strip()] if options["stage"] == "mixture" else []
    if not names and options["stage"] == "mixture":
        raise UsageError("--sets names no set; to train on generated scenes alone give --stage scenes")
    if names and data is None:
        raise UsageError("--data is missing: the folder of the real sets; --stage words and scenes do without")
    folders = [data / name for name in names] if data else []
    if options["minutes"] and options["steps"]:
        raise UsageError("--minutes and --steps exclude each other: give one")
    if split is not None:
        _measure(out, folders, split, as_json)
    else:
        _train(out, folders, options)


def _train(out: Path, folders: list[Path], options: dict[str, object]) -> None:
    from tqdm import tqdm

    from glip_model.loading import ModelFolderError
    from glip_model.pretraining.batches import SCENES_ONLY, Mixture
    from glip_model.pretraining.coco_sets import DataError, read_coco_set
    from glip_model.pretraining.kept import PretrainingError
    from glip_model.pretraining.recipe import DEFAULT_SETS
    from glip_model.pretraining.run import RunSettings, pretrain

    names = ("minutes", "steps", "seed", "init", "processes")
    given = {name: options[name] for name in names if options[name] is not None}
    given["mixture"] = Mixture() if options["stage"] == "mixture" else SCENES_ONLY
    given["words_only"] = options["stage"] == "words"
    settings = RunSettings(early_fusion=not options["no_fusion"], **given)  # type: ignore[arg-type]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write to {out}: {error.strerror or error}") from error
    try:
        bar = tqdm(folders, desc="reading", unit="set", disable=None, file=sys.stderr)
        real = [read_coco_set(folder, "train") for folder in bar]
        pretrain(out, real, [DEFAULT_SETS.get(each.name, 1.0) for each in real], settings)
    except DataError as error:
        raise UsageError(str(error)) from error
    except (PretrainingError, ModelFolderError) as error:
        raise GlipLabelError(str(error)) from error
    click.echo(f"{out}: glip-nano is ready; measure it with --measure val")


def _measure(out: Path, folders: list[Path], split: str, as_json: bool) -> None:
    from tqdm import tqdm

    from glip_model.inference import GlipDetector
    from glip_model.loading import ModelFolderError
    from glip_model.pretraining.coco_sets import DataError
    from glip_model.pretraining.measure import measure, real_set, scene_set
    from glip_model.sentence import CaptionError

    try:
        detector = GlipDetector.from_folder(out)
        jobs = {f"scenes, {kind} combinations": scene_set(kind) for kind in ("seen", "unseen")}
        jobs |= {f"{folder.name} {split}": real_set(folder, split) for folder in folders}
    except ModelFolderError as error:
        raise ModelError(str(error)) from error
    except DataError as error:
        raise UsageError(str(error)) from error
    figures = {}
    for name, measured in jobs.items():
        bar = tqdm(range(len(measured.samples)), desc=name, unit="image", disable=None, file=sys.stderr)
        try:
            figures[name] = measure(detector, measured, bar).to_json()
        except CaptionError as error:
            raise UsageError(f"{name}: {error}") from error
    if as_json:
        click.echo(json.dumps({"model": str(out), "sets": figures}, indent=1))
        return
    width = max(map(len, figures))
    for name, scores in figures.items():
        click.echo(f"{name:<{width}}  AP50 {percent(scores['ap50']):>5}  AP {percent(scores['ap']):>5}")
