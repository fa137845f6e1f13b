"""Settings: read once from the environment, secrets kept out of sight."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from backend.errors import UsageError
from backend.settings import Settings, address


def test_the_defaults_need_nothing_set() -> None:
    settings = Settings.from_env({})
    assert (settings.model, settings.host, settings.port) == ("glip-nano", "127.0.0.1", 9090)
    assert settings.database_url == f"sqlite:///{settings.home / 'glip-label.sqlite3'}"
    assert settings == Settings(settings.home, settings.database_url)


def test_variables_with_the_prefix_are_read(tmp_path: Path) -> None:
    settings = Settings.from_env(
        {
            "GLIP_LABEL_HOME": str(tmp_path),
            "GLIP_LABEL_LABEL_STUDIO_URL": "http://ls:8080/",
            "GLIP_LABEL_IMAGE_HOSTS": "Minio:9000, cdn.example.org,",
            "GLIP_LABEL_BASIC_AUTH_USER": "me",
            "GLIP_LABEL_BASIC_AUTH_PASSWORD": "s3cret",
            "GLIP_LABEL_SCORE_THRESHOLD": "0.5",
            "GLIP_LABEL_TRAIN_MINUTES": "2.5",
            "GLIP_LABEL_CORRECT_EDGES": "1",
            "GLIP_LABEL_OVERLAPPING_LABELS": "1",
            "GLIP_LABEL_MIRRORED": "0",
            "GLIP_LABEL_MODEL": "",
            "PORT": "1",
        }
    )
    assert (settings.home, settings.port, settings.model) == (tmp_path, 9090, "glip-nano")
    assert settings.label_studio_url == "http://ls:8080"
    assert settings.image_hosts == {"minio:9000", "cdn.example.org"}
    assert settings.basic_auth == ("me", "s3cret")
    assert (settings.score_threshold, settings.train_minutes) == (0.5, 2.5)
    assert settings.correct_edges
    assert settings.overlapping_labels
    assert not settings.mirrored
    assert Settings.from_env({}).mirrored


def test_secrets_are_not_shown() -> None:
    variables = ("LABEL_STUDIO_TOKEN", "DATABASE_URL", "BASIC_AUTH_USER", "BASIC_AUTH_PASSWORD", "WEBHOOK_SECRET")
    assert "s3cret" not in repr(Settings.from_env({f"GLIP_LABEL_{name}": "s3cret" for name in variables}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("PORT", "65536"),
        ("PORT", "1.5"),
        ("SCORE_THRESHOLD", "nan"),
        ("SCORE_THRESHOLD", "-0.1"),
        ("LABEL_STUDIO_URL", "localhost:8080"),
        ("LABEL_STUDIO_URL", "http://localhost:abc"),
        ("LABEL_STUDIO_URL", "http://localhost:99999"),
        ("LABEL_STUDIO_URL", "http://[::1"),
        ("LABEL_STUDIO_URL", "http://"),
        ("LABEL_STUDIO_URL", "http://local host:8080"),
        ("LABEL_STUDIO_TOKEN", "0123\n4567"),
        ("BASIC_AUTH_USER", "me"),
        ("WEBHOOK_SECRET", "two words"),
        ("SYNC_MINUTES", "-1"),
        ("TRAIN_MINUTES", "long"),
        ("CORRECT_EDGES", "yes"),
        ("WEBHOOK_SECRET", "line\n"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(UsageError, match=f"GLIP_LABEL_{name}"):
        Settings.from_env({f"GLIP_LABEL_{name}": value})


@pytest.mark.parametrize("name", ["LABEL_STUDIO_TOKEN", "WEBHOOK_SECRET"])
def test_a_secret_is_refused_without_its_value(name: str) -> None:
    with pytest.raises(UsageError) as refused:
        Settings.from_env({f"GLIP_LABEL_{name}": "s3cret\nmore"})
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(("user", "password"), [("me", "pässwort"), ("zła", "s3cret")])
def test_a_user_name_or_a_password_that_label_studio_sends_otherwise_is_refused(user: str, password: str) -> None:
    with pytest.raises(UsageError, match=r"GLIP_LABEL_BASIC_AUTH_USER and .* ASCII") as refused:
        Settings.from_env({"GLIP_LABEL_BASIC_AUTH_USER": user, "GLIP_LABEL_BASIC_AUTH_PASSWORD": password})
    assert password not in str(refused.value)


@pytest.mark.parametrize("url", ["http://[::1]:8080", "https://labels.example.org/sub/path", "http://ls"])
def test_an_address_may_have_a_port_and_a_path(url: str) -> None:
    assert Settings.from_env({"GLIP_LABEL_LABEL_STUDIO_URL": url}).label_studio_url == url


@pytest.mark.parametrize(
    ("host", "written"),
    [
        ("127.0.0.1", "http://127.0.0.1:9090"),
        ("::1", "http://[::1]:9090"),
        ("gpu.example.org", "http://gpu.example.org:9090"),
    ],
)
def test_where_the_service_is_reached_can_be_read_back(host: str, written: str) -> None:
    assert address(host, 9090) == written
    parts = urlsplit(written)
    assert (parts.hostname, parts.port) == (host, 9090)
