"""Tasks read from Label Studio's API: a small real server stands for it."""

import json
from typing import Any

import pytest

from backend.errors import LabelStudioError
from integrations.label_studio.tasks import LabelStudioTasks
from tests.facts import UID
from tests.make import recorded
from tests.sites import Site, running_site, sends

EVENT = recorded("webhook_annotation_created_from_prediction")["json"]
PROJECT = {"id": 7, "title": "boats", "label_config": "<View/>", "created_at": "2026-11-23T08:43:32Z", "token": "s"}
JSON = {"Content-Type": "application/json"}


def answers(site: Site, path: str, body: object, status: int = 200) -> None:
    site.answers[path] = sends(json.dumps(body).encode(), status, **JSON)


def page(number: int, size: int = 2) -> str:
    return f"/api/tasks/?project=7&fields=all&resolve_uri=false&page={number}&page_size={size}"


def task(number: int, *annotations: dict[str, Any]) -> dict[str, Any]:
    return {**EVENT["task"], "id": number, "annotations": list(annotations)}


def test_a_project_is_read_without_its_secrets() -> None:
    with running_site() as site:
        answers(site, "/api/projects/7/", PROJECT)
        project = LabelStudioTasks(site.url, lambda: "Token abc").project(7)
    assert (project.uid, project.title, project.updated_at, project.label_config) == (UID, "boats", None, "<View/>")
    assert site.credentials == ["Token abc"]


def test_all_pages_are_read_and_annotations_know_their_task() -> None:
    annotation = {key: value for key, value in EVENT["annotation"].items() if key != "task"}
    with running_site() as site:
        answers(site, page(1), {"tasks": [task(1, annotation), task(2)], "total": 3})
        answers(site, page(2), {"tasks": [task(3)], "total": 3})
        looks = [look for each in LabelStudioTasks(site.url, lambda: None, 2).pages(7) for look in each]
    assert [look.task.id for look in looks] == [1, 2, 3]
    assert [(each.id, each.task_id, each.project_id) for each in looks[0].annotations] == [(1, 1, 7)]
    assert site.paths == [page(1), page(2)]


def test_a_page_that_went_with_the_tasks_on_it_is_the_end() -> None:
    with running_site() as site:
        answers(site, page(1), {"tasks": [task(1), task(2)], "total": 3})
        answers(site, page(2), {"detail": "Invalid page."}, 404)
        assert len(list(LabelStudioTasks(site.url, lambda: None, 2).pages(7))) == 1


def test_an_unreadable_annotation_is_told_and_the_others_are_read() -> None:
    broken = EVENT["annotation"] | {"id": 9, "updated_at": None}
    with running_site() as site:
        answers(site, page(1), {"tasks": [task(1, EVENT["annotation"], broken)], "total": 1})
        ((look,),) = LabelStudioTasks(site.url, lambda: None, 2).pages(7)
    assert len(look.annotations) == 1
    (problem,) = look.problems
    assert problem.startswith("task 1: 'updated_at' of annotation 9 must be a time")


def test_what_is_gone_is_told_from_what_could_not_be_looked_at() -> None:
    with running_site() as site:
        tasks = LabelStudioTasks(site.url, lambda: None)
        answers(site, "/api/tasks/1/", {"id": 1})
        answers(site, "/api/tasks/2/", {"detail": "Not found."}, 404)
        answers(site, "/api/annotations/2/", {"detail": "Not found."}, 404)
        assert (tasks.has_task(1), tasks.has_task(2), tasks.has_annotation(2)) == (True, False, False)
        site.answers["/api/tasks/3/"] = sends(b"<html>", 404)  # not Label Studio's
        for status in (401, 403, 500, 302):
            answers(site, "/api/tasks/4/", {}, status)
            with pytest.raises(LabelStudioError, match=f"HTTP {status} to /api/tasks/4/"):
                tasks.has_task(4)
        with pytest.raises(LabelStudioError, match="is this its address"):
            tasks.has_task(3)


@pytest.mark.parametrize("body", [[], {"tasks": 1}, {"tasks": [{"id": "x"}]}])
def test_an_unexpected_answer_is_said_in_one_line(body: object) -> None:
    with running_site() as site:
        answers(site, page(1), body)
        with pytest.raises(LabelStudioError, match="something unexpected"):
            list(LabelStudioTasks(site.url, lambda: None, 2).pages(7))


def test_label_studio_being_away_or_without_the_project_is_said() -> None:
    with running_site() as site:
        answers(site, "/api/projects/7/", {}, 404)
        with pytest.raises(LabelStudioError, match="no project 7"):
            LabelStudioTasks(site.url, lambda: None).project(7)
    with pytest.raises(LabelStudioError, match="is it running"):
        LabelStudioTasks(site.url, lambda: None).has_task(1)
