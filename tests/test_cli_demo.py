"""``glip-label demo``, as far as it can be held to without a Label Studio."""

from pathlib import Path

import pytest

from backend.cli import run
from backend.commands.demo import service_environment
from backend.settings import Settings
from tests.make import image_bytes


def test_the_demos_service_asks_label_studio_for_nothing_that_it_was_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BASIC_AUTH_USER", "BASIC_AUTH_PASSWORD", "WEBHOOK_SECRET"):
        monkeypatch.setenv(f"GLIP_LABEL_{name}", "s3cret")
    settings = Settings.from_env(service_environment({"LABEL_STUDIO_URL": "http://127.0.0.1:8080"}))
    assert (settings.basic_auth, settings.webhook_secret) == (None, None)
    assert settings.label_studio_url == "http://127.0.0.1:8080"


def test_a_single_picture_is_no_folder_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GLIP_LABEL_HOME", str(tmp_path / "home"))
    picture = tmp_path / "a.png"
    picture.write_bytes(image_bytes())
    assert run(["demo", "--images", str(picture), "--scenes", "1", "--label-studio", "/bin/false"]) == 2
    assert "a.png' is a file" in capsys.readouterr().err
