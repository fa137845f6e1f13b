"""``glip-label sync`` and the worker's timer, against a small server that stands for Label Studio."""

import json
import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from threading import Event, Thread
from time import sleep

import pytest

from backend.bootstrap import build_worker, open_database
from backend.cli import run
from backend.ports import UnitOfWork
from backend.services.corrections import CorrectionsService
from backend.settings import Settings
from tests.facts import UID, annotated, make_annotation, make_region
from tests.integrations.test_tasks import EVENT, PROJECT, answers, page, task
from tests.sites import Site, running_site

OTHER = "8.1795423412"  # Label Studio knows no such project


@pytest.fixture
def label_studio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Project 7 with one annotated task; the environment leads to it."""
    with running_site() as site:
        answers(site, "/api/projects/7/", PROJECT)
        answers(site, page(1, 100), {"tasks": [task(1, EVENT["annotation"] | {"task": 1})], "total": 1})
        environment = {"HOME": str(tmp_path), "LABEL_STUDIO_URL": site.url, "LABEL_STUDIO_TOKEN": "0" * 40}
        for name, value in environment.items():
            monkeypatch.setenv(f"GLIP_LABEL_{name}", value)
        yield site


def test_sync_tells_what_it_repaired_and_then_that_there_is_nothing_left(
    label_studio: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["sync", "--project", "7"]) == 0
    said = capsys.readouterr().out
    assert said == "project 7: tasks +1 ~0 -0, annotations +1 ~0 -0; title or labels updated\n"
    assert run(["sync", "--project", "7", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["repaired"] == 0
    assert run(["sync", "--project", "7"]) == 0
    assert capsys.readouterr().out == "project 7: nothing to repair\n"


def test_sync_applies_first_what_waits(label_studio: Site, capsys: pytest.CaptureFixture[str]) -> None:
    unit_of_work = open_database(Settings.from_env())
    CorrectionsService(unit_of_work).receive("ANNOTATION_CREATED", annotated(make_annotation(9, 1, make_region())))
    answers(label_studio, "/api/annotations/9/", {}, 404)
    assert run(["sync", "--project", "7", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["annotations_added"], told["annotations_deleted"]) == (1, 1)


def test_sync_without_an_answer_is_one_line_and_exit_code_1(
    label_studio: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    answers(label_studio, page(1, 100), {}, 500)
    assert run(["sync", "--project", "7"]) == 1
    error = capsys.readouterr().err
    assert "HTTP 500" in error
    assert error.count("\n") == 1


def know(unit_of_work: Callable[[], UnitOfWork], *projects: str) -> None:
    with unit_of_work() as unit:
        for uid in projects:
            unit.projects.set_score_threshold(uid, 0.5)
        unit.commit()


def run_worker_until(
    logged: str, settings: Settings, unit_of_work: Callable[[], UnitOfWork], caplog: pytest.LogCaptureFixture
) -> None:
    """Let the worker run until it logged this, or ended by a defect."""
    stop = Event()
    thread = Thread(target=build_worker(settings, unit_of_work).run, args=(stop,))
    thread.start()
    while logged not in caplog.text and thread.is_alive():
        sleep(0.01)
    stop.set()
    thread.join()


def test_the_worker_syncs_every_known_project_on_its_timer(
    label_studio: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    settings = Settings.from_env()
    unit_of_work = open_database(settings)
    know(unit_of_work, UID, OTHER)
    answers(label_studio, "/api/projects/8/", {}, 404)
    run_worker_until("project=8", settings, unit_of_work, caplog)
    assert "sync project=7 repaired=3 tasks +1 ~0 -0, annotations +1 ~0 -0" in caplog.text
    assert "sync project=8: Label Studio at" in caplog.text


def test_what_the_database_cannot_hold_of_one_project_keeps_no_other_from_being_synced(
    label_studio: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    settings = Settings.from_env()
    unit_of_work = open_database(settings)
    know(unit_of_work, UID, OTHER)
    with closing(sqlite3.connect(tmp_path / "glip-label.sqlite3")) as connection:  # as PostgreSQL refuses NUL
        connection.execute("CREATE TRIGGER no BEFORE INSERT ON tasks BEGIN SELECT RAISE(ABORT, 'not that'); END")
    answers(label_studio, "/api/projects/8/", {}, 404)
    run_worker_until("sync project=8", settings, unit_of_work, caplog)
    assert "refused a value: not that" in caplog.text.partition("sync project=7: the database ")[2]


def test_the_worker_leaves_projects_alone_that_have_the_number_of_a_known_one_in_another_label_studio(
    label_studio: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    settings = Settings.from_env()
    unit_of_work = open_database(settings)
    know(unit_of_work, "7.1600000000")
    run_worker_until("sync project=7", settings, unit_of_work, caplog)
    assert "project 7 is another one in this Label Studio" in caplog.text
    with unit_of_work() as unit:
        assert [project.uid for project in unit.projects.all()] == ["7.1600000000"]


def test_nothing_is_polled_where_the_timer_is_off(label_studio: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLIP_LABEL_SYNC_MINUTES", "0")
    settings = Settings.from_env()
    stop = Event()
    thread = Thread(target=build_worker(settings, open_database(settings)).run, args=(stop,))
    thread.start()
    stop.set()
    thread.join()
    assert label_studio.paths == []
