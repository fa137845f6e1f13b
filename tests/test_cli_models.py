"""``glip-label models`` as a user runs it, on a real database; promoted versions need not be loaded for it."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter

import pytest

from backend.bootstrap import base_version
from backend.cli import run
from backend.db.schema import open_prepared
from backend.db.unit_of_work import SqlUnitOfWork
from backend.domain.facts import ProjectState
from backend.domain.learning import PRODUCTION, AliasMove, Mode, ModelVersion, MoveKind
from backend.ports import UnitOfWork
from backend.settings import Settings
from tests.facts import UID, at

GATE = {"promote": True, "reason": "12 s less for each image", "numbers": {"gain": 12.0}}


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], UnitOfWork]:
    """A home with a project that has two versions, neither in production."""
    monkeypatch.setenv("GLIP_LABEL_HOME", str(tmp_path))
    settings = Settings.from_env()
    made = partial(SqlUnitOfWork, open_prepared(settings.database_url))
    base = base_version(settings)
    with made() as unit:
        unit.projects.put(ProjectState(UID, 7, "street"))
        unit.commit()
        for number in (1, 2):
            name = f"glip-nano-{number:04d}"
            metrics = {"images": {"train": 10 * number}, "gate": GATE}
            files = (("adapter.json", "a" * 64),)
            unit.versions.add(ModelVersion(UID, name, base, base, Mode.PROMPT, "f" * 64, files, metrics, at(0)))
        unit.commit()
    return made


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert run(["models", *words]) == 0
    return capsys.readouterr().out


def test_versions_are_listed_with_a_star_at_what_is_in_production(
    database: Callable[[], UnitOfWork], capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed(capsys, "list", "--project", "street").splitlines()
    assert [line.split()[0] for line in lines] == ["version", "*", "glip-nano-0001", "glip-nano-0002"]
    assert lines[3].split()[1:3] == ["prompt", "20"]
    assert lines[3].endswith("12 s less for each image")
    assert "glip-nano-0002 is in production" in printed(capsys, "promote", "--project", "7", "glip-nano-0002")
    assert printed(capsys, "list", "--project", "7").splitlines()[3].startswith("* glip-nano-0002")
    listed = json.loads(printed(capsys, "list", "--project", "7", "--json"))
    assert (listed["production"], len(listed["versions"])) == ("glip-nano-0002", 2)


def test_what_the_gate_promoted_later_is_listed_with_that_reason(
    database: Callable[[], UnitOfWork], capsys: pytest.CaptureFixture[str]
) -> None:
    with database() as unit:
        move = AliasMove(UID, PRODUCTION, "glip-nano-0001", MoveKind.PROMOTION, at(1), "gate", "8 s instead of 9", {})
        unit.versions.move(move)
        unit.commit()
    lines = printed(capsys, "list", "--project", "7").splitlines()
    assert lines[2].startswith("* glip-nano-0001")
    assert lines[2].endswith("8 s instead of 9")
    printed(capsys, "promote", "--project", "7", "glip-nano-0002", "--reason", "a look at it")
    assert printed(capsys, "list", "--project", "7").splitlines()[3].endswith("12 s less for each image")


def test_a_version_shows_what_it_is_made_of_and_how_it_did(
    database: Callable[[], UnitOfWork], capsys: pytest.CaptureFixture[str]
) -> None:
    printed(capsys, "promote", "--project", "7", "glip-nano-0001", "--reason", "a look at it")
    shown = printed(capsys, "show", "--project", "7", "glip-nano-0001")
    assert "adapter.json aaaaaaaaaaaa…" in shown
    assert "by command: a look at it" in shown
    told = json.loads(printed(capsys, "show", "--project", "7", "glip-nano-0001", "--json"))
    assert (told["mode"], told["metrics"]["gate"], told["files"]) == ("prompt", GATE, {"adapter.json": "a" * 64})


def test_a_rollback_is_quick_and_says_what_is_in_production_then(
    database: Callable[[], UnitOfWork], capsys: pytest.CaptureFixture[str]
) -> None:
    printed(capsys, "promote", "--project", "7", "glip-nano-0001")
    begun = perf_counter()
    assert printed(capsys, "rollback", "--project", "7") == (
        "the base model is in production (rollback of glip-nano-0001)\n"
    )
    assert perf_counter() - begun < 2
    assert run(["models", "rollback", "--project", "7"]) == 2
    assert "nothing to roll back" in capsys.readouterr().err


def test_unknown_versions_and_projects_are_refused_in_one_line(
    database: Callable[[], UnitOfWork], capsys: pytest.CaptureFixture[str]
) -> None:
    for words, complaint in [
        (["show", "--project", "7", "glip-nano-0009"], "there are glip-nano-0001, glip-nano-0002"),
        (["promote", "--project", "7", "glip-nano-0009"], "no version 'glip-nano-0009'; there are glip-nano-"),
        (["list", "--project", "8"], "no project '8' is known"),
    ]:
        assert run(["models", *words]) == 2
        error = capsys.readouterr().err
        assert complaint in error
        assert error.count("\n") == 1
