"""Which tasks people should do next."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from backend.analysis.acquisition import Acquisition, Candidate, choose_batch, label_weights
from backend.analysis.expected_seconds import fit_expectation
from backend.domain.facts import ProjectState
from backend.domain.fits import Fit
from backend.domain.records import Proposal
from backend.domain.review import LABEL_STUDIO, Judgement
from backend.ports import UnitOfWork
from backend.services.fitting import MOST, judgements_of
from backend.services.ordering import RANDOM_SHARE, is_random, place

_EVERY = round(1 / RANDOM_SHARE)


@dataclass(frozen=True, slots=True)
class NextBatch:
    """Tasks that nobody reviewed yet.

    Attributes:
        tasks: Label Studio's ids, in the order in which they are best done.
        drawn: those among them that chance chose.
        waiting: how many tasks nobody reviewed yet, nor skipped.
        unpredicted: how many of these the version in production was not asked about: only chance chooses them.
    """

    tasks: tuple[int, ...]
    drawn: frozenset[int]
    waiting: int
    unpredicted: int


def next_batch(unit_of_work: Callable[[], UnitOfWork], project: ProjectState, version: str, size: int) -> NextBatch:
    """Choose the tasks that stand for what the model is unsure of, short and long ones; every fifth by chance.

    Chance chooses all of them until people kept some of what was shown, and where the last fit found that the order
    does not pay.

    Args:
        version: whose predictions count, most often that in production.

    Raises:
        StorageError: the database cannot be read.
    """
    with unit_of_work() as unit:
        done = unit.corrections.tasks_by_annotation(project.uid).values()
        waiting = unit.corrections.live_tasks(project.uid).difference(done)
        reviewed = unit.corrections.tasks_by_annotation(project.uid, skipped=False).values()
        counted = waiting.union(reviewed)  # of what was skipped or deleted nothing was learnt
        fit = unit.fits.newest(project.uid, version)
        judgements = judgements_of(unit.corrections.judged(project.uid, version, MOST))
        predicted: dict[int, tuple[Proposal, ...]] = {}
        for each in unit.predictions.newest_by_picture(project.uid, version):
            if each.task_id in counted:
                predicted[each.task_id] = predicted.get(each.task_id, ()) + each.proposals
    picked = choose(project.uid, waiting, predicted, fit, judgements, size)
    drawn = frozenset(task for task, is_drawn in picked.items() if is_drawn)
    return NextBatch(tuple(picked), drawn, len(waiting), len(waiting - predicted.keys()))


def choose(
    project: str,
    waiting: Collection[int],
    predicted: Mapping[int, Sequence[Proposal]],
    fit: Fit | None,
    judgements: Sequence[Judgement],
    size: int,
) -> dict[int, bool]:
    """Choose from the waiting tasks; True stands beside those that chance chose.

    Scores of a model that nobody judged are no probabilities, and tell nothing about what it would learn from. While
    tasks are chosen, what chance chooses beside them are those that are random for good, which therefore last as long.

    Args:
        project: ``ID.CREATED``, on which chance depends.
        predicted: what the version in production finds in some of the waiting and of the reviewed tasks.
        fit: what its scores mean. Where there is none, or it has no order, chance chooses all.
        judgements: what became of it.
    """
    by_chance = sorted(waiting, key=lambda task: place(project, task))
    if fit is None or not fit.ordering:
        return dict.fromkeys(by_chance[:size], True)
    acquisition = Acquisition(
        fit_expectation(judgements, fit.calibration),
        fit.thresholds,
        LABEL_STUDIO,
        label_weights(judgements, fit.calibration),
    )
    everything = {task: Candidate(str(task), tuple(proposals)) for task, proposals in predicted.items()}
    candidates = [each for task, each in everything.items() if task in waiting and not is_random(project, task)]
    known = [each for task, each in everything.items() if task not in waiting]
    wanted = size - size // _EVERY  # chance chooses the others
    urgent = [int(task) for task in choose_batch(candidates, wanted, acquisition, known)]
    drawn = [task for task in by_chance if is_random(project, task)]
    others = [task for task in by_chance if not is_random(project, task)]
    return {task: task not in urgent for task in _mixed([*urgent, *others, *drawn], [*drawn, *others], size)}


def _mixed(most: Iterable[int], fifth: Iterable[int], size: int) -> list[int]:
    """Take every fifth task from ``fifth`` and the others from ``most``; both hold all tasks."""
    picked: dict[int, None] = {}
    sources = iter(most), iter(fifth)
    for turn in range(size):
        task = next((task for task in sources[turn % _EVERY == _EVERY - 1] if task not in picked), None)
        if task is not None:
            picked[task] = None
    return list(picked)
