"""Which project a person means."""

from collections.abc import Iterable

from backend.domain.facts import ProjectState
from backend.errors import UsageError


def find_project(projects: Iterable[ProjectState], wanted: str) -> ProjectState:
    """Find a project by its title, by Label Studio's id, or by ``ID.CREATED`` where several share an id.

    Raises:
        UsageError: none is called so, or several are; the message tells which there are.
    """
    known = list(projects)
    found = [each for each in known if wanted in (each.title, str(each.id), each.uid)]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(f"{each.title!r} ({each.uid})" for each in found or known)
    if found:
        raise UsageError(f"several projects are called {wanted!r}: name one by the number in brackets of {listed}")
    there = f"there are {listed}" if known else "none has sent anything to this database: run `glip-label connect`"
    raise UsageError(f"no project {wanted!r} is known: {there}")
