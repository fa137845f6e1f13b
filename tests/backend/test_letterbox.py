"""Events come in although somebody else writes the SQLite database, and none is lost on its way to the inbox."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from backend.db.engine import open_engine
from backend.db.letterbox import SUFFIX, Letterbox, open_letterbox
from backend.db.schema import upgrade
from backend.db.unit_of_work import SqlUnitOfWork
from backend.domain.facts import InboxCounts
from backend.errors import StorageError
from backend.services.corrections import CorrectionsService
from backend.worker import Worker
from tests.facts import TASK_IDS, UID, annotated, make_annotation, make_region, reference_fold, state_of

FACT = annotated(make_annotation(1, 5, make_region()))


def _file(database: Engine) -> Engine:
    return open_engine(f"sqlite:///{database.url.database}{SUFFIX}")


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Engine]:
    engine = open_engine(f"sqlite:///{tmp_path / 'glip.sqlite3'}")
    upgrade(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def letterbox(sqlite: Engine) -> Letterbox:
    found = open_letterbox(sqlite)
    assert found is not None
    return found


@pytest.fixture
def service(sqlite: Engine, letterbox: Letterbox) -> CorrectionsService:
    return CorrectionsService(lambda: SqlUnitOfWork(sqlite, letterbox))


def test_an_event_is_kept_while_somebody_else_writes(sqlite: Engine, service: CorrectionsService) -> None:
    with sqlite.begin() as connection:  # holds the write lock
        connection.exec_driver_sql("DELETE FROM inbox")
        service.receive("ANNOTATION_CREATED", FACT)
    assert service.inbox()[0] == InboxCounts(waiting=1, failed=0, applied=0)
    assert Worker(service).drain() == 1
    assert service.inbox()[0] == InboxCounts(waiting=0, failed=0, applied=1)


def test_facts_are_applied_in_the_order_in_which_they_came(letterbox: Letterbox, service: CorrectionsService) -> None:
    for action in ("FIRST", "SECOND", "THIRD"):
        service.receive(action, FACT)
    first = service.waiting()
    service.receive("FOURTH", FACT)
    assert service.waiting()[:3] == first == [1, 2, 3]
    assert letterbox.count(0) == 0


def test_without_a_commit_nothing_is_kept_and_nothing_moves(
    sqlite: Engine, letterbox: Letterbox, service: CorrectionsService
) -> None:
    with SqlUnitOfWork(sqlite, letterbox) as unit:
        unit.inbox.add("ANY", 7, "{}")
    assert letterbox.count(0) == 0
    service.receive("ANY", FACT)
    with SqlUnitOfWork(sqlite, letterbox) as unit:
        assert unit.inbox.waiting(10) == [1]
    assert letterbox.count(0) == 1


class KilledError(Exception):
    """The process is killed here."""


class DyingLetterbox(Letterbox):
    def remove(self, number: int) -> None:
        raise KilledError


def test_a_crash_before_a_letter_is_removed_moves_it_once(
    sqlite: Engine, letterbox: Letterbox, service: CorrectionsService
) -> None:
    service.receive("ANY", FACT)
    dying = CorrectionsService(lambda: SqlUnitOfWork(sqlite, DyingLetterbox(_file(sqlite), 0)))
    with pytest.raises(KilledError):
        dying.waiting()
    assert letterbox.count(0) == 1
    assert Worker(service).drain() == 1
    service.receive("ANY", FACT)
    assert Worker(service).drain() == 1
    with SqlUnitOfWork(sqlite, letterbox) as unit:
        assert state_of(unit, TASK_IDS, UID) == reference_fold([FACT, FACT])


@pytest.mark.parametrize("kept", [None, 1])
def test_a_letterbox_that_was_lost_or_is_older_than_the_database_loses_no_new_facts(
    sqlite: Engine, service: CorrectionsService, kept: int | None
) -> None:
    for _ in range(3):
        service.receive("ANY", FACT)
        Worker(service).drain()
    with _file(sqlite).begin() as connection:
        connection.execute(text("DELETE FROM sqlite_sequence"))
        if kept is not None:
            connection.execute(text(f"INSERT INTO sqlite_sequence VALUES ('letters', {kept})"))
    again = CorrectionsService(lambda: SqlUnitOfWork(sqlite, open_letterbox(sqlite)))
    again.receive("ANY", FACT)
    assert again.inbox()[0] == InboxCounts(waiting=1, failed=0, applied=3)
    assert Worker(again).drain() == 1


def test_what_comes_in_after_a_look_is_not_removed_with_what_was_seen(
    letterbox: Letterbox, service: CorrectionsService
) -> None:
    service.receive("ANY", FACT)
    seen, _ = letterbox.after(0, 10)
    letterbox.remove(seen)  # another worker was faster
    service.receive("ANY", FACT)
    letterbox.remove(seen)
    assert letterbox.count(0) == 1


def test_a_letterbox_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'glip.sqlite3'}")
    (tmp_path / "glip.sqlite3-letterbox").mkdir()
    with pytest.raises(StorageError, match=r"glip\.sqlite3-letterbox"):
        open_letterbox(engine)


def test_only_files_of_sqlite_have_one(engine: Engine) -> None:
    assert (open_letterbox(engine) is None) == (engine.dialect.name == "postgresql")
    assert open_letterbox(open_engine("sqlite://")) is None


def test_a_transaction_that_only_reads_keeps_no_writer_waiting(engine: Engine) -> None:
    upgrade(engine)
    with SqlUnitOfWork(engine, reads_only=True) as reading:
        assert reading.projects.all() == []
        with SqlUnitOfWork(engine) as writing:
            writing.projects.set_score_threshold(UID, 0.5)
            writing.commit()
        assert reading.projects.all() == []  # as it was when the transaction began
