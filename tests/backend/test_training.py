"""Jobs: when they are due, who works on them, and how the others notice."""

import time
from dataclasses import replace
from datetime import datetime, timedelta
from threading import Event

import pytest

from backend.domain.learning import JobState, TrainingProgress, TrainingRequest
from backend.domain.training_data import FrozenData, ReviewedImage
from backend.errors import LeaseLostError, StorageError
from backend.services.corrections import apply_fact
from backend.services.training import Training, TrainingPolicy
from tests.backend.test_learning_stores import make_version
from tests.facts import UID, annotated, at, make_annotation
from tests.fakes import FakeDatabase, FakeUnitOfWork

EVERY_THREE = TrainingPolicy(annotations=3)
DAILY = TrainingPolicy(annotations=0, hours=24)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = at(0)

    def __call__(self) -> datetime:
        return self.now

    def move(self, **change: float) -> None:
        self.now += timedelta(**change)


def annotate(database: FakeDatabase, *numbers: int, seconds: float = 0.0, cancelled: bool = False) -> None:
    with database() as unit:
        for number in numbers:
            apply_fact(unit, annotated(make_annotation(number, seconds, task_id=number, cancelled=cancelled)))
        unit.commit()


def finish(database: FakeDatabase, training: Training, state: JobState = JobState.DONE, gone: int = 0) -> None:
    """End the job that waits; one that is done learnt from all annotations but the first ``gone`` ones."""
    claim = training.claim("w")
    assert claim is not None
    with database() as unit:
        if state is JobState.DONE:
            unit.jobs.freeze(claim.job, frozen(unit, gone))
        unit.jobs.finish(claim.job, state, at(0), "so", None)
        unit.commit()


def frozen(unit: FakeUnitOfWork, gone: int = 0) -> FrozenData:
    known = [each for each in unit.corrections.current(UID) if not each.cancelled]
    images = [
        ReviewedImage(f"{each.id:064x}", 640, 480, ((each.id, each.updated_at.isoformat()),)) for each in known[gone:]
    ]
    return FrozenData((("cat", ("cat",)),), tuple(images), seen=unit.corrections.newest_version(UID))


def test_enough_new_annotations_make_a_job_due_once() -> None:
    database, clock = FakeDatabase(), Clock()
    training = Training(database, clock=clock)
    annotate(database, 1, 2)
    annotate(database, 9, cancelled=True)
    assert training.request_due(EVERY_THREE) == []
    annotate(database, 3)
    (job,) = training.request_due(EVERY_THREE)
    assert (job.project, job.request) == (UID, TrainingRequest("annotations"))
    assert training.request_due(EVERY_THREE) == []
    assert training.request_due(TrainingPolicy(annotations=0)) == []


@pytest.mark.parametrize("state", [JobState.DONE, JobState.FAILED])
def test_only_what_was_annotated_since_the_last_request_counts_also_where_it_failed(state: JobState) -> None:
    database, clock = FakeDatabase(), Clock()
    training = Training(database, clock=clock)
    annotate(database, 1, 2, 3)
    training.request_due(EVERY_THREE)
    finish(database, training, state)
    assert training.request_due(EVERY_THREE) == []
    annotate(database, 4, 5, seconds=10)
    assert training.request_due(EVERY_THREE) == []
    annotate(database, 1, seconds=11)
    assert len(training.request_due(EVERY_THREE)) == 1


def test_the_more_was_learnt_from_the_more_new_annotations_are_needed() -> None:
    database, clock = FakeDatabase(), Clock()
    training = Training(database, clock=clock)
    annotate(database, *range(1, 9))
    training.request_due(EVERY_THREE)
    finish(database, training)
    annotate(database, 9, 10, 11, seconds=10)
    assert training.request_due(EVERY_THREE) == []
    annotate(database, 12, seconds=11)
    assert len(training.request_due(EVERY_THREE)) == 1


def test_images_that_were_left_out_count_neither_as_learnt_nor_as_new() -> None:
    database = FakeDatabase()
    training = Training(database, clock=Clock())
    annotate(database, *range(1, 13))
    training.request_due(EVERY_THREE)
    finish(database, training, gone=6)
    assert training.request_due(EVERY_THREE) == []
    annotate(database, 21, 22, seconds=10)
    assert training.request_due(EVERY_THREE) == []
    annotate(database, 23, seconds=11)
    assert len(training.request_due(EVERY_THREE)) == 1


def test_what_a_sync_tells_late_is_new_whenever_it_was_annotated() -> None:
    database, clock = FakeDatabase(), Clock()
    training = Training(database, clock=clock)
    clock.move(hours=10)
    annotate(database, 1, 2, 3, seconds=9 * 3600)
    training.request_due(EVERY_THREE)
    finish(database, training)
    annotate(database, 4, 5, 6, seconds=3600)
    assert len(training.request_due(EVERY_THREE)) == 1


def test_a_failed_job_learnt_nothing() -> None:
    database = FakeDatabase()
    training = Training(database, clock=Clock())
    annotate(database, *range(1, 21))
    training.request_due(EVERY_THREE)
    finish(database, training, JobState.FAILED)
    annotate(database, 21, 22, seconds=10)
    assert training.request_due(EVERY_THREE) == []
    annotate(database, 23, seconds=11)
    assert len(training.request_due(EVERY_THREE)) == 1


def test_after_a_failed_job_what_was_learnt_is_that_of_the_last_one_that_was_done() -> None:
    database = FakeDatabase()
    training = Training(database, clock=Clock())
    annotate(database, *range(1, 21))
    training.request_due(EVERY_THREE)
    finish(database, training)
    annotate(database, *range(21, 26), seconds=10)
    training.request(UID, TrainingRequest("command"))
    finish(database, training, JobState.FAILED)
    annotate(database, *range(26, 30), seconds=11)
    assert training.request_due(EVERY_THREE) == []
    annotate(database, 30, seconds=12)
    assert len(training.request_due(EVERY_THREE)) == 1


def test_a_schedule_asks_again_for_what_a_failed_job_did_not_learn() -> None:
    database, clock = FakeDatabase(), Clock()
    training = Training(database, clock=clock)
    annotate(database, 1)
    training.request_due(DAILY)
    finish(database, training, JobState.FAILED)
    clock.move(hours=23)
    assert training.request_due(DAILY) == []
    clock.move(hours=1)
    assert len(training.request_due(DAILY)) == 1


def test_where_the_gate_could_not_judge_a_few_more_annotations_are_enough() -> None:
    database, clock = FakeDatabase(), Clock()
    training = Training(database, clock=clock)
    every_ten = TrainingPolicy(annotations=10)
    annotate(database, *range(1, 11))
    training.request_due(every_ten)
    claim = training.claim("w")
    assert claim is not None
    with database() as unit:
        version = replace(make_version(1), metrics={"gate": {"promote": False, "compared": False}})
        unit.versions.add(version)
        unit.jobs.freeze(claim.job, frozen(unit))
        unit.jobs.finish(claim.job, JobState.DONE, at(0), "too few images", version.name)
        unit.commit()
    annotate(database, 11, seconds=10)
    assert training.request_due(every_ten) == []
    annotate(database, 12, seconds=11)
    assert len(training.request_due(every_ten)) == 1


def test_a_schedule_waits_for_its_time_and_for_something_new() -> None:
    database, clock = FakeDatabase(), Clock()
    training = Training(database, clock=clock)
    assert training.request_due(DAILY) == []
    annotate(database, 1)
    (job,) = training.request_due(DAILY)
    assert job.request.reason == "schedule"
    finish(database, training)
    clock.move(hours=25)
    assert training.request_due(DAILY) == []
    annotate(database, 2, seconds=3600)
    assert len(training.request_due(DAILY)) == 1
    finish(database, training)
    annotate(database, 3, seconds=26 * 3600)
    clock.move(hours=23)
    assert training.request_due(DAILY) == []


def test_asking_while_a_job_is_open_gives_that_job() -> None:
    database = FakeDatabase()
    annotate(database, 1)
    training = Training(database)
    first = training.request(UID, TrainingRequest("label-studio"))
    assert training.request(UID, TrainingRequest("command")) == first
    assert training.of(UID) == [first]


def test_a_job_is_claimed_once_until_its_worker_shows_no_life() -> None:
    database, clock = FakeDatabase(), Clock()
    annotate(database, 1)
    training = Training(database, lease_seconds=60, clock=clock)
    job = training.request(UID, TrainingRequest("command"))
    first = training.claim("first")
    assert first is not None
    assert training.claim("second") is None
    assert training.claim("second", job.id) is None
    clock.move(seconds=59)
    first.report(TrainingProgress("train", 1, 2))
    clock.move(seconds=59)
    assert training.claimable() == []
    clock.move(seconds=2)
    second = training.claim("second")
    assert second is not None
    assert second.job.progress == TrainingProgress("train", 1, 2)
    time.sleep(1.1)
    with pytest.raises(LeaseLostError, match=f"job {job.id} is another worker's by now"):
        first.report(TrainingProgress("train", 2, 2))


def test_a_worker_that_reports_nothing_shows_life_all_the_same() -> None:
    database = FakeDatabase()
    annotate(database, 1)
    training = Training(database, lease_seconds=0.4)
    training.request(UID, TrainingRequest("command"))
    claim = training.claim("w")
    assert claim is not None
    with claim:
        time.sleep(1.0)
        assert training.claimable() == []
    time.sleep(0.5)
    assert training.claimable() == [claim.job.id]


def test_a_database_that_is_away_for_a_moment_costs_no_job(caplog: pytest.LogCaptureFixture) -> None:
    database, away = FakeDatabase(), Event()

    def flaky() -> FakeUnitOfWork:
        if away.is_set():
            raise StorageError("the database is away")
        return database()

    annotate(database, 1)
    training = Training(flaky)
    training.request(UID, TrainingRequest("command"))
    claim = training.claim("w")
    assert claim is not None
    away.set()
    claim.report(TrainingProgress("train", 1, 2))
    assert "the database is away" in caplog.text
    away.clear()
    time.sleep(1.1)
    claim.report(TrainingProgress("train", 2, 2))
    known = training.find(claim.job.id)
    assert known is not None
    assert known.progress == TrainingProgress("train", 2, 2)


def test_a_worker_that_has_to_end_gives_its_job_back() -> None:
    database = FakeDatabase()
    annotate(database, 1)
    training = Training(database)
    training.request(UID, TrainingRequest("command"))
    claim = training.claim("w")
    assert claim is not None
    claim.release()
    assert training.claimable() == [claim.job.id]
