"""``glip-label db check``: what is said of events and verdicts, and repaired."""

from pathlib import Path

import pytest

from backend.bootstrap import open_database
from backend.cli import run
from backend.services.corrections import CorrectionsService
from backend.settings import Settings
from backend.worker import Worker
from tests.facts import UID, annotated, make_annotation, make_region


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLIP_LABEL_HOME", str(tmp_path))


def test_events_that_wait_or_failed_are_counted_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    unit_of_work = open_database(Settings.from_env())
    service = CorrectionsService(unit_of_work)
    with unit_of_work() as unit:
        unit.inbox.add("ANNOTATION_CREATED", 7, "nonsense")
        unit.inbox.add("PROJECT_UPDATED", None, "nonsense")
        unit.commit()
    Worker(service).drain()
    service.receive("ANNOTATION_CREATED", annotated(make_annotation()))
    assert run(["db", "check"]) == 1
    said = capsys.readouterr()
    assert "events: 0 applied, 1 waiting, 2 failed" in said.out
    assert "1 ANNOTATION_CREATED of project 7: " in said.out
    assert "2 PROJECT_UPDATED: " in said.out
    assert said.err == "glip-label: 2 events failed: see above, then `glip-label worker --retry`\n"


def test_stale_verdicts_are_found_and_repaired(capsys: pytest.CaptureFixture[str]) -> None:
    unit_of_work = open_database(Settings.from_env())
    service = CorrectionsService(unit_of_work)
    annotation = make_annotation(1, 1, make_region())
    service.receive("ANNOTATION_CREATED", annotated(annotation))
    Worker(service).drain()
    assert run(["db", "check"]) == 0
    with unit_of_work() as unit:
        unit.corrections.put_verdicts(UID, annotation, [])
        unit.commit()
    assert run(["db", "check"]) == 1
    assert "run `glip-label db check --repair`" in capsys.readouterr().err
    assert run(["db", "check", "--repair"]) == 0
    assert "1 differ and were written again" in capsys.readouterr().out
    assert run(["db", "check"]) == 0
