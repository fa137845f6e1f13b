"""Connecting, against a Label Studio kept in memory that answers as recorded ones did."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from label_studio_sdk import LabelStudio

from backend.errors import LabelStudioError
from integrations.label_studio.connect import Backend, connect, follow

URL = "http://127.0.0.1:9090"
WEBHOOK = URL + "/webhook"
VERSION = "glip-nano"


@dataclass
class InMemoryLabelStudio:
    """Keeps ML backend and webhook rows, and one project; ``refusal`` is its answer to a new ML backend."""

    refusal: tuple[int, dict[str, Any]] | None = None
    keeps_row_when_refusing: bool = False
    takes_webhooks: bool = True
    backends: dict[int, dict[str, Any]] = field(default_factory=dict)
    webhooks: dict[int, dict[str, Any]] = field(default_factory=dict)
    project: dict[str, Any] = field(default_factory=lambda: {"id": 1, "model_version": ""})
    ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def client(self) -> LabelStudio:
        transport = httpx.MockTransport(self.answer)
        http = httpx.Client(transport=transport)
        return LabelStudio(base_url="http://ls", api_key="0" * 40, httpx_client=http)

    def add_backend(self, url: str) -> dict[str, Any]:
        number = next(self.ids)
        row = {"id": number, "project": 1, "url": url, "title": "old", "model_version": VERSION}
        self.backends[number] = row
        return row

    def add_webhook(self, url: str) -> dict[str, Any]:
        number = next(self.ids)
        row: dict[str, Any] = {"id": number, "project": 1, "url": url, "headers": {}}
        self.webhooks[number] = row
        return row

    def answer(self, request: httpx.Request) -> httpx.Response:
        parts = [part for part in request.url.path.split("/") if part]
        body = json.loads(request.content) if request.content else {}
        if parts[:2] == ["api", "projects"]:
            self.project |= body
            return httpx.Response(200, json=self.project)
        if parts[1] == "ml" and request.method == "POST":
            return self._new_backend(body)
        rows = self.backends if parts[1] == "ml" else self.webhooks
        if len(parts) == 2 and request.method == "GET":
            return httpx.Response(200, json=list(rows.values()))
        if not self.takes_webhooks and rows is self.webhooks:
            return httpx.Response(400, json={"validation_errors": {"url": ["Enter a valid URL."]}})
        row = self.add_webhook(body["url"]) if len(parts) == 2 else rows[int(parts[2])]
        if request.method == "DELETE":
            del rows[row["id"]]
            return httpx.Response(204)
        row |= body
        return httpx.Response(200, json=row)

    def _new_backend(self, body: dict[str, Any]) -> httpx.Response:
        if self.refusal is None or self.keeps_row_when_refusing:
            row = self.add_backend(body["url"])
            row |= body
        if self.refusal is not None:
            return httpx.Response(self.refusal[0], json=self.refusal[1])
        if self.takes_webhooks:
            self.add_webhook(body["url"].rstrip("/") + "/webhook")
        return httpx.Response(201, json=row)


def test_a_new_backend_is_titled_with_its_version_and_chosen_for_live_predictions() -> None:
    label_studio = InMemoryLabelStudio()

    connection = connect(label_studio.client(), 1, Backend(URL))

    row = label_studio.backends[connection.backend_id]
    assert (connection.model_version, connection.created, connection.remarks) == (VERSION, True, ())
    assert row["title"] == VERSION
    assert row["is_interactive"] is True
    assert label_studio.project["model_version"] == VERSION
    assert label_studio.project["show_collab_predictions"] is True
    assert [hook["url"] for hook in label_studio.webhooks.values()] == [WEBHOOK]


def test_connecting_again_updates_the_row_instead_of_adding_one() -> None:
    label_studio = InMemoryLabelStudio()
    connect(label_studio.client(), 1, Backend(URL))

    connection = connect(label_studio.client(), 1, Backend(URL + "/"))

    assert connection.created is False
    assert len(label_studio.backends) == 1
    assert len(label_studio.webhooks) == 1


def test_basic_auth_stands_on_the_webhook_too() -> None:
    label_studio = InMemoryLabelStudio()

    connect(label_studio.client(), 1, Backend(URL, ("user", "secret")))

    (row,), (hook,) = label_studio.backends.values(), label_studio.webhooks.values()
    assert row["auth_method"] == "BASIC_AUTH"
    assert hook["headers"] == {"Authorization": "Basic dXNlcjpzZWNyZXQ="}


def test_a_secret_stands_on_the_webhook_only() -> None:
    label_studio = InMemoryLabelStudio()

    connect(label_studio.client(), 1, Backend(URL, webhook_secret="s3cret"))

    (row,), (hook,) = label_studio.backends.values(), label_studio.webhooks.values()
    assert row["auth_method"] == "NONE"
    assert hook["headers"] == {"X-Glip-Label-Secret": "s3cret"}
    assert "s3cret" not in repr(Backend(URL, webhook_secret="s3cret"))


def test_a_missing_webhook_is_made_and_doubled_ones_are_removed() -> None:
    without, doubled = InMemoryLabelStudio(), InMemoryLabelStudio()
    without.add_backend(URL)
    doubled.add_backend(URL)
    doubled.add_webhook(WEBHOOK)
    doubled.add_webhook(WEBHOOK)

    for label_studio in (without, doubled):
        connect(label_studio.client(), 1, Backend(URL))
        assert [hook["url"] for hook in label_studio.webhooks.values()] == [WEBHOOK]


def test_another_backend_and_a_left_over_webhook_are_remarked() -> None:
    label_studio = InMemoryLabelStudio()
    other = label_studio.add_backend("http://other:9090")
    label_studio.add_webhook("http://other:9090/webhook")
    gone = label_studio.add_webhook("http://gone:9090/webhook")

    remarks = connect(label_studio.client(), 1, Backend(URL)).remarks

    assert len(remarks) == 2
    assert f"ML backend {other['id']} (http://other:9090) is connected too" in remarks[0]
    assert f"webhook {gone['id']} (http://gone:9090/webhook) belongs to no connected ML backend" in remarks[1]


def test_replace_removes_other_backends_with_their_webhooks_only() -> None:
    label_studio = InMemoryLabelStudio()
    label_studio.add_backend("http://other:9090")
    label_studio.add_webhook("http://other:9090/webhook")
    label_studio.add_webhook("http://chat/notify")

    connect(label_studio.client(), 1, Backend(URL), replace=True)

    assert [row["url"] for row in label_studio.backends.values()] == [URL]
    assert {hook["url"] for hook in label_studio.webhooks.values()} == {"http://chat/notify", WEBHOOK}


def test_where_the_new_backend_is_refused_replace_removes_nothing() -> None:
    label_studio = InMemoryLabelStudio(refusal=(403, BLOCKED))
    label_studio.add_backend("http://other:9090")
    label_studio.add_webhook("http://other:9090/webhook")

    with pytest.raises(LabelStudioError, match="private address"):
        connect(label_studio.client(), 1, Backend(URL), replace=True)

    assert [row["url"] for row in label_studio.backends.values()] == ["http://other:9090"]
    assert [hook["url"] for hook in label_studio.webhooks.values()] == ["http://other:9090/webhook"]


def test_a_host_that_takes_no_webhook_is_connected_with_a_remark() -> None:
    label_studio = InMemoryLabelStudio(takes_webhooks=False)

    connection = connect(label_studio.client(), 1, Backend("http://glip:9090"))

    assert label_studio.project["model_version"] == connection.model_version
    (remark,) = connection.remarks
    assert "no webhook to http://glip:9090" in remark


def validation_error(text: str) -> dict[str, Any]:
    return {"detail": "Validation error", "validation_errors": {"non_field_errors": [text]}}


BLOCKED = {"detail": "URL resolves to a reserved network address (block: 127.0.0.0/8)"}


@pytest.mark.parametrize(
    ("status", "body", "cure"),
    [
        (403, BLOCKED, "start Label Studio with ML_BLOCK_LOCAL_IP=false and SSRF_PROTECTION_ENABLED=false"),
        (500, {"detail": "Can't resolve hostname glip"}, "cannot resolve the host of http://127.0.0.1:9090"),
        (
            400,
            validation_error("Able to connect to ML Server, but authentication parameters were either not provided"),
            "the same GLIP_LABEL_BASIC_AUTH_USER",
        ),
        (
            400,
            validation_error("Can't connect to ML backend http://127.0.0.1:9090, health check failed. Make sure"),
            "gets no answer from http://127.0.0.1:9090",
        ),
        (
            400,
            validation_error("doesn't look like a valid ML backend. Reason: Read timed out. (read timeout=3.0)"),
            "took over 3 s to answer /setup",
        ),
        (
            400,
            validation_error("it doesn't look like a valid ML backend. Reason: 422 Client Error"),
            "check the project's labelling config",
        ),
    ],
)
def test_each_refusal_names_its_cure(status: int, body: dict[str, Any], cure: str) -> None:
    label_studio = InMemoryLabelStudio(refusal=(status, body))

    with pytest.raises(LabelStudioError) as caught:
        connect(label_studio.client(), 1, Backend(URL))

    assert cure in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_half_made_row_is_removed_and_its_cause_named() -> None:
    label_studio = InMemoryLabelStudio(refusal=(403, BLOCKED), keeps_row_when_refusing=True)

    with pytest.raises(LabelStudioError, match="SSRF_PROTECTION_ENABLED=false beside ML_BLOCK_LOCAL_IP=false"):
        connect(label_studio.client(), 1, Backend(URL))

    assert label_studio.backends == {}


def test_a_backend_without_a_version_is_refused() -> None:
    label_studio = InMemoryLabelStudio()
    label_studio.add_backend(URL)["model_version"] = None

    with pytest.raises(LabelStudioError, match="told no model version"):
        connect(label_studio.client(), 1, Backend(URL))


def test_the_rows_of_our_service_follow_the_version_that_it_answers_by_now() -> None:
    server = InMemoryLabelStudio()
    connect(server.client(), 1, Backend(URL, ("me", "pass")))
    other = server.add_backend("http://other:9090") | {"model_version": "theirs"}
    server.backends[other["id"]] = other
    for row in server.backends.values():
        row["model_version"] = "glip-nano-0001" if row["url"] == URL else row["model_version"]

    assert follow(server.client(), 1, "glip-nano-0001", Backend("", ("me", "pass"))) == ([URL], [])
    ours = next(row for row in server.backends.values() if row["url"] == URL)
    assert (ours["title"], server.project["model_version"]) == ("glip-nano-0001", "glip-nano-0001")
    assert (ours["auth_method"], ours["basic_auth_user"]) == ("BASIC_AUTH", "me")
    assert (other["title"], other["model_version"]) == ("old", "theirs")
    assert len(server.webhooks) == 1
    assert follow(server.client(), 1, "glip-nano-0001", Backend("", ("me", "pass"))) == ([], [])


@pytest.mark.parametrize("credentials", [Backend("", ("me", "pass")), Backend("", webhook_secret="s3cret")])
def test_a_backend_that_only_answers_our_version_gets_no_credentials(credentials: Backend) -> None:
    server = InMemoryLabelStudio()
    stranger = server.add_backend("http://stranger:9090")
    server.add_webhook("http://stranger:9090/webhook")["headers"] = {"X-Glip-Label-Secret": "guessed"}
    before = json.dumps([server.backends, server.webhooks])

    assert follow(server.client(), 1, VERSION, credentials) == ([], ["http://stranger:9090"])
    assert json.dumps([server.backends, server.webhooks]) == before
    assert stranger["title"] == "old"


def test_a_service_without_credentials_has_none_to_keep() -> None:
    server = InMemoryLabelStudio()
    server.add_backend(URL)
    assert follow(server.client(), 1, VERSION, Backend("")) == ([URL], [])
