"""``glip-label evaluate``: average precision on COCO annotations."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from os.path import isfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from backend.commands.numbers import percent
from backend.commands.truth import read_truth
from backend.domain.learning import PRODUCTION
from backend.domain.records import Label
from backend.errors import ImageError, UsageError
from backend.ports import Detector
from backend.services.prelabel import PrelabelSettings, Skipped, prelabel

if TYPE_CHECKING:
    from glip_model.evaluation import DetectionScores
    from integrations.coco import CocoDataset, LabelledImage


@click.command(short_help="Average precision on COCO annotations.")
@click.option(
    "--images", type=click.Path(path_type=Path), required=True, help="Folder that the file names are relative to."
)
@click.option(
    "--annotations", type=click.Path(path_type=Path), required=True, help="COCO JSON file with the true boxes."
)
@click.option(
    "--model", help="Name of a model, its folder, or PROJECT@VERSION; GLIP_LABEL_MODEL or glip-nano by default."
)
@click.option("--project", help="Measure what is in production for this Label Studio project, by its name or id.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(images: Path, annotations: Path, model: str | None, project: str | None, as_json: bool) -> None:
    """Measure a model on a COCO data set: it is asked for every category in every image.

    It detects as the official network does: each picture is looked at once, and an object may get several names.
    A project's model is asked with the words of the project's labelling config where a label has the category's name.
    Images that an export marked as never reviewed are left out.

    AP is COCO's: the mean over overlaps from 0.50 to 0.95; AP50 is at an overlap of 0.50.

    \b
    Example:
      glip-label evaluate --images photos/ --annotations photos/test.json --model glip-t
    """
    if model is not None and project is not None:
        raise UsageError("--model and --project name two models: give one of them")
    dataset = read_truth(annotations, "measure")
    _refuse_missing(images, dataset.images)
    from backend.chosen_model import open_detector, project_labels
    from glip_model.evaluation import evaluate_detections, read_ground_truth

    try:
        truth = read_ground_truth(annotations)
    except ValueError as error:
        raise UsageError(str(error)) from error
    measured = {image.id for image in dataset.images}
    truth["images"] = [row for row in truth["images"] if row["id"] in measured]
    version = model if project is None else f"{project}@{PRODUCTION}"
    detector, _ = open_detector(version, as_published=True)
    results = found_results(dataset, images, detector, project_labels(version))
    scores = evaluate_detections(truth, results)
    if as_json:
        click.echo(json.dumps({"model": detector.version, **scores.to_json()}, ensure_ascii=False, indent=1))
    else:
        click.echo("\n".join(table(scores)))


def found_results(
    dataset: "CocoDataset", folder: Path, detector: Detector, labels: Sequence[Label] = ()
) -> list[dict[str, object]]:
    """Ask for every category in every image of the data set, and return COCO results.

    Args:
        dataset: the true boxes.
        folder: what its file names are relative to.
        detector: what is asked.
        labels: with which words categories of their names are asked for; the others by their names.

    Raises:
        ImageError: an image cannot be had: figures without it would be of another data set.
    """
    from tqdm import tqdm

    from backend.local_images import LocalImages
    from integrations.coco import LabelledBox, results_to_coco

    category_ids = {category.name: category.id for category in dataset.categories}
    known = {label.name: label for label in labels}
    outcomes = prelabel(
        (str(folder / image.file_name) for image in dataset.images),
        tuple(known.get(name, Label(name)) for name in category_ids),
        images=LocalImages(),
        detector=detector,
        settings=PrelabelSettings(score_threshold=0.0, batch_size=4),
    )
    bar = tqdm(outcomes, total=len(dataset.images), unit="image", file=sys.stderr, disable=None)
    labelled = []
    for image, outcome in zip(dataset.images, bar, strict=True):
        if isinstance(outcome, Skipped):
            raise ImageError(outcome.reason)
        image.refuse_other_size(outcome.picture.width, outcome.picture.height, outcome.reference)
        boxes = (LabelledBox(found.box, category_ids[found.label], found.score) for found in outcome.proposals)
        labelled.append(replace(image, boxes=tuple(boxes)))
    return results_to_coco(labelled)


def table(scores: "DetectionScores") -> Iterator[str]:
    """Lay the scores out for people, in percent: a row per class, the mean over classes below."""
    rows = [(each.name, str(each.boxes), percent(each.ap), percent(each.ap50)) for each in scores.classes]
    rows.append(("all", str(sum(each.boxes for each in scores.classes)), percent(scores.ap), percent(scores.ap50)))
    width = max(len("class"), *(len(name) for name, *_ in rows))
    yield f"{'class':<{width}}  {'boxes':>6}  {'AP':>5}  {'AP50':>5}"
    for name, boxes, ap, ap50 in rows:
        yield f"{name:<{width}}  {boxes:>6}  {ap:>5}  {ap50:>5}"
    sizes = zip(("small", "medium", "large"), (scores.ap_small, scores.ap_medium, scores.ap_large), strict=True)
    by_size = ", ".join(f"AP {name} {percent(ap)}" for name, ap in sizes)
    yield f"{scores.images} images, AP75 {percent(scores.ap75)}, {by_size}, AR {percent(scores.ar)}"


def _refuse_missing(folder: Path, images: Sequence["LabelledImage"]) -> None:
    missing = [image.file_name for image in images if not isfile(folder / image.file_name)]
    if missing:
        raise UsageError(
            f"{len(missing)} of {len(images)} images are not in {folder}, the first is {missing[0]}: check --images"
        )
