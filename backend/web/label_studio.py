"""The routes that Label Studio calls, and what it makes of the answers.

``/health`` any JSON with status 2xx. ``/setup`` must answer within 3 seconds, so it loads nothing. ``/predict`` one
result per task, in order; a task without the key ``result`` is left alone and asked for again. ``/webhook`` events
are delivered once, a person waits for the answer, and it is ignored: they are only kept here, a worker applies them.
"""

import json
import logging
from collections import deque
from collections.abc import Sequence

from flask import Blueprint, Response, g, jsonify, request

from backend.bootstrap import Backend
from backend.domain.facts import Fact, ProjectState
from backend.domain.learning import TrainingRequest
from backend.domain.records import Look, Prediction, Query
from backend.errors import GlipLabelError, ModelError, UsageError
from backend.services.corrections import apply_fact
from backend.services.predict import Ask
from backend.web.lines import one_line
from integrations.label_studio.events import label_names, parse_event, parse_project
from integrations.label_studio.interactive import read_prompt
from integrations.label_studio.labels import ImageTarget, parse_labeling_config
from integrations.label_studio.payloads import (
    PredictRequest,
    SetupRequest,
    TaskPayload,
    failure_to_json,
    parse_predict,
    parse_setup,
    prediction_to_json,
)
from integrations.label_studio.references import kept_reference

_START_TRAINING = "START_TRAINING"

log = logging.getLogger("glip_label.web")

_Answer = list[tuple[ImageTarget, Prediction]] | GlipLabelError


def label_studio_routes(backend: Backend) -> Blueprint:
    """Make the routes over the service's parts."""
    routes = Blueprint("label_studio", __name__)
    failures: deque[dict[str, object]] = deque(maxlen=20)

    @routes.get("/health")
    def health() -> Response:
        facts = {"model_class": "glip-label", "model": _model_facts(backend), "failed_tasks": list(failures)}
        return jsonify({"status": "UP", **facts})

    @routes.post("/setup")
    def setup() -> Response:
        asked = parse_setup(_body())
        version = backend.production(asked.project).version
        g.facts |= {"project": asked.project, "version": version}
        if asked.project is not None:
            _remember(backend, asked.project, asked)
        return jsonify({"model_version": version})

    @routes.get("/versions")
    def versions() -> Response:
        return jsonify({"versions": backend.production.versions()})

    @routes.post("/predict")
    def predict() -> Response:
        asked = parse_predict(_body())
        g.facts |= {"project": asked.project_id, "tasks": len(asked.tasks)}
        answers = _answers(backend, asked)
        failed = [answer for answer in answers if isinstance(answer, GlipLabelError)]
        failures.extend(_failures(asked, answers))
        if failed and len(failed) == len(answers):
            raise failed[0]
        g.facts["version"] = next((each[0][1].model_version for each in answers if isinstance(each, list)), None)
        results = [
            failure_to_json(task.id, answer) if isinstance(answer, GlipLabelError) else prediction_to_json(answer)
            for task, answer in zip(asked.tasks, answers, strict=True)
        ]
        return jsonify({"results": results})

    @routes.post("/webhook")
    def webhook() -> tuple[Response, int]:
        body = _body()
        if isinstance(body, dict) and body.get("action") == _START_TRAINING:
            g.facts["action"] = _START_TRAINING
            return jsonify(_train(backend, parse_project(body.get("project")))), 200
        event = parse_event(body)
        g.facts["action"] = event.action
        if event.fact.project is not None:
            g.facts["project"] = event.fact.project.id
        backend.corrections.receive(event.action, event.fact)
        return jsonify({"status": "kept" if event.known else "noted"}), 200

    return routes


def _remember(backend: Backend, project: str, asked: SetupRequest) -> None:
    """Keep a project's threshold, and its labels in the order of its labelling config; writes only what is new."""
    names = label_names(asked.label_config)
    with backend.reading() as unit:
        named = set(names) <= set(unit.projects.labels(project))
        same = unit.projects.score_threshold(project) == asked.score_threshold
    if named and same:
        return
    with backend.unit_of_work() as unit:
        unit.corrections.lock()  # the project's first event may be applied now
        if not named:
            told = ProjectState(project, int(project.partition(".")[0]), label_config=asked.label_config, labels=names)
            apply_fact(unit, Fact(told))
        unit.projects.set_score_threshold(project, asked.score_threshold)
        unit.commit()


def _train(backend: Backend, told: ProjectState) -> dict[str, object]:
    """Queue a training job; where a project's job is open already, it is that one. Label Studio keeps its number."""
    with backend.reading() as unit:
        known = unit.projects.state(told.uid) is not None
    if not known:
        raise UsageError(f"project {told.id} has no annotations that this service knows of: annotate, then train")
    job = backend.training.request(told.uid, TrainingRequest("label-studio"))
    g.facts |= {"project": told.id, "job": job.id}
    return {"job": str(job.id), "status": job.state.value}


def _model_facts(backend: Backend) -> dict[str, object]:
    facts: dict[str, object] = {"state": backend.model_state()}
    try:
        facts["version"] = backend.production(None).version
    except ModelError as error:
        facts |= {"version": None, "error": str(error)}
    if backend.model_remark is not None:
        facts["remark"] = backend.model_remark
    return facts


def _answers(backend: Backend, asked: PredictRequest) -> list[_Answer]:
    """Find the predictions of each task, or the error that kept it from one."""
    config = parse_labeling_config(asked.label_config)
    prompt = read_prompt(asked.context, config)
    questions: list[tuple[ImageTarget, Query]] = (
        [(target, target.labels) for target in config.targets] if prompt is None else [(prompt.target, prompt.query)]
    )
    plans = [_plan(asked, task, questions, prompt is not None) for task in asked.tasks]
    outcomes = iter(backend.predict([ask for plan in plans if isinstance(plan, list) for ask in plan]))
    answers: list[_Answer] = []
    for plan in plans:
        if isinstance(plan, GlipLabelError):
            answers.append(plan)
            continue
        parts: list[tuple[ImageTarget, Prediction]] = []
        errors: list[GlipLabelError] = []
        for (target, _), outcome in zip(questions, [next(outcomes) for _ in plan], strict=True):
            if isinstance(outcome, GlipLabelError):
                errors.append(outcome)
            else:
                parts.append((target, outcome if prompt is None else prompt.chosen(outcome)))
        answers.append(errors[0] if errors else parts)
    return answers


def _failures(asked: PredictRequest, answers: Sequence[_Answer]) -> list[dict[str, object]]:
    """Log what failed, count for the request's log line, and return what ``/health`` tells of it."""
    failures: list[dict[str, object]] = []
    regions = 0
    for task, answer in zip(asked.tasks, answers, strict=True):
        if isinstance(answer, GlipLabelError):
            reason = one_line(str(answer))
            failures.append({"project": asked.project_id, "task": task.id, "error": reason})
            log.warning("%s project=%d task=%d failed: %s", g.request_id, asked.project_id, task.id, reason)
        else:
            regions += sum(len(prediction.regions) for _, prediction in answer)
    g.facts |= {"failed": len(failures), "regions": regions}
    return failures


def _plan(
    asked: PredictRequest, task: TaskPayload, questions: Sequence[tuple[ImageTarget, Query]], prompted: bool
) -> list[Ask] | GlipLabelError:
    plan = []
    try:
        for target, query in questions:
            reference = task.reference(target)
            look = Look(target.name, kept_reference(reference.strip()), prompted=prompted)
            plan.append(Ask(asked.project, task.id, reference, query, look))
    except GlipLabelError as error:
        return error
    return plan


def _body() -> object:
    """The request's JSON.

    Raises:
        UsageError: it is none, is nested too deeply, or holds text that is no Unicode; or it is not said to be JSON: a
            page in a browser that is open to anything may send all the rest, but that needs leave.
    """
    if not request.is_json:
        raise UsageError("the body must be sent as application/json")
    try:
        body: object = json.loads(request.get_data())
        json.dumps(body, ensure_ascii=False).encode()  # lone surrogates would break later, in the middle of the work
    except (ValueError, RecursionError):
        raise UsageError("the body is no JSON") from None
    return body
