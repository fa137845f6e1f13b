"""While another writes: what is known is answered from a file of SQLite all the same."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from backend.cli import run
from backend.db.engine import open_engine
from backend.db.schema import upgrade
from backend.db.unit_of_work import SqlUnitOfWork
from backend.domain.facts import Fact, TaskState
from backend.domain.learning import JobState, Ruling, TrainingRequest
from backend.domain.training_data import FrozenData
from backend.services.contests import LearnParts
from backend.services.corrections import apply_fact
from backend.services.gathering import Gathering
from backend.services.predict import Predict
from backend.services.promotion import Production
from backend.services.second_look import SecondLook
from backend.services.training import Claim, Training, TrainingPolicy
from backend.version_folders import VersionFolders
from backend.web.app import create_app
from tests.backend.test_gathering import PROJECT, annotated_image, known
from tests.backend.test_learning_stores import make_version
from tests.facts import UID, at, make_annotation, make_region
from tests.fake_learning import FakeModels, FakeReviewedProjects, FakeTrainer, digest_of
from tests.fakes import FakeDetector, FakeImages
from tests.make import make_backend, make_body, recorded, recordings

Database = tuple[partial[SqlUnitOfWork], partial[SqlUnitOfWork]]
IMAGE = replace(
    annotated_image("train-1", make_annotation(1, 5, make_region())), width=640, height=480, sha256=digest_of("train-1")
)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """What makes transactions that write, and such that only read; one reviewed image is known."""
    engine = open_engine(f"sqlite:///{tmp_path / 'glip.sqlite3'}")
    upgrade(engine)
    writing, reading = partial(SqlUnitOfWork, engine), partial(SqlUnitOfWork, engine, reads_only=True)
    with writing() as unit:
        apply_fact(unit, Fact(PROJECT, (TaskState(1, at(0)),), (IMAGE.annotations[0].annotation,)))
        unit.commit()
    yield writing, reading
    engine.dispose()


@contextmanager
def another_writes(writing: partial[SqlUnitOfWork]) -> Iterator[None]:
    with writing() as unit:
        unit.projects.all()  # the transaction begins with its first statement
        yield


def claim() -> Claim:
    """A job in hand, in a database of its own."""
    training = Training(known(IMAGE))
    training.request(UID, TrainingRequest("command"))
    claim = training.claim("w")
    assert claim is not None
    return claim


def test_known_projects_stored_predictions_and_jobs_are_answered_while_another_writes(database: Database) -> None:
    writing, reading = database
    production = Production(reading, FakeModels(FakeDetector()))
    predict = Predict(production, FakeImages(), writing, reading)
    training = Training(writing, reading=reading)
    backend = replace(
        make_backend(), production=production, predict=predict, training=training, unit_of_work=writing, reading=reading
    )
    service = create_app(backend).test_client()
    asked = {"/setup": recorded(recordings("/setup")[0])["json"], "/predict": make_body("/data/a.png")}
    first = {path: service.post(path, json=body).get_json() for path, body in asked.items()}
    with another_writes(writing):
        assert {path: service.post(path, json=body).get_json() for path, body in asked.items()} == first
        told = service.get("/training?project=7").get_json()
    assert first["/predict"]["results"][0]["result"]
    assert told == {"project": 7, "jobs": []}


def test_whether_training_is_due_and_how_it_stands_is_known_while_another_writes(database: Database) -> None:
    writing, reading = database
    training = Training(writing, reading=reading)
    job = training.request(UID, TrainingRequest("command"))
    with another_writes(writing):
        assert training.request_due(TrainingPolicy(annotations=1)) == []  # it is open
        assert training.claimable() == [job.id]
        assert training.find(job.id) == job


class KeptProjects(FakeReviewedProjects):
    """Projects whose image files all lie on this machine."""

    def has(self, sha256: str) -> bool:
        return True


def test_what_is_learned_from_is_gathered_while_another_writes(database: Database) -> None:
    writing, reading = database
    with another_writes(writing):
        gathered = Gathering(KeptProjects([IMAGE]), writing, reading)(
            PROJECT, TrainingRequest("command"), lambda progress: None
        )
    assert [image.sha256 for image in gathered.images] == [IMAGE.sha256]


def test_what_earlier_jobs_learned_from_is_read_while_another_writes(database: Database, tmp_path: Path) -> None:
    writing, reading = database
    promising = Ruling(False, "not clearly faster", {}, may_pay=True)
    data = FrozenData((("cat", ("cat",)),), ())
    version = replace(make_version(), metrics={"gate": promising.to_json()})
    with writing() as unit:
        job = unit.jobs.add(UID, TrainingRequest("command"), at(0))
        done = unit.jobs.claim(job.id, "w", at(0), at(60))
        assert done is not None
        unit.jobs.freeze(done, data)
        unit.jobs.finish(done, JobState.DONE, at(1), "refused", version.name)
        unit.versions.add(version)
        unit.commit()
    parts = LearnParts(
        unit_of_work=writing,
        reading=reading,
        gathering=Gathering(KeptProjects([IMAGE]), writing, reading),
        images=FakeImages(),
        models=FakeModels(FakeDetector(version=version.base), glip_nano_0001=FakeDetector()),
        trainer=FakeTrainer(),
        files=VersionFolders(tmp_path),
        judge=lambda contest: promising,
        announce=lambda project: None,
    )
    with another_writes(writing):
        look = SecondLook(parts, lambda: at(2))(claim(), data, attempts=1)
    assert look == {"version": version.name, **promising.to_json()}


@pytest.mark.parametrize(
    "arguments",
    [["export", "coco", "out", "--project", "7"], ["stats", "--project", "7"], ["db", "check"]],
    ids=lambda arguments: arguments[0],
)
def test_commands_that_only_look_wait_for_no_writer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GLIP_LABEL_DATABASE_URL", f"sqlite:///{tmp_path / 'glip.sqlite3'}")
    engine = open_engine(f"sqlite:///{tmp_path / 'glip.sqlite3'}")
    upgrade(engine)
    with SqlUnitOfWork(engine) as unit:
        unit.projects.put(PROJECT)
        unit.commit()
    with SqlUnitOfWork(engine) as unit:
        unit.projects.all()
        assert run(arguments) == 0
    engine.dispose()
