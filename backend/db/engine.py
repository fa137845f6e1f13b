"""Opening the database: SQLite (a file, write-ahead log) or PostgreSQL."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError

from backend.errors import StorageError, ValueRefusedError

_READS_ONLY = "glip_label_reads_only"
_LOCK = 0x676C6970  # any number that nobody else takes


def open_engine(url: str | URL) -> Engine:
    """Make the engine for a database URL; the folder of a SQLite file is made, the file itself on first use.

    Raises:
        StorageError: the URL is none, its driver is not installed, or its folder cannot be made.
    """
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:"):
            Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)
        if parsed.drivername in ("postgres", "postgresql"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        engine = create_engine(parsed, pool_pre_ping=parsed.get_backend_name() != "sqlite")
    except SQLAlchemyError as error:
        raise StorageError(f"the database URL cannot be used: {_first_line(error)}") from error
    except ImportError as error:
        raise StorageError(
            f"the database URL needs {error.name}, which is not installed (for PostgreSQL: pip install psycopg[binary])"
        ) from error
    except OSError as error:
        raise StorageError(f"the folder of the database cannot be made: {error}") from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """Give a connection that reads the database as it is now, however long it takes; writers need not wait.

    Raises:
        StorageError: instead of any SQLAlchemy error inside the block.
    """
    try:
        with for_reading(engine).connect() as connection:
            yield connection
    except SQLAlchemyError as error:
        raise storage_error(engine, error) from error


def for_reading(engine: Engine) -> Engine:
    """Return the engine for transactions that only read: each sees one moment, and no writer waits for it."""
    options: dict[str, Any] = {_READS_ONLY: True}
    if engine.dialect.name == "postgresql":
        options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    return engine.execution_options(**options)


def lock(connection: Connection) -> None:
    """Keep others who ask for it waiting, until this transaction ends."""
    if connection.dialect.name == "postgresql":  # SQLite has one writer at a time anyway
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})


def storage_error(engine: Engine, error: SQLAlchemyError) -> StorageError:
    """Say in one line what the database refused; statements and parameters stay out of it."""
    name = engine.url.render_as_string(hide_password=True)
    beyond_limit = isinstance(error, DBAPIError) and str(getattr(error.orig, "sqlstate", "")).startswith("54")
    if isinstance(error, (DataError, IntegrityError)) or beyond_limit:
        return ValueRefusedError(f"the database {name} refused a value: {_first_line(error)}")
    return StorageError(f"the database {name} failed: {_first_line(error)}")


def _first_line(error: SQLAlchemyError) -> str:
    cause = error.orig if isinstance(error, DBAPIError) else error
    return str(cause).strip().partition("\n")[0]


def _set_up_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # the driver would begin transactions late, and savepoints outside of them
    # Readers and the writer do not block each other under WAL; a second writer waits instead of failing at once.
    # A read-only file cannot change its journal: it stays as it is, and the first write says so.
    connection.execute("PRAGMA busy_timeout = 10000")
    connection.execute("PRAGMA foreign_keys = ON")
    try:
        connection.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError as error:
        if "readonly" not in str(error):
            raise


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and then writes fails at once where another wrote in between; one that takes the
    # write lock first waits its turn. Ours last milliseconds; those that only read keep nobody waiting.
    reads = connection.get_execution_options().get(_READS_ONLY)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
