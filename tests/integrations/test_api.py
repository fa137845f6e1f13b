"""Label Studio's API: projects by name, sub-paths, and what does not speak JSON."""

import base64
import json
from urllib.parse import urlencode

import pytest

from backend.errors import LabelStudioError
from integrations.label_studio.api import find_project, label_studio_api
from tests.sites import running_site, sends


def token(**claims: object) -> str:
    parts: tuple[dict[str, object], ...] = ({"alg": "HS256", "typ": "JWT"}, {"exp": 32503680000, **claims}, {})
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)


PAT = token(token_type="refresh")


@pytest.mark.filterwarnings("ignore:The `parse_obj` method is deprecated")  # by the SDK
def test_a_personal_access_token_is_exchanged_below_the_sub_path_and_shown_to_nobody_else() -> None:
    with running_site() as host:
        host.answers["/ls/api/token/refresh/"] = sends(json.dumps({"access": token(token_type="access")}).encode())
        host.answers["/ls/api/projects/7/"] = sends(b'{"id": 7}')
        with label_studio_api(f"{host.url}/ls", PAT) as api:
            assert find_project(api, "7") == 7
    assert set(host.paths) == {"/ls/api/token/refresh/", "/ls/api/projects/7/"}


@pytest.mark.parametrize("status", [200, 404, 502])
def test_what_is_no_label_studio_is_said_where_a_personal_access_token_was_to_be_exchanged(status: int) -> None:
    with running_site() as other:
        other.answers["/api/token/refresh/"] = sends(b"<html>", status)
        with (
            pytest.raises(LabelStudioError, match="is this its address") as refused,
            label_studio_api(other.url, PAT) as api,
        ):
            find_project(api, "7")
    assert PAT not in str(refused.value)


@pytest.mark.parametrize("title", ["2024", "street scenes"])
def test_a_project_is_found_by_its_title_also_where_that_is_a_number(title: str) -> None:
    rows = [{"id": 7, "title": title}, {"id": 8, "title": f"{title} 2"}]
    with running_site() as label_studio:
        label_studio.answers["/api/projects/2024/"] = sends(b'{"detail": "Not found."}', 404)
        label_studio.answers[f"/api/projects/?{urlencode({'page': 1, 'title': title})}"] = sends(
            json.dumps({"count": 2, "next": None, "previous": None, "results": rows}).encode()
        )
        with label_studio_api(label_studio.url, "0" * 40) as api:
            assert find_project(api, title) == 7
