"""What became of each region, case by case and as rules that hold for any annotation."""

from collections.abc import Sequence
from dataclasses import astuple, replace
from datetime import UTC, datetime
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.domain.annotations import AnnotatedRegion, Annotation, PercentBox
from backend.domain.geometry import Box
from backend.domain.matching import verdicts_of
from backend.domain.records import Prediction, Proposal, Region
from backend.domain.verdicts import EdgeOffsets, Verdict, VerdictKind
from integrations.label_studio.regions import box_to_percent

CAT, DOG = Box(20, 10, 60, 40), Box(100, 50, 180, 90)
MONDAY = datetime(2026, 11, 23, tzinfo=UTC)


def emitted(box: Box = CAT, label: str = "cat", score: float = 0.8) -> Proposal:
    return Proposal(box, label, score, f"a {label}")


def predicted(*proposals: Proposal, id: str = "p1", version: str = "glip-1") -> Prediction:
    """A prediction on a picture of 200 x 100 pixels; its regions are called ``p1-0``, ``p1-1`` …"""
    regions = tuple(Region(f"{id}-{index}", proposal) for index, proposal in enumerate(proposals))
    return Prediction(7, version, 200, 100, regions, id)


def final(id: str, box: Box = CAT, *labels: str, **fields: object) -> AnnotatedRegion:
    region = AnnotatedRegion(id, "image", labels or ("cat",), PercentBox(**box_to_percent(box, 200, 100)), 200, 100)
    return replace(region, **fields)  # type: ignore[arg-type]


def annotated(*regions: AnnotatedRegion, cancelled: bool = False) -> Annotation:
    return Annotation(5, 7, 1, MONDAY, MONDAY, 3, cancelled, False, 12.5, None, regions)


def shorthand(verdicts: Sequence[Verdict]) -> list[tuple[str, str | None, str | None]]:
    return [(each.kind.value, each.emitted_region, each.final_region) for each in verdicts]


def test_an_untouched_region_is_accepted_with_all_that_is_known_of_it() -> None:
    assert verdicts_of(annotated(final("p1-0", origin="prediction")), [predicted(emitted())]) == (
        Verdict(
            annotation_id=5,
            position=0,
            kind=VerdictKind.ACCEPTED,
            emitted_region="p1-0",
            final_region="p1-0",
            label_before="cat",
            label_after="cat",
            iou=1.0,
            offsets=EdgeOffsets(0, 0, 0, 0),
            model_version="glip-1",
            prompt="a cat",
            score=0.8,
            annotator=3,
            lead_time=12.5,
        ),
    )


@pytest.mark.parametrize("origin", [None, "prediction", "prediction-changed", "manual"])
def test_the_origin_is_not_believed(origin: str | None) -> None:
    (verdict,) = verdicts_of(annotated(final("p1-0", origin=origin)), [predicted(emitted())])
    assert verdict.kind == VerdictKind.ACCEPTED


def test_a_moved_region_tells_its_overlap_and_how_far_each_edge_went() -> None:
    moved = final("p1-0", Box(15, 10, 65, 36))
    (verdict,) = verdicts_of(annotated(moved), [predicted(emitted())])
    assert verdict.kind == VerdictKind.MOVED
    assert verdict.iou == pytest.approx(40 * 26 / (40 * 30 + 50 * 26 - 40 * 26))
    assert verdict.offsets is not None
    assert astuple(verdict.offsets) == pytest.approx((-5, 0, 5, -4))


@pytest.mark.parametrize(("shift", "kind"), [(0.009, VerdictKind.ACCEPTED), (0.011, VerdictKind.MOVED)])
def test_a_hundredth_of_a_pixel_is_no_move(shift: float, kind: VerdictKind) -> None:
    box = Box(CAT.x1 + shift, CAT.y1, CAT.x2 + shift, CAT.y2)
    (verdict,) = verdicts_of(annotated(final("p1-0", box)), [predicted(emitted())])
    assert verdict.kind == kind


def test_a_region_both_moved_and_relabelled_is_relabelled_and_keeps_its_offsets() -> None:
    (verdict,) = verdicts_of(annotated(final("p1-0", Box(20, 10, 70, 40), "dog")), [predicted(emitted())])
    assert (verdict.kind, verdict.label_before, verdict.label_after) == (VerdictKind.RELABELLED, "cat", "dog")
    assert verdict.iou == pytest.approx(0.8)
    assert verdict.offsets is not None
    assert verdict.offsets.right == pytest.approx(10)


def test_a_region_that_lost_its_label_is_relabelled_to_none() -> None:
    (verdict,) = verdicts_of(annotated(final("p1-0", labels=())), [predicted(emitted())])
    assert (verdict.kind, verdict.label_after) == (VerdictKind.RELABELLED, None)


def test_a_second_label_does_not_take_back_the_first() -> None:
    (verdict,) = verdicts_of(annotated(final("p1-0", CAT, "animal", "cat")), [predicted(emitted())])
    assert (verdict.kind, verdict.label_after) == (VerdictKind.ACCEPTED, "cat")


def test_what_was_drawn_by_hand_is_added_and_missed_by_the_version_that_was_answered() -> None:
    verdicts = verdicts_of(annotated(final("hand", DOG, "dog"), final("p1-0")), [predicted(emitted())])
    assert shorthand(verdicts) == [("added", None, "hand"), ("accepted", "p1-0", "p1-0")]
    assert (verdicts[0].model_version, verdicts[0].label_after, verdicts[0].score) == ("glip-1", "dog", None)


def test_an_added_region_may_have_no_label() -> None:
    (verdict,) = verdicts_of(annotated(final("hand", labels=())), [])
    assert (verdict.kind, verdict.label_after, verdict.model_version) == (VerdictKind.ADDED, None, None)


def test_what_is_absent_was_deleted_and_comes_last_in_the_order_of_the_prediction() -> None:
    verdicts = verdicts_of(annotated(final("p1-1", DOG)), [predicted(emitted(), emitted(DOG), emitted())])
    assert shorthand(verdicts) == [
        ("accepted", "p1-1", "p1-1"),
        ("deleted", "p1-0", None),
        ("deleted", "p1-2", None),
    ]
    assert [each.position for each in verdicts] == [0, 1, 2]
    assert (verdicts[1].label_before, verdicts[1].label_after, verdicts[1].iou) == ("cat", None, None)


def test_all_boxes_removed_means_that_all_were_deleted() -> None:
    assert shorthand(verdicts_of(annotated(), [predicted(emitted(), emitted(DOG))])) == [
        ("deleted", "p1-0", None),
        ("deleted", "p1-1", None),
    ]


def test_a_skipped_annotation_says_nothing() -> None:
    assert verdicts_of(annotated(final("p1-0"), cancelled=True), [predicted(emitted())]) == ()


def test_a_true_negative_without_predictions_has_no_verdicts() -> None:
    assert verdicts_of(annotated(), []) == ()


def test_a_prediction_of_another_task_is_refused() -> None:
    with pytest.raises(ValueError, match="prediction p1 is of task 8"):
        verdicts_of(annotated(), [replace(predicted(), task_id=8)])


def test_only_the_version_that_the_annotation_answers_can_lose_regions() -> None:
    old = predicted(emitted(), emitted(DOG), id="p1", version="glip-1")
    new = predicted(emitted(), emitted(DOG), id="p2", version="glip-2")
    verdicts = verdicts_of(annotated(final("p1-1", DOG)), [old, new])
    assert shorthand(verdicts) == [("accepted", "p1-1", "p1-1"), ("deleted", "p1-0", None)]
    assert {each.model_version for each in verdicts} == {"glip-1"}


def test_regions_of_two_versions_answer_both() -> None:
    old = predicted(emitted(), emitted(DOG), id="p1", version="glip-1")
    new = predicted(emitted(), emitted(DOG), id="p2", version="glip-2")
    verdicts = verdicts_of(annotated(final("p1-0"), final("p2-1", DOG), final("hand", Box(0, 50, 9, 60))), [new, old])
    assert shorthand(verdicts) == [
        ("accepted", "p1-0", "p1-0"),
        ("accepted", "p2-1", "p2-1"),
        ("added", None, "hand"),
        ("deleted", "p1-1", None),
        ("deleted", "p2-0", None),
    ]
    assert verdicts[2].model_version == "glip-2"


def test_without_ids_the_annotation_answers_the_version_that_it_resembles() -> None:
    close = predicted(emitted(Box(20, 10, 60, 41)), emitted(DOG, "dog"), id="p1", version="glip-1")
    far = predicted(emitted(Box(20, 10, 60, 60)), id="p2", version="glip-2")
    assert shorthand(verdicts_of(annotated(final("hand")), [far, close])) == [
        ("moved", "p1-0", "hand"),
        ("deleted", "p1-1", None),
    ]


def test_without_any_trace_the_annotation_answers_the_newest_version() -> None:
    versions = [predicted(emitted(), id=f"p{9 - number}", version=f"glip-{number}") for number in (2, 9)]
    newest = predicted(emitted(), id="p5", version="glip-10")
    assert shorthand(verdicts_of(annotated(), [*versions, newest])) == [("deleted", "p5-0", None)]


def test_a_new_id_with_our_prediction_in_its_meta_is_recognised_even_with_another_label() -> None:
    verdicts = verdicts_of(
        annotated(final("new", Box(20, 10, 61, 40), "dog", prediction="p1")), [predicted(emitted(), emitted(DOG))]
    )
    assert shorthand(verdicts) == [("relabelled", "p1-0", "new"), ("deleted", "p1-1", None)]


def test_meta_of_one_version_is_not_answered_by_another() -> None:
    old, new = predicted(emitted(), id="p1"), predicted(emitted(), id="p2", version="glip-2")
    (verdict,) = verdicts_of(annotated(final("new", prediction="p1")), [old, new])
    assert verdict.emitted_region == "p1-0"


def test_meta_prefers_the_same_label_to_more_overlap() -> None:
    prediction = predicted(emitted(CAT, "dog"), emitted(Box(20, 10, 60, 35), "cat"))
    verdicts = verdicts_of(annotated(final("new", prediction="p1")), [prediction])
    assert shorthand(verdicts) == [("moved", "p1-1", "new"), ("deleted", "p1-0", None)]


def test_meta_of_a_prediction_that_is_not_ours_is_passed_over() -> None:
    (verdict,) = verdicts_of(annotated(final("new", prediction="else")), [])
    assert verdict.kind == VerdictKind.ADDED


def test_a_box_deleted_and_drawn_anew_is_moved_if_the_label_is_the_same() -> None:
    redrawn = final("hand", Box(22, 12, 60, 40))
    assert shorthand(verdicts_of(annotated(redrawn, final("p1-1", DOG)), [predicted(emitted(), emitted(DOG))])) == [
        ("moved", "p1-0", "hand"),
        ("accepted", "p1-1", "p1-1"),
    ]


def test_a_box_drawn_anew_with_another_label_is_a_deletion_and_an_addition() -> None:
    assert shorthand(verdicts_of(annotated(final("hand", CAT, "dog")), [predicted(emitted())])) == [
        ("added", None, "hand"),
        ("deleted", "p1-0", None),
    ]


@pytest.mark.parametrize(("right", "kind"), [(32.1, "moved"), (31.9, "added")])
def test_boxes_that_share_less_than_three_tenths_are_different_objects(right: float, kind: str) -> None:
    verdicts = verdicts_of(annotated(final("hand", Box(20, 10, right, 40))), [predicted(emitted())])
    assert verdicts[0].kind == kind


def test_overlap_is_settled_for_all_regions_together() -> None:
    left, right = Box(0, 0, 10, 10), Box(4, 0, 14, 10)
    # both are nearest to the left proposal; each keeps one where the sum is greatest
    drawn = annotated(final("a", Box(1, 0, 11, 10)), final("b", Box(0, 0, 10, 9)))
    assert shorthand(verdicts_of(drawn, [predicted(emitted(left), emitted(right))])) == [
        ("moved", "p1-1", "a"),
        ("moved", "p1-0", "b"),
    ]


def test_of_copies_with_one_id_the_likest_keeps_it_and_the_others_are_added() -> None:
    copies = annotated(final("p1-0", DOG), final("p1-0"), final("p1-0", Box(20, 10, 60, 39)))
    assert shorthand(verdicts_of(copies, [predicted(emitted())])) == [
        ("added", None, "p1-0"),
        ("accepted", "p1-0", "p1-0"),
        ("added", None, "p1-0"),
    ]


def test_a_copy_under_a_new_id_is_added() -> None:
    copies = annotated(final("copy", DOG, prediction="p1"), final("p1-0", prediction="p1"))
    assert shorthand(verdicts_of(copies, [predicted(emitted())])) == [
        ("added", None, "copy"),
        ("accepted", "p1-0", "p1-0"),
    ]


def test_a_box_drawn_on_another_image_does_not_answer_this_one() -> None:
    prediction = predicted(emitted(), emitted(DOG))
    verdicts = verdicts_of(annotated(final("p1-0"), final("hand", DOG, image="second")), [prediction])
    assert shorthand(verdicts) == [("accepted", "p1-0", "p1-0"), ("added", None, "hand"), ("deleted", "p1-1", None)]


def test_an_id_is_believed_whatever_image_the_region_lies_on() -> None:
    (verdict,) = verdicts_of(annotated(final("p1-0", image="second")), [predicted(emitted())])
    assert verdict.kind == VerdictKind.ACCEPTED


def test_a_rotated_box_is_compared_by_its_bounds_in_pixels() -> None:
    value = PercentBox(**box_to_percent(CAT, 200, 100), rotation=90)
    (verdict,) = verdicts_of(annotated(final("p1-0", value=value)), [predicted(emitted(Box(0, 10, 20, 50)))])
    # 40 x 30 pixels turned around (20, 10) stand on x -10..20, y 10..50; the left 10 are outside
    assert verdict.kind == VerdictKind.ACCEPTED


@pytest.mark.parametrize("size", [(400, 200), (300, 600), (100, 100)])
def test_an_untouched_region_is_accepted_at_whatever_size_the_editor_showed_the_image(size: tuple[int, int]) -> None:
    width, height = size
    (verdict,) = verdicts_of(annotated(final("p1-0", image_width=width, image_height=height)), [predicted(emitted())])
    assert verdict.kind == VerdictKind.ACCEPTED


def test_offsets_are_in_pixels_of_the_size_that_the_editor_saw() -> None:
    moved = final("p1-0", Box(20, 10, 70, 40), image_width=400, image_height=200)
    (verdict,) = verdicts_of(annotated(moved), [predicted(emitted())])
    assert verdict.offsets is not None
    assert astuple(verdict.offsets) == pytest.approx((0, 0, 20, 0))


def test_without_a_size_in_the_region_the_predictions_size_holds() -> None:
    (verdict,) = verdicts_of(annotated(final("p1-0", image_width=None, image_height=None)), [predicted(emitted())])
    assert verdict.kind == VerdictKind.ACCEPTED


def test_only_the_part_inside_the_image_is_compared() -> None:
    pulled = final("p1-0", value=PercentBox(-10, -10, 40, 50))
    (verdict,) = verdicts_of(annotated(pulled), [predicted(emitted(Box(-3, 0, 60, 40)))])
    assert verdict.kind == VerdictKind.ACCEPTED


def test_a_region_pushed_out_of_the_image_is_moved_without_overlap() -> None:
    (verdict,) = verdicts_of(annotated(final("p1-0", value=PercentBox(120, 10, 10, 10))), [predicted(emitted())])
    assert (verdict.kind, verdict.iou) == (VerdictKind.MOVED, 0.0)


def test_a_box_without_area_is_accepted_by_id_and_never_found_by_overlap() -> None:
    flat = Box(20, 10, 60, 10)
    assert shorthand(verdicts_of(annotated(final("p1-0", flat)), [predicted(emitted(flat))])) == [
        ("accepted", "p1-0", "p1-0")
    ]
    assert shorthand(verdicts_of(annotated(final("hand", flat)), [predicted(emitted(flat))])) == [
        ("added", None, "hand"),
        ("deleted", "p1-0", None),
    ]


def test_a_region_with_a_number_that_is_not_finite_is_refused() -> None:
    broken = final("p1-0", value=PercentBox(float("nan"), 10, 10, 10))
    with pytest.raises(ValueError, match="nan"):
        verdicts_of(annotated(broken), [predicted(emitted())])


quick = settings(deadline=None)  # other work on the machine must not fail a test
numbers = st.one_of(st.integers(0, 20).map(float), st.floats(-10, 110))
labels = st.sampled_from(["cat", "dog"])
KEPT = {VerdictKind.ACCEPTED, VerdictKind.MOVED, VerdictKind.RELABELLED}


@st.composite
def cases(draw: st.DrawFn) -> tuple[Annotation, list[Prediction]]:
    predictions = []
    for number in range(draw(st.integers(0, 3))):
        proposals = [
            emitted(Box(min(x), min(y), max(x), max(y)), draw(labels))
            for x, y in draw(st.lists(st.tuples(*[st.tuples(numbers, numbers)] * 2), max_size=4))
        ]
        predictions.append(predicted(*proposals, id=f"p{number}", version=f"glip-{draw(st.integers(1, 2))}"))
    known = [region.id for prediction in predictions for region in prediction.regions]
    regions = [
        AnnotatedRegion(
            draw(st.sampled_from([*known, "hand-1", "hand-2"])),
            draw(st.sampled_from(["image", "second"])),
            tuple(draw(st.lists(labels, max_size=2, unique=True))),
            PercentBox(
                draw(numbers), draw(numbers), draw(numbers), draw(numbers), draw(st.sampled_from([0.0, 0.0, 30.0]))
            ),
            *draw(st.sampled_from([(200, 100), (None, None), (300, 50)])),
            prediction=draw(st.sampled_from([None, "p0", "p1", "else"])),
        )
        for _ in range(draw(st.integers(0, 5)))
    ]
    return annotated(*regions), predictions


@quick
@given(cases())
def test_the_order_of_predictions_changes_nothing(case: tuple[Annotation, list[Prediction]]) -> None:
    annotation, predictions = case
    answers = {repr(verdicts_of(annotation, order)) for order in permutations(predictions)}
    assert len(answers) == 1


@quick
@given(cases())
def test_every_final_region_has_one_verdict_and_so_has_every_region_of_an_answered_prediction(
    case: tuple[Annotation, list[Prediction]],
) -> None:
    annotation, predictions = case
    verdicts = verdicts_of(annotation, predictions)
    here = [each for each in verdicts if each.kind != VerdictKind.DELETED]
    assert [each.final_region for each in here] == [region.id for region in annotation.regions]
    assert all((each.emitted_region is None) == (each.kind == VerdictKind.ADDED) for each in verdicts)
    named = [each.emitted_region for each in verdicts if each.emitted_region]
    assert len(set(named)) == len(named)
    answered = {name.partition("-")[0] for name in named}
    owned = {region.id for each in predictions if each.id in answered for region in each.regions}
    assert set(named) == owned


@quick
@given(cases())
def test_a_region_that_kept_its_id_is_never_given_away_to_one_that_overlaps_more(
    case: tuple[Annotation, list[Prediction]],
) -> None:
    annotation, predictions = case
    for verdict in verdicts_of(annotation, predictions):
        if verdict.kind in KEPT and verdict.emitted_region != verdict.final_region:
            assert verdict.emitted_region not in [region.id for region in annotation.regions]


@quick
@given(cases())
def test_positions_count_from_zero(case: tuple[Annotation, list[Prediction]]) -> None:
    verdicts = verdicts_of(*case)
    assert [each.position for each in verdicts] == list(range(len(verdicts)))


@quick
@given(st.integers(1, 20_000), st.integers(1, 20_000), *[st.floats(0, 1)] * 4)
def test_percent_and_back_is_no_move(
    width: int, height: int, left: float, top: float, wide: float, high: float
) -> None:
    x1, y1 = left * width, top * height
    box = Box(x1, y1, x1 + wide * (width - x1), y1 + high * (height - y1))
    prediction = Prediction(7, "glip-1", width, height, (Region("p1-0", emitted(box)),), "p1")
    value = PercentBox(**box_to_percent(box, width, height))
    (verdict,) = verdicts_of(annotated(AnnotatedRegion("p1-0", "image", ("cat",), value, width, height)), [prediction])
    assert verdict.kind == VerdictKind.ACCEPTED
