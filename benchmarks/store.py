"""What a large project costs on SQLite: ``python -m benchmarks.store``.

100,000 images with 1,000,000 boxes, and twice as many:

* export: ``glip-label export coco``, and label-studio-sdk's own converter (the one behind Label Studio's *Export*) on
  the same annotations as Label Studio's JSON. Each run is a process of its own; repeats are interleaved, so that a busy
  machine slows all sides alike, and medians are compared; the cost of twice the data is compared in seconds of the
  processor, which depend less on what else runs. The converter opens each image file to learn its size, so it
  gets some, as it has in Label Studio; ours knows the sizes from the annotations.
* webhook: a real ``glip-label serve`` with its worker answers 200 events a second for a minute, and again while an
  export of the same database runs.

Needs some 4 GB of disk in the temporary folder (or --folder) and 3 GB of memory, most of it for the converter.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

from backend.settings import child_environment

IMAGES = 100_000
RATE = 200.0  # events a second
SECONDS = 60
OURS, TWICE, THEIRS = "ours", "ours, twice the data", "label-studio-sdk"
MAX_P99_MS, MAX_EXPORT_S, MAX_EXPORT_MB, MAX_RATIO = 20.0, 60.0, 400.0, 2.2

Run = dict[str, float]
Report = dict[str, Any]


def measured(command: list[str], **settings: str) -> Run:
    """Run a command; its seconds, those of the processor, and its peak memory in MB.

    Raises:
        RuntimeError: it failed.
    """
    begun = time.perf_counter()
    process = subprocess.Popen(command, env=child_environment(**settings), stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return {"s": seconds, "cpu_s": usage.ru_utime + usage.ru_stime, "peak_mb": usage.ru_maxrss * 1024 / 1e6}


def step(name: str, *arguments: object) -> list[str]:
    """The command of one step of this benchmark in a process of its own: what this one holds would count in peaks."""
    return [sys.executable, "-m", "benchmarks.store", "--step", name, *map(str, arguments)]


def run_step(name: str, *arguments: str) -> None:
    """Be one of the steps."""
    from benchmarks import store_data, store_events

    if name == "fill":
        store_data.fill(Path(arguments[0]), int(arguments[1]), int(arguments[2]))
    elif name == "label-studio-json":
        store_data.write_label_studio_json(Path(arguments[0]), int(arguments[1]))
    elif name == "label-studio-files":
        store_data.write_upload_folder(Path(arguments[0]), int(arguments[1]))
    elif name == "convert":
        convert(Path(arguments[0]))
    elif name == "events":
        port, database, images, first, last = arguments
        numbers = range(int(first), int(last))
        print(json.dumps(store_events.send(int(port), Path(database), int(images), RATE, numbers)))


def convert(folder: Path) -> None:
    """Label Studio's own way to COCO, with the arguments that Label Studio gives it."""
    import logging

    from label_studio_sdk.converter.converter import Converter

    from benchmarks.store_data import CONFIG

    logging.disable(logging.WARNING)  # it names each image without boxes
    media = folder / "media"
    converter = Converter(CONFIG, str(media), upload_dir=str(media / "upload"), download_resources=False)
    converter.convert_to_coco(str(folder / "tasks.json"), str(folder / "converted"), is_dir=False)


def database_of(folder: Path, name: str) -> Path:
    return folder / name / "glip-label.sqlite3"


def export(database: Path) -> Run:
    """``glip-label export coco`` as a user runs it."""
    command = [sys.executable, "-m", "backend.cli", "export", "coco", "--project", "7", str(database.parent / "out")]
    return measured(command, HOME=str(database.parent), DATABASE_URL=f"sqlite:///{database}")


def prepare(folder: Path, images: int) -> Report:
    """Fill both databases and write Label Studio's side."""
    once, twice = database_of(folder, "once"), database_of(folder, "twice")
    for database in (once, twice):
        database.parent.mkdir(parents=True)
    say(f"filling a database with {images:,} images")
    measured(step("fill", once, 1, images))
    shutil.copy(once, twice)
    say(f"and another with {2 * images:,}")
    measured(step("fill", twice, images + 1, 2 * images))
    say("writing Label Studio's side")
    measured(step("label-studio-json", folder / "tasks.json", images))
    measured(step("label-studio-files", folder / "media/upload", images))
    return {"images": images, "database_mb": once.stat().st_size / 1e6}


def exports(folder: Path, repeats: int) -> dict[str, Report]:
    """Time and memory of all sides: medians of time, the highest peak of memory."""
    sides: dict[str, Callable[[], Run]] = {
        OURS: lambda: export(database_of(folder, "once")),
        THEIRS: lambda: measured(step("convert", folder)),
        TWICE: lambda: export(database_of(folder, "twice")),
    }
    runs: dict[str, list[Run]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, run in sides.items():
            runs[name].append(run())
            say(f"{name}: {runs[name][-1]['s']:.1f} s, {runs[name][-1]['peak_mb']:.0f} MB")
    return {
        name: {
            "s": statistics.median(run["s"] for run in found),
            "cpu_s": statistics.median(run["cpu_s"] for run in found),
            "peak_mb": max(run["peak_mb"] for run in found),
            "runs_s": [run["s"] for run in found],
        }
        for name, found in runs.items()
    }


def webhook(folder: Path, images: int, seconds: int) -> dict[str, Report]:
    """Events to a service on the filled database: alone, then while an export runs."""
    from benchmarks.store_events import serving

    database, count = database_of(folder, "once"), int(RATE * seconds)
    with serving(database, folder / "serve.log") as port:
        say(f"{count:,} events, {RATE:.0f} a second")
        alone = events(port, database, images, 0, count)
        say("again, while an export runs")
        exporting = Thread(target=export, args=(database,))
        exporting.start()
        beside = events(port, database, images, count, 2 * count)
        exporting.join()
    return {"alone": alone, "beside an export": beside}


def events(port: int, database: Path, images: int, first: int, last: int) -> Report:
    command = step("events", port, database, images, first, last)
    found: Report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return found


def print_report(report: Report) -> None:
    found, answers = report["export"], report["webhook"]
    ours, twice = found[OURS], found[TWICE]
    print(f"{report['images']:,} images, {report['boxes']:,} boxes, a database of {report['database_mb']:.0f} MB")
    print(f"\n{'export':28}{'s':>8}{'CPU s':>8}{'peak MB':>9}")
    for name, run in found.items():
        print(f"{name:28}{run['s']:8.1f}{run['cpu_s']:8.1f}{run['peak_mb']:9.0f}")
    columns = "".join(f"{name:>8}" for name in ("p50", "p95", "p99", "max"))
    print(f"\n{'webhook, 200 events/s, ms':28}{columns}{'most waiting':>14}{'applied after':>15}")
    for name, run in answers.items():
        numbers = "".join(f"{run[key]:8.1f}" for key in ("p50_ms", "p95_ms", "p99_ms", "max_ms"))
        print(f"{name:28}{numbers}{run['most_waiting']:14,}{run['applied_after_s']:13.1f} s")
    print()
    verdict("webhook p99, ms", answers["alone"]["p99_ms"], MAX_P99_MS)
    verdict("webhook p99 beside an export, ms", answers["beside an export"]["p99_ms"], MAX_P99_MS)
    verdict("export, s", ours["s"], MAX_EXPORT_S)
    verdict("export, MB", ours["peak_mb"], MAX_EXPORT_MB)
    verdict("twice the data, times the CPU s", twice["cpu_s"] / ours["cpu_s"], MAX_RATIO)
    print(f"load of the machine: {report['load_before']:.1f} before, {report['load_after']:.1f} after")


def verdict(what: str, found: float, allowed: float) -> None:
    print(f"{what:36}{found:8.1f}   at most {allowed:g}   {'met' if found <= allowed else 'MISSED'}")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run(folder: Path, images: int, repeats: int, seconds: int) -> Report:
    """All measurements, in a folder that is empty."""
    load_before = os.getloadavg()[0]
    report = prepare(folder, images)
    found = exports(folder, repeats)
    manifest = json.loads((database_of(folder, "once").parent / "out/manifest.json").read_text(encoding="utf-8"))
    return {
        **report,
        "boxes": manifest["annotations"],
        "repeats": repeats,
        "export": found,
        "webhook": webhook(folder, images, seconds),
        "load_before": load_before,
        "load_after": os.getloadavg()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=IMAGES, help=f"how many, with ten boxes each ({IMAGES})")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each export (3)")
    parser.add_argument("--seconds", type=int, default=SECONDS, help=f"how long events are sent ({SECONDS})")
    parser.add_argument("--quick", action="store_true", help="5,000 images, one repeat, ten seconds: does it run?")
    parser.add_argument("--folder", type=Path, help="where the databases go for the time of the run")
    parser.add_argument("--out", type=Path, default=Path("store.json"), help="where the JSON goes")
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        run_step(*arguments.step)
        return
    size = (5_000, 1, 10) if arguments.quick else (arguments.images, arguments.repeats, arguments.seconds)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        report = run(Path(folder), *size)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print_report(report)


if __name__ == "__main__":
    main()
