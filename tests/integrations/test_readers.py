"""What other people's readers make of generated projects, unmodified.

They are large and pin packages that ours do not, so they live in an environment of their own, whose Python is named:
``GLIP_LABEL_TEST_READERS=/path/to/python pytest tests/integrations/test_readers.py``. See docs/export.md.
"""

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from backend.services.export import ExportRequest
from tests import readers
from tests.datasets import FakeProject
from tests.integrations.test_coco_projects import PROJECTS, export, projects

PYTHON = os.environ.get("GLIP_LABEL_TEST_READERS")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Path]:
    """Generated projects, each exported with its images."""
    made: list[Path] = []

    @settings(max_examples=PROJECTS, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(projects())
    def write(project: tuple[FakeProject, dict[int, bytes], ExportRequest]) -> None:
        folder = tmp_path_factory.mktemp("project")
        if export(folder, project[0], project[1], replace(project[2], splits=None)) and images(folder):
            made.append(folder)

    write()
    return made


def images(folder: Path) -> Any:
    return json.loads((folder / "annotations.json").read_text())["images"]


def expected(folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    document = json.loads((folder / "annotations.json").read_text())
    names = {category["id"]: category["name"] for category in document["categories"]}
    boxes: dict[str, list[tuple[Any, ...]]] = {image["file_name"]: [] for image in document["images"]}
    files = {image["id"]: image["file_name"] for image in document["images"]}
    for annotation in document["annotations"]:
        boxes[files[annotation["image_id"]]].append((names[annotation["category_id"]], *annotation["bbox"]))
    return boxes


@pytest.mark.skipif(PYTHON is None, reason="GLIP_LABEL_TEST_READERS names no Python with other readers")
@pytest.mark.parametrize("reader", readers.READERS)
def test_a_reader_finds_every_image_and_every_box(reader: str, folders: Sequence[Path]) -> None:
    command = [str(PYTHON), str(Path(readers.__file__)), reader, *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000)
    if done.returncode == 3:
        pytest.skip(f"{reader} is not installed there")
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"{reader} {found['version']}: {len(folders)} projects")
    for folder in folders:
        read, wanted = found["folders"][str(folder)], expected(folder)
        assert read.keys() == wanted.keys()
        for name, boxes in wanted.items():
            # Both ways, since some drop a box that stands twice in an image.
            assert [box for box in boxes if not is_in(box, read[name])] == [], (folder, name)
            assert [box for box in read[name] if not is_in(box, boxes)] == [], (folder, name)


def is_in(box: Sequence[Any], boxes: Sequence[Sequence[Any]]) -> bool:
    return any(box[0] == each[0] and list(box[1:]) == pytest.approx(each[1:], abs=0.01) for each in boxes)
