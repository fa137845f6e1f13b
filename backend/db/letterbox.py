"""Where events come in with SQLite: a small file of its own beside the database.

A SQLite file has one writer at a time. A writer may take long (an import, many events to apply), and no one who waits
is sure of the next turn; Label Studio gives an event one second and never sends it again. So facts are kept here first,
where nobody else writes, and the worker moves them to the inbox. PostgreSQL needs none of this.

Each letter is moved once: the database's header (SQLite's `user_version`, which belongs to the transaction) holds the
number of the last one, so that a crash before letters are removed, or another worker, moves none again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    delete,
    func,
    insert,
    select,
    text,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from backend.db.base import Moment
from backend.db.engine import open_engine, snapshot, storage_error

SUFFIX = "-letterbox"
_LETTERS = Table(
    "letters",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("received_at", Moment, nullable=False),
    Column("action", String(64), nullable=False),
    Column("project_id", Integer),
    Column("payload", Text, nullable=False),
    sqlite_autoincrement=True,  # an id that was removed never comes again
)


@dataclass(frozen=True, slots=True)
class Letter:
    """A fact as it came in, ``payload`` as in the inbox."""

    action: str
    project_id: int | None
    payload: str
    received_at: datetime


class Letterbox:
    """Facts on their way to the inbox, in a file; each method is a transaction. A full disk is a StorageError.

    Args:
        engine: the file.
        moved: number of the last letter that was moved; the next one gets a higher one, also in a file that is new or
            older than the database.
    """

    def __init__(self, engine: Engine, moved: int) -> None:
        self._engine = engine
        try:
            _LETTERS.create(engine, checkfirst=True)
            with engine.begin() as connection:
                _number_from(connection, moved + 1)
        except SQLAlchemyError as error:
            raise storage_error(engine, error) from error

    def add(self, letters: Sequence[Letter]) -> None:
        """Keep facts; when this returns they are safe on disk."""
        rows = [{name: getattr(letter, name) for name in Letter.__slots__} for letter in letters]
        with self._engine.begin() as connection:
            connection.execute(insert(_LETTERS), rows)

    def after(self, number: int, limit: int) -> tuple[int, Sequence[Letter]]:
        """Read the oldest letters behind a number, and the number of the last of them; they stay."""
        query = select(_LETTERS).where(_LETTERS.c.id > number).order_by(_LETTERS.c.id).limit(limit)
        with snapshot(self._engine) as connection:
            rows = connection.execute(query).all()
        letters = [Letter(row.action, row.project_id, row.payload, row.received_at) for row in rows]
        return rows[-1].id if rows else number, letters

    def remove(self, number: int) -> None:
        """Remove the letters up to a number: they are in the inbox."""
        with self._engine.begin() as connection:
            connection.execute(delete(_LETTERS).where(_LETTERS.c.id <= number))

    def count(self, after: int) -> int:
        """Tell how many letters there are behind a number."""
        query = select(func.count()).select_from(_LETTERS).where(_LETTERS.c.id > after)
        with snapshot(self._engine) as connection:
            return connection.execute(query).scalar_one()


def last_moved(database: Session | Connection) -> int:
    """The number of the last letter that was moved into this database."""
    return int(database.execute(text("PRAGMA user_version")).scalar_one())


def set_last_moved(database: Session, number: int) -> None:
    """Keep it, as part of the transaction."""
    database.execute(text(f"PRAGMA user_version = {number:d}"))


def _number_from(connection: Connection, number: int) -> None:
    """Give no new letter a lower number; SQLite keeps the last one it gave in a table of its own."""
    last = {"last": number - 1}
    connection.execute(text("UPDATE sqlite_sequence SET seq = max(seq, :last) WHERE name = 'letters'"), last)
    absent = "NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'letters')"
    connection.execute(text(f"INSERT INTO sqlite_sequence (name, seq) SELECT 'letters', :last WHERE {absent}"), last)


def open_letterbox(engine: Engine) -> Letterbox | None:
    """Open the letterbox of a SQLite file, which is made if it is not there; None for other databases.

    Raises:
        StorageError: it cannot be made.
    """
    file = engine.url.database
    if engine.dialect.name != "sqlite" or file in (None, "", ":memory:"):
        return None
    with snapshot(engine) as connection:
        moved = last_moved(connection)
    return Letterbox(open_engine(engine.url.set(database=f"{file}{SUFFIX}")), moved)
