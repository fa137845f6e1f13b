"""What the loop saves: ``python -m benchmarks.simulations --base FOLDER --data FOLDER --out FOLDER --work FOLDER``.

Whole projects as `glip-label simulate` plays them, one after the other, on COCO-style sets (a folder with ``images/``,
``train.json`` and ``test.json``): no learning, learning in random order and in chosen order. What came of a project
lies in a file of its own below ``--out``, and is not played again where there is one: projects take hours, and several
commands with the same ``--work`` can share them. Prints the means over all projects of a set, and each of them: one
project's interval tells how much hangs on its images, not how much another project would differ.
``--plots FOLDER`` draws them.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
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


def play(base: str, folder: Path, work: Path, seed: int) -> Figures:
    """One project of every strategy."""
    data = read_data(folder / "images", folder / "train.json", folder / "test.json")
    simulation = Simulation(data.project, build_tools(base, data, work), SETS[folder.name])
    rounds = []
    for strategy in Strategy:
        for done in tqdm(simulation.run(strategy, seed), f"{folder.name} {seed} {strategy}", unit="round"):
            rounds.append(done)
    return report(rounds).to_json()


def table(projects: Sequence[Figures]) -> Iterator[str]:
    """One line per figure: the mean over projects, and each of them."""
    for draw in DRAW_SECONDS:
        for strategy in Strategy:
            name = f"{draw:g} s a box, {NAMES[strategy]}"
            ours = _saved(projects, strategy, draw)
            cuts = {cut: _saved(projects, strategy, draw, cut) for cut in FIXED_CUTS}
            best = max(cuts, key=lambda cut: fmean(cuts[cut]))
            yield _line(name, ours)
            yield _line(f"{name}, from 0.5", cuts[0.5])
            yield _line(f"{name}, more than from {best:g}", list(map(float.__sub__, ours, cuts[best])))
            yield _line(f"{name}, strict", _saved(projects, strategy, draw, strict=True))
        gains = [float(each["acquisition_gain_seconds"][str(draw)]["value"]) for each in projects]
        yield _line(f"{draw:g} s a box, seconds saved by choosing", gains)
        minutes = [each["drawing_seconds"][str(draw)] / 60 for each in projects]
        yield _line(f"{draw:g} s a box, minutes of drawing all", minutes)
    for strategy in Strategy:
        scores = [100 * _stages(each, strategy)[-1]["ap50"] for each in projects]
        yield _line(f"AP50 at the end, {NAMES[strategy]}", scores)
    for of_one in zip(*(each["quality"] for each in projects), strict=True):
        first = of_one[0]
        for measure in ("f1", "mean_iou"):
            name = f"{measure} beyond drawn ones, {NAMES[first['strategy']]}{', strict' if first['strict'] else ''}"
            yield _line(name, [100 * (each["labels"][measure] - each["drawn"][measure]) for each in of_one])


def _line(name: str, values: Sequence[float]) -> str:
    return f"{name:56}{fmean(values):9.1f}   " + " ".join(f"{value:8.1f}" for value in values)


def _saved(
    projects: Sequence[Figures], strategy: Strategy, draw: float, cut: float | None = None, *, strict: bool = False
) -> list[float]:
    """Percent of the seconds that drawing everything takes, in each project."""
    wanted = (strategy, draw, cut, strict)
    return [
        100 * float(each["share"]["value"])
        for project in projects
        for each in project["savings"]
        if (each["strategy"], each["draw_seconds"], each["cut"], each["strict"]) == wanted
    ]


def _stages(project: Figures, strategy: Strategy) -> list[dict[str, Any]]:
    return [each for each in project["stages"] if each["strategy"] == strategy]


def draw(projects: Sequence[Figures], file: Path) -> None:
    """Plot what each stage saved and the precision of its model: thin lines are projects, thick ones their mean."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(12, 3.6), layout="constrained")
    panels = picture.subplots(1, 3)
    for number, strategy in enumerate(Strategy):
        runs = [_stages(each, strategy) for each in projects]
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
    panels[0].legend()
    picture.savefig(file, dpi=110)


def main() -> None:
    """Read the command line, play what is missing, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="model folder")
    parser.add_argument("--data", type=Path, required=True, help="folder with the sets")
    parser.add_argument("--out", type=Path, required=True, help="folder for a file of each project")
    parser.add_argument("--work", type=Path, help="folder for what is trained; needed where a project is missing")
    parser.add_argument("--sets", nargs="*", default=tuple(SETS), choices=tuple(SETS))
    parser.add_argument("--seeds", nargs="*", type=int, default=(0, 1, 2))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of each training")
    parser.add_argument("--plots", type=Path, help="folder for a picture of each set")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.sets:
        files = [args.out / f"{name}-{seed}.json" for seed in args.seeds]
        for file, seed in zip(files, args.seeds, strict=True):
            if args.work and not file.exists():
                args.work.mkdir(parents=True, exist_ok=True)
                figures = play(args.base, args.data / name, args.work, seed)
                aside = file.with_suffix(".part")
                aside.write_text(json.dumps(figures) + "\n")
                aside.replace(file)
        projects = [json.loads(file.read_text()) for file in files if file.exists()]
        if projects:
            print(f"\n{name}, {len(projects)} projects: mean, and each", *table(projects), sep="\n")
            if args.plots:
                draw(projects, args.plots / f"simulated-{name.replace('_', '-')}.png")


if __name__ == "__main__":
    main()
