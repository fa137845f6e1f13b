"""Registers the service as an ML backend; each way Label Studio refuses becomes one line with its cure.

The backend row is titled with the model version: Label Studio asks for missing predictions only while the
project's ``model_version`` equals a row's *title*, and orders tasks by score only where it equals the
predictions' *version*.
"""

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from dataclasses import replace as replace_fields
from typing import Any

from label_studio_sdk import LabelStudio
from label_studio_sdk.core.api_error import ApiError
from label_studio_sdk.types import MlBackend

from backend.errors import LabelStudioError
from integrations.label_studio.events import SECRET_HEADER


@dataclass(frozen=True, slots=True)
class Backend:
    """The service as Label Studio reaches it.

    ``basic_auth`` is (user, password) where it asks for one; ``webhook_secret`` is what its events must carry.
    """

    url: str
    basic_auth: tuple[str, str] | None = None
    webhook_secret: str | None = field(default=None, repr=False)

    @property
    def webhook_url(self) -> str:
        return self.url.rstrip("/") + "/webhook"

    @property
    def webhook_headers(self) -> dict[str, str]:
        """Label Studio sends events without the row's credentials: they must stand on the webhook itself."""
        headers = {}
        if self.basic_auth is not None:
            headers["Authorization"] = "Basic " + base64.b64encode(":".join(self.basic_auth).encode()).decode()
        if self.webhook_secret is not None:
            headers[SECRET_HEADER] = self.webhook_secret
        return headers


@dataclass(frozen=True, slots=True)
class Connection:
    """What ``connect`` left in Label Studio; ``remarks`` are lines about what is still worth a look."""

    project_id: int
    backend_id: int
    model_version: str
    created: bool
    remarks: tuple[str, ...]


def connect(api: LabelStudio, project_id: int, backend: Backend, *, replace: bool = False) -> Connection:
    """Make ``backend`` the project's source of live predictions; running it again changes nothing.

    Args:
        api: client with the rights to change the project.
        project_id: project to connect.
        backend: the service.
        replace: also remove the project's other ML backends, with the webhooks that pointed to them.

    Raises:
        LabelStudioError: Label Studio refuses; nothing half-made is left behind.
    """
    rows = api.ml.list(project=project_id)
    ours = next((row for row in rows if _webhook_url(row) == backend.webhook_url), None)
    others = [row for row in rows if row is not ours]
    row = _register(api, project_id, backend, ours)
    version = row.model_version
    if not version:
        raise LabelStudioError(f"the backend at {backend.url} told no model version: is it glip-label?")
    if replace:
        _remove(api, project_id, others)
        others = []
    if row.title != version:
        with _explained(backend):
            api.ml.update(_id(row), title=version, **_row_fields(project_id, backend))
    api.projects.update(project_id, show_collab_predictions=True, model_version=version)
    remarks = [*_mend_webhooks(api, project_id, backend), *_remarks(api, project_id, backend, others)]
    return Connection(project_id, _id(row), version, ours is None, tuple(remarks))


def follow(api: LabelStudio, project_id: int, version: str, credentials: Backend) -> tuple[list[str], list[str]]:
    """Make Label Studio show, order by and ask for the version that the service answers with by now.

    Anybody can answer a version that is printed on every prediction: only an ML backend that was connected with the
    service's credentials, as its webhook shows, gets them again.

    Args:
        api: client with the rights to change the project.
        project_id: the project.
        version: what the service answers; ML backends that answer anything else are not ours.
        credentials: what the service asks for; its own URL does not count.

    Returns:
        The addresses of the ML backends that had to follow, and of those that would but do not have the credentials.

    Raises:
        LabelStudioError: Label Studio refuses.
    """
    # Reading the row of a backend makes Label Studio ask it for its version, but may answer with the one before.
    rows = [api.ml.get(_id(row)) for row in api.ml.list(project=project_id)]
    behind = [row for row in rows if row.model_version == version != row.title]
    wanted = credentials.webhook_headers.items()
    hooks = api.webhooks.list(project=str(project_id)) if behind and wanted else []
    trusted = {hook.url for hook in hooks if wanted <= (hook.headers or {}).items()}
    ours = [row.url for row in behind if not wanted or _webhook_url(row) in trusted]
    for url in ours:
        connect(api, project_id, replace_fields(credentials, url=url))
    return ours, [row.url for row in behind if row.url not in ours]


def _register(api: LabelStudio, project_id: int, backend: Backend, row: MlBackend | None) -> MlBackend:
    fields = _row_fields(project_id, backend)
    if row is not None:
        with _explained(backend):
            # A PATCH answers with the state before it asked the backend, hence the second look.
            api.ml.update(_id(row), **fields)
            updated: MlBackend = api.ml.get(_id(row))
            return updated
    try:
        with _explained(backend):
            made: MlBackend = api.ml.create(title="glip-label", **fields)
            return made
    except LabelStudioError as error:
        rows = api.ml.list(project=project_id)
        half_made = [row for row in rows if _webhook_url(row) == backend.webhook_url]
        if not half_made:
            raise
        for row in half_made:
            api.ml.delete(_id(row))
        raise LabelStudioError(
            f"Label Studio accepted {backend.url} for predictions but refused its webhook: start it with "
            "SSRF_PROTECTION_ENABLED=false beside ML_BLOCK_LOCAL_IP=false, then connect again"
        ) from error


def _remove(api: LabelStudio, project_id: int, rows: list[MlBackend]) -> None:
    """Remove ML backends together with their webhooks, which Label Studio would leave behind."""
    for row in rows:
        api.ml.delete(_id(row))
    theirs = {_webhook_url(row) for row in rows}
    for hook in api.webhooks.list(project=str(project_id)):
        if hook.url in theirs:
            api.webhooks.delete(_id(hook))


def _row_fields(project_id: int, backend: Backend) -> dict[str, Any]:
    # Every change is validated as if the row were new, so each has to carry the address and the credentials.
    fields: dict[str, Any] = {"project": project_id, "url": backend.url, "is_interactive": True}
    if backend.basic_auth is None:
        return fields | {"auth_method": "NONE"}
    user, password = backend.basic_auth
    return fields | {"auth_method": "BASIC_AUTH", "basic_auth_user": user, "basic_auth_pass": password}


def _mend_webhooks(api: LabelStudio, project_id: int, backend: Backend) -> Iterator[str]:
    """Leave exactly one active webhook to the backend, with its credentials; yields why there is none."""
    hooks = [hook for hook in api.webhooks.list(project=str(project_id)) if hook.url == backend.webhook_url]
    wanted: dict[str, Any] = {
        "url": backend.webhook_url,
        "headers": backend.webhook_headers,
        "is_active": True,
        "send_payload": True,
        "send_for_all_actions": True,
    }
    try:
        with _explained(backend):
            if hooks:
                api.webhooks.update(_id(hooks[0]), **wanted)
            else:
                api.webhooks.create(project=project_id, **wanted)
    except ApiError as error:
        if error.status_code != 400 or "valid URL" not in str(error.body):
            raise
        # Label Studio predicts with http://name:9090 but takes no webhook to it, and says nothing when it makes none.
        yield (
            f"predictions work, but Label Studio takes no webhook to {backend.url} and will tell nothing about "
            "corrections: give --url an IP address or a host name with a dot"
        )
    for hook in hooks[1:]:
        api.webhooks.delete(_id(hook))


def _remarks(api: LabelStudio, project_id: int, backend: Backend, others: list[MlBackend]) -> list[str]:
    remarks = [
        f"ML backend {row.id} ({row.url}) is connected too, and Label Studio asks only the oldest for "
        "predictions: remove it, or connect with --replace"
        for row in others
    ]
    live = {backend.webhook_url, *(_webhook_url(row) for row in others)}
    remarks += [
        f"webhook {hook.id} ({hook.url}) belongs to no connected ML backend, and people wait for it at every "
        "submit: remove it in the project's settings"
        for hook in api.webhooks.list(project=str(project_id))
        if hook.url.endswith("/webhook") and hook.url not in live
    ]
    return remarks


def _webhook_url(row: MlBackend) -> str:
    return row.url.rstrip("/") + "/webhook"


def _id(row: Any) -> int:
    if row.id is None:
        raise LabelStudioError(f"Label Studio answered a row without an id for {row.url}")
    return int(row.id)


@contextmanager
def _explained(backend: Backend) -> Iterator[None]:
    try:
        yield
    except ApiError as error:
        message = _refusal(error.status_code, str(error.body), backend.url)
        if message is None:
            raise
        raise LabelStudioError(message) from error


def _refusal(status: int | None, body: str, url: str) -> str | None:
    """Say what Label Studio means and what cures it; ``None`` where the answer is not about the backend."""
    for known_status, sign, message in _REFUSALS:
        if status == known_status and sign in body:
            return message.format(url=url)
    return None


_REFUSALS = (
    (
        403,
        "reserved network address",
        "Label Studio refuses the private address {url}: start Label Studio with ML_BLOCK_LOCAL_IP=false and "
        "SSRF_PROTECTION_ENABLED=false (or with USE_DEFAULT_BANNED_SUBNETS=false), then connect again",
    ),
    (
        500,
        "resolve hostname",
        "Label Studio cannot resolve the host of {url}: give --url a name or address that its machine knows",
    ),
    (
        400,
        "authentication parameters",
        "the backend at {url} refuses the user name and password: "
        "give connect the same GLIP_LABEL_BASIC_AUTH_USER and GLIP_LABEL_BASIC_AUTH_PASSWORD as the backend has",
    ),
    (
        400,
        "health check failed",
        "Label Studio gets no answer from {url}: start `glip-label serve`, or give --url the address under "
        "which Label Studio's machine reaches it",
    ),
    (
        400,
        "timed out",
        "the backend at {url} took over 3 s to answer /setup: its machine is overloaded, connect again later",
    ),
    (
        400,
        "look like a valid ML backend",
        "the backend at {url} refused /setup: check the project's labelling config (the backend's log names the fault)",
    ),
)
