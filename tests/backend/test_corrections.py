"""Facts become state: the service held to a plain reference, and what it does where a fact cannot be applied."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from backend.db.schema import upgrade
from backend.db.unit_of_work import SqlUnitOfWork
from backend.domain.annotations import AnnotatedRegion
from backend.domain.facts import Fact, InboxCounts, ProjectState, TaskState
from backend.domain.geometry import Box
from backend.domain.records import Prediction, Proposal, Region
from backend.domain.verdicts import VerdictKind
from backend.errors import StorageError, ValueRefusedError
from backend.ports import UnitOfWork
from backend.services.corrections import (
    CorrectionsService,
    apply_fact,
    check_verdicts,
    current_verdicts,
)
from tests.facts import (
    PROJECT,
    TASK_IDS,
    UID,
    State,
    annotated,
    at,
    deleted,
    facts,
    make_annotation,
    make_region,
    reference_fold,
    state_of,
    task_deleted,
)
from tests.fakes import FakeDatabase

UnitsOfWork = Callable[[], UnitOfWork]


def applied(unit_of_work: UnitsOfWork, told: Sequence[Fact]) -> State:
    """Send facts through the inbox, one after the other, and read what came of them."""
    service = CorrectionsService(unit_of_work)
    for fact in told:
        service.receive("ANY", fact)
    for entry in service.waiting(len(told)):
        assert service.apply(entry)
    with unit_of_work() as unit:
        return state_of(unit, TASK_IDS)


@given(st.lists(facts, max_size=12), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_facts_in_any_order_and_any_number_make_the_state_of_a_plain_fold(told: list[Fact], random: Random) -> None:
    expected = reference_fold(told)
    shuffled = [*told, *random.sample(told, len(told) // 2)]
    random.shuffle(shuffled)
    assert applied(FakeDatabase(), shuffled) == expected


@given(st.permutations([("cat", 9), ("cat", None), ("dog", None), ("dog", 4)]))
@settings(deadline=None)
def test_facts_that_disagree_about_one_moment_are_settled(order: list[tuple[str, int | None]]) -> None:
    versions = [
        replace(make_annotation(1, 5, make_region(label=label)), parent_prediction=parent) for label, parent in order
    ]
    state = applied(FakeDatabase(), [annotated(version) for version in versions])
    assert [(each.regions[0].labels, each.parent_prediction) for each in state.versions] == [(("cat",), 9)]


@given(st.lists(facts, max_size=8), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_real_databases_come_to_the_same_state(engine: Engine, told: list[Fact], random: Random) -> None:
    upgrade(engine)
    expected = reference_fold(told)
    shuffled = [*told, *random.sample(told, len(told) // 2)]
    random.shuffle(shuffled)
    try:
        assert applied(lambda: SqlUnitOfWork(engine), shuffled) == expected
    finally:
        with engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM projects")


def test_labels_keep_their_numbers_when_the_labelling_config_changes() -> None:
    database = FakeDatabase()
    config = ProjectState(UID, 7, "boats", None, "<View/>", ("cat", "dog"))
    drawn = annotated(make_annotation(1, 1, make_region(label="Ω")))
    for fact in (Fact(config), Fact(replace(config, labels=("ship", "dog"))), drawn):
        with database() as unit:
            apply_fact(unit, fact)
            unit.commit()
    with database() as unit:
        assert tuple(unit.projects.labels(UID)) == ("cat", "dog", "ship", "Ω")


FIRST = ProjectState(UID, 7, "boats", at(1), "<View/>", ("cat", "dog"))


@pytest.mark.parametrize("kind", ["fake", "real"])
def test_a_label_that_joins_a_known_labelling_config_keeps_since_when(kind: str, engine: Engine) -> None:
    upgrade(engine)
    unit_of_work: UnitsOfWork = FakeDatabase() if kind == "fake" else lambda: SqlUnitOfWork(engine)
    later = replace(FIRST, updated_at=at(9), label_config="<View></View>", labels=("cat", "dog", "ship"))
    again = replace(later, updated_at=at(12))
    applied(unit_of_work, [annotated(make_annotation(1, 0, make_region())), *map(Fact, (FIRST, later, again))])
    with unit_of_work() as unit:
        assert dict(unit.projects.labels(UID)) == {"cat": None, "dog": None, "ship": at(9)}


@pytest.mark.parametrize(
    "told",
    [
        Fact(replace(FIRST, updated_at=None, labels=("cat", "ship"))),
        annotated(make_annotation(1, 5, make_region("r", "ship"))),
    ],
    ids=["without a time", "by a region"],
)
def test_a_label_of_which_nobody_tells_when_it_was_added_counts_from_now(told: Fact) -> None:
    database = FakeDatabase()
    before = datetime.now(UTC)
    applied(database, [Fact(FIRST), told])
    with database() as unit:
        added = unit.projects.labels(UID)["ship"]
    assert added is not None
    assert before <= added <= datetime.now(UTC)


def test_labels_before_any_labelling_config_is_known_were_there_from_the_start() -> None:
    database = FakeDatabase()
    drawn = [annotated(make_annotation(number, number, make_region(label=label))) for number, label in enumerate("ab")]
    applied(database, drawn)
    with database() as unit:
        assert dict(unit.projects.labels(UID)) == {"a": None, "b": None}


def test_a_deletion_that_comes_first_holds() -> None:
    told = [deleted(1), task_deleted(2), annotated(make_annotation(1, 5)), annotated(make_annotation(2, 5, task_id=2))]
    state = applied(FakeDatabase(), told)
    assert len(state.versions) == 2
    assert state.current == ()


def test_a_fact_is_applied_once_whoever_tries() -> None:
    service = CorrectionsService(FakeDatabase())
    service.receive("ANNOTATION_CREATED", annotated(make_annotation()))
    (entry,) = service.waiting()
    assert [service.apply(entry), service.apply(entry)] == [True, False]
    assert service.waiting() == []
    assert service.inbox()[0] == InboxCounts(waiting=0, failed=0, applied=1)


def test_a_large_fact_is_kept_and_applied_in_parts() -> None:
    database = FakeDatabase()
    service = CorrectionsService(database)
    tasks = tuple(TaskState(number, at(1)) for number in range(1, 121))
    fact = Fact(PROJECT, tasks, tuple(make_annotation(number, 1, task_id=number) for number in range(1, 61)), (7,))
    service.receive("ANNOTATIONS_CREATED", fact)
    entries = service.waiting()
    assert len(entries) == 3
    assert all(map(service.apply, reversed(entries)))
    with database() as unit, FakeDatabase()() as whole:
        apply_fact(whole, fact)
        assert state_of(unit, range(1, 121)) == state_of(whole, range(1, 121))


def test_a_fact_that_cannot_be_applied_waits_with_its_reason_and_may_be_tried_again() -> None:
    database = FakeDatabase()
    service = CorrectionsService(database)
    with database() as unit:
        unit.inbox.add("ANNOTATION_CREATED", 7, "nonsense")
        unit.commit()
    service.receive("ANNOTATION_CREATED", replace(annotated(make_annotation()), project=None))
    service.receive("ANNOTATION_CREATED", annotated(make_annotation()))
    broken, nameless, good = service.waiting()
    for entry in (broken, nameless):
        with pytest.raises(ValueError, match=r".+"):
            service.apply(entry)
        service.fail(entry, "no fact\n" * 1000)
    assert service.apply(good)
    counts, failures = service.inbox()
    assert counts == InboxCounts(waiting=0, failed=2, applied=1)
    assert [(each.entry, each.project_id) for each in failures] == [(broken, 7), (nameless, None)]
    assert len(failures[0].error) == 500
    assert service.retry() == 2
    assert service.waiting() == [broken, nameless]


# More than PostgreSQL takes into an index, and too mixed to be compressed.
LONG = "".join(sha256(bytes([number])).hexdigest() for number in range(200))


@pytest.mark.parametrize("region", [make_region("nul \0"), make_region("r1", LONG)], ids=["nul", "long"])
def test_a_value_that_the_database_cannot_hold_is_told_from_a_database_that_fails(
    engine: Engine, region: AnnotatedRegion
) -> None:
    upgrade(engine)
    service = CorrectionsService(lambda: SqlUnitOfWork(engine))
    service.receive("ANNOTATION_CREATED", annotated(make_annotation(1, 0, region)))
    (entry,) = service.waiting()
    if engine.dialect.name == "postgresql":
        with pytest.raises(ValueRefusedError, match="refused a value"):
            service.apply(entry)
        assert service.waiting() == [entry]
    else:
        assert service.apply(entry)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE verdicts")
    service.receive("ANNOTATION_CREATED", annotated(make_annotation(2, 0)))
    with pytest.raises(StorageError, match="failed") as failed:
        service.apply(service.waiting()[-1])
    assert not isinstance(failed.value, ValueRefusedError)


def make_prediction(task_id: int = 1, identity: str = "p1") -> Prediction:
    box = Box(64, 96, 256, 288)  # 10, 20, 30, 40 percent of 640 x 480
    regions = (Region(f"{identity}-0", Proposal(box, "cat", 0.5, "kitten")),)
    return Prediction(task_id, "nano-1", 640, 480, regions, identity)


@pytest.fixture
def unit_of_work(engine: Engine) -> UnitsOfWork:
    upgrade(engine)
    return lambda: SqlUnitOfWork(engine)


def test_a_task_of_the_same_number_in_another_label_studio_was_shown_nothing(unit_of_work: UnitsOfWork) -> None:
    with unit_of_work() as unit:
        unit.predictions.add("7.1700000000", "key", make_prediction())
        unit.commit()
    drawn = make_annotation(1, 1, make_region("new", "cat", 50))
    applied(unit_of_work, [annotated(drawn)])
    with unit_of_work() as unit:
        assert [each.kind for each in unit.corrections.verdicts(UID, drawn)] == [VerdictKind.ADDED]


def test_verdicts_are_written_with_each_version_and_can_be_made_again(unit_of_work: UnitsOfWork) -> None:
    with unit_of_work() as unit:
        unit.predictions.add(UID, "key", make_prediction())
        unit.commit()
    kept = make_annotation(1, 1, make_region("p1-0", prediction="p1"))
    relabelled = make_annotation(1, 2, make_region("p1-0", "dog", prediction="p1"), make_region("new", "cat", 50))
    applied(unit_of_work, [annotated(relabelled), annotated(kept)])
    with unit_of_work() as unit:
        first, second = unit.corrections.verdicts(UID, kept), unit.corrections.verdicts(UID, relabelled)
        assert [each.kind for each in first] == [VerdictKind.ACCEPTED]
        assert [each.kind for each in second] == [VerdictKind.RELABELLED, VerdictKind.ADDED]
        assert (first[0].emitted_region, first[0].prompt, first[0].annotator) == ("p1-0", "kitten", 3)
        assert first == current_verdicts(unit, UID, kept)
        unit.corrections.put_verdicts(UID, kept, second[1:])
        unit.commit()
    assert check_verdicts(unit_of_work) == (2, 1)
    assert check_verdicts(unit_of_work, repair=True) == (2, 1)
    assert check_verdicts(unit_of_work) == (2, 0)
    with unit_of_work() as unit:
        assert unit.corrections.verdicts(UID, kept) == first


def test_a_prediction_made_after_an_annotation_changes_none_of_its_verdicts(unit_of_work: UnitsOfWork) -> None:
    annotation = make_annotation(1, 1)  # every box deleted: only the time tells what it answers
    applied(unit_of_work, [annotated(annotation)])
    with unit_of_work() as unit:
        unit.predictions.add(UID, "key", make_prediction())
        unit.commit()
    assert check_verdicts(unit_of_work) == (1, 0)


@pytest.mark.parametrize(
    ("region", "kinds"),
    [
        (make_region("drawn"), [VerdictKind.ADDED]),
        (make_region("p1-0"), [VerdictKind.ACCEPTED]),
        (make_region("new", prediction="p1"), [VerdictKind.ACCEPTED]),
    ],
)
def test_an_annotation_that_is_touched_again_answers_of_later_predictions_those_it_names(
    unit_of_work: UnitsOfWork, region: AnnotatedRegion, kinds: list[VerdictKind]
) -> None:
    applied(unit_of_work, [annotated(make_annotation(1, 1, make_region("drawn")))])
    with unit_of_work() as unit:
        unit.predictions.add(UID, "key", make_prediction())
        unit.commit()
    touched = replace(
        make_annotation(1, 1, region), updated_at=datetime.now(UTC) + timedelta(days=1), ground_truth=True
    )
    applied(unit_of_work, [annotated(touched)])
    with unit_of_work() as unit:
        verdicts = unit.corrections.verdicts(UID, touched)
    assert [each.kind for each in verdicts] == kinds
    assert {each.model_version for each in verdicts} == {None if kinds == [VerdictKind.ADDED] else "nano-1"}


def test_what_is_told_of_no_project_changes_nothing() -> None:
    assert applied(FakeDatabase(), [Fact()]) == reference_fold([])
    assert applied(FakeDatabase(), [Fact(PROJECT)]).projects == {PROJECT}


def test_verdicts_are_checked_on_every_annotation_however_many() -> None:
    database = FakeDatabase()
    with database() as unit:
        apply_fact(unit, annotated(*(make_annotation(number, 1, make_region()) for number in range(120))))
        unit.corrections.put_verdicts(UID, make_annotation(119, 1), [])
        unit.commit()
    assert check_verdicts(database) == (120, 1)
