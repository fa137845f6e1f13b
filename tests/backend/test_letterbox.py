"""Events come in although somebody else writes the SQLite database, and none is lost on its way to the inbox."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from backend.db.engine import open_engine
from backend.db.letterbox import Letterbox, open_letterbox
from backend.db.schema import upgrade
from backend.db.unit_of_work import SqlUnitOfWork
from backend.domain.facts import InboxCounts
from backend.errors import StorageError
from backend.services.corrections import CorrectionsService
from backend.worker import Worker
from tests.facts import TASK_IDS, UID, annotated, make_annotation, make_region, reference_fold, state_of

FACT = annotated(make_annotation(1, 5, make_region()))


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
    assert letterbox.count() == 0


def test_without_a_commit_nothing_is_kept_and_nothing_moves(
    sqlite: Engine, letterbox: Letterbox, service: CorrectionsService
) -> None:
    with SqlUnitOfWork(sqlite, letterbox) as unit:
        unit.inbox.add("ANY", 7, "{}")
    assert letterbox.count() == 0
    service.receive("ANY", FACT)
    with SqlUnitOfWork(sqlite, letterbox) as unit:
        assert unit.inbox.waiting(10) == [1]
    assert letterbox.count() == 1


def test_a_fact_that_a_crash_moved_twice_changes_nothing(
    sqlite: Engine, letterbox: Letterbox, service: CorrectionsService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.receive("ANY", FACT)
    with monkeypatch.context() as crash:
        crash.setattr(letterbox, "remove", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            service.waiting()
    assert Worker(service).drain() == 2
    with SqlUnitOfWork(sqlite, letterbox) as unit:
        assert state_of(unit, TASK_IDS, UID) == reference_fold([FACT])


def test_what_comes_in_after_a_look_is_not_removed_with_what_was_seen(
    letterbox: Letterbox, service: CorrectionsService
) -> None:
    service.receive("ANY", FACT)
    seen, _ = letterbox.oldest(10)
    letterbox.remove(seen)  # another worker was faster
    service.receive("ANY", FACT)
    letterbox.remove(seen)
    assert letterbox.count() == 1


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
