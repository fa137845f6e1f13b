"""Making, upgrading and checking the database's schema."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, inspect
from sqlalchemy.exc import SQLAlchemyError

from backend.db.engine import for_reading, lock, open_engine, storage_error
from backend.errors import StorageError


def upgrade(engine: Engine) -> str:
    """Bring the schema to the newest revision and return it; makes the tables of an empty database.

    Raises:
        StorageError: the database cannot be written, or a newer glip-label wrote it.
    """
    with _connection(engine) as connection:
        lock(connection)  # a service and its workers may be started together
        _refuse_newer(connection)
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()
    return _head()


def check(engine: Engine) -> str:
    """Return the schema's revision if it is the newest.

    Raises:
        StorageError: it is older, newer, or missing; the message says what to do.
    """
    with _connection(for_reading(engine)) as connection:
        _refuse_newer(connection)
        revision = _revision(connection)
    if revision is None:
        raise StorageError(f"the database {shown(engine)} is empty: run `glip-label db upgrade`")
    if revision != _head():
        raise StorageError(
            f"the database {shown(engine)} has schema {revision}, this version needs {_head()}: "
            "back it up, then run `glip-label db upgrade`"
        )
    return revision


def open_prepared(url: str) -> Engine:
    """Open a database; an empty one gets its tables.

    Raises:
        StorageError: it cannot be used, or needs an upgrade.
    """
    engine = open_engine(url)
    prepare(engine)
    return engine


def prepare(engine: Engine) -> None:
    """Make the tables of an empty database; leave one with tables as it is, but refuse an outdated one.

    Only where there is something to make, it waits for who writes.

    Raises:
        StorageError: the database cannot be used, or is not of the newest schema.
    """
    with _connection(for_reading(engine)) as connection:
        empty = not inspect(connection).get_table_names()
    if empty:
        upgrade(engine)
    check(engine)


def shown(engine: Engine) -> str:
    """Name the database for people: its URL without the password."""
    return engine.url.render_as_string(hide_password=True)


@contextmanager
def _connection(engine: Engine) -> Iterator[Connection]:
    """A connection whose SQLAlchemy errors leave as one-line ``StorageError``s."""
    try:
        with engine.connect() as connection:
            yield connection
    except SQLAlchemyError as error:
        raise storage_error(engine, error) from error


def _config() -> Config:
    packaged = Path(__file__).parents[1] / "migrations"  # in an installed wheel
    checkout = Path(__file__).parents[2] / "migrations"
    config = Config()
    config.set_main_option("script_location", str(packaged if packaged.is_dir() else checkout).replace("%", "%%"))
    return config


def _head() -> str:
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        raise StorageError("this installation lacks its migrations: install glip-label again")
    return head


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _refuse_newer(connection: Connection) -> None:
    revision = _revision(connection)
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if revision is not None and revision not in known:
        raise StorageError(
            f"the database {shown(connection.engine)} has schema {revision}, which this version does not know: "
            "use the newer glip-label that wrote it"
        )
