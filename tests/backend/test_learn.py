"""One job from frozen data to a version: what is kept, what moves, and what a killed worker leaves behind."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from backend.domain.dataset import AnnotatedImage
from backend.domain.learning import (
    PRODUCTION,
    AliasMove,
    Contest,
    JobState,
    Mode,
    MoveKind,
    Ruling,
    TrainingJob,
    TrainingRequest,
)
from backend.domain.records import Picture, Proposal, Query
from backend.domain.training_data import LabelledBox, Part
from backend.errors import ModelError, TrainingError
from backend.services.contests import LearnParts
from backend.services.gathering import Gathering
from backend.services.learn import Learn
from backend.services.self_training import SelfTraining
from backend.services.training import Claim, Training
from backend.version_folders import VersionFolders
from tests.backend.test_gathering import CAT, annotated_image, known
from tests.backend.test_learning_stores import make_version
from tests.facts import UID, at, make_annotation, make_region
from tests.fake_learning import FakeModels, FakeReviewedProjects, FakeTrainer, digest_of
from tests.fakes import FakeDetector, FakeImages, one_box_per_label

BASE = "glip-nano-3f9a12cd"
BETTER = Ruling(True, "12 s less for each image", {"gain": 12.0})
WORSE = Ruling(False, "not measurably better", {"gain": -1.0})
IMAGES = [
    annotated_image(name, make_annotation(number, 0, make_region(), task_id=number), task_id=number)
    for number, name in enumerate(["train-1", "train-2", "tune-3", "gate-4"], start=1)
]


def nothing(picture: Picture, query: Query) -> list[Proposal]:
    return []


class House:
    """Everything that a job needs, on fakes, with real folders."""

    def __init__(
        self,
        home: Path,
        ruling: Ruling = BETTER,
        trainer: FakeTrainer | None = None,
        announce: Callable[[str], None] = lambda project: None,
        unreviewed: Sequence[AnnotatedImage] = (),
    ) -> None:
        self.home = home
        self.images = [*IMAGES, *unreviewed]
        self.database = known(*self.images)
        self.training = Training(self.database)
        self.trainer = trainer or FakeTrainer()
        self.contests: list[Contest] = []
        self.candidate = FakeDetector(version="candidate")
        self.production = FakeDetector(nothing, version=BASE)
        self.folders = VersionFolders(home)
        self.ruling = ruling
        self.rulings: list[Ruling] = []  # to come before that
        projects = FakeReviewedProjects(self.images)
        self.versions = {f"glip_nano_{number:04d}": FakeDetector() for number in range(1, 5)}
        models = FakeModels(self.production, candidate=self.candidate, **self.versions)
        parts = LearnParts(
            unit_of_work=self.database,
            reading=self.database,
            gathering=SelfTraining(Gathering(projects, self.database, self.database), projects, self.database, models),
            images=FakeImages(),
            models=models,
            trainer=self.trainer,
            files=self.folders,
            judge=self._judge,
            announce=announce,
        )
        ticks = count(100)
        self.learn = Learn(parts, lambda: at(next(ticks)))

    def _judge(self, contest: Contest) -> Ruling:
        self.contests.append(contest)
        return self.rulings.pop(0) if self.rulings else self.ruling

    def claim(self, **request: Any) -> Claim:
        self.training.request(UID, TrainingRequest("command", **request))
        claim = self.training.claim("w")
        assert claim is not None
        return claim

    def run(self, **request: Any) -> TrainingJob:
        claim = self.claim(**request)
        self.learn(claim)
        return self.job(claim)

    def job(self, claim: Claim) -> TrainingJob:
        found = self.training.find(claim.job.id)
        assert found is not None
        return found

    def in_production(self) -> str | None:
        with self.database() as unit:
            version = unit.versions.alias(UID, PRODUCTION)
        return None if version is None else version.name


def test_a_better_candidate_becomes_a_version_in_production_with_its_numbers(tmp_path: Path) -> None:
    announced: list[str] = []
    house = House(tmp_path, announce=announced.append)
    job = house.run(seed=5)

    assert (job.state, job.version) == (JobState.DONE, "glip-nano-0001")
    assert job.outcome == "glip-nano-0001 is in production: 12 s less for each image"
    assert (house.in_production(), announced) == ("glip-nano-0001", [UID])
    with house.database() as unit:
        (version,) = unit.versions.all(UID)
        (move,) = unit.versions.moves(UID, PRODUCTION)
    assert (version.parent, version.base, version.mode) == (BASE, BASE, Mode.PROMPT)
    assert version.fingerprint == job.fingerprint
    assert version.metrics["images"] == {"train": 2, "tune": 1, "gate": 1}
    ruling = {"promote": True, "reason": BETTER.reason, "numbers": BETTER.numbers, "compared": True, "may_pay": False}
    assert version.metrics["gate"] == ruling
    assert (move.actor, move.reason, move.numbers) == ("gate", BETTER.reason, BETTER.numbers)


def test_a_version_begins_with_a_fit_to_what_it_finds_in_images_that_it_did_not_learn_from(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.run()
    with house.database() as unit:
        fit = unit.fits.newest(UID, "glip-nano-0001")
        rehearsed = unit.fits.rehearsed(UID, "glip-nano-0001")
    assert fit is not None
    assert fit.judgements == len(rehearsed) == sum(map(len, house.contests[0].candidate.proposals)) > 0
    assert fit.project == UID


def test_a_version_is_a_whole_folder_that_tells_where_it_came_from(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.run(seed=5)
    with house.database() as unit:
        (version,) = unit.versions.all(UID)
    folder = house.folders.folder(version)
    about = json.loads((folder / "version.json").read_text())

    assert sorted(file.name for file in folder.iterdir()) == ["adapter.json", "version.json"]
    assert [name for name, _ in version.files] == ["adapter.json", "version.json"]
    assert (about["name"], about["parent"], about["seed"]) == ("glip-nano-0001", BASE, 5)
    assert about["fingerprint"] == version.fingerprint
    assert about["metrics"] == version.metrics
    assert [path.name for path in (tmp_path / "versions" / UID).iterdir()] == ["glip-nano-0001"]
    assert list((tmp_path / "jobs").iterdir()) == []


def test_the_trainer_sees_the_frozen_data_and_the_gate_what_was_held_out(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.run()

    (data,) = house.trainer.learned
    assert {image.sha256 for image in data.part(Part.TRAIN)} == {digest_of("train-1"), digest_of("train-2")}
    (contest,) = house.contests
    assert [image.sha256 for image in contest.images] == [digest_of("tune-3"), digest_of("gate-4")]
    assert contest.images[0].boxes == (LabelledBox(CAT.box, "cat"),)
    assert [len(found) for found in contest.candidate.proposals] == [2, 2]
    assert contest.production.proposals == ((), ())
    assert len(contest.candidate.seconds) == 2
    assert contest.attempt == 1


def test_what_is_found_of_a_label_that_was_added_after_the_review_counts_for_nobody(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.production._finds = one_box_per_label
    house.database.tables.labels[UID] = {"cat": None, "dog": at(9)}
    house.run()
    with house.database() as unit:
        rehearsed = unit.fits.rehearsed(UID, "glip-nano-0001")

    (contest,) = house.contests
    for answers in (contest.production, contest.candidate):
        assert [[each.label for each in found] for found in answers.proposals] == [["cat"], ["cat"]]
    assert {each.label for each in rehearsed} == {"cat"}


def test_a_candidate_that_is_not_better_is_kept_with_its_numbers_and_serves_nobody(tmp_path: Path) -> None:
    announced: list[str] = []
    house = House(tmp_path, WORSE, announce=announced.append)
    first, second = house.run(), house.run()

    assert first.outcome == "glip-nano-0001 was not promoted: not measurably better"
    assert (house.in_production(), announced) == (None, [])
    with house.database() as unit:
        assert [version.name for version in unit.versions.all(UID)] == ["glip-nano-0001", "glip-nano-0002"]
        assert unit.versions.all(UID)[0].metrics["gate"]["numbers"] == WORSE.numbers
    assert second.version == "glip-nano-0002"
    assert [contest.attempt for contest in house.contests] == [1, 2]


def test_where_too_few_images_were_held_out_to_look_it_was_no_try(tmp_path: Path) -> None:
    house = House(tmp_path, replace(WORSE, compared=False))
    house.run()
    house.run()
    assert [contest.attempt for contest in house.contests] == [1, 1, 1]  # the last one looks again at the first


def test_tries_are_counted_anew_after_a_promotion(tmp_path: Path) -> None:
    house = House(tmp_path, WORSE)
    house.run()
    with house.database() as unit:
        unit.versions.move(AliasMove(UID, PRODUCTION, "glip-nano-0001", MoveKind.PROMOTION, at(101), "x", "", {}))
        unit.commit()
    house.run()
    assert [contest.attempt for contest in house.contests] == [1, 1]


def test_where_no_promotion_is_wanted_the_numbers_are_there_all_the_same(tmp_path: Path) -> None:
    house = House(tmp_path)
    job = house.run(promote=False)
    assert job.outcome == "glip-nano-0001 would be better (12 s less for each image), but was not promoted: as asked"
    assert house.in_production() is None


def test_what_a_person_promoted_meanwhile_stays(tmp_path: Path) -> None:
    def promote() -> None:
        with house.database() as unit:
            unit.versions.add(make_version(1))
            unit.versions.move(AliasMove(UID, PRODUCTION, "glip-nano-0001", MoveKind.PROMOTION, at(9), "x", "", {}))
            unit.commit()

    class LateDetector(FakeDetector):
        def detect(self, *arguments: Any, **options: Any) -> list[list[Proposal]]:
            if not self.asked:
                promote()
            return super().detect(*arguments, **options)

    house = House(tmp_path)
    house.candidate.__class__ = LateDetector
    job = house.run()
    assert job.outcome is not None
    assert job.outcome.endswith("what is in production changed meanwhile")
    assert house.in_production() == "glip-nano-0001"
    assert job.version == "glip-nano-0002"


@pytest.mark.parametrize("error", [TrainingError("the loss\nis not finite"), ModelError("no weights")])
def test_a_job_that_cannot_be_done_fails_with_one_line_and_leaves_nothing(tmp_path: Path, error: Exception) -> None:
    house = House(tmp_path, trainer=FakeTrainer(error))
    job = house.run()
    assert (job.state, job.outcome, job.version) == (JobState.FAILED, " ".join(str(error).split()), None)
    assert list((tmp_path / "jobs").iterdir()) == []
    assert not (tmp_path / "versions").exists()


def test_a_version_whose_files_are_not_those_that_were_trained_is_refused(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.run()
    with house.database() as unit:
        (version,) = unit.versions.all(UID)
    file = house.folders.folder(version) / "adapter.json"
    file.write_text("damaged")
    with pytest.raises(ModelError, match=r"is not the file that was trained: restore it .*glip-label models rollback"):
        house.folders.folder(version)
    file.unlink()
    with pytest.raises(ModelError, match="cannot be read"):
        house.folders.folder(version)
