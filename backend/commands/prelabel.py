"""``glip-label prelabel``: boxes for pictures on disk."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

from backend.commands.numbers import RealRange
from backend.domain.records import Query, Sentence, Span
from backend.domain.review import FIRST_THRESHOLD
from backend.errors import UsageError
from backend.ports import Detector
from backend.services.prelabel import Found, PrelabelSettings, Skipped, prelabel
from backend.services.queries import answered_labels, parse_labels

if TYPE_CHECKING:
    from backend.prelabel_output import Outcomes
    from integrations.label_studio.labels import ImageTarget


@dataclass(frozen=True, slots=True)
class Options:
    """The command's options as they were given."""

    paths: tuple[str, ...]
    labels: str | None
    caption: str | None
    label_config: Path | None
    prompts: Path | None
    model: str | None
    out: Path | None
    format: str
    image_url_prefix: str
    draw: Path | None
    threshold: float | None
    batch_size: int
    as_json: bool


@click.command(short_help="Find boxes in pictures.")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option(
    "--labels", help='What to find: "cat,dog". With other words for a label: "RBC=red blood cell|erythrocyte".'
)
@click.option("--caption", help='A sentence with what to find in brackets: "a [red car] behind [two dogs]".')
@click.option(
    "--label-config", type=click.Path(path_type=Path), help="Labels and tag names of a Label Studio config (XML file)."
)
@click.option(
    "--prompts", type=click.Path(path_type=Path), help="File with a line label=prompt|prompt for some of --labels."
)
@click.option(
    "--model", help="Name of a model, its folder, or PROJECT@VERSION; GLIP_LABEL_MODEL or glip-nano by default."
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="JSON file to write.")
@click.option(
    "--format", type=click.Choice(["coco", "label-studio"]), default="coco", show_default=True, help="What --out holds."
)
@click.option(
    "--image-url-prefix",
    default="/data/local-files/?d=",
    show_default=True,
    help="What stands before an image's relative path in Label Studio tasks.",
)
@click.option(
    "--draw", type=click.Path(path_type=Path, file_okay=False), help="Folder for pictures with the boxes drawn."
)
@click.option(
    "--threshold",
    type=RealRange(0, 1),
    help=f"Lowest score of a box; GLIP_LABEL_SCORE_THRESHOLD or {FIRST_THRESHOLD} by default.",
)
@click.option(
    "--batch-size", type=click.IntRange(1, 256), default=4, show_default=True, help="Pictures at a time, for a GPU."
)
@click.option("--json", "as_json", is_flag=True, help="Print the run's figures as JSON.")
def command(**given: Any) -> None:
    """Find boxes in pictures: files, folders with all below them, or glob patterns.

    With --out F.json --format coco, F.json is a COCO data set whose annotations carry scores, and F.results.json has
    the same boxes as COCO results. With --format label-studio, F.json is for Label Studio's Import. File names in
    them are relative to the deepest folder that holds all pictures. Without --out or --draw, boxes are printed: file,
    label, score, x1, y1, x2, y2.

    Boxes are in pixels of the upright picture. Pictures that cannot be read are listed at the end and skipped; the
    exit code is 1 then. Ctrl-C writes what was found so far.

    \b
    Examples:
      glip-label prelabel photos/ --labels "cat,dog" --out boxes.json --draw drawn/
      glip-label prelabel "scans/**/*.png" --labels "RBC=red blood cell,WBC=white blood cell" --out boxes.json
      glip-label prelabel street.jpg --caption "a [red car] behind [two dogs]" --model glip-t
    """
    options = Options(**given)
    query, target = _query(options)
    if options.out is not None:
        _refuse_unwritable(options.out.parent)
    if options.draw is not None:
        _refuse_unwritable(options.draw)
    from backend.local_images import find_images

    images = find_images(options.paths, outside=options.draw)
    _refuse_overwriting(options, images)
    from backend.chosen_model import open_detector

    detector, settings = open_detector(options.model)
    threshold = settings.score_threshold if options.threshold is None else options.threshold
    limits = PrelabelSettings(threshold, options.batch_size)
    outcomes = run(options, images, query, target, detector=detector, settings=limits)
    if outcomes.skipped:
        raise click.exceptions.Exit(1)


def run(
    options: Options,
    images: Sequence[Path],
    query: Query,
    target: "ImageTarget",
    *,
    detector: Detector,
    settings: PrelabelSettings,
) -> "Outcomes":
    """Look at all pictures, write what was found whatever ends the run, and say what came of it.

    Raises:
        UsageError: the query asks for something impossible.
        ModelError: the weights cannot be used.
        GlipLabelError: a file cannot be written.
    """
    from tqdm import tqdm

    from backend.local_images import LocalImages, relative_names
    from backend.prelabel_output import FoundIn, Outcomes, draw

    outcomes = Outcomes(detector.version, answered_labels(query))
    found = prelabel(map(str, images), query, images=LocalImages(), detector=detector, settings=settings)
    bar = tqdm(found, total=len(images), unit="image", file=sys.stderr, disable=None)  # none where no one watches
    begun = perf_counter()
    try:
        for number, (name, outcome) in enumerate(zip(relative_names(images), bar, strict=True), start=1):
            if isinstance(outcome, Skipped):
                outcomes.skipped.append(outcome)
                continue
            if options.draw is not None:
                draw(outcome, name, options.draw, outcomes.labels)
            outcomes.images.append(FoundIn.of(number, name, outcome))
            if options.out is None and options.draw is None and not options.as_json:
                for line in _lines(outcome):
                    tqdm.write(line, file=sys.stdout)
    finally:
        bar.close()
        if outcomes.images or outcomes.skipped:
            _report(options, outcomes, _write(options, outcomes, target), perf_counter() - begun)
    return outcomes


def _lines(found: Found) -> Iterator[str]:
    for proposal in found.proposals:
        box = proposal.box
        corners = "\t".join(f"{corner:.1f}" for corner in (box.x1, box.y1, box.x2, box.y2))
        yield f"{found.reference}\t{proposal.label}\t{proposal.score:.3f}\t{corners}"


def _write(options: Options, outcomes: "Outcomes", target: "ImageTarget") -> list[Path]:
    from backend.prelabel_output import write_coco, write_label_studio

    if options.out is None:
        return []
    if options.format == "coco":
        return write_coco(outcomes, options.out)
    return write_label_studio(outcomes, options.out, target, options.image_url_prefix)


def _report(options: Options, outcomes: "Outcomes", written: list[Path], seconds: float) -> None:
    """Summarise on stderr, and as JSON on stdout if asked; skipped pictures come last, where they are seen."""
    from backend.local_images import path_as_text

    places = [*map(str, written), *([str(options.draw)] if options.draw else [])]
    click.echo(
        f"glip-label: {len(outcomes.images)} images, {outcomes.boxes} boxes, {len(outcomes.skipped)} skipped, "
        f"{seconds:.1f} s" + (f" -> {', '.join(places)}" if places else ""),
        err=True,
    )
    for skipped in outcomes.skipped:
        click.echo(f"glip-label: skipped {skipped.reason}", err=True)
    if options.as_json:
        figures = {
            "model": outcomes.model_version,
            "images": len(outcomes.images),
            "boxes": outcomes.boxes,
            "skipped": [
                {"file": path_as_text(skipped.reference), "reason": skipped.reason} for skipped in outcomes.skipped
            ],
            "seconds": round(seconds, 3),
            "written": places,
        }
        click.echo(json.dumps(figures, ensure_ascii=False, indent=1))


def _query(options: Options) -> tuple[Query, "ImageTarget"]:
    """What to look for, and what Label Studio calls it."""
    from glip_model.sentence import CaptionError, parse_sentence
    from integrations.label_studio.import_json import default_target

    if sum(given is not None for given in (options.labels, options.caption, options.label_config)) != 1:
        raise UsageError('say what to find with one of --labels "cat,dog", --caption "a [cat]" or --label-config FILE')
    if options.prompts is not None and options.labels is None:
        raise UsageError("--prompts goes with --labels")
    if options.label_config is not None:
        target = _target(options.label_config)
        return target.labels, target
    query: Query
    if options.labels is not None:
        query = parse_labels(options.labels, _read(options.prompts).splitlines() if options.prompts else ())
    else:
        try:
            sentence = parse_sentence(options.caption or "")
        except CaptionError as error:
            raise UsageError(f"--caption: {error}") from error
        spans = zip(sentence.spans, sentence.phrases, strict=True)
        query = Sentence(
            sentence.text, tuple(Span(start, end, " ".join(words.split())) for (start, end), words in spans)
        )
    return query, default_target(answered_labels(query))


def _target(label_config: Path) -> "ImageTarget":
    from integrations.label_studio.labels import parse_labeling_config

    targets = parse_labeling_config(_read(label_config)).targets
    if len(targets) > 1:
        names = ", ".join(target.name for target in targets)
        raise UsageError(f"{label_config} shows several images ({names}): leave one in it for pictures on disk")
    return targets[0]


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is no UTF-8 text") from error


def _refuse_overwriting(options: Options, images: Sequence[Path]) -> None:
    from backend.local_images import refuse_overwriting, relative_names
    from backend.prelabel_output import drawing_path, results_path

    read = [*images, *(path for path in (options.prompts, options.label_config) if path is not None)]
    written = []
    if options.out is not None:
        written += [options.out, results_path(options.out)] if options.format == "coco" else [options.out]
    if options.draw is not None:
        written += [drawing_path(name, options.draw) for name in relative_names(images)]
    refuse_overwriting(read, written)


def _refuse_unwritable(folder: Path) -> None:
    """Make the folder now: finding out after an hour of work would be late."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror or error}") from error
    if not os.access(folder, os.W_OK):
        raise UsageError(f"cannot write to {folder}: permission denied")
