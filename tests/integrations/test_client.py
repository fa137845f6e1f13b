"""Credentials: legacy tokens as they are, personal access tokens exchanged and renewed."""

import json

import pytest

from backend.errors import LabelStudioError
from integrations.label_studio.client import LabelStudioCredentials
from tests.sites import Answer, running_site, sends

PAT = "header.payload.signature"


def test_a_legacy_token_is_sent_as_it_is() -> None:
    assert LabelStudioCredentials("http://127.0.0.1:9", "a" * 40).header() == "Token " + "a" * 40


def test_without_a_token_nothing_is_sent() -> None:
    assert LabelStudioCredentials("http://127.0.0.1:9", None).header() is None


def test_a_personal_access_token_is_exchanged_once_and_renewed_before_it_expires() -> None:
    now = 0.0
    with running_site() as label_studio:
        credentials = LabelStudioCredentials(label_studio.url, PAT, clock=lambda: now)
        label_studio.answers["/api/token/refresh/"] = sends(b'{"access": "first"}')
        assert [credentials.header(), credentials.header()] == ["Bearer first", "Bearer first"]
        label_studio.answers["/api/token/refresh/"] = sends(b'{"access": "second"}')
        now = 299.0
        assert credentials.header() == "Bearer second"
    assert [json.loads(body) for body in label_studio.bodies] == [{"refresh": PAT}] * 2


@pytest.mark.parametrize("answer", [sends(b'{"detail": "no"}', 401), sends(b"{}"), sends(b"", 302, Location="/x")])
def test_a_refused_token_says_where_to_get_another(answer: Answer) -> None:
    with running_site() as label_studio:
        label_studio.answers["/api/token/refresh/"] = answer
        with pytest.raises(LabelStudioError, match="refuses the personal access token") as refused:
            LabelStudioCredentials(label_studio.url, PAT).header()
    assert PAT not in str(refused.value)


@pytest.mark.parametrize("body", [b"<html>", b"[]"])
def test_what_is_no_label_studio_is_said(body: bytes) -> None:
    with running_site() as other:
        other.answers["/api/token/refresh/"] = sends(body)
        with pytest.raises(LabelStudioError, match="is this its address"):
            LabelStudioCredentials(other.url, PAT).header()


def test_a_label_studio_that_is_away_is_said() -> None:
    with pytest.raises(LabelStudioError, match="is it up"):
        LabelStudioCredentials("http://127.0.0.1:9", PAT).header()
