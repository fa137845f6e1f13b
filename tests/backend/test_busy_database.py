"""While another writes: what is known is answered from a file of SQLite all the same."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from backend.cli import run
from backend.db.engine import open_engine
from backend.db.schema import upgrade
from backend.db.unit_of_work import SqlUnitOfWork
from backend.services.predict import Predict
from backend.services.promotion import Production
from backend.web.app import create_app
from tests.facts import PROJECT
from tests.fake_learning import FakeModels
from tests.fakes import FakeDetector, FakeImages
from tests.make import make_backend, make_body, recorded, recordings


def test_a_known_project_and_stored_predictions_are_answered_while_another_writes(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'glip.sqlite3'}")
    upgrade(engine)
    writing, reading = partial(SqlUnitOfWork, engine), partial(SqlUnitOfWork, engine, reads_only=True)
    production = Production(reading, FakeModels(FakeDetector()))
    predict = Predict(production, FakeImages(), writing, reading)
    backend = replace(make_backend(), production=production, predict=predict, unit_of_work=writing, reading=reading)
    service = create_app(backend).test_client()
    asked = {"/setup": recorded(recordings("/setup")[0])["json"], "/predict": make_body("/data/a.png")}
    first = {path: service.post(path, json=body).get_json() for path, body in asked.items()}
    jobs = f"/training?project={asked['/setup']['project']}"
    assert service.get(jobs).get_json()["jobs"] == []
    with writing() as unit:
        unit.projects.all()  # the transaction begins with its first statement
        assert {path: service.post(path, json=body).get_json() for path, body in asked.items()} == first
        assert service.get(jobs).get_json()["jobs"] == []
    assert first["/predict"]["results"][0]["result"]
    engine.dispose()


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
