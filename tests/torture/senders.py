"""Who sends the events: several at once, each again until it is answered."""

import http.client
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event as Flag
from threading import Lock

from integrations.processes import LOOPBACK
from tests.torture.deliveries import Event

_AT_ONCE = 8
_HANGS_UP_SECONDS = 10.0


class Senders:
    """Deliver events to the service, which may die at any time.

    Label Studio would not send again what was not answered; that these do makes more duplicates, of what was kept
    without an answer.

    Attributes:
        up: set while the service is expected to answer.
        tries: how often each event, by its number, was sent.
        answers: how often each event was answered.
        statuses: the answers' statuses, by whether the event was well-formed.
        seconds: how long each answer took.
    """

    def __init__(self, port: int) -> None:
        self.up = Flag()
        self.tries: Counter[int] = Counter()
        self.answers: Counter[int] = Counter()
        self.statuses: Counter[tuple[bool, int]] = Counter()
        self.seconds: list[float] = []
        self._port = port
        self._on_their_way = 0
        self._closed = False
        self._lock = Lock()
        self._pool = ThreadPoolExecutor(_AT_ONCE, "sender")

    @property
    def kept(self) -> int:
        """How many answers said that an event is kept."""
        return self.statuses[True, 200]

    def begin(self, events: Iterable[Event]) -> Sequence["Future[None]"]:
        """Deliver these, and wait for nothing."""
        return [self._pool.submit(self._deliver, event) for event in events]

    def close(self) -> None:
        """Give up what is not delivered yet."""
        self._closed = True
        self.up.set()
        self._pool.shutdown(cancel_futures=True)

    def settle(self) -> None:
        """Send no more for now, and wait until what is on its way is answered or lost."""
        self.up.clear()
        while self._on_their_way:
            time.sleep(0.002)

    def _deliver(self, event: Event) -> None:
        while not self._closed:
            self.up.wait()
            if self._answered(event):
                return
            time.sleep(0.02)

    def _answered(self, event: Event) -> bool:
        connection = http.client.HTTPConnection(LOOPBACK, self._port, timeout=_HANGS_UP_SECONDS)
        begun = time.monotonic()
        with self._lock:
            self._on_their_way += 1
            self.tries[event.number] += 1
        try:
            connection.request("POST", "/webhook", event.body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            self._note(event, answer.status, time.monotonic() - begun)
            return answer.status < 500
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
            with self._lock:
                self._on_their_way -= 1

    def _note(self, event: Event, status: int, seconds: float) -> None:
        with self._lock:
            self.statuses[event.happening is not None, status] += 1
            self.seconds.append(seconds)
            if status < 500:
                self.answers[event.number] += 1
