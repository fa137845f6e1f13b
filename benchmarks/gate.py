"""How often the gate errs: ``python -m benchmarks.gate --out FILE [--projects 1000]``.

Simulated projects, 5 to 200 gate images each, in which the simulated annotator reviews what synthetic detectors
propose; scores are read by thresholds that are fitted as in a real project. Labels are as a person left them who saw
the boxes of the version in production, or drawn by hand, as before the first version. No better: candidates are fresh
draws of the very detector in production, several in a row against the same production, as after each batch of
corrections; what counts is how many projects ever promote one. Seconds and AP50 alone decide here, so that the other
conditions, which can only refuse, do not flatter the result. Better: candidates that are by the knobs 10 % faster for a
person; they have to pass every condition. Prints both, and fails where promises fail.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from backend.analysis.contenders import compared_seconds
from backend.analysis.gate import decide
from backend.analysis.simulated_annotator import Annotator
from backend.domain.calibration import Calibration
from backend.domain.learning import Answers, Contest
from backend.domain.records import Proposal
from backend.domain.review import Judgement
from backend.domain.training_data import LabelledBox, ReviewedImage
from backend.services.gate import SETTINGS, contender, judge
from tests.synthetic import LABELS, SyntheticDetector, make_scene

Proposals = tuple[tuple[Proposal, ...], ...]

PRODUCTION = SyntheticDetector(recall=0.8, invented=2.0, spread=0.05)
CUT = 0.4  # from which score on people see boxes
DRAWS = 12  # detections of the same model and image, as from twelve trainings that differ by chance
COMMON = 0.8  # share of objects on which chance does to a model what it does to most others
SIZES = (60, 100, 200)
DRAWN_BY_HAND = {"left": False, "drawn": True}  # how labels came about
SMALLEST, LARGEST = SETTINGS.least_images, 200


@dataclass(frozen=True)
class World:
    """Images with their objects, and what one detector proposes for each in each draw: ``(draws, images)``."""

    images: list[ReviewedImage]
    draws: list[Proposals]


def left(images: Sequence[ReviewedImage], shown: Proposals, drawn: bool) -> list[ReviewedImage]:
    """The images as a person leaves them who saw boxes of a score of `CUT` and more, or drew everything by hand."""
    person = Annotator(LABELS, SETTINGS.costs)
    reviews = [
        person.review(image.sha256, image.boxes, () if drawn else [each for each in found if each.score >= CUT])
        for image, found in zip(images, shown, strict=True)
    ]
    return [
        replace(image, boxes=tuple(LabelledBox(each.box, each.label) for each in review.boxes))
        for image, review in zip(images, reviews, strict=True)
    ]


def make_world(detector: SyntheticDetector, images: int, seed: int) -> World:
    chance = np.random.default_rng(seed)
    reviewed = [ReviewedImage(f"{place:064x}", 640, 640, boxes=make_scene(chance)) for place in range(images)]
    return World(reviewed, [proposed(reviewed, detector, chance) for _ in range(DRAWS)])


def proposed(images: Sequence[ReviewedImage], detector: SyntheticDetector, chance: np.random.Generator) -> Proposals:
    """What a model proposes that was trained from the same base as others, and so finds and misses much the same.

    Chance has a fate for each object and for the inventions in each image. Most fates are common to all models.
    """
    finding, inventing = replace(detector, invented=0.0), replace(detector, recall=0.0)

    def fate(image: ReviewedImage, place: int) -> np.random.Generator:
        own = int(chance.integers(2**31)) if chance.random() > COMMON else 0
        return np.random.default_rng((own, place, int(image.sha256, 16)))

    found = []
    for image in images:
        boxes = [each for at, true in enumerate(image.boxes) for each in finding.propose([true], fate(image, at))]
        boxes += inventing.propose((), fate(image, len(image.boxes)))
        found.append(tuple(sorted(boxes, key=lambda each: -each.score)))
    return tuple(found)


def uncalibrated(judgements: Sequence[Judgement]) -> Calibration:
    """Calibration takes most of the gate's time, and does not enter a person's seconds."""
    return Calibration()


def false_promotions(world: World, projects: int, tries: int, seed: int, *, drawn: bool) -> tuple[int, int]:
    """Projects that promote a candidate no better at their first try, and within all tries."""
    chance = np.random.default_rng(seed)
    reviewed = [left(world.images, draw, drawn) for draw in world.draws]
    first, ever = 0, 0
    for _ in tqdm(range(projects), "no better", disable=None):
        size = round(math.exp(chance.uniform(math.log(SMALLEST), math.log(LARGEST))))  # most projects are small
        places = chance.choice(len(world.images), size, replace=False)
        versions = chance.permutation(DRAWS)[: 1 + tries]
        images = [reviewed[versions[0]][place] for place in places]
        found = [tuple(world.draws[version][place] for place in places) for version in versions]
        shown = [contender(images, each, SETTINGS.costs, uncalibrated) for each in found]
        # One resample for the bounds of figures that can only refuse: they are not read.
        settings = replace(SETTINGS, seed=int(chance.integers(2**31)), resamples=1)
        attempts = enumerate(shown[1:], start=1)
        promoted = [k for k, each in attempts if decide(images, shown[0], each, settings, k).pays]
        first, ever = first + (1 in promoted), ever + bool(promoted)
    return first, ever


def faster_detector(share: float, seed: int) -> tuple[SyntheticDetector, float]:
    """The detector in production with fewer misses, inventions and sloppy edges: a person needs ``share`` of the time.

    Returns:
        It, and the share measured on 1,500 images of their own.
    """
    world = [
        ReviewedImage(f"{place:064x}", 640, 640, boxes=make_scene(chance)) for place, chance in _chances(1500, seed)
    ]

    def seconds(detector: SyntheticDetector) -> float:
        found = proposed(world, detector, np.random.default_rng(seed))
        shown = contender(world, found, SETTINGS.costs, uncalibrated)
        return float(compared_seconds(world, (shown, shown), SETTINGS.costs)[0].mean())

    def improved(by: float) -> SyntheticDetector:
        kept = 1 - by
        return replace(
            PRODUCTION,
            recall=1 - (1 - PRODUCTION.recall) * kept,
            invented=PRODUCTION.invented * kept,
            spread=PRODUCTION.spread * (1 - by / 2),
        )

    base = seconds(PRODUCTION)
    by = _root(lambda each: seconds(improved(each)) / base - share)
    return improved(by), seconds(improved(by)) / base


def _chances(count: int, seed: int) -> list[tuple[int, np.random.Generator]]:
    return [(place, np.random.default_rng((seed, place))) for place in range(count)]


def _root(falling: Callable[[float], float]) -> float:
    low, high = 0.0, 1.0
    for _ in range(6):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return (low + high) / 2


def promotions(
    world: World, better: SyntheticDetector, size: int, times: int, seed: int, *, drawn: bool
) -> tuple[int, float]:
    """How many better candidates are promoted at their first try, of ``times``, and their mean gain in seconds."""
    chance = np.random.default_rng((seed, size))
    promoted, gains = 0, []
    for _ in tqdm(range(times), f"better, {size} images", disable=None):
        images = [world.images[place] for place in chance.choice(len(world.images), size, replace=False)]
        production, candidate = (Answers(proposed(images, each, chance), ()) for each in (PRODUCTION, better))
        images = left(images, production.proposals, drawn)
        settings = replace(SETTINGS, seed=int(chance.integers(2**31)))
        ruling = judge(Contest(tuple(images), production, candidate, attempt=1), settings)
        promoted += ruling.promote
        gains.append(1 - ruling.numbers["seconds"]["candidate"] / ruling.numbers["seconds"]["production"])
    return promoted, float(np.mean(gains))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--projects", type=int, default=1000, help="with no better candidates")
    parser.add_argument("--tries", type=int, default=5, help="candidates in a row, up to 11")
    parser.add_argument("--better", type=int, default=300, help="better candidates per number of gate images")
    parser.add_argument("--images", type=int, default=1000, help="images that gate sets are drawn from")
    parser.add_argument(
        "--labels", nargs="*", choices=tuple(DRAWN_BY_HAND), default=tuple(DRAWN_BY_HAND), help="how they came about"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="where the JSON goes")
    arguments = parser.parse_args()
    world = make_world(PRODUCTION, arguments.images, arguments.seed)
    better, share = faster_detector(0.9, arguments.seed)
    print(f"better: a person needs {share:.1%} of the time")
    report: dict[str, object] = {"projects": arguments.projects, "tries": arguments.tries, "share": share}
    kept = True
    for name in arguments.labels:
        drawn = DRAWN_BY_HAND[name]
        first, ever = false_promotions(world, arguments.projects, arguments.tries, arguments.seed, drawn=drawn)
        print(f"labels {name}: no better: {first / arguments.projects:.1%} promoted at the first try,")
        print(f"    {ever / arguments.projects:.1%} of projects within {arguments.tries} tries (promise: 5 %)")
        promoted = {}
        for size in SIZES:
            count, gain = promotions(world, better, size, arguments.better, arguments.seed, drawn=drawn)
            promoted[size] = count / arguments.better
            print(f"    better: {promoted[size]:.0%} promoted with {size} gate images (gain {gain:.1%})")
        kept = kept and ever <= 0.05 * arguments.projects and min(promoted.values()) >= 0.8
        report[name] = {
            "false_first": first / arguments.projects,
            "false_ever": ever / arguments.projects,
            "promoted": promoted,
        }
    arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if not kept:
        sys.exit(1)


if __name__ == "__main__":
    main()
