"""A worker to be killed: real database and folders, and a trainer that only counts, ``python -m tests.training_child``.

Arguments: home, seconds for each step. It claims the job that waits, if there is one, and ends when that is finished.
"""

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from backend.db.engine import open_engine
from backend.db.unit_of_work import SqlUnitOfWork
from backend.domain.learning import Contest, Mode, Ruling, TrainingProgress, TrainingRequest
from backend.domain.training_data import FrozenData
from backend.services.contests import LearnParts
from backend.services.gathering import Gathering
from backend.services.learn import Learn
from backend.services.training import Training
from backend.version_folders import VersionFolders
from integrations.written_aside import write_json
from tests.backend.test_gathering import annotated_image
from tests.facts import make_annotation, make_region
from tests.fake_learning import FakeModels, FakeReviewedProjects
from tests.fakes import FakeDetector, FakeImages

BASE = "glip-nano-3f9a12cd"
LEASE_SECONDS = 1.0
STEPS = 30
NAMES = ["train-1", "train-2", "gate-3", "gone/train-4"]
IMAGES = [
    annotated_image(name, make_annotation(number, 0, make_region(), task_id=number), task_id=number)
    for number, name in enumerate(NAMES, start=1)
]


class CountingTrainer:
    """Hashes its last result at each step, and keeps a checkpoint after every other one."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def train(
        self,
        data: FrozenData,
        request: TrainingRequest,
        start: Path | None,
        folder: Path,
        progress: Callable[[TrainingProgress], None],
    ) -> Mode:
        checkpoint, result = folder / "checkpoint.json", folder / "adapter.json"
        if result.is_file():
            return Mode.PROMPT
        state: dict[str, Any] = (
            json.loads(checkpoint.read_text()) if checkpoint.is_file() else {"step": 0, "value": data.fingerprint}
        )
        while state["step"] < STEPS:
            time.sleep(self._seconds)
            state = {"step": state["step"] + 1, "value": sha256(state["value"].encode()).hexdigest()}
            if state["step"] % 2 == 0:
                write_json(checkpoint, state)
            progress(TrainingProgress("train", state["step"], STEPS))
        write_json(result, state)
        checkpoint.unlink()
        return Mode.PROMPT


def judge(contest: Contest) -> Ruling:
    return Ruling(True, f"better on {len(contest.images)} images", {})


def open_in(home: Path) -> partial[SqlUnitOfWork]:
    return partial(SqlUnitOfWork, open_engine(f"sqlite:///{home / 'glip.sqlite3'}"))


def learn_in(home: Path, seconds: float, announce: Callable[[str], None]) -> tuple[Training, Learn]:
    """As ``bootstrap.build_learn``: the queue in ``home``, and what works on it with ``seconds`` for each step."""
    unit_of_work = open_in(home)
    reading = partial(unit_of_work, reads_only=True)
    parts = LearnParts(
        unit_of_work=unit_of_work,
        reading=reading,
        gathering=Gathering(FakeReviewedProjects(IMAGES), unit_of_work, reading),
        images=FakeImages(),
        models=FakeModels(FakeDetector(version=BASE), candidate=FakeDetector()),
        trainer=CountingTrainer(seconds),
        files=VersionFolders(home),
        judge=judge,
        announce=announce,
    )
    return Training(unit_of_work, LEASE_SECONDS), Learn(parts)


def main(home: Path, seconds: float) -> None:
    training, learn = learn_in(home, seconds, lambda project: None)
    claim = training.claim("child")
    if claim is not None:
        learn(claim)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
