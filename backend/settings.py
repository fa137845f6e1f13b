"""All that the environment decides, read once; every variable starts with ``GLIP_LABEL_``."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from platformdirs import user_data_path

from backend.domain.review import FIRST_THRESHOLD
from backend.errors import UsageError

PREFIX = "GLIP_LABEL_"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the service and the commands run with. Secrets are left out of ``repr``.

    Attributes:
        home: folder of all that is kept: database, versions, images, pulled models, caches, jobs at work, the demo.
        database_url: SQLAlchemy URL; a SQLite file in ``home`` by default.
        model: name of a bundled or pulled model, or a folder.
        device: torch device, or None for a GPU where there is one.
        label_studio_url: where this service reaches Label Studio, with a sub-path where it has one.
        label_studio_token: legacy token or personal access token; goes to ``label_studio_url`` only.
        host, port: where the service listens.
        basic_auth: user and password that every request must carry, or None.
        webhook_secret: what an event must carry in the header X-Glip-Label-Secret, unless it has the basic auth.
        image_hosts: hosts (``name`` or ``name:port``) that may have private addresses.
        score_threshold: lowest score of a proposed box where a project does not say otherwise, in ``[0, 1]``.
        sync_minutes: how often the worker polls Label Studio for what events did not tell; 0 for never.
        train_after: how many new annotations make training due; 0 for never.
        train_hours: how often training is due where anything is new; 0 for never.
        train_minutes: how long a training may take at most; 0 for what suits the device.
        overlapping_labels: an object may have several labels, and be proposed with each of them.
        box_voting: boxes lie where all that agree with them lie in the mean, other than the official network's; nothing
            in the environment changes it.
        mirrored: pictures are looked at in the mirror, too, which makes boxes better and takes twice as long.
        correct_edges: learn how people always move the edges of boxes, and move them so before they are shown.
        predict_seconds: a batch stops after this long and answers what it has (Label Studio hangs up after 100).
    """

    home: Path
    database_url: str = field(repr=False)
    model: str = "glip-nano"
    device: str | None = None
    label_studio_url: str | None = None
    label_studio_token: str | None = field(default=None, repr=False)
    host: str = "127.0.0.1"
    port: int = 9090
    basic_auth: tuple[str, str] | None = field(default=None, repr=False)
    webhook_secret: str | None = field(default=None, repr=False)
    image_hosts: frozenset[str] = frozenset()
    score_threshold: float = FIRST_THRESHOLD
    predict_seconds: float = 85.0
    sync_minutes: float = 10.0
    train_after: int = 25
    train_hours: float = 0.0
    train_minutes: float = 0.0
    correct_edges: bool = False
    overlapping_labels: bool = False
    box_voting: bool = True
    mirrored: bool = True

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None) -> "Settings":
        """Read ``GLIP_LABEL_*`` from the given mapping, or from the process's environment.

        Raises:
            UsageError: a number is none or out of range, or one half of the basic auth pair is missing, or not ASCII.
        """
        given = os.environ if environment is None else environment
        values = {key.removeprefix(PREFIX): value for key, value in given.items() if key.startswith(PREFIX) and value}
        home = Path(values["HOME"]).expanduser() if "HOME" in values else user_data_path("glip-label")
        return cls(
            home=home,
            database_url=values.get("DATABASE_URL", sqlite_url(home / "glip-label.sqlite3")),
            model=values.get("MODEL", _default("model")),
            device=values.get("DEVICE"),
            label_studio_url=_base_url(values.get("LABEL_STUDIO_URL")),
            label_studio_token=_header_value(values, "LABEL_STUDIO_TOKEN"),
            host=values.get("HOST", _default("host")),
            port=_whole_number(values, "PORT", 65535),
            basic_auth=_basic_auth(values),
            webhook_secret=_header_value(values, "WEBHOOK_SECRET"),
            image_hosts=frozenset(host.strip().lower() for host in values.get("IMAGE_HOSTS", "").split(",")) - {""},
            score_threshold=_number(values, "SCORE_THRESHOLD", 1.0),
            sync_minutes=_number(values, "SYNC_MINUTES", 10080.0),
            train_after=_whole_number(values, "TRAIN_AFTER", 10**9),
            train_hours=_number(values, "TRAIN_HOURS", 8760.0),
            train_minutes=_number(values, "TRAIN_MINUTES", 1e6),
            correct_edges=_switch(values, "CORRECT_EDGES"),
            overlapping_labels=_switch(values, "OVERLAPPING_LABELS"),
            mirrored=_switch(values, "MIRRORED"),
            predict_seconds=_number(values, "PREDICT_SECONDS", 86400.0),
        )

    @property
    def models_folder(self) -> Path:
        """Where pulled models live, one folder each."""
        return self.home / "models"


def address(host: str, port: int) -> str:
    """Write where a service is reached; an IPv6 address stands in brackets."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def child_environment(**values: str) -> dict[str, str]:
    """Return this process's environment for a child, with ``GLIP_LABEL_`` values written over it; "" unsets one."""
    return {**os.environ, **{PREFIX + name: value for name, value in values.items()}}


def _default(field_name: str) -> Any:
    return next(each.default for each in fields(Settings) if each.name == field_name)


def _number(values: Mapping[str, str], name: str, largest: float) -> float:
    try:
        number = float(values.get(name, _default(name.lower())))
    except ValueError:
        number = -1.0
    if not 0.0 <= number <= largest:
        raise UsageError(f"{PREFIX}{name} must be a number from 0 to {largest:g}, not {values[name]!r}")
    return number


def _whole_number(values: Mapping[str, str], name: str, largest: int) -> int:
    number = _number(values, name, largest)
    if number != int(number):
        raise UsageError(f"{PREFIX}{name} must be a whole number, not {values[name]!r}")
    return int(number)


def _switch(values: Mapping[str, str], name: str) -> bool:
    value = values.get(name)
    if value is None:
        return bool(_default(name.lower()))
    if value not in ("0", "1"):
        raise UsageError(f"{PREFIX}{name} must be 1 (on) or 0 (off), not {value!r}")
    return value == "1"


def _header_value(values: Mapping[str, str], name: str) -> str | None:
    value = values.get(name)
    if value is not None and not re.fullmatch("[!-~]+", value):
        raise UsageError(f"{PREFIX}{name} must be letters, digits and signs of ASCII, without spaces and line breaks")
    return value


def sqlite_url(file: Path) -> str:
    """The URL of a SQLite file; SQLAlchemy decodes it, and a folder may be called ``feature%2Fx``."""
    return "sqlite:///" + str(file.absolute()).replace("%", "%25").replace("?", "%3F")


def _base_url(url: str | None) -> str | None:
    if url is None:
        return None
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"{PREFIX}LABEL_STUDIO_URL must start with http:// or https://, not {url!r}")
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0 and not re.search(r"\s", url)
    except ValueError:  # no number, or one half of the brackets
        usable = False
    if not usable:  # the address may hold a password
        raise UsageError(f"{PREFIX}LABEL_STUDIO_URL must be a host with its port, such as http://localhost:8080")
    return url.rstrip("/")


def _basic_auth(values: Mapping[str, str]) -> tuple[str, str] | None:
    user, password = values.get("BASIC_AUTH_USER"), values.get("BASIC_AUTH_PASSWORD")
    if user is None and password is None:
        return None
    if user is None or password is None:
        raise UsageError(f"set both {PREFIX}BASIC_AUTH_USER and {PREFIX}BASIC_AUTH_PASSWORD, or neither")
    if not (user + password).isascii():  # Label Studio sends these in Latin-1, or cannot send them at all
        raise UsageError(f"{PREFIX}BASIC_AUTH_USER and {PREFIX}BASIC_AUTH_PASSWORD must be letters and signs of ASCII")
    return user, password
