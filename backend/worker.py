"""The loop that applies what came in, and beside it another that does what is due from time to time."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event, Thread
from time import monotonic, perf_counter

from backend.errors import GlipLabelError, StorageError, ValueRefusedError
from backend.services.corrections import CorrectionsService
from backend.web.lines import one_line

_PATIENCE = 5.0  # seconds that a chore is waited for at the end; its transaction is undone if it takes longer

log = logging.getLogger("glip_label.worker")


@dataclass(frozen=True, slots=True)
class Chore:
    """Something to do every so many seconds, beginning at once; it may fail and is done again the next time."""

    name: str
    seconds: float
    do: Callable[[], object]


class Worker:
    """Applies the facts of the inbox in their order. Any number may run at once: each fact is applied by one of them.

    Args:
        corrections: the service that applies.
        chores: what else to do, one after the other in a thread of their own: the inbox waits for none.
        poll_seconds: how long to wait where the inbox is empty, or the database away.
        at_end: called when the loop ends.
    """

    def __init__(
        self,
        corrections: CorrectionsService,
        chores: Sequence[Chore] = (),
        poll_seconds: float = 1.0,
        clock: Callable[[], float] = monotonic,
        at_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._corrections = corrections
        self._poll_seconds = poll_seconds
        self._clock = clock
        self._at_end = at_end
        self._due = dict.fromkeys(chores, clock())

    def run(self, stop: Event) -> None:
        """Work until ``stop`` is set; the fact in hand is finished first."""
        beside = Thread(target=self._do_chores, args=(stop,), name="chores", daemon=True)
        beside.start()
        try:
            while not stop.is_set():
                try:
                    self.drain(stop)
                except StorageError as error:
                    log.error("the inbox waits: %s", error)
                stop.wait(self._poll_seconds)
        finally:
            beside.join(_PATIENCE)
            self._at_end()

    def drain(self, stop: Event | None = None) -> int:
        """Apply all that waits, or until ``stop`` is set; returns how many facts were applied.

        A fact that cannot be applied is set aside with its reason; it never blocks the others.

        Raises:
            StorageError: the database failed; what was not applied waits.
        """
        applied = 0
        while entries := self._corrections.waiting():
            for entry in entries:
                if stop is not None and stop.is_set():
                    return applied
                applied += self._apply(entry)
        return applied

    def _apply(self, entry: int) -> bool:
        begun = perf_counter()
        try:
            applied = self._corrections.apply(entry)
        except (ValueError, ValueRefusedError) as error:
            log.error("inbox entry=%d cannot be applied: %s", entry, one_line(str(error)))
            self._corrections.fail(entry, str(error))
            return False
        except StorageError:
            raise
        except Exception as error:
            log.exception("inbox entry=%d cannot be applied, by a defect of glip-label", entry)
            self._corrections.fail(entry, f"a defect of glip-label: {type(error).__name__}, see its log")
            return False
        if applied:
            log.info("inbox entry=%d applied ms=%.0f", entry, 1000 * (perf_counter() - begun))
        return applied

    def _do_chores(self, stop: Event) -> None:
        while not stop.is_set():
            for chore, due in self._due.items():
                if not stop.is_set() and self._clock() >= due:
                    self._do(chore)
                    self._due[chore] = self._clock() + chore.seconds
            stop.wait(self._poll_seconds)

    def _do(self, chore: Chore) -> None:
        try:
            chore.do()
        except GlipLabelError as error:
            log.error("%s: %s", chore.name, error)
        except Exception:
            log.exception("%s failed by a defect of glip-label", chore.name)
