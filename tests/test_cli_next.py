"""``glip-label next`` from the words typed to the ids printed and the tab written."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from backend.bootstrap import base_version, open_database
from backend.cli import run
from backend.domain.facts import Fact, ProjectState, TaskState
from backend.domain.records import Proposal
from backend.services.corrections import apply_fact
from backend.settings import Settings
from integrations.label_studio.views import write_view
from tests.backend.test_ordering import make_fit
from tests.facts import UID, at
from tests.regions import CAT
from tests.reviews import make_prediction, predict_all


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of 30 tasks, of which 20 are predicted by the bundled model; what its scores mean was fitted."""
    for name in ("DATABASE_URL", "MODEL", "LABEL_STUDIO_URL", "LABEL_STUDIO_TOKEN"):
        monkeypatch.delenv(f"GLIP_LABEL_{name}", raising=False)
    monkeypatch.setenv("GLIP_LABEL_HOME", str(tmp_path))
    settings = Settings.from_env()
    unit_of_work = open_database(settings)
    version = base_version(settings)
    predict_all(unit_of_work, [make_prediction(task, [Proposal(CAT, "cat", 0.6, "")], version) for task in range(20)])
    with unit_of_work() as unit:
        apply_fact(unit, Fact(ProjectState(UID, 7, "cats"), tuple(TaskState(task, at(0)) for task in range(30))))
        unit.fits.add(replace(make_fit(0.1, 0.2), model_version=version))
        unit.commit()
    return tmp_path


def test_the_ids_are_printed_and_what_is_not_predicted_is_said(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["next", "--project", "7", "--batch", "5"]) == 0
    told = capsys.readouterr()
    assert len({int(line) for line in told.out.splitlines()} & set(range(30))) == 5
    assert "10 of 30 tasks have no prediction of glip-nano-" in told.err


def test_without_a_task_nothing_is_printed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_database(Settings.from_env())() as unit:
        apply_fact(unit, Fact(ProjectState(UID, 7, "cats"), tuple(TaskState(task, deleted=True) for task in range(30))))
        unit.commit()
    assert run(["next", "--project", "7"]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert "no task waits" in told.err


def test_as_json_it_tells_which_were_drawn(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["next", "--project", "7", "--batch", "10", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["tasks"]) == 10
    assert found["by_chance"] == [found["tasks"][4], found["tasks"][9]]
    assert (found["waiting"], found["unpredicted"], found["view"]) == (30, 10, None)


def test_a_batch_that_label_studio_could_not_open_as_a_tab_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["next", "--project", "7", "--batch", "501", "--view", "next batch"]) == 2
    assert "501 is not in the range 1<=x<=500" in capsys.readouterr().err


def test_a_view_needs_to_know_where_label_studio_is(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["next", "--project", "7", "--view", "next batch"]) == 1
    assert "GLIP_LABEL_LABEL_STUDIO_URL" in capsys.readouterr().err


class Views:
    """Label Studio's tabs."""

    def __init__(self, *titles: str) -> None:
        self.data: dict[int, Any] = {number: {"title": title} for number, title in enumerate(titles, start=1)}

    def list(self, project: int) -> list[SimpleNamespace]:
        return [SimpleNamespace(id=number, data=data) for number, data in self.data.items()]

    def create(self, project: int, data: Any) -> SimpleNamespace:
        return self.update(str(len(self.data) + 1), project, data)

    def update(self, id: str, project: int, data: Any) -> SimpleNamespace:
        self.data[int(id)] = data
        return SimpleNamespace(id=int(id), data=data)


def shown(data: Any) -> list[int]:
    return [each["value"] for each in data["filters"]["items"]]


def test_a_tab_of_the_same_title_is_replaced_and_others_stay() -> None:
    views = Views("Default", "next")
    write: Callable[..., int] = write_view
    assert write(SimpleNamespace(views=views), 7, "next", [5, 3]) == 2
    assert (shown(views.data[2]), views.data[1]) == ([5, 3], {"title": "Default"})
    assert write(SimpleNamespace(views=views), 7, "later", []) == 3
    assert shown(views.data[3]) == [0]
