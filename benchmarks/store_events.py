"""Events for `benchmarks.store`, sent to a real service as Label Studio sends them: one connection each.

The schedule is open: an event has its moment, whether or not those before it were answered, and its latency counts
from that moment. What waits in the service's inbox meanwhile is read from the database twice a second.
"""

import json
import sqlite3
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from random import Random
from threading import Event, Thread
from time import perf_counter, sleep
from typing import Any
from urllib.request import urlopen

from backend.db.letterbox import SUFFIX
from backend.settings import child_environment
from benchmarks.store_data import event, picture

SENDERS = 32
_WAITS = "applied_at IS NULL AND error IS NULL"


@contextmanager
def serving(database: Path, log: Path) -> Iterator[int]:
    """Run ``glip-label serve`` with its worker on a database; gives its port, once the model is loaded."""
    home = str(database.parent)
    environment = child_environment(
        HOME=home, DATABASE_URL=f"sqlite:///{database}", LABEL_STUDIO_URL="", TRAIN_AFTER="0"
    )
    command = [sys.executable, "-m", "backend.cli", "serve", "--port", "0"]
    with (
        log.open("w", encoding="utf-8") as errors,
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            line = "" if process.stdout is None else process.stdout.readline()
            if "serves" not in line:
                raise RuntimeError(f"the service did not start: see {log}")
            port = int(line.rsplit(":", 1)[1])
            while _health(port)["model"]["state"] == "loading":
                sleep(0.5)
            yield port
        finally:
            process.terminate()


def send(port: int, database: Path, pictures: int, rate: float, numbers: range) -> dict[str, Any]:
    """Send events, so many a second, about pictures of the database; the report is in milliseconds and counts.

    Raises:
        RuntimeError: an event was not answered with 200.
    """
    random = Random(0)
    bodies = [json.dumps(event(number, picture(random.randint(1, pictures)))).encode() for number in numbers]
    done, backlog = Event(), list[int]()
    watch = Thread(target=_watch, args=(database, done, backlog))
    watch.start()
    try:
        begun = perf_counter() + 1.0
        moments = [begun + place / rate for place in range(len(bodies))]
        with ThreadPoolExecutor(SENDERS) as pool:
            latencies = list(pool.map(lambda pair: _sent(port, *pair), zip(moments, bodies, strict=True)))
        ended = perf_counter()
        left = backlog[-1]
        while _waiting(database):
            sleep(0.05)
        drained = perf_counter() - ended
    finally:
        done.set()
        watch.join()
    return {
        "events": len(bodies),
        "per_second": rate,
        **_percentiles([1000 * each for each in latencies]),
        "most_waiting": max(backlog),
        "waiting_at_the_end": left,
        "applied_after_s": drained,
        "failed": _count(database, "inbox WHERE error IS NOT NULL"),
        "mean_event_bytes": statistics.mean(map(len, bodies)),
    }


def _sent(port: int, moment: float, body: bytes) -> float:
    sleep(max(0.0, moment - perf_counter()))
    with closing(HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("POST", "/webhook", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        response.read()
    if response.status != 200:
        raise RuntimeError(f"an event was answered with {response.status}")
    return perf_counter() - moment


def _percentiles(latencies_ms: Sequence[float]) -> dict[str, float]:
    cuts = statistics.quantiles(latencies_ms, n=100, method="inclusive")
    return {"p50_ms": cuts[49], "p95_ms": cuts[94], "p99_ms": cuts[98], "max_ms": max(latencies_ms)}


def _watch(database: Path, done: Event, backlog: list[int]) -> None:
    while not done.wait(0.5):
        backlog.append(_waiting(database))


def _waiting(database: Path) -> int:
    """Events that came in and are not applied yet."""
    return _count(Path(f"{database}{SUFFIX}"), "letters") + _count(database, f"inbox WHERE {_WAITS}")


def _count(database: Path, rows: str) -> int:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {rows}").fetchone()[0])


def _health(port: int) -> Any:
    with urlopen(f"http://127.0.0.1:{port}/health") as answer:
        return json.load(answer)
