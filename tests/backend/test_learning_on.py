"""Which weights a training starts from."""

import json
from pathlib import Path

import pytest

from backend.domain.learning import PRODUCTION, AliasMove, JobState, Mode, MoveKind, Ruling
from backend.errors import StorageError
from tests.backend.test_learn import House
from tests.facts import UID, at


def test_training_goes_on_from_the_whole_model_in_production(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.run(mode=Mode.FULL)
    house.run(mode=Mode.FULL)
    assert [data.start for data in house.trainer.learned] == [None, "glip-nano-0001"]
    assert house.trainer.starts == [None, tmp_path / "versions" / UID / "glip-nano-0001"]
    assert json.loads((tmp_path / "versions" / UID / "glip-nano-0002" / "version.json").read_text())["start"] == (
        "glip-nano-0001"
    )


def test_what_the_gate_refused_learns_on_where_it_measured_better(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.run(mode=Mode.FULL)
    for may_pay in (True, False):
        house.ruling = Ruling(False, "not clearly faster", {}, may_pay=may_pay)
        house.run(mode=Mode.FULL)
    house.run(mode=Mode.FULL)
    assert [data.start for data in house.trainer.learned] == [None, *["glip-nano-0001"], *["glip-nano-0002"] * 2]
    # What was refused is looked at again before each training.
    assert [contest.attempt for contest in house.contests] == [1, 1, 2, 3, 4, 5]


def test_learning_goes_on_from_production_where_what_was_refused_is_damaged(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.run(mode=Mode.FULL)
    house.ruling = Ruling(False, "not clearly faster", {}, may_pay=True)
    house.run(mode=Mode.FULL)
    (tmp_path / "versions" / UID / "glip-nano-0002" / "adapter.json").unlink()
    job = house.run(mode=Mode.FULL)
    assert job.state is JobState.DONE
    assert house.trainer.learned[-1].start == "glip-nano-0001"


def test_after_a_rollback_learning_goes_on_from_what_is_in_production(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.run(mode=Mode.FULL)
    house.ruling = Ruling(False, "not clearly faster", {}, may_pay=True)
    house.run(mode=Mode.FULL)
    with house.database() as unit:
        unit.versions.move(AliasMove(UID, PRODUCTION, None, MoveKind.ROLLBACK, at(5000), "command", "", {}))
        unit.commit()
    house.run(mode=Mode.FULL)
    assert house.trainer.learned[-1].start is None


def test_adapters_in_production_are_not_trained_further(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.run(mode=Mode.HEAD)
    house.run(mode=Mode.FULL)
    assert house.trainer.starts == [None, None]


def test_who_wants_to_begins_anew(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.run(mode=Mode.FULL)
    house.run(mode=Mode.FULL, from_base=True)
    assert house.trainer.starts == [None, None]


def test_a_resumed_training_starts_where_its_first_attempt_did(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.run(mode=Mode.FULL)
    claim = house.claim(mode=Mode.FULL)
    house.trainer.error = StorageError("away")
    with pytest.raises(StorageError):
        house.learn(claim)
    with house.database() as unit:
        unit.versions.move(AliasMove(UID, PRODUCTION, None, MoveKind.ROLLBACK, at(50), "command", "", {}))
        unit.commit()
    claim.release()
    house.trainer.error = None
    again = house.training.claim("w")
    assert again is not None
    house.learn(again)
    assert house.trainer.starts[1] == house.trainer.starts[2] != house.trainer.starts[0]


def test_a_damaged_version_in_production_fails_the_training_with_its_name(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.run(mode=Mode.FULL)
    (tmp_path / "versions" / UID / "glip-nano-0001" / "adapter.json").write_text("[]")
    job = house.run(mode=Mode.FULL)
    assert job.state is JobState.FAILED
    assert "glip-nano-0001/adapter.json is not the file that was trained" in (job.outcome or "")
