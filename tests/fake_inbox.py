"""The inbox in memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from backend.domain.facts import InboxCounts, InboxFailure


@dataclass
class FakeInboxEntry:
    """One entry; the time is that of applying."""

    action: str
    project_id: int | None
    payload: str
    applied_at: datetime | None = None
    error: str | None = None


class FakeInbox:
    """``ports.Inbox`` in a list."""

    def __init__(self, entries: list[FakeInboxEntry]) -> None:
        self._entries = entries

    def add(self, action: str, project_id: int | None, payload: str) -> None:
        self._entries.append(FakeInboxEntry(action, project_id, payload))

    def waiting(self, limit: int) -> Sequence[int]:
        return [index for index in range(len(self._entries)) if self._waits(index)][:limit]

    def claim(self, entry: int) -> str | None:
        if not self._waits(entry):
            return None
        self._entries[entry].applied_at = datetime.now(UTC)
        return self._entries[entry].payload

    def fail(self, entry: int, reason: str) -> None:
        if self._waits(entry):
            self._entries[entry].error = reason

    def retry(self) -> int:
        failed = [entry for entry in self._entries if entry.error is not None]
        for entry in failed:
            entry.error = None
        return len(failed)

    def counts(self) -> InboxCounts:
        failed = sum(entry.error is not None for entry in self._entries)
        applied = sum(entry.applied_at is not None for entry in self._entries)
        return InboxCounts(len(self._entries) - failed - applied, failed, applied)

    def failures(self, limit: int) -> Sequence[InboxFailure]:
        failed = [
            InboxFailure(index, entry.action, entry.project_id, entry.error)
            for index, entry in enumerate(self._entries)
            if entry.error is not None
        ]
        return failed[:limit]

    def _waits(self, entry: int) -> bool:
        return self._entries[entry].applied_at is None and self._entries[entry].error is None
