"""The gate: what is promoted, what is not and why, and how often chance promotes something no better."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.analysis.average_precision import OVERLAPS, average_precision, match_detections
from backend.analysis.bootstrap import ratio_bounds
from backend.analysis.contenders import Contender, compared_seconds, image_sizes
from backend.analysis.gate import GateSettings, decide
from backend.domain.calibration import PLAIN, Calibration, PlattCurve
from backend.domain.geometry import Box
from backend.domain.records import Proposal
from backend.domain.review import LABEL_STUDIO, ShowThresholds
from backend.domain.training_data import LabelledBox, ReviewedImage
from glip_model.evaluation import evaluate_detections
from tests.synthetic import LABELS, SyntheticDetector, make_scene

GOOD, POOR = SyntheticDetector(recall=0.95, spread=0.03), SyntheticDetector(recall=0.6, invented=5, spread=0.08)
QUICK = GateSettings(resamples=200)


def reviewed(count: int = 60, seed: int = 0) -> list[ReviewedImage]:
    chance = np.random.default_rng(seed)
    return [ReviewedImage(f"{place:064x}", 640, 640, boxes=make_scene(chance)) for place in range(count)]


def contender(images: Sequence[ReviewedImage], detector: SyntheticDetector, seed: int = 1) -> Contender:
    chance = np.random.default_rng(seed)
    size = len(images)
    return Contender(
        [detector.propose(image.boxes, chance) for image in images], [ShowThresholds(0.3)] * size, [PLAIN] * size
    )


def test_a_clearly_better_candidate_is_promoted_with_all_its_numbers() -> None:
    images = reviewed()
    decision = decide(images, contender(images, POOR), contender(images, GOOD, 2), QUICK)
    assert decision.promoted
    assert decision.reasons == ()
    assert decision.seconds.high is not None
    assert decision.seconds.candidate - decision.seconds.production < decision.seconds.high < 0
    assert decision.ap is not None
    assert decision.ap.candidate > decision.ap.production
    assert set(decision.labels) == set(LABELS)
    written = json.loads(json.dumps(decision.to_json()))
    assert written["promoted"] is True
    assert written["seconds"]["production"] == decision.seconds.production


@pytest.mark.parametrize(
    ("label", "overlap", "seconds"),
    [
        ("cat", 0.95, 0.5),  # left by everybody
        ("cat", 0.825, 0.5 / 4 + 4.0 * 3 / 4),  # left by who accepts from 0.8 to 0.825 on
        ("cat", 0.79, 4.0),
        ("dog", 0.85, 2.0 + 4.0 / 2),
        ("dog", 0.95, 2.0),
        ("cat", 0.2, 2.0 + 7.0),  # deleted, and drawn anew
    ],
)
def test_between_the_overlaps_that_nobody_and_everybody_leaves_a_box_costs_its_share(
    label: str, overlap: float, seconds: float
) -> None:
    image = ReviewedImage("0" * 64, 640, 640, boxes=(LabelledBox(Box(100, 100, 200, 200), "cat"),))
    shown = [Proposal(Box(100, 100, 100 + 100 * overlap, 200), label, 0.9, label)]
    model = Contender([shown], [ShowThresholds(0.5)], [PLAIN])
    silent = Contender([[]], [ShowThresholds(0.5)], [PLAIN])
    _, (found,) = compared_seconds([image], (silent, model), LABEL_STUDIO)
    assert found == pytest.approx(LABEL_STUDIO.of_image(1) + seconds)


def test_what_a_box_lacks_of_one_that_was_left_as_production_placed_it_counts_less() -> None:
    left, shifted = Box(100, 100, 200, 200), Box(100, 100, 170, 200)
    image = ReviewedImage("0" * 64, 640, 640, boxes=(LabelledBox(left, "cat"),))

    def showing(box: Box) -> Contender:
        return Contender([[Proposal(box, "cat", 0.9, "cat")]], [ShowThresholds(0.5)], [PLAIN])

    production, candidate = compared_seconds([image], (showing(left), showing(shifted)), LABEL_STUDIO)
    alone = LABEL_STUDIO.of_image(1)
    assert production == pytest.approx(alone + 0.5)
    assert candidate == pytest.approx(alone + 0.5 * 0.35 + 4.0 * 0.65)  # as at an overlap of 1 - 0.55 * 0.3
    # Drawn by the person, it is where the object is.
    _, candidate = compared_seconds([image], (showing(Box(98, 98, 203, 201)), showing(shifted)), LABEL_STUDIO)
    assert candidate == pytest.approx(alone + 4.0)


def test_the_same_model_is_not_promoted_over_itself() -> None:
    images = reviewed()
    decision = decide(images, contender(images, GOOD), contender(images, GOOD), QUICK)
    assert decision.reasons[0].startswith("not clearly faster")
    assert not decision.promoted


def test_too_few_images_or_boxes_promote_nothing() -> None:
    for images in ([], reviewed(4), [replace(each, boxes=each.boxes[:1]) for each in reviewed(9)]):
        (reason,) = decide(images, contender(images, POOR), contender(images, GOOD), QUICK).reasons
        assert "too few: 5 images and 10 boxes are needed" in reason


def test_boxes_may_all_be_on_one_of_few_images() -> None:
    crowded, *empty = reviewed(6)  # many resamples have no box: a warning about these would fail this test
    images = [replace(crowded, boxes=crowded.boxes * 5), *(replace(each, boxes=()) for each in empty)]
    decision = decide(images, contender(images, POOR), contender(images, GOOD, 2), QUICK)
    assert decision.compared
    assert decision.ap50 is not None
    assert decision.ap50.low is not None


def test_a_faster_candidate_whose_ap_is_seen_to_fall_is_refused() -> None:
    # Its boxes save as much time, but the hidden ones rank true and false the wrong way round.
    images = reviewed(60)
    good = contender(images, GOOD)
    shown = [[each for each in given if each.score >= 0.3] for given in good.proposals]
    wrong = [
        [*given, *(replace(each, score=0.99, label="owl" if each.label == "cat" else "cat") for each in more)]
        for given, more in zip(shown, good.proposals, strict=True)
    ]
    silent = replace(good, proposals=[[] for _ in images])
    hidden = replace(good, proposals=wrong, thresholds=[ShowThresholds(0.3, {"cat": 0.995, "owl": 0.995})] * 60)
    decision = decide(images, replace(silent, proposals=shown, thresholds=[ShowThresholds(0.995)] * 60), hidden, QUICK)
    assert decision.seconds.high is not None
    assert decision.seconds.high < 0
    assert any(reason.startswith("AP50 fell from") for reason in decision.reasons)


def test_a_faster_candidate_that_forgot_a_label_is_refused() -> None:
    images = reviewed(100)
    good = contender(images, GOOD)
    forgetful = [[each for each in given if each.label != "owl"] for given in good.proposals]
    decision = decide(images, contender(images, POOR), replace(good, proposals=forgetful), QUICK)
    assert decision.seconds.high is not None
    assert decision.seconds.high < 0
    assert any(reason.startswith("AP50 of owl fell") for reason in decision.reasons)


def test_dishonest_scores_of_a_faster_candidate_are_told_and_keep_it_from_nothing() -> None:
    images = reviewed()
    poor, good = contender(images, replace(POOR, stretch=1.0)), contender(images, GOOD, 2)
    boastful = replace(good, calibrations=[Calibration(PlattCurve(0.1, 4.0))] * len(images))
    decision = decide(images, poor, boastful, QUICK)
    assert decision.promoted
    assert decision.calibration is not None
    assert decision.calibration.low is not None
    assert decision.calibration.low > 0.02


def test_a_faster_candidate_with_slow_answers_is_refused() -> None:
    images = reviewed()
    poor, good = contender(images, replace(POOR, stretch=1.0)), contender(images, GOOD, 2)
    (reason,) = decide(images, replace(poor, latency=0.5), replace(good, latency=0.6), QUICK).reasons
    assert reason == "slower: 0.600 s per image instead of 0.500"


def relabelled(better_on: int) -> tuple[list[ReviewedImage], Contender, Contender]:
    """40 objects, of which production calls every second one by another name; the candidate places some better."""
    images = [
        ReviewedImage(f"{at:064x}", 640, 640, boxes=(LabelledBox(Box(100, 100, 200, 200), "cat"),)) for at in range(40)
    ]

    def model(labels: Sequence[str], exact: Sequence[bool]) -> Contender:
        boxes = [Box(100, 100, 195 if each else 175, 200) for each in exact]
        shown = [[Proposal(box, label, 0.9, label)] for box, label in zip(boxes, labels, strict=True)]
        return Contender(shown, [ShowThresholds(0.5)] * 40, [PLAIN] * 40)

    exact = [at < better_on for at in range(40)]
    return images, model(["cat", "dog"] * 20, [not each for each in exact]), model(["cat"] * 40, exact)


def test_what_finds_more_beyond_doubt_need_only_measure_as_fast() -> None:
    asked = replace(QUICK, costs=replace(LABEL_STUDIO, relabel=0.01))
    faster = decide(*relabelled(22), asked)
    assert faster.promoted
    assert faster.finds_more
    assert faster.seconds.high is not None
    assert faster.seconds.high > 0 > faster.seconds.candidate - faster.seconds.production
    as_fast = decide(*relabelled(20), replace(QUICK, costs=replace(LABEL_STUDIO, relabel=0.15)))
    assert as_fast.promoted
    assert 1.01 < as_fast.seconds.candidate / as_fast.seconds.production < 1.02
    slower = decide(*relabelled(18), asked)
    assert slower.finds_more
    assert [reason.partition(":")[0] for reason in slower.reasons] == ["not clearly faster"]


def test_what_takes_as_long_and_found_more_may_pay() -> None:
    images, production, candidate = relabelled(22)
    old, new = (replace(each, thresholds=[ShowThresholds(1.0)] * 40) for each in (production, candidate))
    asked = replace(QUICK, precision_images=41, precision_factor=3.0)
    refused = decide(images, old, new, asked)  # a person sees no box of either
    assert refused.seconds.candidate == refused.seconds.production
    assert not refused.promoted
    assert refused.may_pay
    assert not decide(images, new, old, asked).may_pay
    assert not decide(images, old, old, asked).may_pay
    slower = decide(*relabelled(18), replace(QUICK, costs=replace(LABEL_STUDIO, relabel=0.01)))
    assert slower.ap50 is not None
    assert slower.ap50.candidate > slower.ap50.production
    assert not slower.may_pay


def test_with_few_images_it_has_to_find_more_by_a_factor() -> None:
    asked = replace(QUICK, costs=replace(LABEL_STUDIO, relabel=0.01), precision_images=41)
    doubled = decide(*relabelled(22), asked)  # AP50 of 0.5 and 1, but not in every resample
    assert not doubled.finds_more
    assert not doubled.promoted
    assert decide(*relabelled(22), replace(asked, precision_factor=1.2)).promoted


def test_seconds_and_precision_share_what_may_be_erred() -> None:
    assert sum(QUICK.alphas_of(2)) == pytest.approx(QUICK.alpha_of(2))
    assert QUICK.alphas_of(2)[1] == pytest.approx(0.1 * QUICK.alpha_of(2))


def test_after_many_tries_resamples_tell_nothing_of_what_ap50_may_still_err_by() -> None:
    asked = replace(QUICK, costs=replace(LABEL_STUDIO, relabel=0.01))
    clear = relabelled(22)  # in each resample that has production's mistakes
    assert [decide(*clear, asked, attempt).finds_more for attempt in (1, 7, 8, 50)] == [True, True, False, False]


def test_later_tries_may_err_less() -> None:
    images = reviewed()
    both = contender(images, GOOD), contender(images, GOOD, 2)
    decisions = [decide(images, *both, QUICK, attempt) for attempt in (1, 2, 10)]
    assert sum(map(QUICK.alpha_of, range(1, 10_000))) == pytest.approx(QUICK.alpha, abs=1e-4)
    assert [each.alpha for each in decisions] == pytest.approx([0.0274, 0.0068, 0.000274], abs=1e-4)
    bounds = [each.seconds.high for each in decisions if each.seconds.high is not None]
    assert bounds == sorted(bounds)


def test_a_label_that_every_resample_lacks_has_bounds_that_are_no_numbers() -> None:
    images = reviewed(5)
    rare = replace(images[0].boxes[0], label="rare")
    images[0] = replace(images[0], boxes=(*images[0].boxes, rare))
    both = [contender(images, SyntheticDetector(), seed) for seed in (1, 2)]
    few = GateSettings(resamples=1)
    found = [decide(images, both[0], both[1], replace(few, seed=seed)).labels["rare"] for seed in range(10)]
    assert any(each.low is not None and np.isnan(each.low) for each in found)
    assert {each.production for each in found} == {found[0].production}


def test_proposals_of_another_number_of_images_are_refused() -> None:
    images = reviewed()
    with pytest.raises(ValueError, match="60 gate images, but proposals for 60 and 59"):
        decide(images, contender(images, GOOD), contender(images[:-1], GOOD), QUICK)


_sizes = st.floats(1, 200).map(lambda value: round(value, 1))
_differences = st.floats(-50, 50).map(lambda value: round(value, 3))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(_differences, _sizes), min_size=2, max_size=40))
def test_swapping_the_contenders_swaps_the_bounds(images: list[tuple[float, float]]) -> None:
    values, sizes = np.array(images).T
    low, high = ratio_bounds(values, sizes, 0.03, np.random.default_rng(0))
    swapped_low, swapped_high = ratio_bounds(-values, sizes, 0.03, np.random.default_rng(0))
    assert (low, high) == pytest.approx((-swapped_high, -swapped_low), rel=1e-6, abs=1e-6)
    assert low <= values.sum() / sizes.sum() + 1e-9
    assert high >= values.sum() / sizes.sum() - 1e-9


def test_bounds_fail_as_seldom_as_they_promise() -> None:
    chance = np.random.default_rng(0)
    # Skewed, as seconds per image are: some images are the same, a few much worse or better, large ones more so.
    sizes = 1 + 7.0 * chance.poisson(5, (400, 60))
    shares = chance.normal(0, 3, (400, 60)) * (chance.random((400, 60)) < 0.5) + chance.exponential(2, (400, 60)) - 2
    bounds = [ratio_bounds(share * size, size, 0.05, chance) for share, size in zip(shares, sizes, strict=True)]
    assert sum(high < 0 for _, high in bounds) / 400 <= 0.05 + 3 * 0.011
    assert sum(low > 0 for low, _ in bounds) / 400 <= 0.05 + 3 * 0.011


def test_what_all_images_save_for_their_size_is_beyond_doubt_though_sizes_differ() -> None:
    # Seconds of seven images of blood cells, and what a first candidate saved of them.
    drawing = np.array([106.0, 64, 92, 29, 134, 22, 99])
    box = LabelledBox(Box(0, 0, 9, 9), "cell")
    images = [
        ReviewedImage(f"{at:064x}", 640, 480, boxes=(box,) * int(seconds // 7)) for at, seconds in enumerate(drawing)
    ]
    sizes = image_sizes(images, LABEL_STUDIO)
    assert sizes == pytest.approx((1 + drawing / drawing.mean()) / 2)
    differences = np.array([-38.4, -22.2, -22.8, -0.8, -28.3, 5.9, -41.0])
    assert ratio_bounds(differences, drawing, 0.027, np.random.default_rng(0))[1] < -0.1
    assert ratio_bounds(differences, sizes, 0.027, np.random.default_rng(0))[1] < -5
    assert ratio_bounds(differences, np.ones(7), 0.027, np.random.default_rng(0))[1] > 0


@pytest.mark.parametrize("detector", [GOOD, POOR])
def test_average_precision_is_cocos(detector: SyntheticDetector, tmp_path: Path) -> None:
    images = reviewed(25)
    proposals = contender(images, detector).proposals
    file = tmp_path / "truth.json"
    file.write_text(json.dumps(coco(images)), encoding="utf-8")
    scores = evaluate_detections(file, results(proposals))
    for label, expected in zip(LABELS, scores.classes, strict=True):
        matched = match_detections([image.boxes for image in images], proposals, label)
        (found,) = average_precision(matched, np.ones((1, 25)))
        assert float(found.mean()) == pytest.approx(expected.ap, abs=1e-3)
        assert float(found[0]) == pytest.approx(expected.ap50, abs=1e-3)


def test_an_image_that_counts_twice_is_as_good_as_two_copies() -> None:
    images = reviewed(20)
    given = list(contender(images, POOR).proposals)
    truth: list[Sequence[LabelledBox]] = [image.boxes for image in images]
    weighted = average_precision(match_detections(truth, given, "cat"), np.array([[2.0] + [1.0] * 19, [0.0] * 20]))
    # Copies with equal scores come in image order; the copy is put beside its original.
    copied = match_detections([truth[0], *truth], [given[0], *given], "cat")
    (expected,) = average_precision(copied, np.ones((1, 21)))
    assert weighted.shape == (2, len(OVERLAPS))
    assert weighted[0] == pytest.approx(expected, abs=0.01)
    assert np.isnan(weighted[1]).all()


def coco(images: Sequence[ReviewedImage]) -> dict[str, object]:
    boxes = [(place, each) for place, image in enumerate(images, 1) for each in image.boxes]
    return {
        "images": [{"id": place, "width": 640, "height": 640} for place in range(1, len(images) + 1)],
        "categories": [{"id": place, "name": label} for place, label in enumerate(LABELS, 1)],
        "annotations": [
            {
                "id": number,
                "image_id": place,
                "category_id": LABELS.index(each.label) + 1,
                "bbox": [each.box.x1, each.box.y1, each.box.width, each.box.height],
                "area": each.box.area,
                "iscrowd": 0,
            }
            for number, (place, each) in enumerate(boxes, 1)
        ],
    }


def results(proposals: Sequence[Sequence[Proposal]]) -> list[dict[str, object]]:
    return [
        {
            "image_id": place,
            "category_id": LABELS.index(each.label) + 1,
            "bbox": [each.box.x1, each.box.y1, each.box.width, each.box.height],
            "score": each.score,
        }
        for place, given in enumerate(proposals, 1)
        for each in given
    ]
