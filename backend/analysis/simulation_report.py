"""What simulated projects came to: seconds saved, precision and quality of labels, with intervals.

Intervals are of 95 %, by a bootstrap that draws seeds, and images for all of them at once: every seed reviews the same
images in another order, so that more seeds do not make more images (drawn inside each seed, three seeds would cover the
truth in 71 instead of 95 %). Whatever is compared is compared on the same draws, for every strategy and every display
reviews the same images of the same seeds with the same person.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import fmean

import numpy as np

from backend.analysis.bootstrap import RESAMPLES, image_counts
from backend.analysis.overlap import Floats
from backend.analysis.simulated_annotator import LabelQuality, Review, label_quality
from backend.analysis.simulated_project import Display, Round, Strategy

_MARGIN = 0.005  # a saving counts only if the labels are at most this much worse than drawn ones


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Saving:
    """What one way of working saves of the whole project's seconds.

    Attributes:
        cut: of all labels; None for learned thresholds.
        draw_seconds: of one box.
        strict: whether the person leaves only tight boxes.
        share: of the seconds that the same person needs to draw everything.
        seconds: of one project.
        actions: clicks, drags and keys of one project.
        area: mean over images of the share saved until then: how early the saving comes.
    """

    strategy: Strategy
    cut: float | None
    draw_seconds: float
    strict: bool
    share: Estimate
    seconds: float
    actions: float
    area: float


@dataclass(frozen=True, slots=True)
class Quality:
    """Labels of a strategy with learned thresholds, and those that the same person draws, held against the truth."""

    strategy: Strategy
    strict: bool
    labels: LabelQuality
    drawn: LabelQuality

    @property
    def counts(self) -> bool:
        """Whether F1 and overlap are at most half a point below those of drawn labels."""
        pairs = ((self.labels.f1, self.drawn.f1), (self.labels.mean_iou, self.drawn.mean_iou))
        return all((ours or 0.0) >= (drawn or 0.0) - _MARGIN for ours, drawn in pairs)

    def to_json(self) -> dict[str, object]:
        both = {"labels": self.labels, "drawn": self.drawn}
        figures = {name: {"f1": each.f1, "mean_iou": each.mean_iou} for name, each in both.items()}
        return {"strategy": self.strategy, "strict": self.strict, **figures, "counts": self.counts}


@dataclass(frozen=True, slots=True)
class Stage:
    """As many images as the first batch has, one after the other in each seed's order, and those left at the end; the
    mean over seeds.

    Rounds would not do: where something could not be judged, they are shorter in one seed than in another.

    Attributes:
        images: reviewed in it.
        reviewed: images until its end.
        shares: saved in it by learned thresholds, by the seconds that drawing a box takes.
        ap, ap50: on the test images, of the models that worked on these images.
        ap50_low, ap50_high: least and most of any seed.
        promoted: share of what learned in it that was promoted; None where nothing learned.
        training_seconds: of one learning.
    """

    strategy: Strategy
    images: int
    reviewed: int
    shares: Mapping[float, float]
    ap: float | None
    ap50: float | None
    ap50_low: float | None
    ap50_high: float | None
    promoted: float | None
    training_seconds: float


@dataclass(frozen=True, slots=True)
class SimulationReport:
    """Figures of one project, reviewed in several ways.

    ``drawing_seconds`` are of one project, by the seconds of one box; ``gains`` are seconds of one project that
    choosing images saves over taking them at random, likewise; ``leads`` are by how much larger a share learned
    thresholds saved than the fixed cut that saved most, by strategy and seconds of one box.
    """

    images: int
    boxes: int
    seeds: int
    drawing_seconds: Mapping[float, float]
    savings: tuple[Saving, ...]
    gains: Mapping[float, Estimate]
    leads: Mapping[tuple[Strategy, float], Estimate]
    qualities: tuple[Quality, ...]
    stages: tuple[Stage, ...]

    def saving(
        self, strategy: Strategy, draw_seconds: float, cut: float | None = None, *, strict: bool = False
    ) -> Saving:
        """Return what learned thresholds saved, or a fixed cut that was tried."""
        wanted = (strategy, draw_seconds, cut, strict)
        return next(
            each for each in self.savings if (each.strategy, each.draw_seconds, each.cut, each.strict) == wanted
        )

    def best_cut(self, strategy: Strategy, draw_seconds: float) -> Saving:
        """Return the fixed cut that saved most; it is known only in hindsight."""
        return _best_cut(self.savings, strategy, draw_seconds)

    def to_json(self) -> dict[str, object]:
        return {
            "images": self.images,
            "boxes": self.boxes,
            "seeds": self.seeds,
            "drawing_seconds": dict(self.drawing_seconds),
            "savings": [asdict(each) for each in self.savings],
            "acquisition_gain_seconds": {draw: asdict(gain) for draw, gain in self.gains.items()},
            "lead_over_best_cut": [
                {"strategy": strategy, "draw_seconds": draw, **asdict(lead)}
                for (strategy, draw), lead in self.leads.items()
            ],
            "quality": [each.to_json() for each in self.qualities],
            "stages": [asdict(each) for each in self.stages],
        }


def report(rounds: Sequence[Round]) -> SimulationReport:
    """Sum up whole projects, of at least one strategy and seed, whose rounds may come in any order.

    Raises:
        ValueError: there are no rounds, or the strategies were not simulated with the same seeds on the same images.
    """
    runs = {each: _Runs([round_ for round_ in rounds if round_.strategy is each]) for each in Strategy}
    runs = {strategy: each for strategy, each in runs.items() if each.rounds}
    if not runs:
        raise ValueError("no rounds to report on")
    first, *others = runs.values()
    if any(each.images != first.images for each in others) or len(set(first.images)) > 1:
        raise ValueError("every strategy must review the same images with the same seeds")
    sample = _Sample(len(first.images), len(first.images[0]))
    learned = [each for each in first.displays if each.cut is None and not each.strict]
    people = [each for each in first.displays if each.cut is None and each.costs == learned[0].costs]
    gains = {}
    if Strategy.RANDOM in runs and Strategy.ACTIVE in runs:
        for display in learned:
            random, active = (runs[each].seconds(display) for each in (Strategy.RANDOM, Strategy.ACTIVE))
            gains[display.costs.draw] = sample.mean(random - active)
    savings = tuple(_saving(each, display, sample) for each in runs.values() for display in each.displays)
    return SimulationReport(
        images=len(first.images[0]),
        boxes=sum(len(truth) for each in first.rounds for truth in each.truth) // len(first.images),
        seeds=len(first.images),
        drawing_seconds={each.costs.draw: sample.mean(first.drawing(each)).value for each in learned},
        savings=savings,
        gains=gains,
        leads={
            (strategy, each.costs.draw): _lead(of, each, _best_cut(savings, strategy, each.costs.draw), sample)
            for strategy, of in runs.items()
            for each in learned
        },
        qualities=tuple(each.quality(display) for each in runs.values() for display in people),
        stages=tuple(stage for each in runs.values() for stage in each.stages(learned)),
    )


class _Sample:
    """Draws of S seeds and of their N images, with replacement; always the same ones."""

    def __init__(self, seeds: int, images: int) -> None:
        chance = np.random.default_rng(0)
        drawn = chance.multinomial(seeds, np.full(seeds, 1 / seeds), RESAMPLES)  # (B, S)
        counts = image_counts(images, RESAMPLES, chance)  # (B, N)
        self._times = (drawn[:, :, None] * counts[:, None, :]).astype(np.float32)  # (B, S, N)
        self._seeds = seeds

    def totals(self, values: Floats) -> Floats:
        """Sums ``(B,)`` of ``values`` (S, N) over each draw, per seed."""
        return np.tensordot(self._times, values, 2) / self._seeds

    def mean(self, values: Floats) -> Estimate:
        """The mean over seeds of the sum over images, ``values`` being (S, N)."""
        return _estimate(float(values.sum()) / self._seeds, self.totals(values))


def _estimate(value: float, resampled: Floats) -> Estimate:
    low, high = np.quantile(resampled, (0.025, 0.975))
    return Estimate(value, float(low), float(high))


class _Runs:
    """One strategy's rounds of all seeds; per-image figures are ``(S, N)``, images in the order of their names."""

    def __init__(self, rounds: Sequence[Round]) -> None:
        self.rounds = sorted(rounds, key=lambda each: (each.seed, each.number))
        self._seeds: dict[int, list[Round]] = {}
        for each in self.rounds:
            self._seeds.setdefault(each.seed, []).append(each)

    @property
    def displays(self) -> tuple[Display, ...]:
        return tuple(self.rounds[0].reviews)

    @property
    def images(self) -> tuple[tuple[str, ...], ...]:
        """Names of the images, per seed."""
        return tuple(
            tuple(sorted(review.image for each in rounds for review in each.drawn)) for rounds in self._seeds.values()
        )

    def reviews(self, display: Display) -> list[list[Review]]:
        """Of every seed, of every image."""
        return [
            sorted((review for each in rounds for review in each.reviews[display]), key=lambda review: review.image)
            for rounds in self._seeds.values()
        ]

    def seconds(self, display: Display) -> Floats:
        return np.array([[review.seconds for review in reviews] for reviews in self.reviews(display)])

    def drawing(self, display: Display) -> Floats:
        return np.array([[review.drawing_seconds for review in reviews] for reviews in self.reviews(display)])

    def actions(self, display: Display) -> Floats:
        return np.array([[review.actions for review in reviews] for reviews in self.reviews(display)], np.float64)

    def area(self, display: Display) -> float:
        """Mean over seeds and images of the share saved until then, in the order of reviewing."""
        areas = []
        for rounds in self._seeds.values():
            reviews = [review for each in rounds for review in each.reviews[display]]
            spent, drawing = (
                np.cumsum([getattr(review, name) for review in reviews]) for name in ("seconds", "drawing_seconds")
            )
            areas.append(float(np.mean(1 - spent / drawing)))
        return fmean(areas)

    def quality(self, display: Display) -> Quality:
        ours = [pair for each in self.rounds for pair in zip(each.reviews[display], each.truth, strict=True)]
        drawn = [pair for each in self.rounds for pair in zip(each.drawn, each.truth, strict=True)]
        labels = [label_quality((review.boxes, truth) for review, truth in pairs) for pairs in (ours, drawn)]
        return Quality(self.rounds[0].strategy, display.strict, *labels)

    def stages(self, displays: Sequence[Display]) -> Iterator[Stage]:
        orders = [
            [(each, place) for each in rounds for place in range(len(each.drawn))] for rounds in self._seeds.values()
        ]
        size, count = len(self.rounds[0].drawn), len(orders[0])
        starts = range(0, max(count - (size - 1) // 2, 1), size)  # fewer than half of a stage belong to the one before
        for start, end in pairwise([*starts, count]):
            yield _stage([order[start:end] for order in orders], start, displays)


def _saving(runs: _Runs, display: Display, sample: _Sample) -> Saving:
    spent, drawing = runs.seconds(display), runs.drawing(display)
    return Saving(
        strategy=runs.rounds[0].strategy,
        cut=display.cut,
        draw_seconds=display.costs.draw,
        strict=display.strict,
        share=_estimate(1 - float(spent.sum() / drawing.sum()), 1 - sample.totals(spent) / sample.totals(drawing)),
        seconds=sample.mean(spent).value,
        actions=sample.mean(runs.actions(display)).value,
        area=runs.area(display),
    )


def _best_cut(savings: Sequence[Saving], strategy: Strategy, draw_seconds: float) -> Saving:
    ours = (each for each in savings if (each.strategy, each.draw_seconds) == (strategy, draw_seconds))
    return max((each for each in ours if each.cut is not None), key=lambda each: each.share.value)


def _lead(runs: _Runs, learned: Display, best: Saving, sample: _Sample) -> Estimate:
    saved = runs.seconds(Display(learned.costs, best.cut)) - runs.seconds(learned)
    drawing = runs.drawing(learned)
    return _estimate(float(saved.sum() / drawing.sum()), sample.totals(saved) / sample.totals(drawing))


def _stage(seeds: Sequence[Sequence[tuple[Round, int]]], start: int, displays: Sequence[Display]) -> Stage:
    """The images after the first ``start`` of each seed, as their rounds and places therein."""
    images = [each for order in seeds for each in order]
    learned = [each for each, place in images if each.ruling is not None and place == len(each.drawn) - 1]
    ap = [each.ap for each, _ in images if each.ap is not None]
    ap50 = [[each.ap50 for each, _ in order if each.ap50 is not None] for order in seeds]
    means = [fmean(each) for each in ap50 if each]
    return Stage(
        strategy=images[0][0].strategy,
        images=len(seeds[0]),
        reviewed=start + len(seeds[0]),
        shares={display.costs.draw: _share_saved(images, display) for display in displays},
        ap=fmean(ap) if ap else None,
        ap50=fmean(means) if means else None,
        ap50_low=min(means, default=None),
        ap50_high=max(means, default=None),
        promoted=fmean(each.ruling.promote for each in learned if each.ruling) if learned else None,
        training_seconds=fmean(each.training_seconds for each in learned) if learned else 0.0,
    )


def _share_saved(images: Sequence[tuple[Round, int]], display: Display) -> float:
    reviews = [each.reviews[display][place] for each, place in images]
    return 1 - sum(each.seconds for each in reviews) / sum(each.drawing_seconds for each in reviews)
