"""The gate as a job uses it: a decision on all held-out images, each shown by what others tell of the scores."""

from dataclasses import replace
from hashlib import sha256

import pytest

from backend.analysis.gate import GateSettings
from backend.domain.geometry import Box
from backend.domain.learning import Answers, Contest
from backend.domain.records import Proposal
from backend.domain.review import LABEL_STUDIO
from backend.domain.training_data import LabelledBox, Part, ReviewedImage, split_of
from backend.services.gate import contender, judge

BOXES = tuple(LabelledBox(Box(100.0 * place, 10, 100.0 * place + 60, 90), "cat") for place in range(4))
HELD_OUT = [
    digest
    for digest in (sha256(str(number).encode()).hexdigest() for number in range(400))
    if split_of(digest) is not Part.TRAIN
][:100]
IMAGES = tuple(ReviewedImage(digest, 640, 480, (), BOXES) for digest in HELD_OUT)


def good(score: float = 0.9) -> tuple[Proposal, ...]:
    return tuple(Proposal(each.box, "cat", score, "cat") for each in BOXES)


def bad(score: float = 0.6) -> tuple[Proposal, ...]:
    return tuple(Proposal(Box(x, 200, x + 40, 300), "cat", score, "cat") for x in (10, 110, 210))


def contest(production: tuple[Proposal, ...], candidate: tuple[Proposal, ...], slower: float = 1.0) -> Contest:
    seconds = tuple(0.1 + 0.001 * (index % 7) for index in range(len(IMAGES)))
    return Contest(
        IMAGES,
        Answers((production,) * len(IMAGES), seconds),
        Answers((candidate,) * len(IMAGES), tuple(slower * each for each in seconds)),
        attempt=1,
    )


def first(count: int, full: Contest) -> Contest:
    production, candidate = (
        Answers(each.proposals[:count], each.seconds[:count]) for each in (full.production, full.candidate)
    )
    return replace(full, images=full.images[:count], production=production, candidate=candidate)


def test_a_candidate_that_saves_a_person_time_is_promoted_with_its_numbers() -> None:
    ruling = judge(contest(bad(), good()))
    assert ruling.promote
    assert ruling.reason.endswith(f"on {len(IMAGES)} held-out images")
    assert ruling.numbers["ap50"]["candidate"] == pytest.approx(1.0)
    assert ruling.numbers["seconds"]["high"] < 0


def test_an_image_is_shown_by_what_the_other_fifths_tell() -> None:
    proposals = [(*good(0.7), *bad(0.3))] * len(IMAGES)
    before = contender(IMAGES, proposals, LABEL_STUDIO)
    changed = [(*good(0.1), *bad(0.9)), *proposals[1:]]
    after = contender(IMAGES, changed, LABEL_STUDIO)
    assert [len(shown) for shown in before.shown] == [len(BOXES)] * len(IMAGES)
    told = [old != new for old, new in zip(before.thresholds, after.thresholds, strict=True)]
    assert not told[0]
    assert told.count(False) in (len(IMAGES) // 5, 1 + len(IMAGES) // 5)  # its own fifth; the others heard of it


def test_the_order_of_the_images_changes_nothing() -> None:
    proposals = [(*good(0.5 + place / 400), *bad(0.3)) for place in range(len(IMAGES))]
    there, back = contender(IMAGES, proposals, LABEL_STUDIO), contender(IMAGES[::-1], proposals[::-1], LABEL_STUDIO)
    cuts = [[thresholds.default for thresholds in each.thresholds] for each in (there, back)]
    assert cuts[0] == pytest.approx(cuts[1][::-1])
    assert len(set(cuts[0])) == 5


def test_a_better_candidate_passes_with_a_handful_of_images() -> None:
    assert judge(first(8, contest(bad(), (*good(), *bad(0.3))))).promote


def test_the_same_answers_again_are_not_promoted() -> None:
    ruling = judge(contest(good(), good(0.8)))
    assert not ruling.promote
    assert "not clearly faster" in ruling.reason


def test_a_slower_candidate_is_refused_where_each_image_takes_longer_but_not_for_one_hiccup() -> None:
    assert "slower: " in judge(contest(bad(), good(), slower=1.5)).reason
    even = contest(bad(), good())
    hiccup = replace(even.candidate, seconds=(30.0, *even.candidate.seconds[1:]))
    assert judge(replace(even, candidate=hiccup)).promote


def test_with_few_held_out_images_nothing_is_promoted_and_the_reason_is_told() -> None:
    full = contest(bad(), good())
    for count in (0, 1, 4):
        ruling = judge(first(count, full))
        assert not ruling.promote
        assert "are too few" in ruling.reason
        assert not ruling.compared
    assert judge(first(5, full)).compared


def test_what_is_asked_of_a_candidate_can_be_set() -> None:
    settings = GateSettings(costs=LABEL_STUDIO, least_images=1000)
    assert "1000 images" in judge(contest(bad(), good()), settings).reason
