"""``glip-label demo``, as far as it can be held to without a Label Studio."""

import pytest

from backend.commands.demo import service_environment
from backend.settings import Settings


def test_the_demos_service_asks_label_studio_for_nothing_that_it_was_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BASIC_AUTH_USER", "BASIC_AUTH_PASSWORD", "WEBHOOK_SECRET"):
        monkeypatch.setenv(f"GLIP_LABEL_{name}", "s3cret")
    settings = Settings.from_env(service_environment({"LABEL_STUDIO_URL": "http://127.0.0.1:8080"}))
    assert (settings.basic_auth, settings.webhook_secret) == (None, None)
    assert settings.label_studio_url == "http://127.0.0.1:8080"
