"""A real PostgreSQL for the tests, from the machine's own package: in a new folder, on loopback, gone at the end."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from sqlalchemy import create_engine, text

from integrations.processes import LOOPBACK, free_port

_DEBIAN = "/usr/lib/postgresql"
# Nothing has to survive the tests: no waiting for the disk.
_SETTINGS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=60")


def find_binaries() -> Path:
    """The folder of ``initdb`` and its like; Debian keeps them out of the PATH.

    Raises:
        FileNotFoundError: PostgreSQL is not installed.
    """
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    folders = sorted(Path(_DEBIAN).glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not folders:
        raise FileNotFoundError("these tests need a PostgreSQL server: apt-get install postgresql")
    return folders[-1].parent


@contextmanager
def postgresql_server() -> Iterator[str]:
    """Run a server for the length of a ``with`` block; yields its URL up to the database's name."""
    binaries = find_binaries()
    user = _unprivileged_user()
    folder = Path(tempfile.mkdtemp(prefix="glip-label-postgresql-"))
    port = free_port()
    try:
        if user is not None:
            shutil.chown(folder, user)
        data, log = folder / "data", folder / "log"
        run = [str(binaries / "pg_ctl"), "-D", str(data), "-s", "-w", "-t", "120"]
        settings = " ".join(f"-c {setting}" for setting in _SETTINGS)
        options = f"-h {LOOPBACK} -p {port} -k {folder} {settings}"
        initialise = ["-U", "tests", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
        _call([str(binaries / "initdb"), "-D", str(data), *initialise], user, folder)
        _call([*run, "-l", str(log), "-o", options, "start"], user, folder)
        try:
            yield f"postgresql://tests@{LOOPBACK}:{port}/"
        finally:
            _call([*run, "-m", "immediate", "stop"], user, folder)
    finally:
        shutil.rmtree(folder)


def create_database(server: str) -> str:
    """Make an empty database on such a server and return its URL."""
    name = f"glip_{uuid4().hex[:8]}"
    admin = create_engine(
        server.replace("postgresql:", "postgresql+psycopg:") + "postgres", isolation_level="AUTOCOMMIT"
    )
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    admin.dispose()
    return server + name


def _call(command: list[str], user: str | None, folder: Path) -> None:
    subprocess.run(
        command,
        user=user,
        group=None if user is None else pwd.getpwnam(user).pw_gid,
        extra_groups=None if user is None else [],
        cwd=folder,
        env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
        stdout=subprocess.DEVNULL,
        check=True,
    )


def _unprivileged_user() -> str | None:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"
