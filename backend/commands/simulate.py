"""``glip-label simulate``: how much work the loop of learning saves, with a simulated person."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from backend.commands.numbers import RealRange
from backend.commands.truth import read_truth
from backend.domain.learning import Mode
from backend.domain.records import Label, Picture, Proposal
from backend.domain.review import CARDS, LABEL_STUDIO, ReviewMode
from backend.domain.training_data import LabelledBox
from backend.errors import StorageError, UsageError

if TYPE_CHECKING:
    from backend.analysis.simulated_project import Round
    from backend.services.simulate import Precision, Simulation, SimulationTools, TrueProject
    from backend.services.simulated_view import TrueImage
    from integrations.coco import CocoDataset

STRATEGIES = ("zero-shot", "random", "active")  # not imported, so that --help stays fast


@click.command(short_help="How much work learning saves, with a simulated person.")
@click.option(
    "--images", type=click.Path(path_type=Path), required=True, help="Folder that the file names are relative to."
)
@click.option(
    "--train", type=click.Path(path_type=Path), required=True, help="COCO JSON file: what is to be annotated."
)
@click.option(
    "--test",
    type=click.Path(path_type=Path),
    required=True,
    help="COCO JSON file that models are measured on, no more.",
)
@click.option(
    "--model",
    help="Name of a model, its folder, or PROJECT@VERSION of a whole one; GLIP_LABEL_MODEL or glip-nano by default.",
)
@click.option(
    "--strategy",
    "strategies",
    type=click.Choice(STRATEGIES),
    multiple=True,
    help="Never learn, learn from images in random order, or choose them; all three by default. May be repeated.",
)
@click.option(
    "--batch", type=click.IntRange(1), default=25, show_default=True, help="Images between two trainings; later more."
)
@click.option(
    "--rounds",
    type=click.IntRange(0),
    help="Trainings that the gate judges at most; as long as images are left by default.",
)
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="Projects per strategy.")
@click.option("--mode", type=click.Choice([each.value for each in Mode]), help="What to train; chosen by default.")
@click.option("--minutes", type=RealRange(0, min_open=True), help="Of each training at most.")
@click.option(
    "--review",
    type=click.Choice([each.value for each in ReviewMode]),
    default=ReviewMode.LABEL_STUDIO.value,
    show_default=True,
    help="Whether Label Studio's Submit accepts what nobody touched, or each box is judged by itself.",
)
@click.option(
    "--work",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep what was trained in this folder: a stopped simulation goes on from there when it is started again, and "
    "several commands can share it.",
)
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the curves into this file (.png, .svg, .pdf).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(  # one argument per option
    images: Path,
    train: Path,
    test: Path,
    model: str | None,
    strategies: tuple[str, ...],
    batch: int,
    rounds: int | None,
    seeds: int,
    mode: str | None,
    minutes: float | None,
    review: str,
    work: Path | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Annotate a COCO data set as a person would who makes mistakes, from zero-shot boxes to the last image.

    After each batch a candidate learns from the corrections and is promoted if the gate lets it. Seconds are held
    against drawing every box, which takes 7 s by extreme clicking, or 25.5 s. Fixed thresholds are tried on the same
    boxes.

    \b
    Example:
      glip-label simulate --images photos/ --train photos/train.json --test photos/test.json --seeds 3 --plot saved.png
    """
    from backend.simulation_output import draw, refuse_undrawable, table

    if plot is not None:
        refuse_undrawable(plot)
    chosen = tuple(dict.fromkeys(strategies)) or STRATEGIES
    from backend.analysis.simulation_report import report
    from backend.local_images import refuse_overwriting
    from backend.services.simulate import Simulation, SimulationSettings

    data = read_data(images, train, test)
    if plot is not None:
        refuse_overwriting([train, test, *data.files.values()], [plot])
    settings = SimulationSettings(
        batch=batch,
        rounds=rounds,
        mode=None if mode is None else Mode(mode),
        minutes=minutes,
        costs=CARDS if review == ReviewMode.CARDS else LABEL_STUDIO,
    )
    with _work_folder(work) as folder:
        simulation = Simulation(data.project, build_tools(model, data, folder), settings)
        figures = report(list(_followed(simulation, chosen, seeds)))
    # First, as a picture may be one that cannot be written, and the figures took hours.
    click.echo(json.dumps(figures.to_json(), ensure_ascii=False, indent=1) if as_json else "\n".join(table(figures)))
    if plot is not None:
        draw(figures, plot)


@contextmanager
def _work_folder(kept: Path | None) -> Iterator[Path]:
    """Give the folder for what is trained, or one that goes with the command.

    Raises:
        StorageError: it cannot be made.
    """
    from backend.version_folders import make_folder

    if kept is not None:
        make_folder(kept)
        yield kept
        return
    try:
        passing = TemporaryDirectory(prefix="glip-label-")
    except OSError as error:
        raise StorageError(f"what is trained has no folder ({error.strerror}): name one with --work") from error
    with passing as name:
        yield Path(name)


@dataclass(frozen=True, slots=True)
class SimulationData:
    """What is annotated and measured on; ``files`` are the images by their SHA-256, ``test`` is the file as read."""

    project: "TrueProject"
    files: Mapping[str, Path]
    test: "CocoDataset"


def read_data(folder: Path, train: Path, test: Path) -> SimulationData:
    """Read both files, and look at every reviewed image of them below ``folder``.

    Raises:
        UsageError: a file is no COCO data set or is empty, they differ in their categories, or an image is in both.
        ImageError: an image is missing, damaged, or of another size than its annotations.
    """
    from backend.services.simulate import TrueProject

    datasets = [read_truth(path, "simulate") for path in (train, test)]
    names, others = ({category.name for category in dataset.categories} for dataset in datasets)
    if names != others:
        only = ", ".join(sorted(names ^ others))
        raise UsageError(f"{train} and {test} differ in their categories: list {only} in both files, or in neither")
    files: dict[str, Path] = {}
    pool, held_out = (tuple(_true_images(folder, dataset, files)) for dataset in datasets)
    both = {image.sha256 for image in pool} & {image.sha256 for image in held_out}
    if both:
        one = files[min(both)]
        raise UsageError(
            f"{len(both)} images are in {train} and in {test}: leave {one} and the others out of one of them"
        )
    labels = tuple(Label(category.name) for category in datasets[0].categories)
    return SimulationData(TrueProject(labels, pool, held_out), files, datasets[1])


def _true_images(folder: Path, dataset: "CocoDataset", files: dict[str, Path]) -> Iterator["TrueImage"]:
    from backend.local_images import measure_below
    from backend.services.simulated_view import TrueImage

    names = {category.id: category.name for category in dataset.categories}
    for image in dataset.images:
        facts = measure_below(folder, image.file_name)
        image.refuse_other_size(facts.width, facts.height, image.file_name)
        files[facts.sha256] = folder / image.file_name
        boxes = tuple(LabelledBox(each.box, names[each.category_id]) for each in image.boxes)
        yield TrueImage(image.file_name, facts.sha256, image.width, image.height, boxes)


class HashedFiles:
    """``ports.Images`` for files that are asked for by their SHA-256."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        from backend.local_images import LocalImages

        self._files = files
        self._images = LocalImages()

    def fetch(self, reference: str, task_id: int | None = None) -> Picture:
        """As ``ports.Images``."""
        return self._images.fetch(str(self._files[reference]))


def build_tools(model: str | None, data: SimulationData, folder: Path) -> "SimulationTools":
    """Pick what real projects work with, apart from Label Studio and the database."""
    from backend.bootstrap import build_learning
    from backend.chosen_model import open_base
    from backend.kept_trainings import KeptTrainings
    from backend.services.gate import judge
    from backend.services.simulate import SimulationTools

    images = HashedFiles(data.files)
    models, trainer = build_learning(open_base(model), images)
    return SimulationTools(
        models=models,
        train=KeptTrainings(trainer, models.base, folder).train,
        images=images,
        judge=judge,
        precision=lambda proposals: measured(data.test, proposals),
    )


def measured(dataset: "CocoDataset", proposals: Sequence[Sequence[Proposal]]) -> "Precision":
    """AP and AP50 of the proposals for each image of a data set."""
    from glip_model.evaluation import evaluate_detections
    from integrations.coco import LabelledBox as CocoBox
    from integrations.coco import dataset_to_coco, results_to_coco

    numbers = {category.name: category.id for category in dataset.categories}
    found = [
        replace(image, boxes=tuple(CocoBox(each.box, numbers[each.label], each.score) for each in boxes))
        for image, boxes in zip(dataset.images, proposals, strict=True)
    ]
    scores = evaluate_detections(dataset_to_coco(dataset), results_to_coco(found))
    return scores.ap, scores.ap50


def _followed(simulation: "Simulation", strategies: Sequence[str], seeds: int) -> Iterator["Round"]:
    """Run every project, with a bar and a line per round on stderr."""
    from tqdm import tqdm

    from backend.analysis.simulated_project import Strategy

    total = len(simulation.project.pool) * len(strategies) * seeds
    with tqdm(total=total, unit="image", file=sys.stderr, disable=None) as bar:
        for strategy in map(Strategy, strategies):
            for seed in range(seeds):
                for each in simulation.run(strategy, seed):
                    bar.update(len(each.drawn))
                    bar.write(_line(each), file=sys.stderr)
                    yield each


def _line(done: "Round") -> str:
    leading = next(iter(done.reviews.values()))
    spent, drawing = sum(each.seconds for each in leading), sum(each.drawing_seconds for each in leading)
    saved = f"saved {100 * (1 - spent / drawing):.1f} %"
    score = "" if done.ap50 is None else f", AP50 {100 * done.ap50:.1f}"
    learned = "" if done.ruling is None else f"; learned in {done.training_seconds:.0f} s: {done.ruling.reason}"
    again = "" if done.looked_again is None else f"; looked again at the one before: {done.looked_again.reason}"
    return f"{done.strategy} seed {done.seed} round {done.number}: {done.model} {saved}{score}{again}{learned}"
