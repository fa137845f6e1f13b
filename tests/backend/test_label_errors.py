"""Doubts about labels: each kind of error is found with its reason, errors come before good boxes, and what is stated
is true about as often as it is stated."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from backend.analysis.calibration import fit_calibration
from backend.analysis.label_errors import Doubt, DoubtKind, doubts
from backend.analysis.simulated_annotator import IDEAL, Annotator
from backend.domain.calibration import PLAIN
from backend.domain.geometry import Box, iou
from backend.domain.records import Proposal
from backend.domain.review import FIRST_THRESHOLD, Judgement
from backend.domain.training_data import LabelledBox, ReviewedImage
from tests.synthetic import LABELS, SyntheticDetector, make_scene


def box(x: float, label: str = "cat") -> LabelledBox:
    return LabelledBox(Box(x, 0, x + 100, 100), label)


def proposed(x: float, label: str = "cat", score: float = 0.98) -> Proposal:
    return Proposal(Box(x, 0, x + 100, 100), label, score, label)


def sure(*boxes: LabelledBox) -> list[Proposal]:
    return [Proposal(each.box, each.label, 0.97, each.label) for each in boxes]


# Where the model finds every cat, a cat that it does not find is suspect.
KNOWN = [ReviewedImage(str(place), 900, 100, boxes=(box(0), box(300))) for place in range(200)]


@pytest.mark.parametrize(
    ("boxes", "given", "kind", "region", "reason"),
    [
        ((box(0),), [proposed(0), proposed(300, "dog")], DoubtKind.MISSING, None, "no box here, but dog with 98%"),
        ((box(0),), [proposed(0, "dog")], DoubtKind.LABEL, 0, "labelled cat, looks like dog with 98%"),
        ((box(0), box(45)), [proposed(0), proposed(90)], DoubtKind.PLACE, 1, "cat is perhaps elsewhere: overlap 0.38"),
        ((box(0), box(500)), [proposed(0)], DoubtKind.SPURIOUS, 1, "nothing is found here"),
        ((box(0), box(2)), [proposed(0)], DoubtKind.TWICE, 1, "the same place as cat, overlap 0.96"),
    ],
)
def test_every_kind_of_error_is_doubted_with_its_reason(
    boxes: tuple[LabelledBox, ...], given: list[Proposal], kind: DoubtKind, region: int | None, reason: str
) -> None:
    images = [*KNOWN, ReviewedImage("suspect", 900, 100, boxes=boxes)]
    (found,) = doubts(images, [*(sure(*each.boxes) for each in KNOWN), given], PLAIN)
    assert (found.image, found.kind, found.region) == ("suspect", kind, region)
    assert found.reason.startswith(reason)


def test_good_labels_are_not_doubted() -> None:
    assert doubts(KNOWN, [sure(*each.boxes) for each in KNOWN], PLAIN) == ()
    assert doubts([], [], PLAIN) == ()


def test_several_proposals_in_one_place_miss_one_object() -> None:
    images = [ReviewedImage("a", 900, 100)]
    (found,) = doubts(images, [[proposed(0, score=0.6), proposed(3, "dog"), proposed(5)]], PLAIN)
    assert found.label == "dog"


def test_in_a_crowd_a_box_is_not_held_against_its_neighbours() -> None:
    """Two cells overlap by 0.18, and the model finds one of them, exactly."""
    images = [ReviewedImage("crowd", 900, 100, boxes=(box(0), box(69)))]
    assert doubts(images, [[proposed(0, score=0.999)]], PLAIN) == ()


def test_where_labels_may_overlap_an_object_with_two_is_in_order() -> None:
    images = [ReviewedImage("both", 900, 100, boxes=(box(0, "car"), box(2, "vehicle")))]
    given = [[proposed(0, "car"), proposed(1, "vehicle", 0.999)]]
    (twice,) = doubts(images, given, PLAIN)
    assert (twice.kind, twice.region) == (DoubtKind.TWICE, 1)
    assert doubts(images, given, PLAIN, overlapping_labels=True) == ()
    assert doubts(images, [given[0][1:]], PLAIN, overlapping_labels=True) == ()
    copied = [ReviewedImage("copied", 900, 100, boxes=(box(0, "car"), box(1, "vehicle"), box(2, "car")))]
    (twice,) = doubts(copied, given, PLAIN, overlapping_labels=True)
    assert (twice.kind, twice.region) == (DoubtKind.TWICE, 2)


def spoiled(images: list[ReviewedImage], chance: np.random.Generator) -> tuple[list[ReviewedImage], set[object]]:
    """Drop, shift, swap or invent 5 % of the boxes each; tell which images and regions are wrong."""
    made, wrong = [], set[object]()
    for image in images:
        left: list[LabelledBox] = []
        for each in image.boxes:
            act = chance.random()
            if act < 0.05:
                wrong.add((image.sha256, None))
                continue
            if act < 0.20:
                wrong.add((image.sha256, len(left)))
            if act < 0.10:
                by = 0.3 * each.box.width
                each = LabelledBox(Box(each.box.x1 + by, each.box.y1, each.box.x2 + by, each.box.y2), each.label)
            elif act < 0.15:
                each = LabelledBox(each.box, LABELS[(LABELS.index(each.label) + 1) % 3])
            elif act < 0.20:
                left.append(each)
                wrong.discard((image.sha256, len(left) - 1))
                wrong.add((image.sha256, len(left)))
                each = make_scene(chance, 30)[0]
            left.append(each)
        made.append(replace(image, boxes=tuple(left)))
    return made, wrong


def test_injected_errors_come_first() -> None:
    chance = np.random.default_rng(0)
    clean = [ReviewedImage(f"{place:064x}", 640, 640, boxes=make_scene(chance)) for place in range(150)]
    detector = SyntheticDetector(recall=0.97, invented=0.5, confusion=0.01, separation=3.0)
    given = [detector.propose(image.boxes, chance) for image in clean]
    images, wrong = spoiled(clean, chance)
    listed = doubts(images, given, PLAIN, least=0.0)
    base = len(wrong) / sum(len(image.boxes) for image in images)
    hits = [(each.image, each.region) in wrong for each in listed[:50]]
    assert sum(hits) / 50 > 3.5 * base
    assert all(0 <= each.probability <= 1 for each in listed)


Boxes = Sequence[LabelledBox]
REVIEWED, DETECTOR = 1200, SyntheticDetector(spread=0.08, shift=-1.0, stretch=0.7)


def with_mistakes(boxes: Boxes, share: float, chance: np.random.Generator) -> tuple[LabelledBox, ...]:
    """Forget, misname and misplace such a share of the boxes each."""
    made = []
    for each in boxes:
        label, box, act = each.label, each.box, chance.random()
        if act < share:
            continue
        if act < 2 * share:
            label = LABELS[(LABELS.index(label) + 1) % 3]
        elif act < 3 * share:
            by = 0.3 * box.width
            box = Box(box.x1 + by, box.y1, box.x2 + by, box.y2)
        made.append(LabelledBox(box, label))
    return tuple(made)


def reviewed(share: float, seen: bool) -> list[tuple[Doubt, Boxes]]:
    """Doubts about what a person left of a model's boxes, beside the true ones.

    Held against it are the boxes that the person saw, with those that were hidden, or others that nobody saw. Scores
    are fitted to the verdicts.
    """
    chance, annotator = np.random.default_rng(0), Annotator(LABELS, human=IDEAL)
    truth = [make_scene(chance) for _ in range(REVIEWED)]
    images, given = [], []
    judgements: list[Judgement] = []
    for number, true in enumerate(truth):
        found = DETECTOR.propose(true, chance)
        review = annotator.review(str(number), true, [each for each in found if each.score >= FIRST_THRESHOLD])
        judgements += review.judgements
        left = with_mistakes([LabelledBox(each.box, each.label) for each in review.boxes], share, chance)
        images.append(ReviewedImage(str(number), 640, 640, boxes=left))
        given.append(found if seen else DETECTOR.propose(true, chance))
    return [(each, truth[int(each.image)]) for each in doubts(images, given, fit_calibration(judgements))]


def is_error(doubt: Doubt, truth: Boxes) -> bool:
    match doubt.kind:
        case DoubtKind.MISSING:
            return any(iou(each.box, doubt.box) >= 0.5 for each in truth)
        case DoubtKind.LABEL:
            return not any(iou(each.box, doubt.box) >= 0.3 and each.label == doubt.label for each in truth)
        case _:
            return not any(iou(each.box, doubt.box) >= 0.8 for each in truth)


def test_what_is_stated_is_about_as_often_true() -> None:
    found = defaultdict(list)
    for doubt, truth in [*reviewed(0.02, seen=True), *reviewed(0.02, seen=False)]:
        found[doubt.kind].append((doubt.probability, is_error(doubt, truth)))
    assert set(found) == {DoubtKind.MISSING, DoubtKind.LABEL, DoubtKind.PLACE}
    for kind, pairs in found.items():
        stated, true = np.mean(pairs, axis=0)
        assert len(pairs) >= 50, kind
        assert abs(stated - true) < 0.2, (kind, stated, true)


def test_who_deletes_renames_and_moves_for_good_reason_is_seldom_doubted() -> None:
    assert len(reviewed(0.0, seen=True)) < 0.1 * REVIEWED
