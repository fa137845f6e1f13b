"""``glip-label train`` from annotations to a version that serves: real processes, a real tiny model, real pictures."""

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from threading import Event, Thread
from time import monotonic, sleep

import pytest
from PIL import Image

from backend.bootstrap import base_version, build_backend, build_detector, build_worker
from backend.chosen_model import open_detector
from backend.commands.train import progress_line
from backend.db.schema import open_prepared
from backend.db.unit_of_work import SqlUnitOfWork
from backend.domain.calibration import PLAIN
from backend.domain.facts import Fact, ProjectState, TaskState
from backend.domain.fits import Fit
from backend.domain.geometry import Box
from backend.domain.learning import JobState, Mode, TrainingProgress, TrainingRequest
from backend.domain.records import Label, Look, Prediction, Proposal, Region
from backend.domain.review import ShowThresholds
from backend.domain.training_data import Part, split_of
from backend.errors import UsageError
from backend.services.corrections import apply_fact
from backend.services.predict import Ask
from backend.services.self_training import LEAST_JUDGED
from backend.services.training import Training
from backend.settings import Settings
from tests.facts import UID, at, make_annotation, make_region
from tests.glip_model.tiny import tiny_model, tiny_processor
from tests.make import CONFIG
from tests.sites import Site, running_site, sends

TASKS = range(1, 17)
SECONDS = 300


@dataclass(frozen=True)
class House:
    """A home with an annotated project, and the site that has its pictures."""

    environment: dict[str, str]
    site: Site

    @property
    def settings(self) -> Settings:
        return Settings.from_env(self.environment)

    def run(self, *words: str, **settings: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "backend.cli", *words]
        environment = self.environment | {f"GLIP_LABEL_{name}": value for name, value in settings.items()}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    model = tmp_path / "tiny"
    tiny_model().save_pretrained(model)
    tiny_processor().save_pretrained(model)
    with running_site() as site:
        environment = {
            "PATH": os.environ["PATH"],
            "OMP_NUM_THREADS": "1",
            "GLIP_LABEL_HOME": str(tmp_path / "home"),
            "GLIP_LABEL_MODEL": str(model),
            "GLIP_LABEL_IMAGE_HOSTS": site.host,
            "GLIP_LABEL_DEVICE": "cpu",
        }
        database = partial(SqlUnitOfWork, open_prepared(Settings.from_env(environment).database_url))
        project = ProjectState(UID, 7, "street", at(0), CONFIG, ("cat", "dog"))
        for number in TASKS:
            site.answers[f"/{number}.png"] = sends(_picture(number))
            task = TaskState(number, at(0), (("image", f"{site.url}/{number}.png"),))
            with database() as unit:
                apply_fact(unit, Fact(project, (task,), (make_annotation(number, 0, make_region(), task_id=number),)))
                unit.commit()
        yield House(environment, site)


def _picture(number: int) -> bytes:
    """A picture of one colour, which differs from any other number's."""
    file = io.BytesIO()
    Image.new("RGB", (640, 480), (number * 7 % 256, 90, 200)).save(file, "PNG")
    return file.getvalue()


def test_a_project_is_trained_and_the_version_serves_once_it_is_promoted(
    house: House, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = house.run("train", "--project", "street", "--mode", "prompt", "--minutes", "0.02", "--seed", "3", "--json")
    assert done.returncode == 0, done.stderr
    job = json.loads(done.stdout)
    assert (job["state"], job["version"], job["request"]["mode"]) == ("done", "tiny-0001", "prompt")
    assert re.search(r"^(data|train|gate)( \d+/\d+)?", done.stderr, re.MULTILINE)

    backend = build_backend(house.settings, build_detector(house.settings))
    with backend.unit_of_work() as unit:
        version = unit.versions.find(UID, "tiny-0001")
    assert version is not None
    assert (version.mode, version.fingerprint) == (Mode.PROMPT, job["fingerprint"])
    kept = [path for path in (house.settings.home / "images").rglob("*") if path.is_file()]
    assert len(kept) == len(TASKS)
    reference = f"{house.site.url}/1.png"
    ask = Ask(UID, 1, reference, (Label("cat"), Label("dog")), Look("image", reference))
    versions = []
    for words in (["models", "promote", "--project", "7", "tiny-0001"], ["models", "rollback", "--project", "7"]):
        told = house.run(*words)
        assert told.returncode == 0, told.stderr
        (outcome,) = backend.predict([ask])
        assert isinstance(outcome, Prediction), outcome
        versions.append(outcome.model_version)
    assert versions == ["tiny-0001", version.base]

    for name, value in house.environment.items():
        monkeypatch.setenv(name, value)
    assert open_detector("street@tiny-0001")[0].version == "tiny-0001"
    assert "glip-label: model tiny-0001" in capsys.readouterr().err
    assert open_detector("7@production")[0].version == version.base
    with pytest.raises(UsageError, match="no version 'tiny-0009' of project '7'; there are production, tiny-0001"):
        open_detector("7@tiny-0009")


def test_the_worker_trains_what_waits_in_a_process_of_its_own(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in house.environment.items():
        monkeypatch.setenv(name, value)
    database = partial(SqlUnitOfWork, open_prepared(house.settings.database_url))
    training = Training(database)
    training.request(UID, TrainingRequest("label-studio", Mode.FULL, minutes=0.02))
    stop = Event()
    thread = Thread(target=build_worker(house.settings, database).run, args=(stop,))
    thread.start()
    deadline = monotonic() + SECONDS
    while training.of(UID)[0].is_open and monotonic() < deadline:
        sleep(0.2)
    stop.set()
    thread.join()

    job = training.of(UID)[0]
    assert (job.state, job.version) == (JobState.DONE, "tiny-0001"), job.outcome
    assert job.worker is not None
    assert not job.worker.endswith(f":{os.getpid()}")
    with database() as unit:
        version = unit.versions.find(UID, "tiny-0001")
    assert version is not None
    assert "model.safetensors" in dict(version.files)


def test_a_project_without_annotations_cannot_be_trained_and_says_why(house: House) -> None:
    database = partial(SqlUnitOfWork, open_prepared(house.settings.database_url))
    with database() as unit:
        apply_fact(unit, Fact(ProjectState("8.1", 8, "empty", at(0), CONFIG, ("cat",))))
        unit.commit()
    done = house.run("train", "--project", "empty")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("glip-label: project 'empty' has no image to learn from")


@pytest.mark.parametrize("setting", [("MODEL", "glip-x"), ("DEVICE", "gpu")])
def test_a_model_or_device_that_is_not_there_is_said_in_one_line_and_nothing_is_queued(
    house: House, setting: tuple[str, str]
) -> None:
    name, value = setting
    done = house.run("train", "--project", "street", **{name: value})
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith(f"glip-label: no {name.lower()} {value!r}")
    assert Training(partial(SqlUnitOfWork, open_prepared(house.settings.database_url))).of(UID) == []


def test_a_part_that_cannot_be_frozen_is_named(house: House) -> None:
    words = ("train", "--project", "street", "--minutes", "0.02", "--freeze", "backbone", "--freeze", "wings")
    other = house.run(*words)
    assert other.returncode == 2
    assert "--freeze goes with --mode full" in other.stderr
    done = house.run(*words, "--mode", "full")
    assert done.returncode == 1
    assert "nothing to freeze is called 'wings'" in done.stderr.strip().splitlines()[-1]


def test_self_training_waits_for_honest_scores_and_then_learns_from_unreviewed_images(house: House) -> None:
    database = partial(SqlUnitOfWork, open_prepared(house.settings.database_url))
    words = ("train", "--project", "street", "--mode", "prompt", "--minutes", "0.02", "--self-training", "--json")
    early = house.run(*words)
    assert early.returncode == 1
    assert early.stderr.strip().splitlines()[-1].startswith("glip-label: no self-training of project 'street' yet")

    base = base_version(house.settings)
    digests = {number: sha256(_picture(number)).hexdigest() for number in range(17, 30)}
    number, digest = next(each for each in digests.items() if split_of(each[1]) is Part.TRAIN)
    reference = f"{house.site.url}/{number}.png"
    house.site.answers[f"/{number}.png"] = sends(_picture(number))
    region = Region("p-0", Proposal(Box(10, 10, 90, 90), "cat", 0.9, "cat"))
    with database() as unit:
        apply_fact(unit, Fact(ProjectState(UID, 7), (TaskState(number, at(0), (("image", reference),)),)))
        unit.fits.add(Fit(UID, base, PLAIN, ShowThresholds(0.3), LEAST_JUDGED, at(0)))
        look = Look("image", reference, digest)
        unit.predictions.add(UID, "key", Prediction(number, base, 640, 480, (region,), "p", look))
        unit.commit()
    done = house.run(*words)
    assert done.returncode == 0, done.stderr
    job = json.loads(done.stdout)
    assert job["request"]["self_training"] is True
    with database() as unit:
        version = unit.versions.find(UID, job["version"])
        data = unit.jobs.data(job["id"])
    assert version is not None
    assert version.metrics["images"]["pseudo"] == 1
    assert data is not None
    assert [(image.sha256, image.teacher) for image in data.pseudo] == [(digest, base)]
    assert '"pseudo": 1' in house.run("models", "show", "--project", "street", version.name).stdout


def test_progress_is_one_line_of_what_is_known() -> None:
    told = TrainingProgress("train", 120, 200, 6, 0.41234, 95.2)
    assert progress_line(told) == "train 120/200, epoch 6, loss 0.412, 1 min 35 s left"
    assert progress_line(TrainingProgress("train", 120, 200, 6, 0.41234, 35.2)).endswith("loss 0.412, 35 s left")
    assert progress_line(TrainingProgress("gate")) == "gate"
