"""Which tasks people should do next."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from backend.domain.calibration import Calibration
from backend.domain.facts import ProjectState
from backend.domain.review import ShowThresholds
from backend.ports import UnitOfWork
from backend.services.ordering import RANDOM_SHARE, chance, is_random, urgency

_EVERY = round(1 / RANDOM_SHARE)


@dataclass(frozen=True, slots=True)
class NextBatch:
    """Tasks that nobody reviewed yet.

    Attributes:
        tasks: Label Studio's ids, in the order in which they are best done.
        drawn: those among them that chance chose.
        waiting: how many tasks nobody reviewed yet.
        unpredicted: how many of these the version in production was not asked about: only chance chooses them.
    """

    tasks: tuple[int, ...]
    drawn: frozenset[int]
    waiting: int
    unpredicted: int


def next_batch(
    unit_of_work: Callable[[], UnitOfWork], project: ProjectState, version: str, size: int, threshold: float
) -> NextBatch:
    """Choose the tasks from which a model learns most per second of a person, and every fifth by chance.

    Chance chooses all of them where the last fit found that the order does not pay.

    Args:
        version: whose predictions count, most often that in production.
        threshold: lowest score of shown boxes where nothing was fitted yet.

    Raises:
        StorageError: the database cannot be read.
    """
    with unit_of_work() as unit:
        reviewed = {annotation.task_id for annotation in unit.corrections.current(project.uid)}
        waiting = unit.corrections.live_tasks(project.uid) - reviewed
        fit = unit.fits.newest(project.uid, version)
        predictions = {
            each.task_id: each for each in unit.predictions.newest(project.id, version) if each.task_id in waiting
        }
    calibration = Calibration() if fit is None else fit.calibration
    thresholds = ShowThresholds(threshold) if fit is None else fit.thresholds
    urgencies = {
        task: urgency(prediction.proposals, calibration, thresholds)
        for task, prediction in predictions.items()
        if not is_random(project.uid, task)
    }
    pays = fit is None or bool(fit.ordering)
    urgent = sorted(urgencies, key=lambda task: (-urgencies[task], task)) if pays else []
    by_chance = sorted(waiting, key=lambda task: chance(project.uid, task))
    picked = _mixed(urgent, by_chance, size)
    drawn = frozenset(task for task, is_drawn in picked.items() if is_drawn)
    return NextBatch(tuple(picked), drawn, len(waiting), len(waiting) - len(predictions))


def _mixed(urgent: Iterable[int], by_chance: Iterable[int], size: int) -> dict[int, bool]:
    """Take every fifth task by chance and the others by urgency, as long as there are such; True: by chance."""
    picked: dict[int, bool] = {}
    sources = iter(urgent), iter(by_chance)
    for place in range(size):
        turn = place % _EVERY == _EVERY - 1
        for drawn in (turn, not turn):
            task = next((task for task in sources[drawn] if task not in picked), None)
            if task is not None:
                picked[task] = drawn
                break
    return picked
