"""Figures of simulated projects, from rounds written by hand."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from backend.analysis.simulated_annotator import FinalBox, Review
from backend.analysis.simulated_project import Display, Round, Strategy
from backend.analysis.simulation_report import SimulationReport, report
from backend.domain.geometry import Box
from backend.domain.learning import Ruling
from backend.domain.review import CARDS, slow
from backend.domain.training_data import LabelledBox
from backend.errors import StorageError
from backend.simulation_output import draw, table
from tests.full_disk import largest_file

LEARNED, HALF = Display(CARDS), Display(CARDS, 0.5)
SLOW, SLOW_HALF = Display(slow(CARDS)), Display(slow(CARDS), 0.5)
RANDOM, ACTIVE, ZERO_SHOT = Strategy.RANDOM, Strategy.ACTIVE, Strategy.ZERO_SHOT
OBJECT = LabelledBox(Box(0, 0, 10, 10), "cat")


def reviewed(image: str, seconds: float, right: bool = True) -> Review:
    boxes = (FinalBox(OBJECT.box, "cat" if right else "dog", None),)
    return Review(image, seconds, 2, 10.0, (), boxes)


def make_round(strategy: Strategy, number: int, seconds: Sequence[float], seed: int = 0, first: int = 0) -> Round:
    """A round of images, named by their place from ``first`` on, whose boxes took so long; drawing each takes 10 s."""
    images = [f"{(first or 100 * number) + place}" for place in range(len(seconds))]
    reviews = tuple(reviewed(image, each) for image, each in zip(images, seconds, strict=True))
    return Round(
        strategy,
        seed,
        number,
        "model",
        ap=0.1 * number,
        ap50=0.2 * number,
        truth=((OBJECT,),) * len(seconds),
        reviews={
            LEARNED: reviews,
            HALF: tuple(replace(each, seconds=each.seconds + 1) for each in reviews),
            SLOW: tuple(replace(each, drawing_seconds=40.0) for each in reviews),
            SLOW_HALF: tuple(replace(each, drawing_seconds=40.0) for each in reviews),
        },
        drawn=tuple(reviewed(image, 10) for image in images),
    )


def two_strategies() -> SimulationReport:
    rounds = [make_round(strategy, 1, (10, 8), seed) for strategy in (RANDOM, ACTIVE) for seed in (0, 1)]
    rounds += [make_round(RANDOM, 2, (6, 4), seed) for seed in (0, 1)]
    rounds += [make_round(ACTIVE, 2, (6, 2 + seed), seed) for seed in (0, 1)]
    return report(rounds)


def test_the_share_saved_is_of_all_seconds_and_not_a_mean_of_shares() -> None:
    figures = report([make_round(ZERO_SHOT, 1, (10, 8, 3))])
    assert figures.saving(ZERO_SHOT, 7.0).share.value == pytest.approx(1 - 21 / 30)
    assert figures.saving(ZERO_SHOT, 7.0, 0.5).share.value == pytest.approx(1 - 24 / 30)
    assert figures.saving(ZERO_SHOT, 25.5).share.value == pytest.approx(1 - 21 / 120)
    assert figures.drawing_seconds == {7.0: 30.0, 25.5: 120.0}
    assert (figures.images, figures.boxes, figures.seeds) == (3, 3, 1)


def test_the_interval_spans_images_and_seeds() -> None:
    alike = report([make_round(ZERO_SHOT, 1, (5,) * 20, seed) for seed in (0, 1)]).saving(ZERO_SHOT, 7.0).share
    images = report([make_round(ZERO_SHOT, 1, (4, 6) * 10, seed) for seed in (0, 1)]).saving(ZERO_SHOT, 7.0).share
    seeds = report([make_round(ZERO_SHOT, 1, (4 + 2 * seed,) * 20, seed) for seed in (0, 1)]).saving(ZERO_SHOT, 7.0)
    assert (alike.low, alike.value, alike.high) == pytest.approx((0.5, 0.5, 0.5))
    # 20 images that are 0.1 off, in each seed the same ones: a standard error of 0.022
    assert images.value == pytest.approx(0.5)
    assert images.high - images.low == pytest.approx(4 * 0.022, rel=0.15)
    assert (seeds.share.low, seeds.share.high) == pytest.approx((0.4, 0.6))


def test_what_choosing_images_gains_is_in_seconds_of_one_project() -> None:
    gain = two_strategies().gains[7.0]
    assert gain.value == pytest.approx(1.5)
    assert gain.low < 1.5 < gain.high
    assert report([make_round(RANDOM, 1, (1,))]).gains == {}


def test_learned_thresholds_are_held_against_the_best_cut_of_the_same_person() -> None:
    rounds = [make_round(RANDOM, 1, (4, 6) * 10, seed) for seed in (0, 1)]
    leads = report(rounds).leads
    assert list(leads) == [(RANDOM, 7.0), (RANDOM, 25.5)]
    # A cut at 0.5 takes a second more for each image, of the ten that drawing takes; the slow person's takes as long.
    lead, even = leads.values()
    assert (lead.low, lead.value, lead.high) == pytest.approx((0.1, 0.1, 0.1))
    assert (even.low, even.value, even.high) == (0.0, 0.0, 0.0)


def test_stages_are_means_over_seeds() -> None:
    rounds = [make_round(RANDOM, 1, (10, 8)), make_round(RANDOM, 1, (10, 4), seed=1)]
    rounds += [replace(make_round(RANDOM, 2, (1,), seed), ap50=0.3 + 0.2 * seed) for seed in (0, 1)]
    rounds[0] = replace(rounds[0], ruling=Ruling(True, "better", {}), training_seconds=10.0)
    rounds[1] = replace(rounds[1], ruling=Ruling(False, "not better", {}), training_seconds=20.0)
    first, second = report(rounds).stages
    assert (first.images, first.reviewed, second.images, second.reviewed) == (2, 2, 1, 3)
    assert first.shares == pytest.approx({7.0: 0.2, 25.5: 0.8})
    assert (first.promoted, first.training_seconds, second.promoted) == (0.5, 15.0, None)
    assert (second.ap50, second.ap50_low, second.ap50_high) == pytest.approx((0.4, 0.3, 0.5))


def test_stages_are_of_as_many_images_where_rounds_are_not() -> None:
    rounds = [make_round(RANDOM, 1, (10, 8)), make_round(RANDOM, 2, (4,)), make_round(RANDOM, 3, (6,), first=201)]
    rounds += [make_round(RANDOM, 1, (10, 8), seed=1), make_round(RANDOM, 2, (2, 2), seed=1)]
    rounds[1] = replace(rounds[1], ruling=Ruling(True, "better", {}), training_seconds=10.0)
    rounds[2] = replace(rounds[2], ruling=Ruling(False, "not better", {}), training_seconds=20.0)
    first, second = report(rounds).stages
    assert (first.images, first.reviewed, second.images, second.reviewed) == (2, 2, 2, 4)
    assert second.shares == pytest.approx({7.0: 1 - 14 / 40, 25.5: 1 - 14 / 160})
    assert (first.promoted, second.promoted, second.training_seconds) == (None, 0.5, 15.0)
    # Of rounds 2 and 3 in one seed, of round 2 in the other.
    assert (second.ap50_low, second.ap50, second.ap50_high) == pytest.approx((0.4, 0.45, 0.5))


@pytest.mark.parametrize(("images", "ends"), [(3, [3]), (4, [4]), (5, [5]), (6, [4, 6]), (9, [4, 9]), (10, [4, 8, 10])])
def test_few_images_at_the_end_are_no_stage_of_their_own(images: int, ends: list[int]) -> None:
    batches = [4] * (images // 4) + [images % 4] * (images % 4 > 0)
    rounds = [make_round(RANDOM, number, (5,) * size) for number, size in enumerate(batches, start=1)]
    assert [each.reviewed for each in report(rounds).stages] == ends


def test_an_early_saving_has_the_larger_area() -> None:
    early, late = (
        report([make_round(RANDOM, number, seconds) for number, seconds in ((1, first), (2, second))])
        for first, second in (((0, 0), (10, 10)), ((10, 10), (0, 0)))
    )
    assert early.saving(RANDOM, 7.0).share.value == late.saving(RANDOM, 7.0).share.value == 0.5
    assert early.saving(RANDOM, 7.0).area == pytest.approx((1 + 1 + 2 / 3 + 1 / 2) / 4)
    assert late.saving(RANDOM, 7.0).area == pytest.approx((0 + 0 + 1 / 3 + 1 / 2) / 4)


def test_a_saving_with_worse_labels_does_not_count() -> None:
    good = make_round(RANDOM, 1, (5, 5))
    worse = tuple(reviewed(review.image, 5, right=place > 0) for place, review in enumerate(good.drawn))
    bad = replace(good, reviews={**good.reviews, LEARNED: worse})
    assert report([good]).qualities[0].counts
    assert not report([bad]).qualities[0].counts
    assert any("does not count" in line for line in table(report([bad])))


def test_strategies_that_reviewed_different_images_are_not_compared() -> None:
    with pytest.raises(ValueError, match="same images"):
        report([make_round(RANDOM, 1, (1, 2)), make_round(ACTIVE, 1, (1,))])
    with pytest.raises(ValueError, match="no rounds"):
        report([])


def test_the_table_tells_every_way_of_working_and_what_hindsight_would_have_chosen() -> None:
    lines = list(table(two_strategies()))
    assert lines[0].startswith("4 images, 4 boxes, 2 seeds; drawing all takes 1 minutes at 7 s per box")
    assert [line.split("  ")[0] for line in lines[3:12]] == [
        "draw every box",
        "learning, random order, from 0.5",
        "learning, random order, learned thresholds",
        "learning, random order, best cut in hindsight",
        "learning, random order, learned minus best",
        "learning, chosen order, from 0.5",
        "learning, chosen order, learned thresholds",
        "learning, chosen order, best cut in hindsight",
        "learning, chosen order, learned minus best",
    ]
    assert "30.0 (" in lines[5]
    assert any(line.startswith("choosing images saves 2 s") for line in lines)


@pytest.mark.parametrize("ending", ["png", "svg", "pdf", "PDF"])
def test_curves_that_have_no_room_are_one_error(ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"saved.{ending}"
    with largest_file(1024), pytest.raises(StorageError, match=rf"^{file}: cannot be written \(File too large\)$"):
        draw(two_strategies(), file)
    draw(two_strategies(), file)
    assert file.stat().st_size > 1024
