"""Label Studio's own API, with the ways it fails turned into one line each."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from json import JSONDecodeError
from typing import Any

import httpx
from label_studio_sdk import LabelStudio
from label_studio_sdk.core.api_error import ApiError

from backend.errors import LabelStudioError

# Retrieving predictions answers when the last of them is stored; Label Studio itself gives up on the backend after 100.
_TIMEOUT = 120.0


@contextmanager
def label_studio_api(url: str | None, token: str | None) -> Iterator[LabelStudio]:
    """Open the API for the length of a ``with`` block.

    Args:
        url: address of Label Studio, with its sub-path where it has one.
        token: legacy token or personal access token.

    Raises:
        LabelStudioError: address or token are missing, or anything done in the block failed: Label Studio is away,
            refuses the token, knows no such thing, or answers an error.
    """
    if url is None:
        raise LabelStudioError("which Label Studio? Set GLIP_LABEL_LABEL_STUDIO_URL, such as http://localhost:8080")
    if token is None:
        raise LabelStudioError(
            "no token for Label Studio: copy one from its Account & Settings and set GLIP_LABEL_LABEL_STUDIO_TOKEN"
        )
    try:
        # The SDK never closes a client that it made itself.
        with httpx.Client(timeout=_TIMEOUT, follow_redirects=True) as http:
            # Without the slash at the end, the SDK would exchange a personal access token above the sub-path.
            yield LabelStudio(base_url=url.rstrip("/") + "/", api_key=token, httpx_client=http)
    except httpx.HTTPError as error:
        raise LabelStudioError(
            f"no answer from Label Studio at {url} ({error}): is it running, and is this its address?"
        ) from error
    except JSONDecodeError as error:  # the SDK lets it pass where a personal access token is to be exchanged
        raise LabelStudioError(f"{url} does not answer as Label Studio does: is this its address?") from error
    except ApiError as error:
        raise LabelStudioError(_failure(url, token, error)) from error


def find_project(api: LabelStudio, project: str) -> int:
    """Return the id of the project with this id or exact title.

    Raises:
        LabelStudioError: no project, or more than one, has the title.
    """
    if project.isdecimal():
        try:
            api.projects.get(int(project))
        except ApiError as error:
            if error.status_code != 404:  # else it may be a title
                raise
        else:
            return int(project)
    rows: Iterable[Any] = api.projects.list(title=project)  # those that contain the title
    found = [int(row.id) for row in rows if row.title == project]
    if len(found) == 1:
        return found[0]
    if not found:
        raise LabelStudioError(
            f"no project that the token's owner may see has the id or title {project!r}: give its id, the number in "
            "its address"
        )
    raise LabelStudioError(f"{len(found)} projects are titled {project!r}: give the id of one of {found}")


def _failure(url: str, token: str, error: ApiError) -> str:
    if error.status_code == 401:
        return _refused_token(url, token)
    if error.status_code == 403:
        return f"Label Studio at {url} does not allow this to the token's owner: take an administrator's token"
    if error.status_code == 404:
        return f"Label Studio at {url} has no such project, or the token's owner may not see it"
    detail = error.body.get("detail") if isinstance(error.body, dict) else None
    return f"Label Studio at {url} answered HTTP {error.status_code}: {detail or 'is this its address?'}"


def _refused_token(url: str, token: str) -> str:
    if token.count(".") == 2:
        return (
            f"Label Studio at {url} refuses the personal access token: it has expired or was revoked; make a new one "
            "under Account & Settings and set GLIP_LABEL_LABEL_STUDIO_TOKEN"
        )
    return (
        f"Label Studio at {url} refuses the legacy token: it is another account's or server's, or the organization "
        "has legacy tokens switched off; a personal access token works too (GLIP_LABEL_LABEL_STUDIO_TOKEN)"
    )
