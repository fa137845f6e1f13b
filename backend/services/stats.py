"""How a project's proposals fare with the people who correct them, and what they save them."""

from collections.abc import Callable
from dataclasses import dataclass

from backend.analysis.acceptance import AcceptanceTable, acceptance_table
from backend.analysis.work_saved import WorkSaved, work_saved
from backend.domain.review import LABEL_STUDIO
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
        uid = find_project(unit.projects.all(), project).uid
        verdicts = list(unit.corrections.current_verdicts(uid))
    return ProjectStats(acceptance_table(verdicts), work_saved(verdicts, LABEL_STUDIO))
