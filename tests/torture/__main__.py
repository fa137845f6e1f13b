"""``make torture``: a real service on SQLite and on PostgreSQL, killed again and again while events pour in.

10,000 events of a made-up Label Studio, 20 % of them twice, 10 % late, 2 % malformed; well over 200 kills with SIGKILL.
Exit code 1 where anything that must hold did not.
"""

import argparse
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from tests.postgresql import create_database, postgresql_server
from tests.torture.checks import breaches
from tests.torture.databases import Database, PostgresqlDatabase, SqliteFile
from tests.torture.deliveries import Stream, make_stream
from tests.torture.processes import BreachError
from tests.torture.rounds import PLAN, Torture

KINDS = ("sqlite", "postgresql")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", choices=KINDS, help="one of the databases")
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    stream = make_stream(given.events, given.seed)
    return max(run(kind, stream, given.seed) for kind in ([given.only] if given.only else KINDS))


def run(kind: str, stream: Stream, seed: int) -> int:
    """Torture the service on one kind of database; returns 1 where anything that must hold did not."""

    def tell(line: str) -> None:
        print(f"{kind}: {line}", flush=True)

    folder = Path(tempfile.mkdtemp(prefix=f"glip-label-torture-{kind}-"))
    with ExitStack() as stack:
        database: Database = SqliteFile(folder / "torture.sqlite3")
        if kind != "sqlite":
            database = PostgresqlDatabase(create_database(stack.enter_context(postgresql_server())))
        torture = Torture(database, folder, stream, seed)
        tell(f"{len(stream.order)} deliveries, logs in {folder}")
        try:
            torture.run(PLAN, tell)
            found = breaches(torture)
        except BreachError as breach:
            found = [str(breach)]
    for name, figures in table(torture) if torture.server.start_seconds else ():
        tell(f"{name:36} {figures}")
    for line in found[:20]:
        tell(f"BREACH: {line}")
    tell(f"{len(found)} breaches" if found else "everything holds")
    return int(bool(found))


def table(torture: Torture) -> list[tuple[str, str]]:
    """The figures of one run, by name."""
    stream, senders = torture.stream, torture.senders
    starts, own = torture.server.start_seconds, torture.server.own_seconds
    malformed = sum(event.happening is None for event in stream.events)
    poisoned = sum(event.poisoned for event in stream.events)
    again = sum(senders.tries.values()) - len(stream.order)
    return [
        (
            "events",
            f"{len(stream.events)}, of them {stream.reordered} late, {malformed} malformed, {poisoned} unstorable",
        ),
        ("sent twice", f"{stream.duplicates}, and {again} again because no answer came"),
        ("answers", ", ".join(f"{number} × {status}" for (_, status), number in sorted(senders.statuses.items()))),
        ("kept, not answered", f"{torture.unanswered} events, by {torture.hits['unanswered']} kills"),
        ("kills", f"{torture.kills.total()}: " + ", ".join(f"{number} {way}" for way, number in torture.kills.items())),
        ("hits", ", ".join(f"{torture.hits[way]} {way}" for way in ("applying", "export", "migration"))),
        ("restarts", f"{len(starts)}: median {median(starts):.2f} s, longest {max(starts):.2f} s"),
        ("  without waiting for the processor", f"median {median(own):.2f} s, longest {max(own):.2f} s"),
        ("answered in", f"median {1000 * median(senders.seconds):.0f} ms, longest {max(senders.seconds):.2f} s"),
        (
            "requests per second",
            f"{len(senders.seconds) / torture.seconds:.0f}, over {torture.seconds:.0f} s with all kills",
        ),
        ("machine", f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"),
    ]


if __name__ == "__main__":
    sys.exit(main())
