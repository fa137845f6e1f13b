"""What fine-tuning makes of a model: ``python -m benchmarks.finetune --base FOLDER --data FOLDER --out FOLDER``.

On each COCO-style set (a folder with ``images/``, ``train.json`` and ``test.json``): AP50 on the test split as the base
comes, then after 10, 50, 100 and all training pictures in each mode, with the seconds each took (loading the base and
writing the result included; finding out the AP is not), and the processor seconds, which a busy machine changes less.
Pictures are taken in one random order, so that fewer are part of more. A cell that the results file holds is not
measured again, so that a stopped benchmark goes on. ``--plot FILE`` draws what the results file holds.
"""

import argparse
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from glip_model.adapters import is_adapter, load_adapter
from glip_model.finetune import FinetuneSettings, TrainingExample, default_settings, finetune
from glip_model.finetuning.settings import Mode
from glip_model.inference import GlipDetector
from glip_model.pretraining.coco_sets import RealSet, read_coco_set
from glip_model.pretraining.measure import measure, real_set
from glip_model.training.machine import keep_freed_memory
from glip_model.training.samples import Sample

SETS = ("blood_cells", "aquarium", "cards", "microcontrollers")
COUNTS = (10, 50, 100, None)
CPU = torch.device("cpu")


def examples_of(real: RealSet, count: int | None, seed: int) -> list[TrainingExample]:
    """The first ``count`` pictures in random order, with all their boxes."""
    order = np.random.default_rng(seed).permutation(len(real.samples))[:count]
    label = {name: number for number, name in enumerate(real.names)}
    return [example_of(real.samples[index], label) for index in order]


def example_of(sample: Sample, label: Mapping[str, int]) -> TrainingExample:
    """A picture in memory, reviewed all over."""
    return TrainingExample(lambda: sample.rgb, sample.boxes_xyxy, tuple(label[names[0]] for names in sample.names))


def settings_for(examples: Sequence[TrainingExample], real: RealSet, args: argparse.Namespace) -> FinetuneSettings:
    """What the tool would choose for these examples, but for the mode, turns and mirroring that suit the set, and what
    was given on the command line.

    Time ends no run unless it was given: a busy machine would cut it short.
    """
    chosen = default_settings(examples, CPU, args.mode)
    given = {"learning_rate": args.learning_rate, "steps": args.steps}
    wanted = {name: value for name, value in given.items() if value is not None}
    return replace(chosen, handling=real.handling, minutes=args.minutes, seed=args.seed, **wanted)


def ap50(base: Path, version: Path | None, data: Path, split: str) -> float:
    """AP50 of the base, of an adapter on it, or of a model folder."""
    if version is None or is_adapter(version):
        detector = GlipDetector.from_folder(base, CPU)
        detector = detector.adapted(None if version is None else load_adapter(version, base, CPU))
    else:
        detector = GlipDetector.from_folder(version, CPU)
    return measure(detector, real_set(data, split)).ap50 or 0.0


def cell(args: argparse.Namespace, data: Path, count: int | None) -> dict[str, Any]:
    """Train and measure once."""
    real = read_coco_set(data, "train")
    examples = examples_of(real, count, args.seed)
    settings = settings_for(examples, real, args)
    version = args.out / f"{data.name}-{args.mode}-{count or 'all'}"
    began, worked = time.monotonic(), time.process_time()
    finetune(args.base, [[name] for name in real.names], examples, settings, version)
    seconds, worked = time.monotonic() - began, time.process_time() - worked
    score = ap50(args.base, version, data, args.split)
    if not args.keep:
        shutil.rmtree(version)
    facts = {"pictures": len(examples), "steps": settings.steps, "ap50": round(score, 4)}
    return {
        **facts,
        "threads": torch.get_num_threads(),
        "seconds": round(seconds, 1),
        "processor_seconds": round(worked, 1),
    }


def of_all_pictures(results: Mapping[str, Mapping[str, Any]], name: str, mode: Mode) -> dict[str, Any] | None:
    """A cell that was to see more pictures than there are: it is the one of all pictures, too."""
    for count in filter(None, COUNTS):
        found = results.get(f"{name}-{mode}-{count}")
        if found and found["pictures"] < count:
            return dict(found)
    return None


def table(results: dict[str, dict[str, Any]], sets: Sequence[str]) -> str:
    """One line per set and mode: AP50 and seconds for each number of pictures."""
    lines = [f"{'set':17} {'mode':7} {'0':>6}" + "".join(f"{count or 'all':>16}" for count in COUNTS)]
    for name in sets:
        zero = results.get(f"{name}-zero-shot")
        for mode in get_args(Mode):
            line = f"{name:17} {mode:7} {zero['ap50'] if zero else float('nan'):6.3f}"
            for count in COUNTS:
                found = results.get(f"{name}-{mode}-{count or 'all'}")
                line += f"{found['ap50']:8.3f} {found['seconds']:5.0f} s" if found else f"{'-':>16}"
            lines.append(line)
    return "\n".join(lines)


def draw(results: Mapping[str, Mapping[str, Any]], sets: Sequence[str], file: Path) -> None:
    """Plot AP50 over the number of training pictures, one line per mode, one field per set."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(sets), 3.2), layout="constrained")
    fields = figure.subplots(1, len(sets), sharey=True, squeeze=False)[0]
    for field, name in zip(fields, sets, strict=True):
        zero = results.get(f"{name}-zero-shot")
        for number, mode in enumerate(get_args(Mode)):
            cells = (results.get(f"{name}-{mode}-{count or 'all'}") for count in COUNTS)
            points = [(each["pictures"], each["ap50"]) for each in cells if each]
            if not points:
                continue
            points = [(0, zero["ap50"]), *points] if zero else points
            field.plot(*zip(*points, strict=True), marker="o", color=f"C{number}", label=mode)
        field.set_xscale("symlog", linthresh=10)
        field.set_title(name.replace("_", " "))
        field.set_xlabel("training pictures")
        field.set_ylim(0, 1)
        field.grid(alpha=0.3)
    fields[0].set_ylabel("AP50, test split")
    lines = {line.get_label(): line for field in fields for line in field.get_lines()}
    fields[0].legend(lines.values(), lines.keys(), loc="center right")
    figure.savefig(file)


def main() -> None:
    """Read the command line, measure what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="model folder")
    parser.add_argument("--data", type=Path, required=True, help="folder with the sets")
    parser.add_argument("--out", type=Path, required=True, help="folder for results.json")
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--modes", nargs="*", default=get_args(Mode), choices=get_args(Mode))
    parser.add_argument("--counts", nargs="*", type=int, default=COUNTS, help="numbers of pictures; 0 is all")
    parser.add_argument("--split", default="test")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", action="store_true", help="keep the trained versions")
    parser.add_argument("--plot", type=Path, help="picture of the curves")
    args = parser.parse_args()
    keep_freed_memory()
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "results.json"
    results: dict[str, dict[str, Any]] = json.loads(file.read_text()) if file.exists() else {}
    for name in args.sets:
        wanted = [
            (f"{name}-{mode}-{count or 'all'}", mode, count or None) for mode in args.modes for count in args.counts
        ]
        for key, mode, count in [(f"{name}-zero-shot", None, None), *wanted]:
            if key not in results:
                args.mode = mode
                data = args.data / name
                zero = {"ap50": round(ap50(args.base, None, data, args.split), 4)} if mode is None else None
                known = of_all_pictures(results, name, mode) if mode and count is None else None
                results[key] = zero or known or cell(args, data, count)
                print(key, results[key], flush=True)
                aside = file.with_suffix(".part")
                aside.write_text(json.dumps(results, indent=2) + "\n")
                aside.replace(file)
    print(table(results, args.sets))
    if args.plot:
        draw(results, args.sets, args.plot)


if __name__ == "__main__":
    main()
