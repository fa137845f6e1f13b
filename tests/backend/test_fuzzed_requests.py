"""Whatever is sent, the service answers in JSON and keeps its secrets, and its worker goes on.

``GLIP_LABEL_TEST_REQUESTS=5000`` makes it as many examples of each kind instead of a few.
"""

import json
import logging
import os
import re
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, delete

from backend.bootstrap import Backend
from backend.db.engine import open_engine
from backend.db.schema import upgrade
from backend.db.tables import Base
from backend.db.unit_of_work import SqlUnitOfWork
from backend.domain.records import Picture
from backend.pictures import decode_picture
from backend.ports import UnitOfWork
from backend.services.corrections import CorrectionsService
from backend.services.predict import Predict
from backend.services.promotion import Production
from backend.services.training import Training
from backend.web.app import create_app
from backend.web.lines import one_line
from backend.worker import Worker
from integrations.label_studio.images import TaskImages
from tests.fake_learning import FakeModels
from tests.fakes import FakeDetector, FakeImages
from tests.make import recorded, recordings
from tests.mutations import LONG, SECRET, Ask, asks, posts

REQUESTS = int(os.environ.get("GLIP_LABEL_TEST_REQUESTS", "100"))
GUARDS = {"nothing": (None, None), "basic auth": (("me", SECRET), None), "a secret": (None, SECRET)}
some = settings(max_examples=REQUESTS, deadline=None, suppress_health_check=list(HealthCheck))


class SomeImages:
    """The pictures of recorded tasks; whatever else is asked for goes the way that it always goes."""

    def __init__(self) -> None:
        bodies = [recorded(name)["json"] for name in recordings("/predict")]
        self._there = {str(task["data"]["image"]) for body in bodies for task in body["tasks"]}
        self._fake = FakeImages()
        self._real = TaskImages(decode_picture, allowed_hosts=frozenset(["127.0.0.1:9"]))

    def fetch(self, reference: str, task_id: int | None = None) -> Picture:
        return (self._fake if reference in self._there else self._real).fetch(reference, task_id)


class Service:
    """The application over a real database, its worker, and what they log."""

    def __init__(self, engine: Engine, caplog: pytest.LogCaptureFixture, guard: str = "nothing") -> None:
        caplog.set_level(logging.DEBUG)
        upgrade(engine)
        self._engine = engine
        self._caplog = caplog
        production = Production(self._unit_of_work, FakeModels(FakeDetector()))
        backend = Backend(
            production,
            Predict(production, SomeImages(), self._unit_of_work, self._unit_of_work),
            Training(self._unit_of_work),
            self._unit_of_work,
            self._unit_of_work,
            CorrectionsService(self._unit_of_work),
            lambda: "ready",
            None,
            *GUARDS[guard],
        )
        self._app = create_app(backend)
        self._app.config["MAX_CONTENT_LENGTH"] = LONG
        self._worker = Worker(backend.corrections)

    def _unit_of_work(self) -> UnitOfWork:
        return SqlUnitOfWork(self._engine)

    def forget(self) -> None:
        """Begin anew: an example must not depend on those before it."""
        with self._engine.begin() as connection:
            for table in reversed(Base.metadata.sorted_tables):
                connection.execute(delete(table))
        self._caplog.clear()

    def answer(self, ask: Ask) -> None:
        """Answer a request; check what is told to whoever sent it, and to the log."""
        path, _, query = ask.target.partition("?")
        given = {"PATH_INFO": unquote_to_bytes(path).decode("latin-1"), "QUERY_STRING": query}
        with self._app.test_client() as client:
            response = client.open(
                "/", method=ask.method, data=ask.content, headers=ask.headers, environ_overrides=given
            )
        told = response.get_data(as_text=True)
        assert response.status_code // 100 in (2, 4), (response.status, told)
        assert SECRET not in f"{response.status} {response.headers} {told}"
        assert len(response.status) < 400
        if response.status_code >= 400 and ask.method != "HEAD":
            fields = json.loads(told)
            assert fields["request_id"] == response.headers["X-Request-ID"]
            assert fields["error"] == one_line(fields["error"]) != ""
        self._check_log()

    def work(self) -> None:
        """Apply what was acknowledged: what cannot be is set aside, with a reason, and is no defect."""
        self._worker.drain()
        with self._unit_of_work() as unit:
            assert unit.inbox.counts().waiting == 0
        self._check_log()

    def _check_log(self) -> None:
        for record in self._caplog.records:
            line = record.getMessage()
            assert record.exc_info is None, record.exc_info
            assert "defect" not in line
            assert SECRET not in line
            assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", line)
            assert len(line) < 2000


@pytest.fixture
def service(engine: Engine, caplog: pytest.LogCaptureFixture) -> Service:
    return Service(engine, caplog)


@some
@given(requests=st.lists(posts(), min_size=1, max_size=3))
def test_no_body_is_a_defect(service: Service, requests: list[Ask]) -> None:
    service.forget()
    for ask in requests:
        service.answer(ask)
    service.work()


@pytest.fixture(params=GUARDS)
def guarded(request: pytest.FixtureRequest, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Service:
    return Service(open_engine(f"sqlite:///{tmp_path / 'x.sqlite3'}"), caplog, request.param)


@some
@given(ask=asks)
def test_no_method_address_or_header_is_a_defect(guarded: Service, ask: Ask) -> None:
    guarded.forget()
    guarded.answer(ask)
