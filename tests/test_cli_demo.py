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


@pytest.mark.parametrize(("typed", "complaint"), [("a.png", "is a file"), ("*", "does not exist")])
def test_only_a_folder_of_pictures_is_one(
    typed: str, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GLIP_LABEL_HOME", str(tmp_path / "home"))
    (tmp_path / "a.png").write_bytes(image_bytes())
    words = ["--images", str(tmp_path / typed), "--scenes", "1", "--label-studio", "/bin/false"]
    assert run(["demo", *words]) == 2
    assert f"{typed}' {complaint}" in capsys.readouterr().err
