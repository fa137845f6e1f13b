"""A private Label Studio, headless and on loopback, for the demo and the end-to-end tests.

Facts of Label Studio 1.23 that shape this module: the user's token is applied only when the user is first
made, so it is kept beside the database; a busy port silently becomes the next one, so the port is chosen
here; a backend on a loopback address is refused unless both address checks are switched off.
"""

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from backend.errors import LabelStudioError
from integrations.processes import LOOPBACK, child_server, free_port

_DATABASE = "label_studio.sqlite3"


@dataclass(frozen=True, slots=True)
class Account:
    """The administrator of a private Label Studio; ``token`` is a legacy token (40 hexadecimal digits)."""

    email: str
    password: str
    token: str


@dataclass(frozen=True, slots=True)
class RunningLabelStudio:
    """A Label Studio that answers: ``files`` is the folder that ``/data/local-files/?d=`` is relative to."""

    url: str
    account: Account
    files: Path


@contextmanager
def label_studio_server(executable: Path, data: Path, *, port: int = 0) -> Iterator[RunningLabelStudio]:
    """Run Label Studio for the length of a ``with`` block; its database stays in ``data`` for the next time.

    Args:
        executable: the ``label-studio`` command of the environment that Label Studio is installed in.
        data: folder for its database, uploads, log and account; made if it is missing.
        port: preferred port; another free one is taken where it is busy.

    Raises:
        LabelStudioError: there is no such executable.
        ServerStartError: it ended early or never answered.
    """
    _check_installed(executable)
    # Only the owner may look inside: the folder holds the account and the database.
    data.mkdir(parents=True, exist_ok=True)
    data.chmod(0o700)  # also where it was there already, as with the demo's pictures
    files, log = data / "files", data / "server.log"
    files.mkdir(exist_ok=True)
    account = _kept_account(data / "account.json")
    chosen = free_port(port)
    url = f"http://{LOOPBACK}:{chosen}"
    command = [str(executable), "start", "--no-browser", "--internal-host", LOOPBACK, "--port", str(chosen)]
    environment = _environment(executable, data) | {
        "LABEL_STUDIO_USERNAME": account.email,
        "LABEL_STUDIO_PASSWORD": account.password,
        "LABEL_STUDIO_USER_TOKEN": account.token,
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(files.resolve()),
        "ML_BLOCK_LOCAL_IP": "false",
        "SSRF_PROTECTION_ENABLED": "false",
    }
    with child_server(command, health_url=f"{url}/health", log=log, environment=environment):
        yield RunningLabelStudio(url, account, files)


def copy_empty_database(executable: Path, kept: Path, data: Path) -> None:
    """Put a migrated database without users into ``data``: a start from it takes seconds instead of a minute.

    ``kept`` is the folder that keeps the original; it is made on the first call.
    """
    _check_installed(executable)
    original = kept / _DATABASE
    if not original.exists():
        making = kept / "making"
        making.mkdir(parents=True, exist_ok=True)
        # Every sub-command migrates first, and this one makes no user.
        subprocess.run(  # noqa: S603 - no shell, the caller chose the program
            [str(executable), "version"],
            env=_environment(executable, making),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        (making / _DATABASE).replace(original)
        shutil.rmtree(making)
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.copyfile(original, data / _DATABASE)


def _check_installed(executable: Path) -> None:
    if not executable.is_file():
        raise LabelStudioError(f"no Label Studio at {executable}: install it with `make label-studio`")


def _environment(executable: Path, data: Path) -> dict[str, str]:
    # Nothing is inherited: LABEL_STUDIO_* meant for a backend, or DEBUG, would change what the server does.
    return {
        "PATH": f"{executable.parent}{os.pathsep}{os.defpath}",
        "HOME": str(data.resolve()),
        "LANG": "C.UTF-8",
        "LABEL_STUDIO_BASE_DATA_DIR": str(data.resolve()),
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        "DEBUG": "false",
        "LOG_LEVEL": "WARNING",
    }


def _kept_account(path: Path) -> Account:
    if path.exists():
        return Account(**json.loads(path.read_text()))
    account = Account("admin@example.com", secrets.token_urlsafe(9), secrets.token_hex(20))
    path.write_text(json.dumps(asdict(account)))
    return account
