"""From which score on a proposal is worth a person's time, and how long an image will take."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.analysis.calibration import fit_calibration
from backend.analysis.expected_seconds import Expectation, fit_expectation
from backend.analysis.simulated_annotator import IDEAL, Annotator
from backend.analysis.thresholds import break_even, fit_thresholds
from backend.domain.geometry import Box
from backend.domain.records import Proposal
from backend.domain.review import (
    CARDS,
    FLOOR,
    LABEL_STUDIO,
    Costs,
    Judgement,
    ShowThresholds,
    is_explored,
    judgement_of,
    slow,
)
from backend.domain.verdicts import VerdictKind
from tests.backend.test_acceptance import verdict
from tests.synthetic import LABELS, SyntheticDetector, make_scene

ACCEPTED, MOVED, RELABELLED, DELETED, _ = VerdictKind
EVERYTHING = ShowThresholds(0.0)


def judged(score: float, kind: VerdictKind = ACCEPTED, label: str = "cat", weight: float = 1.0) -> Judgement:
    return Judgement("a", label, score, kind, 1.0 if kind is ACCEPTED else 0.0, weight)


def proposed(score: float, label: str = "cat") -> Proposal:
    return Proposal(Box(0, 0, 10, 10), label, score, label)


def test_two_explored_boxes_that_were_worth_a_new_label_do_not_open_the_gates() -> None:
    deleted = [judged(0.5 + index / 100, DELETED) for index in range(10)]
    explored = [judged(score, RELABELLED, weight=150.0) for score in (0.1, 0.2)]
    assert fit_thresholds([*deleted, *explored], LABEL_STUDIO).default > 0.3
    many = [judged(0.1 + index / 1000, RELABELLED, weight=150.0) for index in range(200)]
    opened = fit_thresholds([*deleted, *many], LABEL_STUDIO)
    assert opened.of("cat") < 0.1
    assert opened.default < 0.15


def test_boxes_with_a_wrong_label_are_shown_where_a_new_label_is_faster_than_drawing() -> None:
    """Hundreds of deleted boxes with low scores say nothing of those with high scores that are only named wrongly."""
    deleted = [judged(0.05 + index / 1500, DELETED) for index in range(300)]
    named = [judged(0.6 + index / 1500, RELABELLED if index % 3 else ACCEPTED) for index in range(60)]
    named = [replace(each, iou=1.0) for each in named]
    cuts = fit_thresholds([*deleted, *named], LABEL_STUDIO)
    assert 0.25 < cuts.of("cat") < 0.55
    assert cuts.default < 0.55


def test_many_explored_boxes_do_not_keep_a_label_from_the_cut_that_pays() -> None:
    """Weights of hundreds leave as much evidence as there is."""
    right = [judged(0.7 + index / 4000) for index in range(600)]
    deleted = [judged(0.5 + index / 4000, DELETED) for index in range(600)]
    explored = [judged(0.1 + index / 1000, DELETED, weight=300.0) for index in range(12)]
    assert 0.6 < fit_thresholds([*right, *deleted, *explored], LABEL_STUDIO).of("cat") < 0.75


def test_a_few_explored_boxes_do_not_bend_what_hundreds_of_shown_ones_tell() -> None:
    shown = [judged(0.45 + index / 1500, ACCEPTED if index % 10 < index / 70 else DELETED) for index in range(700)]
    before = fit_thresholds(shown, LABEL_STUDIO).default
    explored = [
        judged(score, kind, weight=600.0)
        for score, kind in zip((0.39, 0.22, 0.24), (DELETED, ACCEPTED, DELETED), strict=True)
    ]
    assert before > 0.4
    assert fit_thresholds([*shown, *explored], LABEL_STUDIO).default > before - 0.1


@pytest.mark.parametrize(
    ("costs", "expected"),
    [(CARDS, 0.257), (slow(CARDS), 0.071), (LABEL_STUDIO, 0.235), (slow(LABEL_STUDIO), 0.074), (Costs(accept=9), 1.0)],
)
def test_the_break_even_point_is_the_published_one(costs: Costs, expected: float) -> None:
    assert break_even(costs) == pytest.approx(expected, abs=5e-4)


def test_with_many_judgements_the_cut_is_where_boxes_begin_to_pay() -> None:
    wrong = [judged(0.30 + index / 1e5, DELETED) for index in range(1000)]
    right = [judged(0.60 + index / 1e5) for index in range(1000)]
    cut = fit_thresholds([*wrong, *right], CARDS).of("cat")
    assert 0.3 < cut < 0.6


def test_a_label_of_which_everything_pays_is_shown_down_to_the_lowest_score_seen() -> None:
    cuts = fit_thresholds([judged(0.1 + index / 2000) for index in range(1000)], CARDS)
    assert cuts.of("cat") == pytest.approx(0.1, abs=0.03)


def test_a_label_of_which_nothing_pays_is_hidden() -> None:
    cuts = fit_thresholds([judged(index / 2000, DELETED) for index in range(1000)], CARDS)
    assert not cuts.shows(proposed(0.5))


def test_few_judgements_of_a_label_leave_it_near_the_cut_of_all() -> None:
    many = [judged(score / 1000, ACCEPTED if score > 400 else DELETED, "dog") for score in range(1000)]
    cuts = fit_thresholds([*many, judged(0.9), judged(0.95)], CARDS)
    assert cuts.of("cat") == pytest.approx(cuts.default, abs=0.1)
    assert cuts.of("owl") == cuts.default


def test_without_judgements_scores_count_as_honest() -> None:
    assert fit_thresholds([], CARDS) == ShowThresholds(break_even(CARDS))


def test_cuts_hang_on_what_became_of_explored_boxes_and_not_on_how_many_they_stand_for() -> None:
    shown = [judged(0.5 + index / 1000) for index in range(400)]
    explored = [judged(0.2 + index / 200, weight=20.0) for index in range(20)]
    rejected = [judged(0.3 + index / 1000, DELETED) for index in range(100)]
    cuts = fit_thresholds([*shown, *explored, *rejected], CARDS)
    assert cuts == fit_thresholds([replace(each, weight=1.0) for each in (*shown, *explored, *rejected)], CARDS)
    assert cuts.of("cat") > 0.3


def test_better_boxes_than_any_that_was_thrown_away_are_still_shown() -> None:
    """Of these nothing is known, however clearly the curve of the others says that none is worth showing."""
    thrown = [judged(0.3 + index / 110, DELETED) for index in range(22)]
    lucky = judged(0.28, RELABELLED)
    cuts = fit_thresholds([*thrown, lucky], slow(LABEL_STUDIO))
    assert not cuts.shows(proposed(0.5))
    assert cuts.shows(proposed(0.6))
    assert cuts.shows(proposed(0.6, "owl"))


def test_hundreds_of_thrown_away_boxes_do_not_make_the_best_cut_of_two_kept_ones_count() -> None:
    """They tell where nothing is. The cut lies where the curve of all labels says, and not between two boxes."""
    others = [judged(0.3 + index / 1000, ACCEPTED if index > 250 else DELETED, "dog") for index in range(500)]
    low = [judged(0.05 + index / 2000, DELETED) for index in range(400)]
    own = [judged(0.84, DELETED), judged(0.85), judged(0.9)]
    cuts = fit_thresholds([*others, *low, *own], LABEL_STUDIO)
    assert cuts.of("cat") < 0.65


def test_the_same_few_images_are_always_explored() -> None:
    names = [f"{index:064x}" for index in range(4000)]
    explored = [name for name in names if is_explored(name)]
    assert explored == [name for name in names if is_explored(name)]
    assert len(explored) / 4000 == pytest.approx(0.05, abs=0.015)


@pytest.mark.parametrize("costs", [CARDS, LABEL_STUDIO])
@pytest.mark.parametrize(
    ("detector", "allowed"),
    [
        # The best fixed cut is chosen in hindsight, on the very images that are measured.
        (SyntheticDetector(), 1.02),
        (SyntheticDetector(separation=1.2, invented=6, shift=1.0), 1.02),
        (SyntheticDetector(separation=1.5, invented=4, shifts={"dog": 2.0, "owl": -2.0}), 0.97),
    ],
)
def test_learned_cuts_are_as_good_as_any_fixed_one_on_other_images(
    costs: Costs, detector: SyntheticDetector, allowed: float
) -> None:
    chance = np.random.default_rng(5)
    scenes = [make_scene(chance) for _ in range(600)]
    proposals = [detector.propose(scene, chance) for scene in scenes]
    annotator = Annotator(LABELS, costs, IDEAL)

    def seconds(cuts: ShowThresholds) -> float:
        shown = ([each for each in given if cuts.shows(each)] for given in proposals[300:])
        return sum(annotator.review("a", *pair).seconds for pair in zip(scenes[300:], shown, strict=True))

    reviews = [annotator.review(str(place), scenes[place], proposals[place]) for place in range(300)]
    learned = fit_thresholds([each for review in reviews for each in review.judgements], costs)
    fixed = min(seconds(ShowThresholds(cut)) for cut in np.linspace(0.05, 1.01, 25))
    assert seconds(learned) <= allowed * fixed


def test_hiding_everything_costs_what_drawing_everything_does() -> None:
    chance = np.random.default_rng(0)
    scene = make_scene(chance)
    never = ShowThresholds(float("inf"))
    shown = [each for each in SyntheticDetector().propose(scene, chance) if never.shows(each)]
    review = Annotator(LABELS).review("a", scene, shown)
    assert review.seconds == pytest.approx(review.drawing_seconds)


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.6])
def test_expected_seconds_are_those_that_people_take_in_the_mean(threshold: float) -> None:
    chance = np.random.default_rng(1)
    detector = SyntheticDetector(shift=-1.0)
    scenes = [make_scene(chance) for _ in range(800)]
    proposals = [detector.propose(scene, chance) for scene in scenes]
    annotator = Annotator(LABELS, human=IDEAL)
    reviews = [annotator.review(str(place), scenes[place], proposals[place]) for place in range(400)]
    judgements = [each for review in reviews for each in review.judgements]
    added = sum(len(review.drawn) for review in reviews) / 400
    expectation = fit_expectation(judgements, fit_calibration(judgements))
    cuts = ShowThresholds(threshold)
    expected, taken = 0.0, 0.0
    for scene, found in zip(scenes[400:], proposals[400:], strict=True):
        expected += expectation.seconds(found, cuts, CARDS) + CARDS.draw * added
        taken += annotator.review("a", scene, [each for each in found if cuts.shows(each)]).seconds
    assert expected == pytest.approx(taken, rel=0.05)


scores = st.floats(0, 1)
judgement_lists = st.lists(st.builds(judged, scores, st.sampled_from([ACCEPTED, MOVED, RELABELLED, DELETED])))


@settings(deadline=None, max_examples=50)
@given(judgement_lists, st.sampled_from([CARDS, LABEL_STUDIO, slow(CARDS)]))
def test_cuts_are_scores_and_survive_json(given: list[Judgement], costs: Costs) -> None:
    cuts = fit_thresholds(given, costs)
    assert all(FLOOR <= cut <= 1 for cut in (cuts.default, *cuts.labels.values()))
    assert ShowThresholds.from_json(cuts.to_json()) == cuts


@settings(deadline=None)
@given(st.lists(st.builds(proposed, scores)), judgement_lists, st.floats(0, 1.5))
def test_expected_seconds_are_never_below_those_of_opening_the_image(
    proposals: list[Proposal], given: list[Judgement], threshold: float
) -> None:
    expectation = fit_expectation(given, Expectation().calibration)
    assert expectation.seconds(proposals, ShowThresholds(threshold), CARDS) >= CARDS.image


def test_a_persons_verdict_judges_the_proposal_as_it_was_made() -> None:
    assert judgement_of(verdict(RELABELLED, label_after="dog", iou=0.7), 20.0) == Judgement(
        "1", "cat", 0.8, RELABELLED, 0.7, 20.0
    )
    assert judgement_of(verdict(VerdictKind.ADDED)) is None


def test_thresholds_that_are_not_ours_are_refused() -> None:
    with pytest.raises(ValueError, match="default and labels"):
        ShowThresholds.from_json({"labels": {}})
