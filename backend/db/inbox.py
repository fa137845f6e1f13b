"""The inbox in a table; with SQLite, facts come to it through a letterbox."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, cast

from sqlalchemy import CursorResult, func, insert, select, update
from sqlalchemy.orm import Session

from backend.db.letterbox import Letter, Letterbox, last_moved, set_last_moved
from backend.db.tables import InboxRow
from backend.domain.facts import InboxCounts, InboxFailure

_WAITS = (InboxRow.applied_at.is_(None), InboxRow.error.is_(None))
_FAILED = (InboxRow.applied_at.is_(None), InboxRow.error.is_not(None))


class SqlInbox:
    """``ports.Inbox`` in a table.

    With a letterbox, what is added goes there, and `waiting` moves it to the table.
    """

    def __init__(self, session: Session, letterbox: Letterbox | None = None) -> None:
        self._session = session
        self._letterbox = letterbox
        self._added: list[Letter] = []
        self._moved = 0

    def add(self, action: str, project_id: int | None, payload: str) -> None:
        letter = Letter(action, project_id, payload, datetime.now(UTC))
        if self._letterbox is None:
            self._session.add(InboxRow(**asdict(letter)))
        else:
            self._added.append(letter)

    def committed(self) -> None:
        """Do in the letterbox what belongs to the transaction that was kept just now."""
        if self._letterbox is not None and self._added:
            self._letterbox.add(self._added)
            self._added = []
        if self._letterbox is not None and self._moved:
            self._letterbox.remove(self._moved)
            self._moved = 0

    def waiting(self, limit: int) -> Sequence[int]:
        if self._letterbox is not None:
            number, letters = self._letterbox.after(last_moved(self._session), limit)
            if letters:
                self._session.execute(insert(InboxRow), [asdict(letter) for letter in letters])
                set_last_moved(self._session, number)
                self._moved = number
        return self._session.scalars(select(InboxRow.id).where(*_WAITS).order_by(InboxRow.id).limit(limit)).all()

    def claim(self, entry: int) -> str | None:
        if not self._update((InboxRow.id == entry, *_WAITS), applied_at=datetime.now(UTC)):
            return None
        return self._session.scalars(select(InboxRow.payload).where(InboxRow.id == entry)).one()

    def fail(self, entry: int, reason: str) -> None:
        self._update((InboxRow.id == entry, *_WAITS), error=reason)

    def retry(self) -> int:
        return self._update(_FAILED, error=None)

    def counts(self) -> InboxCounts:
        waiting, failed, every = (
            self._session.scalars(select(func.count()).select_from(InboxRow).where(*conditions)).one()
            for conditions in (_WAITS, _FAILED, ())
        )
        coming = 0 if self._letterbox is None else self._letterbox.count(last_moved(self._session))
        return InboxCounts(waiting + coming, failed, every - waiting - failed)

    def failures(self, limit: int) -> Sequence[InboxFailure]:
        rows = self._session.scalars(select(InboxRow).where(*_FAILED).order_by(InboxRow.id).limit(limit))
        return [InboxFailure(row.id, row.action, row.project_id, row.error or "") for row in rows]

    def _update(self, conditions: Sequence[Any], **values: object) -> int:
        result = self._session.execute(update(InboxRow).where(*conditions).values(**values))
        return cast("CursorResult[Any]", result).rowcount
