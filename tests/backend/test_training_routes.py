"""Training over HTTP: Label Studio's button, the progress, and answers by what is in production."""

from dataclasses import replace
from typing import Any

from flask.testing import FlaskClient

from backend.bootstrap import Backend
from backend.domain.facts import Fact, ProjectState
from backend.domain.learning import PRODUCTION, AliasMove, MoveKind, TrainingProgress, TrainingRequest
from backend.services.corrections import apply_fact
from backend.services.predict import Predict
from backend.services.promotion import Production
from backend.web.app import create_app
from integrations.label_studio.events import parse_project
from tests.backend.test_learning_stores import make_version
from tests.facts import UID, at
from tests.fake_learning import FakeModels
from tests.fakes import FakeDatabase, FakeDetector, FakeImages
from tests.make import make_backend, make_body, recorded

BASE = "glip-nano-3f9a12cd"


def client(backend: Backend) -> FlaskClient:
    return create_app(backend).test_client()


def start(service: FlaskClient) -> Any:
    return service.post("/webhook", json=recorded("start_training")["json"])


def with_project() -> FakeDatabase:
    """A database that knows the project whose button was recorded."""
    database = FakeDatabase()
    with database() as unit:
        apply_fact(unit, Fact(parse_project(recorded("start_training")["json"]["project"])))
        unit.commit()
    return database


def test_the_start_training_button_queues_one_job_and_tells_its_number() -> None:
    database = with_project()
    service = client(make_backend(database=database))
    assert [(response.status_code, response.get_json()) for response in (start(service), start(service))] == [
        (200, {"job": "1", "status": "queued"})
    ] * 2
    (job,) = database.tables.learning.jobs.values()
    assert job.request == TrainingRequest("label-studio")


def test_the_button_of_a_project_of_which_nothing_is_known_says_so_and_changes_nothing() -> None:
    database = FakeDatabase()
    response = start(client(make_backend(database=database)))
    assert response.status_code == 400
    assert "annotate, then train" in response.get_json()["error"]
    assert database.tables.projects == {}


def test_a_start_training_event_without_its_project_is_refused() -> None:
    response = client(make_backend()).post("/webhook", json={"action": "START_TRAINING"})
    assert response.status_code == 400
    assert "'project' must be a JSON object" in response.get_json()["error"]


def test_the_progress_of_a_projects_jobs_is_told() -> None:
    database = with_project()
    backend = make_backend(database=database)
    service = client(backend)
    start(service)
    claim = backend.training.claim("worker-1")
    assert claim is not None
    claim.report(TrainingProgress("train", 120, 200, 6, 0.5, 35.0))
    answer = service.get("/training?project=1").get_json()

    (job,) = answer["jobs"]
    assert (answer["project"], job["state"], job["worker"]) == (1, "running", "worker-1")
    assert job["progress"] == {
        "stage": "train",
        "step": 120,
        "steps": 200,
        "epoch": 6,
        "loss": 0.5,
        "seconds_left": 35.0,
    }
    assert job["request"]["reason"] == "label-studio"
    assert job["requested_at"].endswith("+00:00")


def test_progress_is_asked_of_a_known_project() -> None:
    service = client(make_backend())
    assert "say which project" in service.get("/training").get_json()["error"]
    assert "no project '7' is known" in service.get("/training?project=7").get_json()["error"]


def in_production() -> tuple[Backend, FakeDatabase]:
    """A service with a version in production for one project."""
    database = FakeDatabase()
    with database() as unit:
        unit.projects.put(ProjectState(UID, 7))
        unit.versions.add(make_version())
        unit.versions.move(AliasMove(UID, PRODUCTION, "glip-nano-0001", MoveKind.PROMOTION, at(0), "gate", "", {}))
        unit.commit()
    models = FakeModels(FakeDetector(version=BASE), glip_nano_0001=FakeDetector(version="glip-nano-0001"))
    production = Production(database, models)
    backend = make_backend(database=database)
    return replace(
        backend, production=production, predict=Predict(production, FakeImages(), database, database)
    ), database


def test_setup_and_predict_answer_with_the_projects_version_and_others_with_the_base() -> None:
    backend, _ = in_production()
    service = client(backend)

    def setup(project: str) -> str:
        body = {"project": project, "schema": "<View/>", "extra_params": None}
        return str(service.post("/setup", json=body).get_json()["model_version"])

    assert (setup(UID), setup("8.1795423412")) == ("glip-nano-0001", BASE)
    (result,) = service.post("/predict", json=make_body("/a.png")).get_json()["results"]
    assert result["model_version"] == "glip-nano-0001"
    assert {region["meta"]["glip"]["version"] for region in result["result"]} == {"glip-nano-0001"}
    other = {**make_body("/a.png"), "project": "8.1795423412"}
    assert service.post("/predict", json=other).get_json()["results"][0]["model_version"] == BASE


def test_all_versions_are_listed_since_label_studio_names_no_project() -> None:
    backend, _ = in_production()
    assert client(backend).get("/versions").get_json() == {"versions": [BASE, "glip-nano-0001"]}
