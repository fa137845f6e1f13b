"""What the gate refused for want of evidence, looked at again with what people reviewed since."""

from pathlib import Path

import pytest

from backend.domain.learning import JobState, Mode, MoveKind, Ruling
from backend.domain.training_data import Part
from backend.errors import ModelError
from tests.backend.test_gathering import annotated_image
from tests.backend.test_learn import BASE, House
from tests.facts import UID, make_annotation, make_region
from tests.fake_learning import digest_of

PROMISING = Ruling(False, "not clearly faster", {}, may_pay=True)
BETTER = Ruling(True, "8 s instead of 9", {"seconds": 8}, may_pay=True)


def refused(tmp_path: Path, ruling: Ruling = PROMISING) -> House:
    """A project with a version that was refused, and an image that was reviewed afterwards."""
    annotation = make_annotation(5, 0, make_region(), task_id=5)
    house = House(tmp_path, ruling, unreviewed=[annotated_image("train-5", annotation, task_id=5)])
    later = house.images.pop()
    house.run(mode=Mode.FULL)
    house.images.append(later)
    return house


def test_it_is_judged_on_what_was_held_out_and_on_what_was_reviewed_since(tmp_path: Path) -> None:
    house = refused(tmp_path)
    job = house.run(mode=Mode.FULL)
    first, second, look = house.contests
    held_out = [digest_of("tune-3"), digest_of("gate-4")]
    assert [image.sha256 for image in first.images] == held_out
    assert sorted(image.sha256 for image in look.images) == sorted([digest_of("train-5"), *held_out])
    assert [image.sha256 for image in second.images] == held_out
    assert [contest.attempt for contest in house.contests] == [1, 2, 3]
    assert house.in_production() is None
    assert job.outcome == "glip-nano-0002 was not promoted: not clearly faster"
    with house.database() as unit:
        version = unit.versions.all(UID)[-1]
    assert version.metrics["looked_again"] == {"version": "glip-nano-0001", **PROMISING.to_json()}


def test_where_it_passes_now_it_goes_into_production_and_the_newest_version_is_held_against_it(tmp_path: Path) -> None:
    announced: list[str] = []
    house = House(tmp_path, PROMISING, announce=announced.append)
    house.run(mode=Mode.FULL)
    house.rulings = [PROMISING, BETTER, PROMISING]
    job = house.run(mode=Mode.FULL)
    assert job.outcome == (
        "glip-nano-0001, looked at again, went into production: 8 s instead of 9; "
        "glip-nano-0002 was not promoted: not clearly faster"
    )
    with house.database() as unit:
        moves = [(move.version, move.kind, move.actor, move.reason) for move in unit.versions.moves(UID, "production")]
        parents = [version.parent for version in unit.versions.all(UID)]
    assert moves == [("glip-nano-0001", MoveKind.PROMOTION, "gate", BETTER.reason)]
    assert announced == [UID]
    assert parents == [BASE, "glip-nano-0001"]
    assert [contest.attempt for contest in house.contests] == [1, 2, 3, 1]
    house.run(mode=Mode.FULL)
    assert house.trainer.learned[-1].start == "glip-nano-0002"
    assert house.contests[4].attempt == 2


def test_it_is_left_alone_where_the_newest_version_passes(tmp_path: Path) -> None:
    house = refused(tmp_path)
    house.ruling = BETTER
    house.run(mode=Mode.FULL)
    assert house.in_production() == "glip-nano-0002"
    assert len(house.contests) == 2


def test_its_fit_rests_on_the_newer_images_too(tmp_path: Path) -> None:
    house = refused(tmp_path)
    house.rulings = [PROMISING, BETTER]
    house.run(mode=Mode.FULL)
    with house.database() as unit:
        rehearsed = unit.fits.rehearsed(UID, "glip-nano-0001")
        fit = unit.fits.newest(UID, "glip-nano-0001")
    assert {each.image for each in rehearsed} == {digest_of(name) for name in ("tune-3", "gate-4", "train-5")}
    assert fit is not None
    assert fit.judgements == len(rehearsed)


@pytest.mark.parametrize("ruling", [Ruling(False, "slower", {}), Ruling(True, "better", {}, may_pay=True)])
def test_what_measured_slower_and_what_is_in_production_are_not_looked_at_again(tmp_path: Path, ruling: Ruling) -> None:
    house = refused(tmp_path, ruling)
    house.run(mode=Mode.FULL)
    assert len(house.contests) == 2
    with house.database() as unit:
        assert "looked_again" not in unit.versions.all(UID)[-1].metrics


def test_a_job_that_is_to_promote_nothing_looks_at_nothing_again(tmp_path: Path) -> None:
    house = refused(tmp_path)
    house.run(mode=Mode.FULL, promote=False)
    assert len(house.contests) == 2


def test_images_that_any_version_learned_from_tell_nothing(tmp_path: Path) -> None:
    house = refused(tmp_path)
    house.run(mode=Mode.FULL)  # learns from train-5 as well
    house.run(mode=Mode.FULL)
    assert len(house.contests) == 5
    assert all(image.part is not Part.TRAIN for image in house.contests[4].images)


def test_a_version_that_cannot_be_opened_any_more_keeps_nobody_from_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    house = refused(tmp_path)
    house.versions["glip_nano_0001"]._error = ModelError("damaged")
    job = house.run(mode=Mode.FULL)
    assert job.state is JobState.DONE
    assert "no second look at glip-nano-0001: damaged" in caplog.text
