"""Jobs with self-training, from what the database holds to what the gate decides."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Engine

from backend.db.dataset_store import annotated_images
from backend.db.schema import upgrade
from backend.db.unit_of_work import SqlUnitOfWork
from backend.domain.dataset import AnnotatedImage, ImageFacts, ImageFile
from backend.domain.facts import Fact, ProjectState, TaskState
from backend.domain.learning import JobState, Ruling, TrainingRequest
from backend.reviewed_projects import KeptImages, StoredProjects
from backend.services.corrections import apply_fact
from backend.services.gathering import Gathering
from backend.services.self_training import SelfTraining
from tests.backend.test_learn import BASE, BETTER, WORSE, House
from tests.backend.test_self_training import SURE, found, make_fit, make_prediction, unreviewed
from tests.facts import UID, at, deleted, make_annotation, make_region
from tests.fake_learning import FakeModels, digest_of
from tests.fakes import FakeDetector
from tests.make import image_bytes


@pytest.mark.parametrize(("ruling", "production"), [(BETTER, "glip-nano-0001"), (WORSE, None)])
def test_a_job_learns_from_both_and_the_gate_decides_by_what_people_said_alone(
    tmp_path: Path, ruling: Ruling, production: str | None
) -> None:
    sure, unsure, held_out = unreviewed(5), unreviewed(6), unreviewed(7, "gate-7")
    house = House(tmp_path, ruling, unreviewed=[sure, unsure, held_out])
    found_in = ((sure, SURE), (unsure, found("cat", 0.5)), (held_out, SURE))
    with house.database() as unit:
        unit.fits.add(make_fit())
        for image, proposal in found_in:
            unit.predictions.add(UID, image.reference, make_prediction(image, proposal))
        unit.commit()
    job = house.run(self_training=True)

    (data,) = house.trainer.learned
    assert [each.sha256 for each in data.pseudo] == [digest_of("train-5")]
    (contest,) = house.contests
    assert [each.sha256 for each in contest.images] == [digest_of("tune-3"), digest_of("gate-4")]
    assert (job.state, house.in_production()) == (JobState.DONE, production)
    with house.database() as unit:
        (version,) = unit.versions.all(UID)
    assert version.metrics["images"] == {"train": 2, "tune": 1, "gate": 1, "pseudo": 1}
    assert version.metrics["left_out"] == {"pseudo-nothing-sure": 1, "pseudo-held-out": 1}
    assert version.fingerprint == data.fingerprint == job.fingerprint


def test_a_job_that_wants_self_training_too_early_fails_with_the_reason(tmp_path: Path) -> None:
    job = House(tmp_path).run(self_training=True)

    assert job.state is JobState.FAILED
    assert str(job.outcome).startswith("no self-training of project 'street' yet: review more images first")


CONFIG = """<View><Image name="left" value="$a"/><Image name="right" value="$b"/>
  <RectangleLabels name="label" toName="left"><Label value="cat"/></RectangleLabels>
  <RectangleLabels name="other" toName="right"><Label value="cat"/></RectangleLabels></View>"""


def two_pictures(task: int) -> TaskState:
    return TaskState(task, at(0), (("a", f"a/train-a{task}"), ("b", f"b/train-b{task}")))


def read(image: AnnotatedImage) -> ImageFile:
    return ImageFile(image_bytes(640, 480), ImageFacts(640, 480, digest_of(image.reference)))


def test_in_a_database_each_picture_of_a_task_is_found_with_what_is_live_of_its_reviews(
    engine: Engine, tmp_path: Path
) -> None:
    upgrade(engine)
    project = ProjectState(UID, 7, "street", at(0), CONFIG, ("cat",))
    tasks = tuple(map(two_pictures, range(1, 6)))
    annotations = (
        make_annotation(1, 0, replace(make_region(), image="left")),
        make_annotation(2, 0, task_id=2, cancelled=True),
        make_annotation(3, 0, replace(make_region(), image="left"), task_id=3),
    )
    with SqlUnitOfWork(engine) as unit:
        apply_fact(unit, Fact(project, tasks, annotations))
        apply_fact(unit, replace(deleted(3), project=project))
        apply_fact(unit, Fact(project, (TaskState(5, deleted=True),)))
        unit.fits.add(make_fit())
        for task in tasks:
            for side, (_, reference) in enumerate(task.images):
                sure = task.id % 2 == side  # of the right pictures of odd tasks, and the left ones of even tasks
                prediction = make_prediction(unreviewed(task.id, reference), found("cat", 0.9 if sure else 0.3))
                unit.predictions.add(UID, reference, prediction)
        unit.commit()
    projects = StoredProjects(partial(annotated_images, engine), KeptImages(tmp_path), read)
    database = partial(SqlUnitOfWork, engine)
    reading = partial(SqlUnitOfWork, engine, reads_only=True)
    self_training = SelfTraining(
        Gathering(projects, database, reading), projects, reading, FakeModels(FakeDetector(version=BASE))
    )
    gathered = self_training(project, TrainingRequest("command", self_training=True), lambda progress: None)

    assert {each.sha256 for each in gathered.images} == {digest_of("a/train-a1"), digest_of("b/train-b1")}
    assert {each.sha256 for each in gathered.pseudo} == {digest_of("b/train-b3"), digest_of("a/train-a4")}
    assert gathered.left_out == {"pseudo-nothing-sure": 2}
    assert projects.has(digest_of("a/train-a4"))
