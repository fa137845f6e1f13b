"""Are scores honest after 10 and 100 verdicts per label? ``python -m benchmarks.calibration [--data FOLDER …]``.

Synthetic: labels whose scores are wrong in their own ways, so that the true probability is known; verdicts on other
boxes measure the error. Shown from 0.45: the same where people see boxes from that score on and, of all others, one in
200 that stands for these, as with thresholds in a real project. Real: what a model proposes on the test images of COCO
data sets, judged by the simulated annotator; half of the images give verdicts, the other half measure, in many random
halves. Prints the calibration error before and after, on verdicts that nothing was fitted to, and fails where promises
fail on the synthetic labels.
"""

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
from tqdm import tqdm

from backend.analysis.calibration import calibration_error, fit_calibration
from backend.analysis.simulated_annotator import IDEAL, Annotator
from backend.chosen_model import open_detector
from backend.commands.evaluate import found_results
from backend.domain.calibration import PLAIN, PlattCurve
from backend.domain.geometry import Box
from backend.domain.records import Proposal
from backend.domain.review import FLOOR, Judgement
from backend.domain.training_data import LabelledBox
from backend.domain.verdicts import VerdictKind
from integrations.coco import read_coco

NUMBERS = (10, 30, 100)  # verdicts per label
_STANDS_FOR = 200.0  # ten hidden boxes on each of twenty images
Drawn = tuple[list[Judgement], list[Judgement]]  # to fit, and to measure on


@dataclass(frozen=True)
class Finding:
    """Calibration error before and after, means over trials, and in how many it was worse after."""

    name: str
    verdicts: int
    trials: int
    before: float
    after: float
    worse: int

    @property
    def lower(self) -> float:
        return 1 - self.after / self.before


def measure(name: str, verdicts: int, trials: int, draw: Callable[[np.random.Generator], Drawn]) -> Finding:
    errors = []
    for trial in tqdm(range(trials), f"{name}, {verdicts}", disable=None):
        fit, others = draw(np.random.default_rng((trial, verdicts)))
        calibration = fit_calibration(fit)
        errors.append((calibration_error(others, PLAIN), calibration_error(others, calibration)))
    before, after = np.array(errors).T
    return Finding(
        name, verdicts, trials, float(before.mean()), float(after.mean()), int((after > before + 1e-9).sum())
    )


def synthetic(verdicts: int, shown_from: float = 0.0) -> Callable[[np.random.Generator], Drawn]:
    """Four labels that differ in slope and intercept, within a project that differs from the others."""

    def draw(chance: np.random.Generator) -> Drawn:
        slope, intercept = np.exp(chance.normal(0, 0.3)), chance.normal(0, 1.0)
        curves = [
            PlattCurve(float(slope * np.exp(chance.normal(0, 0.15))), float(intercept + chance.normal(0, 0.6)))
            for _ in range(4)
        ]
        fit, others = (
            [_judged(chance, f"label {place}", curve, number) for place, curve in enumerate(curves)]
            for number in (5 * verdicts if shown_from else verdicts, 2000)
        )
        return [*chain(*(_seen(chance, each, verdicts, shown_from) for each in fit))], [*chain(*others)]

    return draw


def _judged(chance: np.random.Generator, label: str, curve: PlattCurve, number: int) -> list[Judgement]:
    made = []
    for odds in chance.normal(-0.5, 1.6, number):
        score = min(max(float(1 / (1 + np.exp(-odds))), 0.05), 0.999)
        kind = VerdictKind.ACCEPTED if chance.random() < curve.probability(score) else VerdictKind.DELETED
        made.append(Judgement(str(chance.integers(max(number, 5))), label, score, kind, 1.0))
    return made


def _seen(
    chance: np.random.Generator, judged: Sequence[Judgement], verdicts: int, shown_from: float
) -> list[Judgement]:
    """The first so many that people see, and what is explored of the others until then."""
    seen: list[Judgement] = []
    for each in judged:
        if each.score >= shown_from:
            seen.append(each)
            verdicts -= 1
        elif chance.random() < 1 / _STANDS_FOR:
            seen.append(replace(each, weight=_STANDS_FOR))
        if not verdicts:
            break
    return seen


def real(judgements: Sequence[Judgement], verdicts: int) -> Callable[[np.random.Generator], Drawn]:
    """A random half of the images, and of each label on it as many verdicts as asked for; the other half."""
    images = sorted({each.image for each in judgements})

    def draw(chance: np.random.Generator) -> Drawn:
        half = set(chance.choice(images, len(images) // 2, replace=False).tolist())
        fit: list[Judgement] = []
        seen: Counter[str] = Counter()
        for place in chance.permutation(len(judgements)):
            each = judgements[place]
            if each.image in half and seen[each.label] < verdicts:
                fit.append(each)
                seen[each.label] += 1
        return fit, [each for each in judgements if each.image not in half]

    return draw


def judged_detections(folder: Path, part: str, model: str | None) -> list[Judgement]:
    """What becomes of a model's proposals with a score of 0.05 and more on one part of a data set."""
    dataset = read_coco(folder / f"{part}.json")
    names = {category.id: category.name for category in dataset.categories}
    detector, _ = open_detector(model)
    proposals: dict[object, list[Proposal]] = defaultdict(list)
    for each in found_results(dataset, folder / "images", detector):
        match each:
            case {"image_id": image, "category_id": int(label), "bbox": list(numbers), "score": float(score)}:
                x, y, wide, high = (float(number) for number in numbers)
                if score >= FLOOR:
                    found = Proposal(Box(x, y, x + wide, y + high), names[label], score, names[label])
                    proposals[image].append(found)
    annotator = Annotator(tuple(names.values()), human=IDEAL)
    judgements: list[Judgement] = []
    for labelled in dataset.images:
        truth = [LabelledBox(each.box, names[each.category_id]) for each in labelled.boxes]
        judgements += annotator.review(str(labelled.id), truth, proposals[labelled.id]).judgements
    return judgements


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="folders with images/ and the part's JSON")
    parser.add_argument("--part", default="test")
    parser.add_argument("--model", help="name or folder; glip-nano by default")
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--out", type=Path, required=True, help="where the JSON goes")
    arguments = parser.parse_args()
    findings = [measure("synthetic", number, arguments.trials, synthetic(number)) for number in NUMBERS]
    findings += [
        measure("shown from 0.45", number, arguments.trials, synthetic(number, shown_from=0.45)) for number in NUMBERS
    ]
    for folder in arguments.data:
        judged = judged_detections(folder, arguments.part, arguments.model)
        findings += [measure(folder.name, number, arguments.trials, real(judged, number)) for number in NUMBERS]
    print(f"{'labels':<18}{'verdicts':>9}{'before':>8}{'after':>8}{'lower by':>10}{'worse in':>10}")
    for each in findings:
        print(
            f"{each.name:<18}{each.verdicts:>9}{each.before:>8.3f}{each.after:>8.3f}{each.lower:>10.0%}"
            f"{each.worse / each.trials:>10.0%}"
        )
    report = [{**asdict(each), "lower": each.lower} for each in findings]
    arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    synthetics = findings[: 2 * len(NUMBERS)]
    few, many = synthetics[:: len(NUMBERS)], synthetics[len(NUMBERS) - 1 :: len(NUMBERS)]
    if any(each.after > each.before for each in few) or any(each.lower < 0.4 for each in many):
        sys.exit(1)


if __name__ == "__main__":
    main()
