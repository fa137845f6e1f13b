"""Verdicts counted per label and model version."""

import json
from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.analysis.acceptance import AcceptanceTable, acceptance_table
from backend.analysis.intervals import Rate
from backend.domain.verdicts import EdgeOffsets, Verdict, VerdictKind

ACCEPTED, MOVED, RELABELLED, DELETED, ADDED = VerdictKind
quick = settings(deadline=None)  # other work on the machine must not fail a test


def verdict(kind: VerdictKind = ACCEPTED, label: str = "cat", **fields: object) -> Verdict:
    """A verdict on a region of the label, in an annotation of its own where ``annotation_id`` names no other."""
    made = Verdict(
        annotation_id=1,
        position=0,
        kind=kind,
        emitted_region=None if kind == ADDED else "p1-0",
        final_region=None if kind == DELETED else "p1-0",
        label_before=None if kind == ADDED else label,
        label_after=None if kind == DELETED else label,
        iou=None if kind in (ADDED, DELETED) else 1.0,
        offsets=None if kind in (ADDED, DELETED) else EdgeOffsets(0, 0, 0, 0),
        model_version="glip-1",
        prompt=None if kind == ADDED else label,
        score=None if kind == ADDED else 0.8,
        annotator=3,
        lead_time=None,
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def moved(iou: float, *edges: float) -> Verdict:
    return verdict(MOVED, iou=iou, offsets=EdgeOffsets(*edges))


def test_every_rate_is_of_what_its_name_says() -> None:
    verdicts = [verdict(kind) for kind, times in zip(VerdictKind, (10, 4, 2, 3, 5), strict=True) for _ in range(times)]
    (row,) = acceptance_table(verdicts).rows
    assert (row.accepted, row.moved, row.relabelled, row.deleted, row.added, row.shown) == (10, 4, 2, 3, 5, 19)
    assert row.rates == {
        "acceptance": Rate(10, 19),
        "edit": Rate(4, 19),
        "relabel": Rate(2, 19),
        "deletion": Rate(3, 19),
        "precision": Rate(14, 19),
        "miss": Rate(5, 21),
        "recall": Rate(16, 21),
    }


def test_a_rate_knows_that_verdicts_of_one_annotation_are_alike() -> None:
    halves = [verdict(kind, annotation_id=number) for number in range(10) for kind in (ACCEPTED, DELETED)]
    wholes = [verdict((ACCEPTED, DELETED)[number % 2], "dog", annotation_id=number) for number in range(10)] * 2
    cats, dogs = (row.rates["acceptance"] for row in acceptance_table([*halves, *wholes]).rows)
    assert (cats, dogs) == (Rate(10, 20), Rate(10, 20, 20 / 9))
    assert dogs.interval[0] < cats.interval[0]


def test_a_relabelled_region_counts_under_the_label_it_was_proposed_with() -> None:
    table = acceptance_table([verdict(RELABELLED, label_after="dog"), verdict(ADDED, "dog")])
    assert [(row.label, row.relabelled, row.added) for row in table.rows] == [("cat", 1, 0), ("dog", 0, 1)]


def test_rows_are_by_label_and_version_and_totals_by_version() -> None:
    table = acceptance_table(
        [verdict(label=label, model_version=version) for label in ("dog", "cat") for version in ("glip-2", "glip-1")]
    )
    assert [(row.label, row.model_version) for row in table.rows] == [
        ("cat", "glip-1"),
        ("cat", "glip-2"),
        ("dog", "glip-1"),
        ("dog", "glip-2"),
    ]
    assert [(row.label, row.model_version, row.accepted) for row in table.totals] == [
        (None, "glip-1", 2),
        (None, "glip-2", 2),
    ]


def test_what_was_drawn_where_nothing_was_proposed_is_nobodys_miss() -> None:
    table = acceptance_table([verdict(ADDED, model_version=None), verdict(ADDED)])
    assert [(row.model_version, row.added, row.rates["miss"]) for row in table.rows] == [
        ("glip-1", 1, Rate(1, 1)),
        (None, 1, Rate(0, 0)),
    ]


def test_an_added_region_without_label_has_a_row_of_its_own() -> None:
    (row,) = acceptance_table([verdict(ADDED, label_after=None)]).rows
    assert (row.label, row.added) == ("", 1)


def test_overlap_and_offsets_are_medians_over_the_moved_regions_only() -> None:
    others = [verdict(), verdict(RELABELLED, iou=0.1, offsets=EdgeOffsets(9, 9, 9, 9))]
    moves = [moved(0.5, -4, 0, 2, 1), moved(0.9, -2, 0, 8, 1), moved(0.7, -3, 6, 5, 1)]
    (row,) = acceptance_table([*others, *moves]).rows
    assert row.median_iou == 0.7
    assert row.median_offsets == EdgeOffsets(-3, 0, 5, 1)


def test_where_nothing_was_moved_there_is_no_median() -> None:
    (row,) = acceptance_table([verdict()]).rows
    assert (row.median_iou, row.median_offsets, row.median_seconds, row.p90_seconds) == (None, None, None, None)


def test_an_annotations_seconds_are_shared_out_over_its_verdicts() -> None:
    long = [verdict(annotation_id=1, lead_time=30.0), verdict(DELETED, "dog", annotation_id=1, lead_time=30.0)]
    short = [verdict(annotation_id=number, lead_time=5.0) for number in (2, 3)]
    table = acceptance_table([*long, *short, verdict(annotation_id=4)])
    assert [(row.label, row.median_seconds) for row in table.rows] == [("cat", 5.0), ("dog", 15.0)]
    assert table.rows[0].p90_seconds == pytest.approx(13.0)
    assert table.annotations == 4


def test_no_verdicts_make_an_empty_table() -> None:
    assert acceptance_table([]) == AcceptanceTable((), (), 0)


def test_the_json_holds_counts_rates_and_intervals() -> None:
    table = acceptance_table([verdict(), moved(0.8, -1, 0, 1, 0)])
    written = json.loads(json.dumps(table.to_json()))
    assert written["annotations"] == 1
    (row,) = written["labels"]
    assert (row["label"], row["shown"], row["accepted"]) == ("cat", 2, 1)
    assert row["median_offsets"] == {"left": -1, "top": 0, "right": 1, "bottom": 0}
    low, high = Rate(1, 2).interval
    assert row["rates"]["acceptance"] == {"count": 1, "total": 2, "share": 0.5, "low": low, "high": high}
    assert written["model_versions"] == [{**row, "label": None}]


verdicts = st.builds(
    verdict,
    st.sampled_from(VerdictKind),
    st.sampled_from(["cat", "dog"]),
    annotation_id=st.integers(1, 3),
    model_version=st.sampled_from(["glip-1", "glip-2"]),
)


@quick
@given(st.lists(verdicts))
def test_every_verdict_is_counted_once_in_the_rows_and_once_in_the_totals(given: list[Verdict]) -> None:
    table = acceptance_table(given)
    for rows in (table.rows, table.totals):
        for kind in VerdictKind:
            assert sum(getattr(row, kind.value) for row in rows) == sum(each.kind == kind for each in given)


@quick
@given(st.lists(verdicts, max_size=4))
def test_the_order_of_verdicts_changes_nothing(given: list[Verdict]) -> None:
    tables = [acceptance_table(order) for order in permutations(given)]
    assert all(table == tables[0] for table in tables)
