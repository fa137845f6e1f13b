"""How a project's proposals fare with the people who correct them, and what they save them."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from backend.analysis.acceptance import AcceptanceTable, acceptance_table
from backend.analysis.work_saved import WorkSaved, work_saved
from backend.domain.review import LABEL_STUDIO
from backend.domain.verdicts import Verdict, VerdictKind
from backend.ports import UnitOfWork
from backend.services.projects import find_project


@dataclass(frozen=True, slots=True)
class ProjectStats:
    """What the verdicts on a project's current annotations say."""

    acceptance: AcceptanceTable
    work: WorkSaved

    def to_json(self) -> dict[str, object]:
        return {**self.acceptance.to_json(), "work_saved": self.work.to_json()}


def project_stats(unit_of_work: Callable[[], UnitOfWork], project: str) -> ProjectStats:
    """Count the verdicts on a project's current annotations, and measure the time that proposals saved.

    Args:
        project: its title or Label Studio's id.

    Raises:
        UsageError: no project is called so, or several are.
        StorageError: the database cannot be read.
    """
    with unit_of_work() as unit:
        state = find_project(unit.projects.all(), project)
        prompted = unit.predictions.prompted_regions(state.uid)
        verdicts = list(unit.corrections.current_verdicts(state.uid))
    unasked = (_missed(each) if each.emitted_region in prompted else each for each in verdicts)
    return ProjectStats(acceptance_table(unasked), work_saved(verdicts, LABEL_STUDIO))


def _missed(verdict: Verdict) -> Verdict:
    """What is known of a box that a person asked for: the model did not find it of its own accord.

    It has a verdict only if it was taken, so that it says nothing about precision.
    """
    return replace(
        verdict,
        kind=VerdictKind.ADDED,
        emitted_region=None,
        label_before=None,
        iou=None,
        offsets=None,
        prompt=None,
        score=None,
    )
