"""The two kinds of database, looked at from outside while the service runs, is frozen, or is dead."""

import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import psycopg
from sqlalchemy import Connection, Engine, MetaData, create_engine, make_url, text
from sqlalchemy.exc import OperationalError

from backend.db.engine import open_engine, snapshot
from backend.db.letterbox import SUFFIX, last_moved

Rows = dict[str, list[dict[str, Any]]]


class Database(Protocol):
    """One database; nothing of it is held open between calls, so that the service is the one to recover it."""

    url: str

    def is_being_written(self) -> bool:
        """Whether a transaction that writes is open."""
        ...

    def copy(self) -> "Database":
        """Copy it as it lies there, after its service was killed."""
        ...

    def drop(self) -> None: ...

    def damages(self) -> list[str]:
        """What the database itself finds wrong with its pages, indexes and references."""
        ...


@contextmanager
def opened(url: str) -> Iterator[Engine]:
    engine = open_engine(url)
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def reading(url: str) -> Iterator[Connection]:
    with opened(url) as engine, snapshot(engine) as connection:
        yield connection


def kept_events(url: str) -> int:
    """How many events were kept, answered or not."""
    return _events(url, "TRUE")


def waiting_events(url: str) -> int:
    """How many of them were neither applied nor set aside."""
    return _events(url, "applied_at IS NULL AND error IS NULL")


def _events(url: str, condition: str) -> int:
    """Count them in the inbox and on their way to it; none twice, although a worker moves them meanwhile."""
    query = text(f"SELECT count(*) FROM inbox WHERE {condition}")
    while True:
        with reading(url) as connection:
            moved = last_moved(connection) if url.startswith("sqlite") else 0
            arrived = int(connection.execute(query).scalar_one())
        coming = _letters(url, moved)
        with reading(url) as connection:
            if not url.startswith("sqlite") or last_moved(connection) == moved:
                return arrived + coming


def _letters(url: str, moved: int) -> int:
    """What lies in the letterbox behind a number, without writing to it: its service may be frozen while it writes."""
    path = Path(f"{url.removeprefix('sqlite:///')}{SUFFIX}")
    if not path.exists():
        return 0
    with closing(sqlite3.connect(path)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'letters'").fetchone():
            return 0
        return int(connection.execute("SELECT count(*) FROM letters WHERE id > ?", (moved,)).fetchone()[0])


def every_row(url: str) -> Rows:
    """All that is in the tables."""
    with reading(url) as connection:
        metadata = MetaData()
        metadata.reflect(connection)
        return {
            table.name: [
                dict(row) for row in connection.execute(table.select().order_by(*table.primary_key)).mappings()
            ]
            for table in metadata.sorted_tables
        }


class SqliteFile:
    """A file with its write-ahead log."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.url = f"sqlite:///{path}"

    def is_being_written(self) -> bool:
        with closing(sqlite3.connect(self._path, timeout=0, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                return "locked" in str(error)
            connection.execute("ROLLBACK")
            return False

    def copy(self) -> "SqliteFile":
        target = self._path.with_name(f"copy-{uuid4().hex[:8]}.sqlite3")
        for suffix in ("", "-wal"):
            source = Path(f"{self._path}{suffix}")
            if source.exists():
                shutil.copy(source, f"{target}{suffix}")
        return SqliteFile(target)

    def drop(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)

    def damages(self) -> list[str]:
        found: list[str] = []
        for path in (str(self._path), f"{self._path}{SUFFIX}"):
            with closing(sqlite3.connect(path)) as connection:
                found += [row[0] for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
                found += [f"an orphan in {row[0]}" for row in connection.execute("PRAGMA foreign_key_check")]
        return found


class PostgresqlDatabase:
    """One database of a server that also has others."""

    def __init__(self, url: str) -> None:
        self.url = url

    def is_being_written(self) -> bool:
        query = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_xid IS NOT NULL"
        )
        with psycopg.connect(self.url, autocommit=True) as connection:
            return connection.execute(query).fetchone() != (0,)

    def copy(self) -> "PostgresqlDatabase":
        parsed = make_url(self.url)
        name = f"copy_{uuid4().hex[:8]}"
        for _ in range(100):  # the sessions of what was killed go when the server notices
            try:
                self._manage(f"CREATE DATABASE {name} TEMPLATE {parsed.database}")
                break
            except OperationalError:
                time.sleep(0.1)
        return PostgresqlDatabase(parsed.set(database=name).render_as_string(hide_password=False))

    def drop(self) -> None:
        self._manage(f"DROP DATABASE {make_url(self.url).database} WITH (FORCE)")

    def damages(self) -> list[str]:
        indexes = (
            "SELECT index.indexrelid::regclass::text FROM pg_index AS index"
            " JOIN pg_class ON pg_class.oid = index.indexrelid JOIN pg_am ON pg_am.oid = pg_class.relam"
            " WHERE amname = 'btree' AND relnamespace = 'public'::regnamespace"
        )
        found: list[str] = []
        with opened(self.url) as engine, engine.begin() as connection:
            connection.execute(text("CREATE EXTENSION IF NOT EXISTS amcheck"))
            found += connection.scalars(text("SELECT conname::text FROM pg_constraint WHERE NOT convalidated")).all()
            for index in connection.scalars(text(indexes)).all():  # raises where one does not fit its table
                connection.execute(text("SELECT bt_index_check(CAST(:name AS regclass), true)"), {"name": index})
        return [f"the constraint {name} does not hold" for name in found]

    def _manage(self, statement: str) -> None:
        url = make_url(self.url).set(drivername="postgresql+psycopg", database="postgres")
        admin = create_engine(url, isolation_level="AUTOCOMMIT")
        try:
            with admin.connect() as connection:
                connection.execute(text(statement))
        finally:
            admin.dispose()
