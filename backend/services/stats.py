"""How a project's proposals fare with the people who correct them."""

from collections.abc import Callable

from backend.analysis.acceptance import AcceptanceTable, acceptance_table
from backend.ports import UnitOfWork
from backend.services.projects import find_project


def project_stats(unit_of_work: Callable[[], UnitOfWork], project: str) -> AcceptanceTable:
    """Count the verdicts on a project's current annotations.

    Args:
        project: its title or Label Studio's id.

    Raises:
        UsageError: no project is called so, or several are.
        StorageError: the database cannot be read.
    """
    with unit_of_work() as unit:
        uid = find_project(unit.projects.all(), project).uid
        return acceptance_table(unit.corrections.current_verdicts(uid))
