"""A project by the name that a person types."""

import pytest

from backend.domain.facts import ProjectState
from backend.errors import UsageError
from backend.services.projects import find_project

STREETS = ProjectState("7.1795423412", 7, "streets")
FIELDS = ProjectState("8.1795423499", 8, "fields")
ELSEWHERE = ProjectState("7.1700000000", 7, "fields")


@pytest.mark.parametrize("wanted", ["streets", "7", "7.1795423412"])
def test_a_project_is_found_by_title_by_id_and_by_its_unique_name(wanted: str) -> None:
    assert find_project([STREETS, FIELDS], wanted) is STREETS


@pytest.mark.parametrize("wanted", ["7", "fields"])
def test_a_name_of_several_projects_is_refused_with_what_tells_them_apart(wanted: str) -> None:
    with pytest.raises(UsageError, match=r"several projects are called .* of .*\(7\.1700000000\)"):
        find_project([STREETS, FIELDS, ELSEWHERE], wanted)
    assert find_project([STREETS, FIELDS, ELSEWHERE], "7.1700000000") is ELSEWHERE


def test_an_unknown_name_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(UsageError, match=r"no project 'cars' is known: there are 'streets' \(7\.1795423412\)"):
        find_project([STREETS], "cars")
    with pytest.raises(UsageError, match="none has sent anything"):
        find_project([], "cars")
