"""Doubts about labels: each kind of error is found with its reason, and errors come before good boxes."""

from dataclasses import replace

import numpy as np
import pytest

from backend.analysis.label_errors import DoubtKind, doubts
from backend.domain.calibration import PLAIN
from backend.domain.geometry import Box
from backend.domain.records import Proposal
from backend.domain.training_data import LabelledBox, ReviewedImage
from tests.synthetic import LABELS, SyntheticDetector, make_scene


def box(x: float, label: str = "cat") -> LabelledBox:
    return LabelledBox(Box(x, 0, x + 100, 100), label)


def proposed(x: float, label: str = "cat", score: float = 0.95) -> Proposal:
    return Proposal(Box(x, 0, x + 100, 100), label, score, label)


def sure(*boxes: LabelledBox) -> list[Proposal]:
    return [Proposal(each.box, each.label, 0.97, each.label) for each in boxes]


# Where the model finds every cat, a cat that it does not find is suspect.
KNOWN = [ReviewedImage(str(place), 900, 100, boxes=(box(0), box(300))) for place in range(200)]


@pytest.mark.parametrize(
    ("boxes", "given", "kind", "region", "reason"),
    [
        ((box(0),), [proposed(0), proposed(300, "dog")], DoubtKind.MISSING, None, "no box here, but dog with 95%"),
        ((box(0),), [proposed(0, "dog")], DoubtKind.LABEL, 0, "labelled cat, looks like dog with 95%"),
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
