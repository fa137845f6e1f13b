"""Tasks and annotations as Label Studio's API shows them now."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import requests

from backend.domain.facts import ProjectState, TaskLook
from backend.errors import LabelStudioError, UsageError
from integrations.label_studio.annotations import parse_annotation
from integrations.label_studio.events import parse_project, parse_task
from integrations.label_studio.fields import mapping, mappings

_TIMEOUT = 120.0  # seconds; a page of tasks with many boxes takes Label Studio a while


class LabelStudioTasks:
    """``ports.Tasks`` over HTTP.

    Args:
        url: where Label Studio is reached, with its sub-path where it has one.
        authorization: gives the value of the ``Authorization`` header.
        page_size: tasks asked for at a time.
    """

    def __init__(self, url: str, authorization: Callable[[], str | None], page_size: int = 100) -> None:
        self._url = url.rstrip("/")
        self._authorization = authorization
        self._page_size = page_size

    def project(self, project_id: int) -> ProjectState:
        found = self._get(f"/api/projects/{project_id}/")
        if found is None:
            raise LabelStudioError(f"Label Studio at {self._url} has no project {project_id} for the token's owner")
        with self._understood():
            return parse_project(found)

    def pages(self, project_id: int) -> Iterator[Sequence[TaskLook]]:
        fetched, page = 0, 1
        while True:
            # With resolve_uri, cloud addresses would come back signed.
            found = self._get(
                "/api/tasks/",
                {
                    "project": str(project_id),
                    "fields": "all",
                    "resolve_uri": "false",
                    "page": str(page),
                    "page_size": str(self._page_size),
                },
            )
            if found is None:  # Label Studio's word for a page behind the last one
                return
            with self._understood():
                fields = mapping(found, "a page of tasks")
                looks = [_look(row, project_id) for row in mappings(fields.get("tasks"), "'tasks'")]
            yield looks
            fetched, page = fetched + len(looks), page + 1
            total = fields.get("total")
            if not looks or (isinstance(total, int) and fetched >= total):
                return

    def has_task(self, task_id: int) -> bool:
        return self._get(f"/api/tasks/{task_id}/") is not None

    def has_annotation(self, annotation_id: int) -> bool:
        return self._get(f"/api/annotations/{annotation_id}/") is not None

    def _get(self, path: str, query: Mapping[str, str] | None = None) -> object:
        """Return the answer's JSON, None for 404."""
        header = self._authorization()
        try:
            answer = requests.get(
                self._url + path,
                params=query,
                headers={} if header is None else {"Authorization": header},
                timeout=_TIMEOUT,
                allow_redirects=False,
            )
            if answer.status_code == 404 and "json" in answer.headers.get("Content-Type", ""):
                return None
            if answer.status_code == 200:
                found: object = answer.json()
                return found
        except (requests.RequestException, ValueError) as error:
            raise LabelStudioError(
                f"no answer from Label Studio at {self._url} ({type(error).__name__}): is it running, and is this its "
                "address?"
            ) from error
        cure = {401: "GLIP_LABEL_LABEL_STUDIO_TOKEN is refused", 403: "the token's owner may not see this"}
        reason = cure.get(answer.status_code, "is this its address?")
        raise LabelStudioError(f"Label Studio at {self._url} answered HTTP {answer.status_code} to {path}: {reason}")

    @contextmanager
    def _understood(self) -> Iterator[None]:
        try:
            yield
        except UsageError as error:
            raise LabelStudioError(f"Label Studio at {self._url} answered something unexpected: {error}") from error


def _look(row: Mapping[str, object], project_id: int) -> TaskLook:
    task = parse_task(row, "a task")
    annotations, problems = [], []
    for item in mappings(row.get("annotations") or [], f"'annotations' of task {task.id}"):
        try:
            annotations.append(parse_annotation({"task": task.id, **item}, project_id))
        except UsageError as error:
            problems.append(f"task {task.id}: {error}")
    return TaskLook(task, tuple(annotations), tuple(problems))
