"""The inbox in a table."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast

from sqlalchemy import CursorResult, func, select, update
from sqlalchemy.orm import Session

from backend.db.tables import InboxRow
from backend.domain.facts import InboxCounts, InboxFailure

_WAITS = (InboxRow.applied_at.is_(None), InboxRow.error.is_(None))
_FAILED = (InboxRow.applied_at.is_(None), InboxRow.error.is_not(None))


class SqlInbox:
    """``ports.Inbox`` in a table."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, action: str, project_id: int | None, payload: str) -> None:
        self._session.add(InboxRow(action=action, project_id=project_id, payload=payload))

    def waiting(self, limit: int) -> Sequence[int]:
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
        return InboxCounts(waiting, failed, every - waiting - failed)

    def failures(self, limit: int) -> Sequence[InboxFailure]:
        rows = self._session.scalars(select(InboxRow).where(*_FAILED).order_by(InboxRow.id).limit(limit))
        return [InboxFailure(row.id, row.action, row.project_id, row.error or "") for row in rows]

    def _update(self, conditions: Sequence[Any], **values: object) -> int:
        result = self._session.execute(update(InboxRow).where(*conditions).values(**values))
        return cast("CursorResult[Any]", result).rowcount
