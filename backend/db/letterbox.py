"""Where events come in with SQLite: a small file of its own beside the database.

A SQLite file has one writer at a time. A writer may take long (an import, many events to apply), and no one who waits
is sure of the next turn; Label Studio gives an event one second and never sends it again. So facts are kept here first,
where nobody else writes, and the worker moves them to the inbox. PostgreSQL needs none of this.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Column, Engine, Integer, MetaData, String, Table, Text, delete, func, insert, select
from sqlalchemy.exc import SQLAlchemyError

from backend.db.engine import open_engine, snapshot, storage_error
from backend.db.tables import Moment

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
    """Facts on their way to the inbox, in a file; each method is a transaction. A full disk is a StorageError."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        try:
            _LETTERS.create(engine, checkfirst=True)
        except SQLAlchemyError as error:
            raise storage_error(engine, error) from error

    def add(self, letters: Sequence[Letter]) -> None:
        """Keep facts; when this returns they are safe on disk."""
        rows = [{name: getattr(letter, name) for name in Letter.__slots__} for letter in letters]
        with self._engine.begin() as connection:
            connection.execute(insert(_LETTERS), rows)

    def oldest(self, limit: int) -> tuple[int, Sequence[Letter]]:
        """Read the facts that came first, and the number that `remove` takes for them; they stay."""
        with snapshot(self._engine) as connection:
            rows = connection.execute(select(_LETTERS).order_by(_LETTERS.c.id).limit(limit)).all()
        letters = [Letter(row.action, row.project_id, row.payload, row.received_at) for row in rows]
        return rows[-1].id if rows else 0, letters

    def remove(self, number: int) -> None:
        """Remove what `oldest` read: it is in the inbox."""
        with self._engine.begin() as connection:
            connection.execute(delete(_LETTERS).where(_LETTERS.c.id <= number))

    def count(self) -> int:
        with snapshot(self._engine) as connection:
            return connection.execute(select(func.count()).select_from(_LETTERS)).scalar_one()


def open_letterbox(engine: Engine) -> Letterbox | None:
    """Open the letterbox of a SQLite file, which is made if it is not there; None for other databases.

    Raises:
        StorageError: it cannot be made.
    """
    file = engine.url.database
    if engine.dialect.name != "sqlite" or file in (None, "", ":memory:"):
        return None
    return Letterbox(open_engine(f"sqlite:///{file}{SUFFIX}"))
