"""People at work on tasks of 200 x 100 pixels: what was proposed, and what they left of it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from backend.domain.facts import ProjectState
from backend.domain.geometry import Box
from backend.domain.records import Prediction, Proposal, Region
from backend.ports import UnitOfWork
from backend.services.corrections import apply_fact
from tests.facts import PROJECT, annotated, make_annotation
from tests.regions import final

VERSION = "nano-1"


def make_prediction(task_id: int, shown: Iterable[Proposal], version: str = VERSION) -> Prediction:
    name = f"{version}-{task_id}"
    regions = tuple(Region(f"{name}-{index}", each) for index, each in enumerate(shown))
    return Prediction(task_id, version, 200, 100, regions, name)


def predict_all(unit_of_work: Callable[[], UnitOfWork], predictions: Iterable[Prediction]) -> None:
    """Keep what was proposed, for a project that is known, with its tasks."""
    with unit_of_work() as unit:
        apply_fact(unit, replace(annotated(), project=ProjectState(PROJECT.uid, 7, "cats")))
        for prediction in predictions:
            unit.predictions.add(PROJECT.uid, "key", prediction)
        unit.commit()


def submit(
    unit_of_work: Callable[[], UnitOfWork],
    prediction: Prediction,
    kept: Mapping[int, Box],
    drawn: Sequence[tuple[Box, str]] = (),
    lead_time: float | None = None,
) -> None:
    """Leave the regions ``kept`` (by place) where these boxes are, delete the others, and draw some.

    The annotation has the task's number.
    """
    left = [
        final(prediction.regions[place].id, box, prediction.regions[place].proposal.label)
        for place, box in kept.items()
    ]
    left += [final(f"new{index}", box, label) for index, (box, label) in enumerate(drawn)]
    number = prediction.task_id
    annotation = make_annotation(number, 4e9, *left, task_id=number)
    annotation = replace(annotation, created_at=annotation.updated_at, lead_time=lead_time)
    with unit_of_work() as unit:
        apply_fact(unit, annotated(annotation))
        unit.commit()
