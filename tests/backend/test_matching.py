"""What became of each region, case by case."""

from dataclasses import astuple, replace

import pytest

from backend.domain.annotations import PercentBox
from backend.domain.geometry import Box
from backend.domain.matching import verdicts_of
from backend.domain.records import Look, Prediction
from backend.domain.verdicts import EdgeOffsets, Verdict, VerdictKind
from integrations.label_studio.regions import box_to_percent
from tests.regions import CAT, DOG, annotated, emitted, final, predicted, shorthand


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


def test_what_another_tool_drew_is_no_verdict_on_a_box() -> None:
    outline = replace(final("hand", DOG), labels=(), tool="polygonlabels")
    verdicts = verdicts_of(annotated(final("p1-0"), outline, final("hand-2", DOG, "dog")), [predicted(emitted())])
    assert [(each.position, each.final_region) for each in verdicts] == [(0, "p1-0"), (2, "hand-2")]


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


def of_image(name: str, id: str, version: str = "glip-1") -> Prediction:
    return predicted(emitted(), emitted(DOG), id=id, version=version, look=Look(name))


def test_an_image_that_lost_all_its_boxes_is_answered_by_the_version_of_the_others() -> None:
    shown = [of_image("image", "p1"), of_image("back", "p2")]
    later = [of_image("image", "p3", "glip-2"), of_image("back", "p4", "glip-2")]
    verdicts = verdicts_of(annotated(final("p1-0"), final("hand", DOG, "dog")), [*later, *shown])
    assert shorthand(verdicts) == [
        ("accepted", "p1-0", "p1-0"),
        ("added", None, "hand"),
        ("deleted", "p1-1", None),
        ("deleted", "p2-0", None),
        ("deleted", "p2-1", None),
    ]


def test_a_box_is_not_held_against_what_was_proposed_on_another_image() -> None:
    redrawn = final("hand", image="back")
    assert shorthand(verdicts_of(annotated(redrawn), [of_image("image", "p1"), of_image("back", "p2")])) == [
        ("accepted", "p2-0", "hand"),
        ("deleted", "p1-0", None),
        ("deleted", "p1-1", None),
        ("deleted", "p2-1", None),
    ]


def test_what_a_prompt_found_counts_only_where_it_was_taken() -> None:
    batch = predicted(emitted(), id="p1", look=Look("image"))
    prompted = predicted(emitted(DOG), emitted(CAT), emitted(CAT), id="p9", look=Look("image", prompted=True))
    taken = annotated(final("p9-0", DOG), final("hand", DOG, "dog"))
    assert shorthand(verdicts_of(taken, [batch, prompted])) == [
        ("accepted", "p9-0", "p9-0"),
        ("added", None, "hand"),
        ("deleted", "p1-0", None),
    ]
    assert shorthand(verdicts_of(annotated(), [batch, prompted])) == [("deleted", "p1-0", None)]
    assert {each.model_version for each in verdicts_of(taken, [prompted])} == {"glip-1"}


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


def test_what_was_drawn_on_an_image_that_nothing_looked_at_was_missed_by_nobody() -> None:
    drawn = annotated(final("p1-0"), final("hand", DOG), final("aside", DOG, image="pages"))
    assert [each.model_version for each in verdicts_of(drawn, [of_image("image", "p1")])][:3] == [
        "glip-1",
        "glip-1",
        None,
    ]


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
