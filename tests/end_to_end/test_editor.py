"""What a person sees and does in Label Studio's editor, in a real browser."""

from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from label_studio_sdk import LabelStudio

from integrations.label_studio.sample_project import retrieve_predictions
from integrations.label_studio.server import RunningLabelStudio
from tests.end_to_end.browser import find, logged_in_browser, wait_for
from tests.end_to_end.conftest import ROOT, Project

pytestmark = pytest.mark.end_to_end

_EDITOR = "window.Htx?.annotationStore?.selected"


def test_the_editor_shows_the_boxes_and_submits_them_with_their_provenance(
    make_project: Callable[..., Project], api: LabelStudio, label_studio: RunningLabelStudio, tmp_path: Path
) -> None:
    project = make_project(6, title="Generated scenes")
    assert sum(retrieve_predictions(api, project.id)) == 6
    headers = {"Authorization": f"Token {label_studio.account.token}"}
    stored = requests.get(f"{label_studio.url}/api/predictions?project={project.id}", headers=headers, timeout=30)
    prediction = max(stored.json(), key=lambda row: len(row["result"]))
    proposed = {region["id"]: region for region in prediction["result"]}

    with logged_in_browser(label_studio, tmp_path / "profile") as browser:
        browser.get(f"{label_studio.url}/projects/{project.id}/data?task={prediction['task']}")
        shown = wait_for(browser, f"{_EDITOR}?.regions.length && {_EDITOR}.regions.map(region => region.cleanId)")
        wait_for(browser, "document.querySelector('.konvajs-content canvas')?.width")
        picture = ROOT / "build" / "editor.png"
        picture.parent.mkdir(exist_ok=True)
        browser.save_screenshot(str(picture))
        find(browser, "button[aria-label='Submit current annotation']").click()
        wait_for(browser, f"{_EDITOR}.pk")

    assert set(shown) == set(proposed)
    (annotation,) = api.annotations.list(prediction["task"])
    assert {region["id"] for region in annotation.result} == set(proposed)
    for region in annotation.result:
        assert region["origin"] == "prediction"
        assert region["meta"] == proposed[region["id"]]["meta"]
        assert region["value"]["rectanglelabels"] == proposed[region["id"]]["value"]["rectanglelabels"]
