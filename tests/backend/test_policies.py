"""Whose annotation counts, and which part an image belongs to."""

from datetime import UTC, datetime, timedelta

import pytest

from backend.domain.annotations import AnnotatedRegion, Annotation, PercentBox
from backend.domain.dataset import AttributedAnnotation, Provenance
from backend.domain.geometry import RotatedBox
from backend.domain.policies import AnnotatorPolicy, Splits, settle
from backend.domain.polygons import rotated_iou

START = datetime(2026, 1, 1, tzinfo=UTC)


def region(identity: str, x: float = 10, label: str = "cat", rotation: float = 0) -> AnnotatedRegion:
    return AnnotatedRegion(identity, "image", (label,), PercentBox(x, 10, 20, 20, rotation), 640, 480)


def annotation(
    number: int, *regions: AnnotatedRegion, annotator: int | None = None, starred: bool = False, skipped: bool = False
) -> AttributedAnnotation:
    moment = START + timedelta(hours=number)
    return AttributedAnnotation(
        Annotation(number, 1, 7, START, moment, annotator, skipped, starred, None, None, regions),
        tuple(Provenance(1, number, annotator) for _ in regions),
    )


def chosen(policy: AnnotatorPolicy, *annotations: AttributedAnnotation) -> list[str] | None:
    settled = settle(annotations, policy, 640, 480)
    return None if settled is None else [each.id for each, _ in settled.regions]


@pytest.mark.parametrize("policy", AnnotatorPolicy)
def test_an_image_that_was_only_skipped_was_reviewed_by_nobody(policy: AnnotatorPolicy) -> None:
    assert chosen(policy) is None
    assert chosen(policy, annotation(1, region("a"), skipped=True)) is None


@pytest.mark.parametrize("policy", AnnotatorPolicy)
def test_an_annotation_without_boxes_says_that_there_is_nothing(policy: AnnotatorPolicy) -> None:
    assert chosen(policy, annotation(1)) == []


def test_the_starred_annotation_counts_before_newer_ones() -> None:
    starred, newer = annotation(1, region("a"), starred=True), annotation(2, region("b"))
    assert chosen(AnnotatorPolicy.GROUND_TRUTH, newer, starred) == ["a"]
    assert chosen(AnnotatorPolicy.NEWEST, newer, starred) == ["b"]


def test_without_a_star_the_newest_annotation_counts() -> None:
    assert chosen(AnnotatorPolicy.GROUND_TRUTH, annotation(2, region("b")), annotation(1, region("a"))) == ["b"]


def test_a_skipped_annotation_never_counts_even_if_newest_or_starred() -> None:
    skipped = annotation(2, region("b"), skipped=True, starred=True)
    for policy in AnnotatorPolicy:
        assert chosen(policy, annotation(1, region("a")), skipped) == ["a"]


def test_a_consensus_is_what_more_than_half_drew_with_the_same_label() -> None:
    first = annotation(1, region("a1", 10), region("a2", 60), region("a3", 40, "dog"), annotator=1)
    second = annotation(2, region("b1", 12), region("b3", 40), annotator=2)
    third = annotation(3, region("c1", 11), annotator=3)
    settled = settle([first, second, third], AnnotatorPolicy.CONSENSUS, 640, 480)
    assert settled is not None
    ((merged, provenance),) = settled.regions
    assert merged.id == "c1"  # the one in the middle
    assert (provenance.annotation_id, provenance.votes, provenance.voters) == (3, 3, 3)


def test_two_annotators_must_agree() -> None:
    one, other = annotation(1, region("a", 10), annotator=1), annotation(2, region("b", 60), annotator=2)
    assert chosen(AnnotatorPolicy.CONSENSUS, one, other) == []
    assert chosen(AnnotatorPolicy.CONSENSUS, one, annotation(2, region("b", 11), annotator=2)) == ["b"]


def test_a_consensus_tells_which_boxes_too_few_drew() -> None:
    absurd = region("a9", 1e7)
    first = annotation(1, region("a1", 10), region("a2", 60), absurd, annotator=1)
    second = annotation(2, region("b1", 12), region("b2", 60, "dog"), annotator=2)
    settled = settle([first, second], AnnotatorPolicy.CONSENSUS, 640, 480)
    assert settled is not None
    assert [each.id for each, _ in settled.regions] == ["b1"]
    assert [each.id for each, _ in settled.disputed] == ["a9", "a2", "b2"]


def test_one_annotator_votes_once_with_the_newest_annotation() -> None:
    earlier, later = annotation(1, region("a"), annotator=1), annotation(2, region("b", 60), annotator=1)
    assert chosen(AnnotatorPolicy.CONSENSUS, earlier, later) == ["b"]


def test_annotations_by_nobody_known_vote_one_by_one() -> None:
    assert chosen(AnnotatorPolicy.CONSENSUS, annotation(1, region("a")), annotation(2, region("b", 60))) == []


def test_two_boxes_of_one_annotator_are_never_merged() -> None:
    crowd = annotation(1, region("a1", 10), region("a2", 11), annotator=1)
    other = annotation(2, region("b1", 10), region("b2", 11), annotator=2)
    assert chosen(AnnotatorPolicy.CONSENSUS, crowd, other) == ["b1", "b2"]


def test_boxes_that_lie_apart_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[RotatedBox, RotatedBox]] = []

    def counted(box: RotatedBox, other: RotatedBox) -> float:
        compared.append((box, other))
        return rotated_iou(box, other)

    monkeypatch.setattr("backend.domain.policies.rotated_iou", counted)
    crowd = [region(f"{place}", 10 + 100 * place) for place in range(30)]
    votes = [annotation(number, *crowd, annotator=number) for number in (1, 2)]
    assert len(chosen(AnnotatorPolicy.CONSENSUS, *votes) or ()) == 30
    # Each with the same box of the other voter, and within its group with itself and that one.
    assert len(compared) == 30 + 30 * 4


def test_rotated_boxes_agree_by_their_true_overlap() -> None:
    upright = annotation(1, region("a", 40), annotator=1)
    turned = annotation(2, region("b", 40, rotation=90), annotator=2)  # beside it
    assert chosen(AnnotatorPolicy.CONSENSUS, upright, turned) == []


def test_the_order_in_which_annotations_come_changes_nothing() -> None:
    annotations = [annotation(n, region(f"r{n}", 10 + n), region(f"s{n}", 60 - n), annotator=n) for n in range(4)]
    for policy in AnnotatorPolicy:
        assert chosen(policy, *annotations) == chosen(policy, *reversed(annotations))


def test_parts_have_about_their_shares_and_growth_moves_no_image() -> None:
    splits = Splits(("train", "val", "test"), (70, 15, 15))
    parts = [splits.of(f"{number:064x}") for number in range(5000)]
    assert [round(parts.count(name) / 50) for name in splits.names] == pytest.approx([70, 15, 15], abs=2)
    assert parts[:100] == [splits.of(f"{number:064x}") for number in range(100)]


def test_a_part_without_share_gets_nothing() -> None:
    assert {Splits(("train", "val", "test"), (1, 1, 0)).of(str(number)) for number in range(200)} == {"train", "val"}


@pytest.mark.parametrize("shares", [(0.0, 0.0), (-1.0, 2.0), (float("nan"), 1.0), (1.0,)])
def test_impossible_shares_are_refused(shares: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="share"):
        Splits(("train", "val"), shares)
