"""Events come in over HTTP: kept before they are answered, nothing else done, and nobody else's taken."""

import base64
import json
import logging
from copy import deepcopy

import pytest
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.domain.facts import Fact, ProjectState, fact_from_json
from backend.errors import StorageError
from backend.services.corrections import apply_fact
from backend.web.app import create_app
from integrations.label_studio.events import parse_event
from tests.fakes import FakeDatabase, FakeUnitOfWork
from tests.make import CONFIG, make_backend, recorded, recordings

EVENTS = [name for name in recordings("/webhook") if not name.startswith("start_training")]


def client(database: FakeDatabase | None = None, **fields: object) -> FlaskClient:
    return create_app(make_backend(database=database, **fields)).test_client()  # type: ignore[arg-type]


@pytest.mark.parametrize("name", EVENTS)
def test_every_recorded_event_is_kept_reduced_before_it_is_answered(name: str) -> None:
    database = FakeDatabase()
    body = recorded(name)["json"]
    response = client(database).post("/webhook", json=body)
    assert (response.status_code, response.get_json()) == (200, {"status": "kept"})
    (entry,) = database.tables.inbox
    assert (entry.action, entry.project_id, entry.applied_at) == (body["action"], body["project"]["id"], None)
    assert fact_from_json(entry.payload) == parse_event(body).fact
    assert database.tables.versions == {}


def test_unknown_events_are_noted() -> None:
    database = FakeDatabase()
    service = client(database)
    assert service.post("/webhook", json={"action": "REVIEW_CREATED"}).get_json() == {"status": "noted"}
    assert [entry.action for entry in database.tables.inbox] == ["REVIEW_CREATED"]


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ({"action": "<b>"}, "'action' must name the event"),
        ({"action": "ANNOTATION_CREATED"}, "'project' must be a JSON object"),
        ([1], "the body must be a JSON object"),
    ],
)
def test_malformed_events_are_refused_in_one_line_and_not_kept(body: object, complaint: str) -> None:
    database = FakeDatabase()
    response = client(database).post("/webhook", json=body)
    assert response.status_code == 400
    assert complaint in response.get_json()["error"]
    assert database.tables.inbox == []


def test_an_event_that_cannot_be_kept_is_not_acknowledged() -> None:
    class Full(FakeUnitOfWork):
        def commit(self) -> None:
            raise StorageError("the database sqlite:///x failed: disk is full")

    class FullDatabase(FakeDatabase):
        def __call__(self) -> FakeUnitOfWork:
            return Full(self)

    response = client(FullDatabase()).post("/webhook", json=recorded(EVENTS[0])["json"])
    assert response.status == "503 the database sqlite:///x failed: disk is full"


SECRET = {"X-Glip-Label-Secret": "s3cret"}
BASIC = {"Authorization": "Basic " + base64.b64encode(b"me:word").decode()}


@pytest.mark.parametrize(
    ("basic_auth", "secret", "headers", "status"),
    [
        (None, None, {}, 200),
        (None, "s3cret", {}, 401),
        (None, "s3cret", {"X-Glip-Label-Secret": "s3cre"}, 401),
        (None, "s3cret", {"X-Glip-Label-Secret": "s3cré"}, 401),
        (None, "s3cret", SECRET, 200),
        (("me", "word"), None, SECRET, 401),
        (("me", "word"), None, BASIC, 200),
        (("me", "word"), "s3cret", {}, 401),
        (("me", "word"), "s3cret", SECRET, 200),
        (("me", "word"), "s3cret", BASIC, 200),
    ],
)
def test_events_need_the_secret_or_the_basic_auth(
    basic_auth: tuple[str, str] | None, secret: str | None, headers: dict[str, str], status: int
) -> None:
    database = FakeDatabase()
    service = client(database, basic_auth=basic_auth, webhook_secret=secret)
    response = service.post("/webhook", json=recorded(EVENTS[0])["json"], headers=headers)
    assert response.status_code == status
    assert len(database.tables.inbox) == (status == 200)


def test_start_training_is_told_how_to_come_in_where_only_a_secret_is_asked_for() -> None:
    # Label Studio sends it by itself, with the backend's basic auth and none of the webhook's headers.
    response = client(webhook_secret="s3cret").post("/webhook", json={"action": "START_TRAINING"})
    assert response.status_code == 401
    assert "Start Training never carries it: set GLIP_LABEL_BASIC_AUTH_USER" in response.get_json()["error"]
    both = client(basic_auth=("me", "word"), webhook_secret="s3cret")
    assert both.post("/webhook", json={"action": "START_TRAINING"}, headers=BASIC).status_code != 401


def test_the_secret_opens_events_only_and_only_events_ask_for_it() -> None:
    assert client(webhook_secret="s3cret").get("/health").status_code == 200
    both = client(basic_auth=("me", "word"), webhook_secret="s3cret")
    assert both.get("/health", headers=SECRET).status_code == 401


def test_no_secret_of_an_event_reaches_the_log_or_the_inbox(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    database = FakeDatabase()
    body = deepcopy(recorded("webhook_annotation_created_from_prediction")["json"])
    body["project"] |= {"token": "s3cret", "task_data_password": "s3cret"}
    body["task"]["data"]["image"] = "https://b.example.org/a.png?X-Amz-Signature=s3cret"
    client(database, webhook_secret="s3cret").post("/webhook", json=body, headers=SECRET)
    assert "s3cret" not in caplog.text
    assert "s3cret" not in database.tables.inbox[0].payload
    assert "action=ANNOTATION_CREATED project=1" in caplog.text
    assert len(caplog.records) == 1


def test_setup_numbers_the_labels_in_the_order_of_the_labelling_config() -> None:
    database = FakeDatabase()
    service = client(database)
    for schema in (CONFIG, CONFIG.replace("cat", "ship"), "<View/>"):
        service.post("/setup", json={"project": "7.1795423412", "schema": schema})
    assert list(database.tables.labels["7.1795423412"]) == ["cat", "dog", "ship"]


def test_setup_with_another_labelling_config_leaves_a_project_its_title() -> None:
    database = FakeDatabase()
    with database() as unit:
        synced = ProjectState("7.1795423412", 7, "boats", label_config="<View/>")  # the API tells no time
        apply_fact(unit, Fact(synced))
        unit.commit()
    client(database).post("/setup", json={"project": synced.uid, "schema": CONFIG})
    known = database.tables.projects[synced.uid]
    assert (known.title, known.label_config) == ("boats", CONFIG)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, max_examples=50)
@given(st.sampled_from(EVENTS), st.dictionaries(st.sampled_from(["action", "annotation", "task", "tasks"]), JSON))
def test_no_event_is_a_defect(name: str, changes: dict[str, object]) -> None:
    body = recorded(name)["json"] | changes
    response = client().post("/webhook", data=json.dumps(body), content_type="application/json")
    assert response.status_code in (200, 400)
