"""What people really did in the editor, as it was recorded, and the verdicts that follow."""

from collections.abc import Sequence

import pytest

from backend.domain.annotations import Annotation
from backend.domain.geometry import Box
from backend.domain.matching import verdicts_of
from backend.domain.records import Prediction, Proposal, Region
from backend.domain.verdicts import Verdict
from integrations.label_studio.annotations import parse_annotation
from tests.make import recorded

Expected = list[tuple[str, str | None, str | None]]

PERCENT = {"cat": (10, 10, 20, 30), "traffic light": (50, 40, 25, 25)}


def annotations(name: str) -> list[Annotation]:
    body = recorded(name)["json"]
    values = body["annotation"] if isinstance(body["annotation"], list) else [body["annotation"]]
    return [parse_annotation(value, body["project"]["id"]) for value in values]


def region(id: str, label: str, percent: Sequence[float], size: tuple[int, int] = (640, 480)) -> Region:
    x, y, wide, high = (number * size[index % 2] / 100 for index, number in enumerate(percent))
    return Region(id, Proposal(Box(x, y, x + wide, y + high), label, 0.5, label))


def prediction(task_id: int, *regions: Region, size: tuple[int, int] = (640, 480)) -> Prediction:
    return Prediction(task_id, "glip-0", *size, regions, f"of-{task_id}")


def two_boxes(task_id: int, size: tuple[int, int] = (640, 480)) -> Prediction:
    """The cat and the traffic light that the recording backend proposed, as ``glip9a`` and ``glip9b`` for task 9."""
    names = zip((f"glip{task_id}a", f"glip{task_id}b"), PERCENT, strict=True)
    return prediction(task_id, *(region(id, label, PERCENT[label], size) for id, label in names), size=size)


def shorthand(verdicts: Sequence[Verdict]) -> Expected:
    return [(each.kind.value, each.emitted_region, each.final_region) for each in verdicts]


def accepted(*ids: str) -> Expected:
    return [("accepted", id, id) for id in ids]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("editor_submit_unchanged", accepted("glip9a", "glip9b")),
        ("editor_submit_moved_box", [("moved", "glip10a", "glip10a"), *accepted("glip10b")]),
        (
            "editor_submit_relabel_delete_new",
            [("relabelled", "glip11a", "glip11a"), ("added", None, "GVlnqA_C5s"), ("deleted", "glip11b", None)],
        ),
        (
            "editor_update",
            [("relabelled", "glip11a", "glip11a"), ("added", None, "GVlnqA_C5s"), ("deleted", "glip11b", None)],
        ),
        ("editor_submit_empty_all_deleted", [("deleted", "glip12a", None), ("deleted", "glip12b", None)]),
        ("editor_skip", []),
        ("editor_geometry_noorig", accepted("glip33a", "glip33b")),
        ("editor_geometry_ok_wrong_size", accepted("glip31a", "glip31b")),
        (
            "webhook_annotation_created_from_prediction",
            [*accepted("glip7a"), ("moved", "glip7b", "glip7b"), ("added", None, "manual0001")],
        ),
        ("webhook_annotation_updated", [*accepted("glip7a"), ("moved", "glip7b", "glip7b")]),
        ("webhook_annotation_ground_truth", [*accepted("glip7a"), ("moved", "glip7b", "glip7b")]),
        ("webhook_annotation_skipped", []),
        ("webhook_annotation_unskipped", [("deleted", "glip2a", None), ("deleted", "glip2b", None)]),
    ],
)
def test_what_a_person_did_to_two_proposed_boxes(name: str, expected: Expected) -> None:
    (annotation,) = annotations(name)
    assert shorthand(verdicts_of(annotation, [two_boxes(annotation.task_id)])) == expected


def test_the_moved_box_tells_how_far() -> None:
    (annotation,) = annotations("editor_submit_moved_box")
    moved, _ = verdicts_of(annotation, [two_boxes(10)])
    assert moved.offsets is not None
    across, down = (19.553440702781845 - 10) * 6.4, (19.51683748169838 - 10) * 4.8
    assert (moved.offsets.left, moved.offsets.right) == pytest.approx((across, across))
    assert (moved.offsets.top, moved.offsets.bottom) == pytest.approx((down, down))
    assert moved.lead_time == 3.398


def test_the_relabelled_box_tells_both_labels_and_did_not_move() -> None:
    (annotation,) = annotations("editor_submit_relabel_delete_new")
    relabelled, added, deleted = verdicts_of(annotation, [two_boxes(11)])
    assert (relabelled.label_before, relabelled.label_after, relabelled.iou) == ("cat", "person", 1.0)
    assert (added.label_before, added.label_after) == (None, "traffic light")
    assert (deleted.label_before, deleted.label_after) == ("traffic light", None)


def test_a_bulk_accept_accepts_every_box_although_it_says_no_origin_and_no_time() -> None:
    first, second = annotations("webhook_annotations_created_bulk")
    for annotation, ids in ((first, ("glip5a", "glip5b")), (second, ("glip6a", "glip6b"))):
        verdicts = verdicts_of(annotation, [two_boxes(annotation.task_id)])
        assert shorthand(verdicts) == accepted(*ids)
        assert all(each.lead_time is None for each in verdicts)


def test_a_draft_that_forgot_its_prediction_still_answers_it() -> None:
    (annotation,) = annotations("editor_submit_from_draft")
    assert annotation.parent_prediction is None
    long_id = "a-very-long-id-" + 60 * "x"
    proposed = prediction(54, region("ext1", "cat", (10, 10, 20, 20)), region(long_id, "cat", (50, 50, 20, 20)))
    assert shorthand(verdicts_of(annotation, [proposed])) == [*accepted("ext1"), ("moved", long_id, long_id)]


def test_an_accepted_suggestion_is_ours_although_it_says_manual() -> None:
    (annotation,) = annotations("editor_submit_accepted_suggestion")
    assert annotation.regions[0].origin == "manual"
    suggested = prediction(30, region("sug1", "person", (30, 60, 15, 20)))
    assert shorthand(verdicts_of(annotation, [suggested])) == accepted("sug1")


def test_boxes_beyond_the_edges_come_back_untouched() -> None:
    (annotation,) = annotations("editor_geometry_bigbox")
    beyond = prediction(32, region("big1", "cat", (90, 90, 50, 50)), region("neg1", "cat", (-10, -5, 30, 30)))
    assert shorthand(verdicts_of(annotation, [beyond])) == accepted("big1", "neg1")


def test_a_label_outside_the_config_comes_back_untouched() -> None:
    (annotation,) = annotations("editor_geometry_unknown_label")
    assert shorthand(
        verdicts_of(annotation, [prediction(34, region("unk1", "unicorn", (10, 10, 20, 20)))])
    ) == accepted("unk1")


def test_keys_that_the_editor_drops_take_no_verdict_along() -> None:
    (annotation,) = annotations("editor_extra_region_keys")
    long_id = "a-very-long-id-" + 60 * "x"
    proposed = prediction(53, region("ext1", "cat", (10, 10, 20, 20)), region(long_id, "cat", (50, 50, 20, 20)))
    assert shorthand(verdicts_of(annotation, [proposed])) == accepted("ext1", long_id)


def test_a_box_of_someone_else_without_a_label_is_added_without_a_label() -> None:
    (annotation,) = annotations("editor_geometry_nolabel")
    (verdict,) = verdicts_of(annotation, [])
    assert (verdict.kind.value, verdict.final_region, verdict.label_after) == ("added", "nol1", None)


def test_an_empty_annotation_without_a_prediction_is_a_true_negative() -> None:
    (annotation,) = annotations("webhook_annotation_created_empty")
    assert verdicts_of(annotation, []) == ()
