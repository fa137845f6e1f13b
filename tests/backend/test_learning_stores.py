"""Jobs, versions and aliases: on the fakes that the services' tests trust, and on both kinds of database."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Engine, update

from backend.db.engine import open_engine
from backend.db.schema import upgrade
from backend.db.tables import TrainingJobRow
from backend.db.unit_of_work import SqlUnitOfWork
from backend.domain.facts import ProjectState
from backend.domain.geometry import Box
from backend.domain.learning import (
    PRODUCTION,
    AliasMove,
    JobState,
    Mode,
    ModelVersion,
    MoveKind,
    TrainingProgress,
    TrainingRequest,
)
from backend.domain.training_data import FrozenData, LabelledBox, PseudoImage, ReviewedImage
from backend.ports import UnitOfWork
from backend.services.corrections import apply_fact
from tests.facts import UID, annotated, at, deleted, make_annotation, make_region
from tests.fakes import FakeDatabase

Database = Callable[[], UnitOfWork]
REQUEST = TrainingRequest("command", Mode.FULL, minutes=2.5, images=10, seed=3, promote=False)
LEASE = timedelta(seconds=60)


@pytest.fixture(params=["fake", "sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database of one kind after the other, with a project in it."""
    with ExitStack() as stack:
        made: Database = FakeDatabase()
        if request.param != "fake":
            url = f"sqlite:///{tmp_path}/glip.sqlite3"
            if request.param == "postgresql":
                url = request.getfixturevalue("make_postgresql_database")()
            engine = open_engine(url)
            stack.callback(engine.dispose)
            upgrade(engine)
            made = partial(SqlUnitOfWork, engine)
        with made() as unit:
            unit.projects.put(ProjectState(UID, 7))
            unit.commit()
        yield made


def make_version(number: int = 1, base: str = "glip-nano-3f9a12cd") -> ModelVersion:
    name = f"glip-nano-{number:04d}"
    files = (("adapter.json", "a" * 64), ("adapter.safetensors", "b" * 64))
    return ModelVersion(UID, name, base, base, Mode.PROMPT, "f" * 64, files, {"ap": 0.5}, at(number))


def move(version: str | None, seconds: float = 0.0) -> AliasMove:
    return AliasMove(UID, PRODUCTION, version, MoveKind.PROMOTION, at(seconds), "gate", "better", {"gain": 0.25})


def test_versions_and_moves_come_back_as_they_were(database: Database) -> None:
    with database() as unit:
        unit.versions.lock(UID)
        unit.versions.add(make_version(1))
        unit.versions.add(make_version(2))
        unit.versions.move(move("glip-nano-0002"))
        unit.versions.move(move(None, 1))
        unit.commit()
    with database() as unit:
        assert unit.versions.all(UID) == [make_version(1), make_version(2)]
        assert unit.versions.find(UID, "glip-nano-0002") == make_version(2)
        assert unit.versions.find("8.1", "glip-nano-0002") is None
        assert unit.versions.names() == {"glip-nano-0001", "glip-nano-0002"}
        assert unit.versions.moves(UID, PRODUCTION) == [move("glip-nano-0002"), move(None, 1)]


def test_an_alias_means_what_it_was_moved_to_last(database: Database) -> None:
    with database() as unit:
        unit.versions.add(make_version())
        assert unit.versions.alias(UID, PRODUCTION) is None
        unit.versions.move(move("glip-nano-0001"))
        assert unit.versions.alias(UID, PRODUCTION) == make_version()
        assert unit.versions.alias(UID, "canary") is None
        unit.versions.move(move(None))
        assert unit.versions.alias(UID, PRODUCTION) is None
        with pytest.raises(ValueError, match="has no version glip-nano-0009"):
            unit.versions.move(move("glip-nano-0009"))


def test_a_project_has_one_open_job(database: Database) -> None:
    with database() as unit:
        job = unit.jobs.add(UID, REQUEST, at(0))
        assert unit.jobs.add(UID, TrainingRequest("schedule"), at(1)) == job
        claimed = unit.jobs.claim(job.id, "w", at(2), at(62))
        assert claimed is not None
        assert unit.jobs.add(UID, REQUEST, at(3)) == claimed
        assert unit.jobs.finish(claimed, JobState.DONE, at(4), "glip-nano-0001 is in production", "glip-nano-0001")
        second = unit.jobs.add(UID, TrainingRequest("schedule"), at(5))
        unit.commit()
    assert second.id != job.id
    with database() as unit:
        newest, oldest = unit.jobs.of(UID, 5)
        assert (newest.request, newest.state, newest.is_open) == (TrainingRequest("schedule"), JobState.QUEUED, True)
        assert (oldest.request, oldest.state, oldest.is_open) == (REQUEST, JobState.DONE, False)
        assert (oldest.outcome, oldest.version) == ("glip-nano-0001 is in production", "glip-nano-0001")
        assert (oldest.requested_at, oldest.finished_at, oldest.lease_until) == (at(0), at(4), None)
        assert unit.jobs.of(UID, 1) == [newest]


def test_a_job_of_an_earlier_release_learns_from_what_people_said_alone(engine: Engine) -> None:
    upgrade(engine)
    with SqlUnitOfWork(engine) as unit:
        unit.projects.put(ProjectState(UID, 7))
        job = unit.jobs.add(UID, replace(REQUEST, mode=None), at(0))
        unit.commit()
    request = '{"reason": "command", "mode": null, "minutes": 2.5, "images": 10, "seed": 3, "promote": false}'
    with engine.begin() as connection:
        connection.execute(update(TrainingJobRow).values(request=request))
    with SqlUnitOfWork(engine) as unit:
        found = unit.jobs.find(job.id)
    assert found is not None
    assert found.request == replace(REQUEST, mode=None)


def test_a_request_comes_back_as_it_was_made(engine: Engine) -> None:
    upgrade(engine)
    wanted = replace(REQUEST, self_training=True, frozen=("backbone", "tower.0"), from_base=True)
    with SqlUnitOfWork(engine) as unit:
        unit.projects.put(ProjectState(UID, 7))
        unit.jobs.add(UID, wanted, at(0))
        unit.commit()
        (job,) = unit.jobs.of(UID, 1)
    assert job.request == wanted


def test_many_askers_at_once_get_the_same_job(database: Database) -> None:
    def ask(_: int) -> int:
        with database() as unit:
            job = unit.jobs.add(UID, REQUEST, at(0))
            unit.commit()
        return job.id

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(ask, range(24)))) == 1


def test_a_job_is_claimed_by_one_of_many_workers(database: Database) -> None:
    with database() as unit:
        job = unit.jobs.add(UID, REQUEST, at(0))
        unit.commit()

    def claim(worker: int) -> bool:
        with database() as unit:
            claimed = unit.jobs.claim(job.id, str(worker), at(1), at(61))
            unit.commit()
        return claimed is not None

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(claim, range(24))) == 1


def test_a_claim_holds_until_its_lease_runs_out_without_a_heartbeat(database: Database) -> None:
    with database() as unit:
        job = unit.jobs.add(UID, REQUEST, at(0))
        assert unit.jobs.claimable(at(0)) == [job.id]
        first = unit.jobs.claim(job.id, "first", at(0), at(60))
        assert first is not None
        assert (first.worker, first.attempts, first.lease_until) == ("first", 1, at(60))
        assert unit.jobs.claimable(at(59)) == []
        progress = TrainingProgress("train", 3, 10, 1, 0.5, 12.0)
        assert unit.jobs.beat(first, at(50), at(110), progress)
        assert unit.jobs.claim(job.id, "second", at(61), at(121)) is None
        second = unit.jobs.claim(job.id, "second", at(111), at(171))
        assert second is not None
        assert (second.worker, second.attempts, second.progress) == ("second", 2, progress)


def test_whoever_lost_a_job_changes_nothing_any_more(database: Database) -> None:
    data = FrozenData((("cat", ("cat",)),), ())
    with database() as unit:
        job = unit.jobs.add(UID, REQUEST, at(0))
        first = unit.jobs.claim(job.id, "same name", at(0), at(60))
        assert first is not None
        second = unit.jobs.claim(job.id, "same name", at(61), at(121))
        assert second is not None
        assert not unit.jobs.beat(first, at(62), at(122), None)
        assert not unit.jobs.freeze(first, data)
        assert not unit.jobs.finish(first, JobState.FAILED, at(62), "no", None)
        unit.jobs.release(first)
        assert unit.jobs.find(job.id) == second
        assert unit.jobs.data(job.id) is None


def test_a_released_job_can_be_claimed_at_once(database: Database) -> None:
    with database() as unit:
        job = unit.jobs.add(UID, REQUEST, at(0))
        claimed = unit.jobs.claim(job.id, "w", at(0), at(60))
        assert claimed is not None
        unit.jobs.release(claimed)
        assert unit.jobs.claimable(at(1)) == [job.id]


def test_frozen_data_come_back_with_their_fingerprint(database: Database) -> None:
    image = ReviewedImage("a" * 64, 640, 480, ((5, "2026"),), (LabelledBox(Box(1, 2, 3, 4.25), "käse"),))
    pseudo = PseudoImage("b" * 64, 640, 480, "glip-nano-0001", image.boxes, (Box(5, 6, 7, 8.25),))
    data = FrozenData((("käse", ("cheese",)),), (image,), (pseudo,))
    with database() as unit:
        job = unit.jobs.add(UID, REQUEST, at(0))
        claimed = unit.jobs.claim(job.id, "w", at(0), at(60))
        assert claimed is not None
        assert unit.jobs.data(job.id) is None
        assert unit.jobs.freeze(claimed, data)
        unit.commit()
    with database() as unit:
        assert unit.jobs.data(job.id) == data
        known = unit.jobs.find(job.id)
        assert known is not None
        assert known.fingerprint == data.fingerprint


def test_annotations_that_say_something_are_counted(database: Database) -> None:
    with database() as unit:
        apply_fact(
            unit,
            annotated(
                make_annotation(1, 0, make_region(), task_id=1),
                make_annotation(1, 5, task_id=1),
                make_annotation(2, 3, task_id=2),
                make_annotation(3, 3, task_id=3, cancelled=True),
                make_annotation(4, 3, task_id=4),
            ),
        )
        apply_fact(unit, deleted(4))
        assert unit.corrections.count_reviewed(UID) == 2


def test_annotations_are_counted_from_a_version_on_in_the_order_in_which_they_were_told(database: Database) -> None:
    with database() as unit:
        assert unit.corrections.newest_version(UID) == 0
        apply_fact(unit, annotated(make_annotation(1, 100, task_id=1), make_annotation(2, 100, task_id=2)))
        before = unit.corrections.newest_version(UID)
        assert unit.corrections.count_reviewed(UID, before) == 0
        apply_fact(unit, annotated(make_annotation(3, 5, task_id=3), make_annotation(1, 200, make_region(), task_id=1)))
        apply_fact(unit, annotated(make_annotation(2, 50, make_region(), task_id=2)))  # older than what is known of it
        apply_fact(unit, replace(annotated(make_annotation(9, 300)), project=ProjectState("8.1", 8)))
        assert unit.corrections.count_reviewed(UID, before) == 2
        assert unit.corrections.count_reviewed(UID, unit.corrections.newest_version(UID)) == 0
        assert unit.corrections.count_reviewed(UID) == 3


def test_a_job_knows_what_it_saw_and_how_many_annotations_it_learns_from(database: Database) -> None:
    images = tuple(ReviewedImage(digest * 64, 640, 480, ((5, "2026"), (6, "2026"))) for digest in "ab")
    with database() as unit:
        job = unit.jobs.add(UID, REQUEST, at(0), 7)
        assert (job.seen, job.learnt, unit.jobs.done(UID)) == (7, 0, None)
        claimed = unit.jobs.claim(job.id, "w", at(0), at(60))
        assert claimed is not None
        unit.jobs.freeze(claimed, FrozenData((("cat", ("cat",)),), images, seen=9))
        unit.jobs.finish(claimed, JobState.DONE, at(1), "so", None)
        failed = unit.jobs.claim(unit.jobs.add(UID, REQUEST, at(2), 11).id, "w", at(2), at(60))
        assert failed is not None
        unit.jobs.finish(failed, JobState.FAILED, at(3), "no", None)
        unit.commit()
    with database() as unit:
        done = unit.jobs.done(UID)
        assert done is not None
        assert (done.id, done.seen, done.learnt) == (job.id, 9, 2)
        assert [each.seen for each in unit.jobs.of(UID, 5)] == [11, 9]
