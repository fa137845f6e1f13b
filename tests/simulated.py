"""A project by chance, and a model that gets better the more boxes it learned from: arithmetic without weights."""

from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from backend.domain.learning import Contest, Mode, ModelVersion, Ruling, TrainingProgress, TrainingRequest
from backend.domain.records import Label, Picture, Proposal, Query
from backend.domain.training_data import FrozenData, Part
from backend.errors import TrainingError
from backend.kept_trainings import KeptTrainings
from backend.ports import Detector
from backend.services.simulate import SimulationTools, TrueProject
from backend.services.simulated_view import TrueImage
from tests.fakes import FakeDetector
from tests.synthetic import LABELS, SIDE, SyntheticDetector, make_scene


def true_images(count: int, seed: int) -> tuple[TrueImage, ...]:
    chance = np.random.default_rng(seed)
    names = [f"{seed}-{number:03d}.jpg" for number in range(count)]
    return tuple(
        TrueImage(name, sha256(name.encode()).hexdigest(), int(SIDE), int(SIDE), make_scene(chance)) for name in names
    )


def make_true_project(images: int = 60, tests: int = 20) -> TrueProject:
    return TrueProject(tuple(map(Label, LABELS)), true_images(images, 0), true_images(tests, 1))


class PicturesByHash:
    """``ports.Images``: a picture that tells nothing but its hash."""

    def fetch(self, reference: str, task_id: int | None = None) -> Picture:
        return Picture(int(SIDE), int(SIDE), b"", reference, reference)


class Learner:
    """``ports.Trainer`` and ``ports.Models``: recall grows and boxes get exact with the boxes learned from.

    Attributes:
        trained: what each training learned from.
        starts: the model that each went on from.
        asked: (number of the training, SHA-256) of each image that a model looked at, in order.
    """

    base = "synthetic-01234567"

    def __init__(self, project: TrueProject, untrained: SyntheticDetector, trained: SyntheticDetector) -> None:
        self.trained: list[FrozenData] = []
        self.starts: list[Path | None] = []
        self.asked: list[tuple[int, str]] = []
        self._truth = {image.sha256: image.objects for image in (*project.pool, *project.test)}
        self._knobs = (untrained, trained)

    def train(
        self,
        data: FrozenData,
        request: TrainingRequest,
        start: Path | None,
        folder: Path,
        progress: Callable[[TrainingProgress], None],
    ) -> Mode:
        if not any(image.boxes for image in data.part(Part.TRAIN)):
            raise TrainingError("no example has a box: there is nothing to learn from yet")
        self.trained.append(data)
        self.starts.append(start)
        folder.mkdir()
        boxes = sum(len(image.boxes) for image in data.part(Part.TRAIN))
        folder.joinpath("learned").write_text(f"{len(self.trained)} {boxes}")
        return request.mode or Mode.HEAD

    def open(self, version: ModelVersion | None) -> Detector:
        assert version is None
        return self._detector(0, 0)

    def open_folder(self, folder: Path) -> Detector:
        return self._detector(*map(int, folder.joinpath("learned").read_text().split()))

    def _detector(self, training: int, boxes: int) -> Detector:
        knobs = self._knobs[boxes >= 20]

        def find(picture: Picture, query: Query) -> list[Proposal]:
            self.asked.append((training, picture.sha256))
            chance = np.random.default_rng((training, crc32(picture.sha256.encode())))
            return list(knobs.propose(self._truth[picture.sha256], chance))

        return FakeDetector(find)


def always(contest: Contest) -> Ruling:
    return Ruling(True, "better", {})


def never(contest: Contest) -> Ruling:
    return Ruling(False, "not measurably better", {})


def no_precision(proposals: Sequence[Sequence[Proposal]]) -> tuple[float | None, float | None]:
    return None, None


def make_tools(learner: Learner, folder: Path, **changed: Any) -> SimulationTools:
    train = KeptTrainings(learner, learner.base, folder).train
    parts = {"images": PicturesByHash(), "judge": always, "precision": no_precision}
    return SimulationTools(models=learner, train=train, **{**parts, **changed})
