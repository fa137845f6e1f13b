"""Label Studio's requests parsed once into records, and our answers to them."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from backend.domain.records import Prediction
from backend.errors import GlipLabelError, ImageError, UsageError
from integrations.label_studio.fields import mapping, optional_number
from integrations.label_studio.labels import ImageTarget
from integrations.label_studio.regions import Json, region_to_json


@dataclass(frozen=True, slots=True)
class TaskPayload:
    """A task as sent: its id, and its data with the references to its images."""

    id: int
    data: Mapping[str, object]

    def reference(self, target: ImageTarget) -> str:
        """Where the target's image is.

        Raises:
            ImageError: the task's data has no text under the target's key.
        """
        value = self.data.get(target.data_key)
        if not isinstance(value, str) or not value.strip():
            raise ImageError(f"task {self.id} has no image under {target.data_key!r} in its data")
        return value


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """Body of ``POST /predict``; ``context`` holds the items a person just drew or typed, empty for a batch."""

    project: str
    project_id: int
    label_config: str
    tasks: tuple[TaskPayload, ...]
    context: tuple[Mapping[str, object], ...]


@dataclass(frozen=True, slots=True)
class SetupRequest:
    """Body of ``POST /setup``, without the host name and the token in it, which are not trusted."""

    project: str | None
    score_threshold: float | None
    label_config: str


def parse_predict(body: object) -> PredictRequest:
    """Read the body of ``POST /predict``.

    Raises:
        UsageError: a field is missing or of the wrong kind; the message names it, never its content.
    """
    fields = mapping(body, "the body")
    tasks = fields.get("tasks")
    if not isinstance(tasks, list):
        raise UsageError("'tasks' must be a list of tasks")
    config = fields.get("label_config")
    if not isinstance(config, str):
        raise UsageError("'label_config' must be the project's labelling config")
    project = _project(fields.get("project"))
    if project is None:
        raise UsageError("'project' must be the project's id, as in \"7.1795423412\"")
    context = mapping(fields.get("params") or {}, "'params'").get("context") or {}
    items = mapping(context, "'params.context'").get("result") or []
    if not isinstance(items, list):
        raise UsageError("'params.context.result' must be a list")
    return PredictRequest(
        project=project,
        project_id=int(project.partition(".")[0]),
        label_config=config,
        tasks=tuple(_task(task, index) for index, task in enumerate(tasks)),
        context=tuple(mapping(item, "an item of 'params.context.result'") for item in items),
    )


def parse_setup(body: object) -> SetupRequest:
    """Read the body of ``POST /setup``: the project, and ``threshold`` out of ``extra_params`` where it is given.

    Raises:
        UsageError: the body is no object, or the threshold is none.
    """
    fields = mapping(body, "the body")
    extra = fields.get("extra_params")
    if isinstance(extra, str):
        try:
            extra = json.loads(extra) if extra.strip() else None
        except (ValueError, RecursionError):
            raise UsageError("'extra_params' must be a JSON object, as in {\"threshold\": 0.3}") from None
    given = mapping(extra or {}, "'extra_params'").get("threshold")
    threshold = optional_number(given)
    if given is not None and (threshold is None or not 0 <= threshold <= 1):
        raise UsageError("'threshold' in 'extra_params' must be a number from 0 to 1")
    schema = fields.get("schema")
    return SetupRequest(
        project=_project(fields.get("project")),
        score_threshold=threshold,
        label_config=schema if isinstance(schema, str) else "",
    )


def prediction_to_json(parts: Sequence[tuple[ImageTarget, Prediction]]) -> Json:
    """Answer one task: the regions of all its images (at least one), by one model version, and its score in ``[0, 1]``.

    Ordered by rising score ("Uncertainty sampling"), people see first what they learn most from per second: the score
    is the lowest order of the task's images. Where that was not worked out, it is the mean of the regions' scores, 0
    where nothing was found, so that they see first what the model is least sure of.
    """
    regions = [
        region_to_json(region, prediction, target) for target, prediction in parts for region in prediction.regions
    ]
    scores = [region.score for _, prediction in parts for region in prediction.regions]
    orders = [prediction.order for _, prediction in parts if prediction.order is not None]
    score = min(orders) if orders else fmean(scores) if scores else 0.0
    return {"result": regions, "score": score, "model_version": parts[0][1].model_version}


def failure_to_json(task_id: int, error: GlipLabelError) -> Json:
    """Answer a task that could not be looked at.

    There is no ``result`` key on purpose: Label Studio then stores nothing for this task, logs the whole answer, and
    asks for the task again next time. An empty ``result`` would be kept as "nothing to be found here".
    """
    return {"task": task_id, "error": str(error)}


def _task(value: object, index: int) -> TaskPayload:
    fields = mapping(value, f"task number {index + 1}")
    number = fields.get("id")
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 2**31:
        raise UsageError(f"task number {index + 1} has no id")
    data = fields.get("data")
    return TaskPayload(number, data if isinstance(data, dict) else {})


def _project(value: object) -> str | None:
    text = str(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else ""
    return text if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,20})?", text) else None
