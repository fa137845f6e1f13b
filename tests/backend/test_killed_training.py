"""SIGKILL at random moments of a training job: it is resumed, and ends with the version of an undisturbed run."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from backend.db.schema import open_prepared
from backend.db.unit_of_work import SqlUnitOfWork
from backend.domain.facts import Fact, TaskState
from backend.domain.learning import PRODUCTION, JobState, ModelVersion, TrainingRequest
from backend.services.corrections import apply_fact
from backend.services.training import Training
from backend.version_folders import VersionFolders
from tests.facts import PROJECT, UID, at
from tests.training_child import IMAGES, LEASE_SECONDS, STEPS

KILLS = int(os.environ.get("TRAINING_KILLS", "2"))
SECONDS_LEFT = 120.0
ALONE_SECONDS = 3.0  # of the work, without the kills


def prepare(home: Path) -> partial[SqlUnitOfWork]:
    """A database with annotated images and a job that waits."""
    database = partial(SqlUnitOfWork, open_prepared(f"sqlite:///{home / 'glip.sqlite3'}"))
    with database() as unit:
        for image in IMAGES:
            task = TaskState(int(image.task_id or 0), at(0), (("image", image.reference),))
            apply_fact(unit, Fact(PROJECT, (task,), tuple(each.annotation for each in image.annotations)))
        unit.commit()
    Training(database).request(UID, TrainingRequest("command"))
    return database


def start(home: Path, seconds: float) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-m", "tests.training_child", str(home), str(seconds)])


def visible(home: Path) -> list[Path]:
    folder = home / "versions" / UID
    return [path for path in folder.iterdir() if not path.name.startswith(".")] if folder.is_dir() else []


def check_versions(home: Path, database: partial[SqlUnitOfWork]) -> None:
    """Every version that is visible, in the database or as a folder, is whole."""
    for folder in visible(home):
        assert sorted(file.name for file in folder.iterdir()) == ["adapter.json", "version.json"]
        assert json.loads((folder / "adapter.json").read_text())["step"] == STEPS
        assert json.loads((folder / "version.json").read_text())["name"] == folder.name
    with database() as unit:
        versions = unit.versions.all(UID)
    for version in versions:
        VersionFolders(home).folder(version)


def outcome(home: Path, database: partial[SqlUnitOfWork]) -> tuple[ModelVersion, Any]:
    """The one version that was made, checked, and what was trained."""
    with database() as unit:
        (version,) = unit.versions.all(UID)
        (job,) = unit.jobs.of(UID, 5)
        assert unit.versions.alias(UID, PRODUCTION) == version
        assert len(unit.versions.moves(UID, PRODUCTION)) == 1
    assert (job.state, job.version) == (JobState.DONE, version.name)
    assert [folder.name for folder in visible(home)] == [version.name]
    return version, json.loads((VersionFolders(home).folder(version) / "adapter.json").read_text())


def test_a_job_killed_at_random_moments_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    for home in (calm, rough):
        home.mkdir()
    expected = prepare(calm)
    assert start(calm, 0.0).wait(SECONDS_LEFT) == 0
    version, trained = outcome(calm, expected)

    database, chance = prepare(rough), random.Random(7)
    training = Training(database, LEASE_SECONDS)
    kills = 0
    deadline = time.monotonic() + SECONDS_LEFT * (1 + KILLS)
    while training.of(UID)[0].is_open and time.monotonic() < deadline:
        child = start(rough, ALONE_SECONDS / STEPS if kills < KILLS else 0.0)
        if kills < KILLS:
            while not training.of(UID)[0].attempts > kills and child.poll() is None:
                time.sleep(0.05)  # it has not claimed the job yet
            time.sleep(chance.uniform(0.0, 2 * ALONE_SECONDS / (KILLS + 1)))
            child.send_signal(signal.SIGKILL)
            kills += 1
        child.wait(SECONDS_LEFT)
        check_versions(rough, database)
        while training.of(UID)[0].is_open and not training.claimable():
            time.sleep(0.05)  # the claim of the killed one holds a moment longer

    again, result = outcome(rough, database)
    assert (result, again.fingerprint, again.name) == (trained, version.fingerprint, version.name)
    assert again.metrics == version.metrics
    assert again.metrics["left_out"] == {"file-cannot-be-had": 1}
    assert 1 < training.of(UID)[0].attempts <= KILLS + 1
