"""What was fitted to verdicts, and which tasks come next, as a real Label Studio shows it."""

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from label_studio_sdk import LabelStudio

from backend.bootstrap import open_database
from backend.domain.calibration import Calibration, PlattCurve
from backend.domain.fits import Fit
from backend.domain.review import ShowThresholds
from backend.services.projects import find_project
from backend.settings import Settings
from integrations.label_studio.sample_project import retrieve_predictions
from tests.end_to_end.conftest import Project, RunningService

pytestmark = pytest.mark.end_to_end


@pytest.fixture
def glip_label(service: RunningService) -> Callable[..., str]:
    """Runs a command beside the service and returns what it prints."""

    def run(*words: str) -> str:
        command = [sys.executable, "-m", "backend.cli", *words]
        return subprocess.run(command, env=service.environment, check=True, capture_output=True, text=True).stdout

    return run


def keep_fit(service: RunningService, project: Project) -> Fit:
    """As if the project's verdicts had taught to halve the odds and to show everything from 0.1 on."""
    with open_database(Settings.from_env(service.environment))() as unit:
        uid = find_project(unit.projects.all(), str(project.id)).uid
        fit = Fit(
            uid,
            project.model_version,
            Calibration(PlattCurve(1.0, -0.693)),
            ShowThresholds(0.1),
            40,
            datetime.now(UTC),
            ordering=tuple(index / 20 for index in range(20)),
        )
        unit.fits.add(fit)
        unit.commit()
    return fit


def test_people_see_calibrated_scores_and_the_stream_follows_the_order(
    make_project: Callable[..., Project], call: Callable[..., Any], api: LabelStudio, service: RunningService
) -> None:
    project = make_project(8)
    fit = keep_fit(service, project)

    assert sum(retrieve_predictions(api, project.id)) == 8

    stored = call("GET", f"/api/predictions?project={project.id}")
    regions = [region for prediction in stored for region in prediction["result"]]
    assert regions
    for region in regions:
        (label,), own = region["value"]["rectanglelabels"], region["meta"]["glip"]["score"]
        assert own >= 0.05
        assert region["score"] == pytest.approx(fit.calibration.probability(label, own))
        assert region["score"] < own
    orders = {prediction["task"]: prediction["score"] for prediction in stored}
    assert len(set(orders.values())) > 1
    call("PATCH", f"/api/projects/{project.id}", json={"sampling": "Uncertainty sampling"})
    first = call("GET", f"/api/projects/{project.id}/next")["id"]
    assert orders[first] == min(orders.values())


def test_the_next_batch_is_a_tab_that_shows_its_tasks_and_leaves_out_what_was_done(
    make_project: Callable[..., Project],
    call: Callable[..., Any],
    api: LabelStudio,
    glip_label: Callable[..., str],
) -> None:
    project = make_project(6)
    assert sum(retrieve_predictions(api, project.id)) == 6
    done = project.tasks[2]
    call("POST", f"/api/tasks/{done}/annotations/?project={project.id}", json={"result": [], "lead_time": 3.0})
    glip_label("sync", "--project", str(project.id))

    def batch(size: int) -> dict[str, Any]:
        words = ("next", "--project", str(project.id), "--batch", str(size), "--view", "next batch", "--json")
        found: dict[str, Any] = json.loads(glip_label(*words))
        return found

    def shown(view: int) -> set[int]:
        return {row["id"] for row in call("GET", f"/api/tasks?project={project.id}&view={view}")["tasks"]}

    found = batch(3)
    assert (len(found["tasks"]), found["waiting"], found["unpredicted"]) == (3, 5, 0)
    assert shown(found["view"]) == set(found["tasks"])
    again = batch(10)
    assert again["view"] == found["view"]
    assert shown(again["view"]) == set(again["tasks"]) == set(project.tasks) - {done}
    tabs = [view.data["title"] for view in api.views.list(project=project.id) if view.data]
    assert tabs.count("next batch") == 1
