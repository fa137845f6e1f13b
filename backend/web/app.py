"""The Flask application: what holds for every request."""

import base64
import hmac
import logging
from time import perf_counter
from uuid import uuid4

from flask import Flask, Response, g, jsonify, request
from werkzeug.exceptions import HTTPException

from backend.bootstrap import Backend
from backend.errors import GlipLabelError
from backend.web.label_studio import label_studio_routes
from backend.web.lines import one_line
from backend.web.training import training_routes
from integrations.label_studio.events import SECRET_HEADER

MAX_BODY = 64_000_000

log = logging.getLogger("glip_label.web")


def create_app(backend: Backend) -> Flask:
    """Make the WSGI application. Errors are JSON with one line and a request id; bodies and tokens are never logged."""
    app = Flask("glip-label", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.register_blueprint(label_studio_routes(backend))
    app.register_blueprint(training_routes(backend))

    @app.before_request
    def begin() -> Response | None:
        g.begun = perf_counter()
        g.request_id = uuid4().hex[:12]
        g.facts = {}
        if _may_come_in(backend):
            return None
        if backend.basic_auth is None:
            return _failure(
                401,
                f"events must carry the header {SECRET_HEADER}: run `glip-label connect` again (Start Training never "
                "carries it: set GLIP_LABEL_BASIC_AUTH_USER and GLIP_LABEL_BASIC_AUTH_PASSWORD for serve and connect)",
            )
        response = _failure(401, "this service asks for its user name and password (basic auth)")
        response.headers["WWW-Authenticate"] = 'Basic realm="glip-label"'
        return response

    @app.after_request
    def end(response: Response) -> Response:
        response.headers["X-Request-ID"] = g.request_id
        facts = "".join(f" {key}={value}" for key, value in g.facts.items())
        milliseconds = 1000 * (perf_counter() - g.begun)
        path = request.path[:100].encode("unicode_escape").decode()
        log.info("%s %s %s %s%s ms=%.0f", g.request_id, request.method, path, response.status_code, facts, milliseconds)
        return response

    @app.errorhandler(GlipLabelError)
    def refuse(error: GlipLabelError) -> Response:
        g.facts["error"] = f'"{one_line(str(error))}"'
        response = _failure(error.status, str(error))
        # Label Studio shows people the status line of a failed request, not its body.
        response.status = f"{error.status} {one_line(str(error)).encode('ascii', 'replace').decode()[:300]}"
        return response

    @app.errorhandler(HTTPException)
    def refuse_request(error: HTTPException) -> Response:
        return _failure(error.code or 500, f"{error.name}: {request.method} {request.path[:100]}")

    @app.errorhandler(Exception)
    def fail(error: Exception) -> Response:
        log.error("%s failed by a defect of glip-label", g.request_id, exc_info=error)
        return _failure(500, f"a defect of glip-label: its log tells more under request id {g.request_id}")

    return app


def _failure(status: int, message: str) -> Response:
    response = jsonify({"error": one_line(message), "request_id": g.request_id})
    response.status_code = status
    return response


def _may_come_in(backend: Backend) -> bool:
    if backend.webhook_secret is not None and request.path == "/webhook":
        given = request.headers.get(SECRET_HEADER, "")
        if hmac.compare_digest(given.encode(), backend.webhook_secret.encode()):
            return True
        return backend.basic_auth is not None and _is_authorized(backend.basic_auth)
    return backend.basic_auth is None or _is_authorized(backend.basic_auth)


def _is_authorized(expected: tuple[str, str]) -> bool:
    kind, _, value = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() != "basic":
        return False
    try:
        given = base64.b64decode(value.strip(), validate=True)
    except ValueError:  # no base64, or not even ASCII
        return False
    return hmac.compare_digest(given, ":".join(expected).encode())
