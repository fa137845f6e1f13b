"""What the loop saves: ``python -m benchmarks.simulations --out FOLDER [--work FOLDER --base FOLDER --data FOLDER]``.

Whole projects as `glip-label simulate` plays them, one after the other, on COCO-style sets (a folder with ``images/``,
``train.json`` and ``test.json``): no learning, learning in random order and in chosen order. What came of a project
lies in a file of its own below ``--out``, and is not played again where there is one: projects take hours, and several
commands with the same ``--work`` can share them. Prints the means over all projects of a set, and each of them, as
trainings differ by more than images do. ``--plots FOLDER`` draws them.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from tqdm import tqdm

from backend.analysis.simulated_project import Strategy
from backend.analysis.simulation_report import report
from backend.commands.simulate import build_tools, read_data
from backend.services.simulate import FIXED_CUTS, Simulation, SimulationSettings
from backend.simulation_output import NAMES

# As many images as a person reviews before the first training is worth its minutes, and as many trainings as a
# processor makes in some hours.
SETS = {
    "blood_cells": SimulationSettings(batch=25, rounds=2, minutes=90.0),
    "cards": SimulationSettings(batch=25, rounds=4, minutes=90.0),
    "aquarium": SimulationSettings(batch=40, rounds=2, minutes=90.0),
}
DRAW_SECONDS = (7.0, 25.5)

Figures = dict[str, Any]  # a `SimulationReport` of one project as JSON
Projects = dict[Strategy, dict[int, Figures]]  # by seed


def play(args: argparse.Namespace, name: str, strategy: Strategy, seed: int) -> Figures:
    """One project."""
    folder = args.data / name
    data = read_data(folder / "images", folder / "train.json", folder / "test.json")
    args.work.mkdir(parents=True, exist_ok=True)
    simulation = Simulation(data.project, build_tools(args.base, data, args.work), SETS[name])
    return report(list(tqdm(simulation.run(strategy, seed), f"{name} {strategy} {seed}", unit="round"))).to_json()


def projects_of(args: argparse.Namespace, name: str) -> Projects:
    """What the files hold; what is missing is played first where there is a folder to train in."""
    projects: Projects = {}
    for strategy, seed in product(args.strategies, args.seeds):
        file = args.out / f"{name}-{strategy}-{seed}.json"
        if args.work and not file.exists():
            aside = file.with_suffix(".part")
            aside.write_text(json.dumps(play(args, name, strategy, seed)) + "\n")
            aside.replace(file)
        if file.exists():
            projects.setdefault(strategy, {})[seed] = json.loads(file.read_text())
    return projects


def table(projects: Projects) -> Iterator[str]:
    """One line per figure: the mean over projects, and each of them."""
    for draw, (strategy, of_seeds) in product(DRAW_SECONDS, projects.items()):
        name, each = f"{draw:g} s a box, {NAMES[strategy]}", list(of_seeds.values())
        ours = _saved(each, draw)
        cuts = {cut: _saved(each, draw, cut) for cut in FIXED_CUTS}
        best = max(cuts, key=lambda cut: fmean(cuts[cut]))
        yield _line(name, ours)
        yield _line(f"{name}, from 0.5", cuts[0.5])
        yield _line(f"{name}, more than from {best:g}", list(map(float.__sub__, ours, cuts[best])))
        yield _line(f"{name}, strict", _saved(each, draw, strict=True))
    random, active = (projects.get(each, {}) for each in (Strategy.RANDOM, Strategy.ACTIVE))
    if both := [(random[seed], active[seed]) for seed in random if seed in active]:
        for draw in DRAW_SECONDS:
            gains = [_saving(first, draw)["seconds"] - _saving(second, draw)["seconds"] for first, second in both]
            yield _line(f"{draw:g} s a box, seconds saved by choosing", gains)
    for strategy, of_seeds in projects.items():
        each = list(of_seeds.values())
        yield _line(f"AP50 at the end, {NAMES[strategy]}", [100 * one["stages"][-1]["ap50"] for one in each])
        for number, measure in product((0, 1), ("f1", "mean_iou")):
            both_ways = [one["quality"][number] for one in each]
            name = f"{measure} beyond drawn ones, {NAMES[strategy]}{', strict' if both_ways[0]['strict'] else ''}"
            yield _line(name, [100 * (one["labels"][measure] - one["drawn"][measure]) for one in both_ways])


def _line(name: str, values: Sequence[float]) -> str:
    return f"{name:56}{fmean(values):9.1f}   " + " ".join(f"{value:8.1f}" for value in values)


def _saved(each: Sequence[Figures], draw: float, cut: float | None = None, *, strict: bool = False) -> list[float]:
    """Percent of the seconds that drawing everything takes, in each project."""
    return [100 * float(_saving(one, draw, cut, strict=strict)["share"]["value"]) for one in each]


def _saving(figures: Figures, draw: float, cut: float | None = None, *, strict: bool = False) -> dict[str, Any]:
    wanted = (draw, cut, strict)
    return next(each for each in figures["savings"] if (each["draw_seconds"], each["cut"], each["strict"]) == wanted)


def draw(projects: Projects, file: Path) -> None:
    """Plot what each stage saved and the precision of its model: thin lines are projects, thick ones their mean."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(12, 3.6), layout="constrained")
    panels = picture.subplots(1, 3)
    for number, (strategy, of_seeds) in enumerate(projects.items()):
        runs = [each["stages"] for each in of_seeds.values()]
        ends = [each["reviewed"] for each in runs[0]]
        begins = [each["reviewed"] - each["images"] for each in runs[0]]
        curves = [
            *(
                (ends, [[100 * each["shares"][str(seconds)] for each in run] for run in runs])
                for seconds in DRAW_SECONDS
            ),
            (begins, [[100 * each["ap50"] for each in run] for run in runs]),
        ]
        for panel, (places, heights) in zip(panels, curves, strict=True):
            for curve in heights:
                panel.plot(places, curve, color=f"C{number}", alpha=0.35, linewidth=0.8)
            means = [fmean(values) for values in zip(*heights, strict=True)]
            panel.plot(places, means, color=f"C{number}", marker=".", label=NAMES[strategy])
    for panel, seconds in zip(panels[:2], DRAW_SECONDS, strict=True):
        panel.axhline(0, color="grey", linewidth=0.8)
        panel.set(xlabel="images reviewed", ylabel="% saved of these images", title=f"against {seconds:g} s per box")
    panels[2].set(xlabel="images reviewed before", ylabel="AP50 on the test images", ylim=(0, 100), title="precision")
    panels[2].legend()
    picture.savefig(file, dpi=110)


def main() -> None:
    """Read the command line, play what is missing, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for a file of each project")
    parser.add_argument("--work", type=Path, help="folder for what is trained; without it nothing is played")
    parser.add_argument("--base", help="model folder, for playing")
    parser.add_argument("--data", type=Path, help="folder with the sets, for playing")
    parser.add_argument("--sets", nargs="*", default=tuple(SETS), choices=tuple(SETS))
    parser.add_argument("--strategies", nargs="*", type=Strategy, default=tuple(Strategy), choices=tuple(Strategy))
    parser.add_argument("--seeds", nargs="*", type=int, default=(0, 1, 2))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of each training")
    parser.add_argument("--plots", type=Path, help="folder for a picture of each set")
    args = parser.parse_args()
    if args.work and not (args.base and args.data):
        parser.error("--work: to play projects, give --base and --data as well")
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.sets:
        if projects := projects_of(args, name):
            print(f"\n{name}: mean of its projects, and each of them", *table(projects), sep="\n")
            if args.plots:
                draw(projects, args.plots / f"simulated-{name.replace('_', '-')}.png")
        else:
            print(f"\n{name}: no project in {args.out}; --work plays them")


if __name__ == "__main__":
    main()
