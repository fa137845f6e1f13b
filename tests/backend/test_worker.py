"""The worker: applies in order, sets aside what cannot be applied, outlives a database that is away."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from threading import Event, Thread, Timer

import pytest
from sqlalchemy import Engine

from backend.db.engine import open_engine
from backend.db.schema import upgrade
from backend.db.unit_of_work import SqlUnitOfWork
from backend.domain.facts import InboxCounts
from backend.errors import LabelStudioError, StorageError
from backend.ports import UnitOfWork
from backend.services.corrections import CorrectionsService
from backend.worker import Chore, Worker
from tests.facts import TASK_IDS, annotated, deleted, make_annotation, reference_fold, state_of
from tests.fakes import FakeDatabase, FakeUnitOfWork
from tests.signals import listen_to_control_c


def test_what_waits_is_applied_and_what_cannot_be_is_set_aside(caplog: pytest.LogCaptureFixture) -> None:
    database = FakeDatabase()
    service = CorrectionsService(database)
    for payload in ("nonsense", '{"project": {"\\u001b[2J": 1, "updated_at": null, "labels": []}}'):
        with database() as unit:
            unit.inbox.add("ANNOTATION_CREATED", 7, payload)
            unit.commit()
    service.receive("ANNOTATION_CREATED", annotated(make_annotation()))
    assert Worker(service).drain() == 1
    counts, failures = service.inbox()
    assert counts == InboxCounts(waiting=0, failed=2, applied=1)
    assert all(failure.error for failure in failures)
    assert "inbox entry=0 cannot be applied" in caplog.text
    assert "\x1b" not in caplog.text
    assert Worker(service).drain() == 0


def test_a_defect_is_logged_with_its_traceback_and_blocks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Defective(CorrectionsService):
        def apply(self, entry: int) -> bool:
            if entry == 0:
                raise ZeroDivisionError("division by zero")
            return super().apply(entry)

    service = Defective(FakeDatabase())
    for _ in range(2):
        service.receive("ANNOTATION_CREATED", annotated(make_annotation()))
    assert Worker(service).drain() == 1
    assert "ZeroDivisionError" in service.inbox()[1][0].error
    assert "Traceback" in caplog.text


def test_a_database_that_is_away_is_said_and_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    stop = Event()

    class Flaky(FakeDatabase):
        calls = 0

        def __call__(self) -> FakeUnitOfWork:
            self.calls += 1
            if self.calls == 1:
                raise StorageError("the database is away")
            return super().__call__()

    database = Flaky()
    with FakeUnitOfWork(database) as unit:
        unit.inbox.add("ANNOTATION_CREATED", 7, '{"project":null,"tasks":[],"annotations":[],"deleted_annotations":[]}')
        unit.commit()
    thread = Thread(target=Worker(CorrectionsService(database), poll_seconds=0.01).run, args=(stop,))
    thread.start()
    while database.tables.inbox[0].applied_at is None:
        stop.wait(0.01)
    stop.set()
    thread.join()
    assert "the inbox waits: the database is away" in caplog.text


def test_a_database_that_fails_in_the_middle_keeps_the_fact_waiting(engine: Engine) -> None:
    upgrade(engine)
    service = CorrectionsService(lambda: SqlUnitOfWork(engine))
    service.receive("ANNOTATION_CREATED", annotated(make_annotation()))
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE verdicts RENAME TO elsewhere")
    with pytest.raises(StorageError):
        Worker(service).drain()
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO verdicts")
    assert Worker(service).drain() == 1


def test_several_workers_apply_each_fact_once(engine: Engine) -> None:
    upgrade(engine)

    def unit_of_work() -> UnitOfWork:
        return SqlUnitOfWork(engine)

    service = CorrectionsService(unit_of_work)
    told = [annotated(make_annotation(number % 5, number)) for number in range(30)] + [deleted(3)]
    for fact in told:
        service.receive("ANY", fact)
    with ThreadPoolExecutor(4) as threads:
        counts = list(threads.map(lambda _: Worker(service).drain(), range(4)))
    assert sum(counts) == len(told)
    assert service.inbox()[0] == InboxCounts(waiting=0, failed=0, applied=len(told))
    with unit_of_work() as unit:
        assert state_of(unit, TASK_IDS) == reference_fold(told)


def test_chores_are_done_in_their_time_and_may_fail(caplog: pytest.LogCaptureFixture) -> None:
    now, done, stop = [0.0], [], Event()

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    def away() -> None:
        done.append(now[0])
        if len(done) == 3:
            stop.set()
        raise LabelStudioError("no answer from Label Studio")

    def defective() -> None:
        raise ZeroDivisionError

    chores = [Chore("sync", 10.0, away), Chore("other", 1.0, defective)]
    Worker(CorrectionsService(FakeDatabase()), chores, poll_seconds=0.0, clock=clock).run(stop)
    assert done[0] < 5.0
    assert all(10.0 <= later - earlier < 16.0 for earlier, later in pairwise(done))
    assert "sync: no answer from Label Studio" in caplog.text
    assert "other failed by a defect of glip-label" in caplog.text


def test_what_comes_in_is_applied_while_a_chore_takes_long() -> None:
    service = CorrectionsService(FakeDatabase())
    stop, applied = Event(), []

    def chore() -> None:
        service.receive("ANNOTATION_CREATED", annotated(make_annotation()))
        while not service.inbox()[0].applied and not stop.wait(0.001):
            pass
        applied.append(service.inbox()[0].applied)
        stop.set()

    worker = Thread(target=Worker(service, [Chore("fits", 10.0, chore)], poll_seconds=0.001).run, args=(stop,))
    worker.start()
    worker.join(10)
    stop.set()
    assert applied == [1]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    upgrade(open_engine(database_of(tmp_path)))
    return tmp_path


def database_of(home: Path) -> str:
    return f"sqlite:///{home / 'glip-label.sqlite3'}"


def environment(home: Path) -> dict[str, str]:
    return {"PATH": os.defpath, "GLIP_LABEL_HOME": str(home), "PYTHONUNBUFFERED": "1"}


COMMAND = [sys.executable, "-m", "backend.cli", "worker"]


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_the_command_applies_and_ends_cleanly_on_a_signal(home: Path, ending: signal.Signals) -> None:
    engine = open_engine(database_of(home))
    service = CorrectionsService(lambda: SqlUnitOfWork(engine))
    service.receive("ANNOTATION_CREATED", annotated(make_annotation()))
    with subprocess.Popen(
        COMMAND,
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=listen_to_control_c,
    ) as process:
        assert process.stdout is not None
        overdue = Timer(120, process.kill)  # one that stands still fails the test instead of keeping it waiting
        overdue.start()
        for line in process.stdout:
            if "entry=1 applied" in line:
                break
        overdue.cancel()
        process.send_signal(ending)
        assert "Traceback" not in process.communicate(timeout=60)[0]
    assert process.returncode == 0
    assert service.inbox()[0].applied == 1
    engine.dispose()


def test_once_applies_what_waits_and_retry_tries_again_what_failed(home: Path) -> None:
    engine = open_engine(database_of(home))
    with SqlUnitOfWork(engine) as unit:
        unit.inbox.add("ANNOTATION_CREATED", 7, "nonsense")
        unit.commit()
    run: Callable[..., subprocess.CompletedProcess[str]] = lambda *words: subprocess.run(  # noqa: E731
        [*COMMAND, *words], env=environment(home), capture_output=True, text=True, timeout=120
    )
    assert "0 events applied" in run("--once").stdout
    again = run("--once", "--retry")
    assert "1 events wait again" in again.stdout
    assert again.stderr.count("cannot be applied") == 1
    engine.dispose()
