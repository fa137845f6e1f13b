"""What becomes of jobs whose worker was stopped, killed or overtaken, and of what these left on disk."""

import json
from pathlib import Path

import pytest

from backend.domain.learning import JobState, Mode
from backend.errors import LeaseLostError, StorageError
from tests.backend.test_gathering import annotated_image
from tests.backend.test_learn import House
from tests.facts import UID, make_annotation, make_region
from tests.fake_learning import FakeTrainer


def test_where_something_is_away_the_job_goes_on_later_with_the_same_data(tmp_path: Path) -> None:
    trainer = FakeTrainer(StorageError("away"))
    gone = annotated_image("gone/train-5", make_annotation(5, 0, make_region(), task_id=5), task_id=5)
    house = House(tmp_path, trainer=trainer, unreviewed=[gone])
    claim = house.claim()
    with pytest.raises(StorageError):
        house.learn(claim)
    assert house.job(claim).is_open
    claim.release()
    trainer.error = None
    again = house.training.claim("w2")
    assert again is not None
    house.learn(again)
    assert house.job(claim).state is JobState.DONE
    assert trainer.learned[0] == trainer.learned[1]
    assert house.job(claim).attempts == 2
    with house.database() as unit:
        (version,) = unit.versions.all(UID)
    assert version.metrics["left_out"] == {"file-cannot-be-had": 1}


def test_a_job_that_goes_on_under_another_base_begins_anew_from_that(tmp_path: Path) -> None:
    trainer = FakeTrainer()
    house = House(tmp_path, trainer=trainer)
    house.run(mode=Mode.FULL)
    trainer.error = StorageError("away")
    claim = house.claim(mode=Mode.FULL)
    with pytest.raises(StorageError):
        house.learn(claim)
    (house.folders.work(claim.job.id) / "config.json").write_text("of the old base")
    claim.release()
    trainer.error, house.production.version = None, "glip-t-11112222"
    again = house.training.claim("w")
    assert again is not None
    house.learn(again)

    assert [None if start is None else start.name for start in trainer.starts] == [None, "glip-nano-0001", None]
    with house.database() as unit:
        version = unit.versions.all(UID)[-1]
    assert (version.name, version.base, version.parent) == ("glip-t-0002", "glip-t-11112222", "glip-t-11112222")
    assert [name for name, _ in version.files] == ["adapter.json", "version.json"]


def test_what_lies_in_the_folder_of_a_job_that_did_not_begin_is_not_its_own(tmp_path: Path) -> None:
    house = House(tmp_path)
    claim = house.claim()  # another database had a job of that number
    (house.folders.work(claim.job.id) / "config.json").write_text("of another job")
    house.learn(claim)
    with house.database() as unit:
        (version,) = unit.versions.all(UID)
    assert [name for name, _ in version.files] == ["adapter.json", "version.json"]


def test_a_worker_whose_job_was_taken_over_makes_no_version(tmp_path: Path) -> None:
    def take_over() -> None:
        claim.release()
        assert house.training.claim("other") is not None

    house = House(tmp_path, trainer=FakeTrainer(meanwhile=take_over))
    claim = house.claim()
    with pytest.raises(LeaseLostError):
        house.learn(claim)
    with house.database() as unit:
        assert unit.versions.all(UID) == []
    assert house.job(claim).worker == "other"


def test_a_job_that_no_worker_finishes_is_given_up(tmp_path: Path) -> None:
    house = House(tmp_path)
    claim = house.claim()
    for _ in range(40):
        claim.release()
        next_claim = house.training.claim("w")
        assert next_claim is not None
        claim = next_claim
    house.learn(claim)
    assert house.job(claim).state is JobState.FAILED
    outcome = "given up after 40 attempts: each worker died or was stopped, see their logs"
    assert house.job(claim).outcome == outcome


def test_a_folder_that_a_killed_worker_published_without_its_row_is_replaced(tmp_path: Path) -> None:
    house = House(tmp_path)
    stray = tmp_path / "versions" / UID / "glip-nano-0001"
    stray.mkdir(parents=True)
    (stray / "adapter.json").write_text("[]")
    house.run()
    with house.database() as unit:
        (version,) = unit.versions.all(UID)
    assert json.loads((house.folders.folder(version) / "adapter.json").read_text()) == ["cat", "dog"]


def test_what_a_job_left_that_was_killed_at_its_very_end_is_removed_by_the_next(tmp_path: Path) -> None:
    house = House(tmp_path)
    job = house.run()
    (house.folders.work(job.id) / "checkpoint.pt").write_bytes(b"x")
    house.run()
    assert list((tmp_path / "jobs").iterdir()) == []
