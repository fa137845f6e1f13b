"""Killed training jobs, and rollback under load: ``python -m benchmarks.training_jobs --out FILE [--kills 20]``.

A project of generated scenes, annotated by what was drawn, is trained from the bundled model: once undisturbed, then
killed at random moments (SIGKILL) and begun again each time. A job is through after some kills, so it is repeated until
there were as many as wanted; each version and its figures at the gate are held to those of the undisturbed one. Then it
goes into production and back again and again while threads ask the real service: it is told how long after each command
the first answer by the other version came, and how many answers mixed versions.
"""

import argparse
import base64
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
from PIL import Image

from backend.bootstrap import build_promotion
from backend.db.schema import open_prepared
from backend.db.unit_of_work import SqlUnitOfWork
from backend.demo_pictures import SCENE_LABELS
from backend.domain.annotations import AnnotatedRegion, Annotation, PercentBox
from backend.domain.facts import Fact, ProjectState, TaskState
from backend.domain.learning import Mode, ModelVersion, TrainingJob, TrainingRequest
from backend.services.corrections import apply_fact
from backend.services.training import Training
from backend.settings import Settings, child_environment
from glip_model.pretraining.scenes import draw_scene
from glip_model.pretraining.words import Looks
from integrations.processes import LOOPBACK, child_server, free_port
from integrations.written_aside import write_json

SIDE = 320  # pixels of a scene
CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
    + "".join(f'<Label value="{name}"/>' for name in SCENE_LABELS)
    + "</RectangleLabels></View>"
)
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
PROJECT = ProjectState("7.1795423412", 7, "scenes", MOMENT, CONFIG, SCENE_LABELS)
LEASE_SECONDS = 60.0
LOADS = 4  # threads that ask


def draw_annotated(number: int, folder: Path) -> Annotation:
    """Draw one scene to ``NUMBER.png`` in a folder, and annotate all that is in it."""
    rng = np.random.default_rng([7, number])
    named = [name.split() for name in rng.choice(SCENE_LABELS, int(rng.integers(1, 5)))]
    scene = draw_scene(SIDE, [Looks(shape, colour, "plain", None) for colour, shape in named], rng)
    Image.fromarray(scene.rgb).save(folder / f"{number}.png")
    regions = []
    for place, thing in enumerate(scene.things):
        x1, y1, x2, y2 = (100 * edge / SIDE for edge in thing.box_xyxy)
        label = f"{thing.looks.colour} {thing.looks.shape}"
        value = PercentBox(x1, y1, x2 - x1, y2 - y1)
        regions.append(AnnotatedRegion(f"{number}-{place}", "image", (label,), value, SIDE, SIDE))
    return Annotation(number, number, 7, MOMENT, MOMENT, 1, False, False, 5.0, None, tuple(regions))


class Home:
    """A folder with a database of the annotated project, and commands that work on it."""

    def __init__(self, folder: Path, site: str, annotations: Sequence[Annotation]) -> None:
        folder.mkdir()
        self.environment = child_environment(HOME=str(folder), DATABASE_URL="", IMAGE_HOSTS=site, SYNC_MINUTES="0")
        self.settings = Settings.from_env(self.environment)
        self.database = partial(SqlUnitOfWork, open_prepared(self.settings.database_url))
        self.training = Training(self.database, LEASE_SECONDS)
        with self.database() as unit:
            for each in annotations:
                task = TaskState(each.task_id, MOMENT, (("image", f"http://{site}/{each.task_id}.png"),))
                apply_fact(unit, Fact(PROJECT, (task,), (each,)))
            unit.commit()

    def job(self) -> TrainingJob:
        return self.training.of(PROJECT.uid)[0]

    def start(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "backend.training_process"]
        return subprocess.Popen(command, env=self.environment, stdin=subprocess.DEVNULL)

    def version(self) -> ModelVersion:
        with self.database() as unit:
            (version,) = unit.versions.all(PROJECT.uid)
        return version

    def half_written(self) -> int:
        """How many visible folders of versions are not whole."""
        folders = [path for path in (self.settings.home / "versions").glob("*/*") if not path.name.startswith(".")]
        return sum(not (folder / "version.json").is_file() for folder in folders)

    def expire_lease(self) -> None:
        """Make the dead worker's claim run out now, which spares the wait."""
        with self.database() as unit:
            unit.jobs.release(self.job())
            unit.commit()


def run_undisturbed(home: Home, request: TrainingRequest) -> float:
    """Train once; returns the seconds it took."""
    home.training.request(PROJECT.uid, request)
    begun = time.perf_counter()
    home.start().wait()
    return time.perf_counter() - begun


def run_killed(
    home: Home, request: TrainingRequest, kills: int, seconds: float, chance: random.Random
) -> tuple[list[str], int]:
    """Train with at most so many kills, each at a random moment of the time that an undisturbed run took.

    Returns:
        For each kill the stage of the job that it hit, ``claim`` before the first; and how many folders of versions
        could be seen that were not whole.
    """
    home.training.request(PROJECT.uid, request)
    hit, half = list[str](), 0
    while home.job().is_open:
        child = home.start()
        if len(hit) < kills:
            # Long enough for most attempts to get to their next checkpoint: the job must come to its end.
            with suppress(subprocess.TimeoutExpired):
                child.wait(chance.uniform(0.02, 0.6) * seconds)
            if child.poll() is None:
                child.send_signal(signal.SIGKILL)
                progress = home.job().progress
                hit.append("claim" if progress is None else progress.stage)
        child.wait()
        half += home.half_written()
        if home.job().is_open:
            home.expire_lease()
    return hit, half


def ask(url: str, number: int, picture: bytes) -> str:
    """Ask for one prediction, and return its version; ``mixed`` where its regions are of another."""
    data = "data:image/png;base64," + base64.b64encode(picture).decode()
    tasks = [{"id": 10_000 + number * 4 + index, "data": {"image": data}} for index in range(4)]
    body = {"tasks": tasks, "project": PROJECT.uid, "label_config": CONFIG, "params": {}}
    request = Request(f"{url}/predict", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urlopen(request, timeout=120) as response:
        results = json.load(response)["results"]
    versions = {result["model_version"] for result in results}
    versions |= {region["meta"]["glip"]["version"] for result in results for region in result["result"]}
    return versions.pop() if len(versions) == 1 else "mixed"


def move_under_load(home: Home, url: str, picture: bytes, moves: int) -> dict[str, Any]:
    """Promote and roll back while threads ask; seconds are from the command's begin to the next answer's version."""
    name, base = home.version().name, home.version().base
    promotion = build_promotion(home.settings, home.database)
    answers: list[str] = []
    stop, numbers = Event(), iter(range(10**9))

    def load() -> None:
        while not stop.is_set():
            answers.append(ask(url, next(numbers), picture))

    seconds = []
    with ThreadPoolExecutor(LOADS) as pool:
        loads = [pool.submit(load) for _ in range(LOADS)]
        for move in range(moves):
            begun = time.perf_counter()
            if move % 2 == 0:
                promotion.promote(PROJECT.uid, name, "benchmark", "")
            else:
                promotion.rollback(PROJECT.uid, "benchmark")
            seconds.append(_seconds_until(url, (name, base)[move % 2], begun))
            told = len(answers)
            while len(answers) < told + LOADS:  # each version answers some before it is the other's turn
                time.sleep(0.01)
        stop.set()
        for each in loads:
            each.result()
    return {
        "moves": moves,
        "seconds_max": max(seconds),
        "predictions": 4 * len(answers),
        "mixed": answers.count("mixed"),
        "by_version": {version: answers.count(version) for version in sorted({*answers})},
    }


def _seconds_until(url: str, version: str, begun: float) -> float:
    """Ask as Label Studio does before each round of predictions, until the service answers this version."""
    body = json.dumps({"project": PROJECT.uid, "schema": CONFIG}).encode()
    while True:
        with urlopen(Request(f"{url}/setup", body, {"Content-Type": "application/json"}), timeout=120) as response:
            if json.load(response)["model_version"] == version:
                return time.perf_counter() - begun


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve a folder's files for the length of a ``with`` block; yields host and port."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer((LOOPBACK, 0), partial(Quiet, directory=str(folder)))
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"{LOOPBACK}:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def weights(version: ModelVersion) -> dict[str, str]:
    """SHA-256 of each file but the one that tells of the job."""
    return {name: digest for name, digest in version.files if name != "version.json"}


def compared(version: ModelVersion, other: ModelVersion) -> dict[str, Any]:
    """What two versions have in common, and by how much what the gate measured of them differs: a person's seconds
    per image, AP and AP50. Rounding may hang on how memory is aligned, and latency, left out, on the moment."""
    gates = [each.metrics["gate"]["numbers"] for each in (version, other)]
    figures = [{name: gate[name]["candidate"] for name in ("seconds", "ap", "ap50")} for gate in gates]
    return {
        "same_data": version.fingerprint == other.fingerprint,
        "same_weights": weights(version) == weights(other),
        "differs_at_gate": {name: abs(figures[0][name] - figures[1][name]) for name in figures[0]},
    }


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run everything in a new folder."""
    pictures = folder / "pictures"
    pictures.mkdir()
    annotations = [draw_annotated(number, pictures) for number in range(1, args.images + 1)]
    request = TrainingRequest("command", args.mode, promote=False)
    chance, jobs, hit = random.Random(0), list[dict[str, Any]](), list[str]()
    with serving(pictures) as site:
        calm = Home(folder / "calm", site, annotations)
        seconds = run_undisturbed(calm, request)
        while len(hit) < args.kills:
            home = Home(folder / f"killed-{len(jobs)}", site, annotations)
            found, half = run_killed(home, request, args.kills - len(hit), seconds, chance)
            jobs.append({"kills": len(found), "half_written": half, **compared(home.version(), calm.version())})
            print(jobs[-1], flush=True)
            hit += found
    port = free_port()
    url = f"http://{LOOPBACK}:{port}"
    environment = {**calm.environment, "GLIP_LABEL_PORT": str(port)}
    command = [sys.executable, "-m", "backend.cli", "serve"]
    log = folder / "service.log"
    with child_server(command, health_url=f"{url}/health", log=log, environment=environment):
        moved = move_under_load(calm, url, (pictures / "1.png").read_bytes(), args.moves)
    return {
        "images": args.images,
        "mode": calm.version().mode,
        "seconds_undisturbed": seconds,
        "killed_while": Counter(hit),
        "killed_jobs": jobs,
        "production": moved,
    }


def main() -> None:
    """Print what was measured, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--moves", type=int, default=20)
    parser.add_argument("--mode", type=Mode, choices=list(Mode), help="by the data by default: the whole model learns")
    args = parser.parse_args()
    with TemporaryDirectory() as folder:
        figures = measure(args, Path(folder))
    write_json(args.out, figures)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
