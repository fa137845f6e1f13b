"""What /setup tells of a project, while others tell of it as well."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from time import sleep

from sqlalchemy import Engine

from backend.db.schema import upgrade
from backend.db.unit_of_work import SqlUnitOfWork
from backend.domain.facts import Fact, ProjectState, TaskState
from backend.services.corrections import apply_fact
from backend.web.app import create_app
from tests.facts import UID
from tests.make import make_backend


def test_a_threshold_may_be_set_while_the_first_event_of_its_project_is_applied(engine: Engine) -> None:
    upgrade(engine)
    writing, reading = partial(SqlUnitOfWork, engine), partial(SqlUnitOfWork, engine, reads_only=True)
    service = create_app(replace(make_backend(), unit_of_work=writing, reading=reading)).test_client()
    body = {"project": UID, "schema": "", "extra_params": {"threshold": 0.3}}
    with ThreadPoolExecutor(1) as threads:
        with writing() as unit:
            apply_fact(unit, Fact(ProjectState(UID, 7), (TaskState(1),)))
            assert unit.corrections.live_tasks(UID) == {1}
            answer = threads.submit(service.post, "/setup", json=body)
            sleep(0.5)  # it waits by then
            unit.commit()
        assert answer.result().status_code == 200
    with reading() as unit:
        assert unit.projects.score_threshold(UID) == 0.3
        assert unit.corrections.live_tasks(UID) == {1}
