"""Round after round: some events are sent, and in the middle of it something is killed and started again."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from itertools import chain
from pathlib import Path
from random import Random
from statistics import median
from time import monotonic, sleep

from backend.db.unit_of_work import SqlUnitOfWork
from tests.torture.copies import Exports, kill_upgrade
from tests.torture.databases import Database, kept_events, opened, waiting_events
from tests.torture.deliveries import Stream
from tests.torture.processes import BreachError, Command, Server, frozen_when
from tests.torture.senders import Senders
from tests.torture.world import prediction

_Sent = Sequence["Future[None]"]

PATIENCE_SECONDS = 300.0
# How many kills of each kind make a full run; a start and an upgrade are killed along with a service at any moment.
PLAN = {"any moment": 70, "kept, not answered": 50, "applying": 30, "starting": 15, "export": 25, "migration": 20}


class Torture:
    """The service, what is done to it, and how often.

    Attributes:
        kills: how many, by kind.
        hits: how many of them came at the very moment they were meant for, by kind; ``unanswered`` of any kind.
        unanswered: how many deliveries were kept and never answered.
    """

    def __init__(self, database: Database, folder: Path, stream: Stream, seed: int) -> None:
        self.database = database
        self.stream = stream
        self.commands = Command(folder / "home", database.url)
        self.server = Server(self.commands)
        self.senders = Senders(self.server.port)
        self.exports = Exports(self.commands, folder / "dataset")
        self.kills: Counter[str] = Counter()
        self.hits: Counter[str] = Counter()
        self.seconds = 0.0
        self._random = Random(seed)
        self.unanswered = 0
        self._ways: Mapping[str, Callable[[_Sent], None]] = {
            "any moment": self._any_moment,
            "kept, not answered": self._kept_not_answered,
            "applying": self._applying,
            "starting": self._starting,
            "export": self._export,
            "migration": self._migration,
        }

    def run(self, plan: Mapping[str, int], tell: Callable[[str], None]) -> None:
        """Send the whole stream, with so many kills of each kind in a random order, and let all of it be applied.

        Raises:
            BreachError: something that must hold did not.
        """
        ways = list(chain.from_iterable([way] * number for way, number in plan.items()))
        self._random.shuffle(ways)
        deliveries = [self.stream.events[number] for number in self.stream.order]
        begun = monotonic()
        try:
            self._begin()
            for index, way in enumerate(ways):
                part = slice(index * len(deliveries) // len(ways), (index + 1) * len(deliveries) // len(ways))
                sent = self.senders.begin(deliveries[part])
                self._ways[way](sent)
                for each in sent:
                    each.result(PATIENCE_SECONDS)
                if (index + 1) % 10 == 0:
                    tell(f"{index + 1} of {len(ways)} rounds, {part.stop} events sent, {monotonic() - begun:.0f} s")
            self._drain()
            self.server.stop()
        finally:
            self.seconds = monotonic() - begun
            self.server.kill()
            self.senders.close()

    def _begin(self) -> None:
        """Let the first start be killed while it makes the tables; then store what is proposed for the tasks."""
        self._kill_start()
        self.server.start()
        facts = [event.happening.fact for event in self.stream.events if event.happening is not None]
        told = [(fact.project, task.id) for fact in facts if fact.project is not None for task in fact.tasks]
        tasks = {(project.uid, project.id, task) for project, task in told}
        with opened(self.database.url) as engine, SqlUnitOfWork(engine) as unit:
            for uid, project_id, task_id in sorted(tasks):
                unit.predictions.add(uid, "torture", prediction(project_id, task_id))
            unit.commit()
        self.senders.up.set()

    def _any_moment(self, sent: _Sent) -> None:
        self._wait_for_some(sent)
        self._kill_server("any moment")

    def _kept_not_answered(self, sent: _Sent) -> None:
        self._wait_for_some(sent)
        self._freeze(self._holds_an_unanswered_event)
        before = self.hits["unanswered"]
        self._kill_server("kept, not answered")
        self.hits["kept, not answered"] += self.hits["unanswered"] - before

    def _applying(self, sent: _Sent) -> None:
        for each in sent:
            each.result(PATIENCE_SECONDS)
        # No event is on its way: who writes now is the worker.
        self.hits["applying"] += self._freeze(self.database.is_being_written)
        self._kill_server("applying")

    def _starting(self, sent: _Sent) -> None:
        self._wait_for_some(sent)
        self._kill_server("any moment", revive=False)
        self._kill_start()
        self._revive()

    def _export(self, sent: _Sent) -> None:
        if not self.kills["export"]:  # there has to be something to export
            for each in sent:
                each.result(PATIENCE_SECONDS)
            self._drain()
        self.hits["export"] += self.exports.kill_one(self._random)
        self.kills["export"] += 1

    def _migration(self, sent: _Sent) -> None:
        self._wait_for_some(sent)
        self._kill_server("any moment", revive=False)
        copy = self.database.copy()
        self._revive()
        self.hits["migration"] += kill_upgrade(self.commands, copy, self._random)
        self.kills["migration"] += 1
        copy.drop()

    def _wait_for_some(self, sent: _Sent) -> None:
        """Wait until a random part of what is sent has been answered, and a little longer."""
        wanted = self._random.randrange(len(sent))
        deadline = monotonic() + PATIENCE_SECONDS
        while sum(each.done() for each in sent) < wanted and monotonic() < deadline:
            sleep(0.005)
        sleep(self._random.uniform(0, 0.01))

    def _freeze(self, condition: Callable[[], bool]) -> bool:
        assert self.server.process is not None
        return frozen_when(self.server.process, condition, self._random, 3)

    def _holds_an_unanswered_event(self) -> bool:
        sleep(0.005)  # answers that left before are read meanwhile
        return kept_events(self.database.url) > self.senders.kept + self.unanswered

    def _kill_server(self, kind: str, *, revive: bool = True) -> None:
        self.server.kill()
        self.senders.settle()
        self.kills[kind] += 1
        if revive:
            self._revive()

    def _kill_start(self) -> None:
        self.server.launch()
        usual = median(self.server.start_seconds) if self.server.start_seconds else 1.0
        sleep(self._random.uniform(0.2, 1.1) * usual)
        self.server.kill()
        self.kills["starting"] += 1

    def _revive(self) -> None:
        self.server.start()
        unanswered = kept_events(self.database.url) - self.senders.kept
        self.hits["unanswered"] += unanswered > self.unanswered
        self.unanswered = unanswered
        self.senders.up.set()

    def _drain(self) -> None:
        deadline, least = monotonic() + PATIENCE_SECONDS, None
        while waiting := waiting_events(self.database.url):
            if least is None or waiting < least:
                deadline, least = monotonic() + PATIENCE_SECONDS, waiting
            if monotonic() > deadline:
                raise BreachError(f"{waiting} events wait, and none was applied for {PATIENCE_SECONDS:.0f} s")
            sleep(0.2)
