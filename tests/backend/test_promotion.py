"""What is in production moves in one step, is followed at once, and its history tells how it went."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from backend.domain.facts import ProjectState
from backend.domain.geometry import Box
from backend.domain.learning import PRODUCTION, MoveKind
from backend.domain.records import Prediction, Proposal
from backend.errors import UsageError
from backend.services.predict import Predict
from backend.services.promotion import Production, Promotion, production_version, promoted
from tests.backend.test_learning_stores import make_version
from tests.facts import UID, at
from tests.fake_learning import FakeModels
from tests.fakes import FakeDatabase, FakeDetector, FakeImages
from tests.make import make_ask

BASE = "glip-nano-3f9a12cd"


def with_versions(*numbers: int) -> FakeDatabase:
    database = FakeDatabase()
    with database() as unit:
        unit.projects.put(ProjectState(UID, 7))
        for number in numbers:
            unit.versions.add(make_version(number))
        unit.commit()
    return database


def promotion_of(
    database: FakeDatabase, announce: Callable[[str], None] = lambda project: None, base: str = BASE
) -> Promotion:
    return Promotion(database, lambda: base, announce, lambda: at(0))


def in_production(database: FakeDatabase, base: str = BASE) -> str | None:
    with database() as unit:
        version = production_version(unit, UID, base)
    return None if version is None else version.name


def test_a_promotion_is_told_after_it_holds_and_is_kept_with_who_and_why() -> None:
    database = with_versions(1)
    seen: list[tuple[str, str | None]] = []
    move = promotion_of(database, lambda project: seen.append((project, in_production(database)))).promote(
        UID, "glip-nano-0001", "command", "looks good"
    )

    assert (move.version, move.kind, move.actor, move.reason) == (
        "glip-nano-0001",
        MoveKind.PROMOTION,
        "command",
        "looks good",
    )
    assert seen == [(UID, "glip-nano-0001")]
    with database() as unit:
        assert unit.versions.moves(UID, PRODUCTION) == [move]


def test_rolling_back_goes_one_step_back_each_time_to_the_base_and_no_further() -> None:
    database = with_versions(1, 2)
    promotion = promotion_of(database)
    promotion.promote(UID, "glip-nano-0001", "gate", "better")
    promotion.promote(UID, "glip-nano-0002", "gate", "better")
    assert promotion.rollback(UID, "command").reason == "rollback of glip-nano-0002"
    assert in_production(database) == "glip-nano-0001"
    promotion.rollback(UID, "command")
    assert in_production(database) is None
    with pytest.raises(UsageError, match="nothing to roll back"):
        promotion.rollback(UID, "command")
    promotion.promote(UID, "glip-nano-0002", "command", "again")
    promotion.rollback(UID, "command")
    with database() as unit:
        moves = unit.versions.moves(UID, PRODUCTION)
    assert (len(moves), promoted(moves), in_production(database)) == (6, [None], None)


def test_the_base_model_can_be_promoted_by_its_name() -> None:
    database = with_versions(1)
    promotion = promotion_of(database)
    promotion.promote(UID, "glip-nano-0001", "gate", "better")
    promotion.promote(UID, BASE, "command", "to compare")
    assert in_production(database) is None
    promotion.rollback(UID, "command")
    assert in_production(database) == "glip-nano-0001"


def test_what_cannot_be_promoted_is_refused_with_what_could() -> None:
    database = with_versions(1)
    with database() as unit:
        unit.versions.add(make_version(2, base="glip-t-00000000"))
        unit.commit()
    promotion = promotion_of(database)
    with pytest.raises(UsageError, match=f"no version 'glip-nano-0009'; there are {BASE}, glip-nano-0001"):
        promotion.promote(UID, "glip-nano-0009", "command", "")
    with pytest.raises(UsageError, match="was trained from glip-t-00000000, but"):
        promotion.promote(UID, "glip-nano-0002", "command", "")
    with pytest.raises(UsageError, match="is in production already"):
        promotion.promote(UID, BASE, "command", "")


def test_where_another_base_is_configured_it_serves_until_the_first_one_is_back() -> None:
    database = with_versions(1)
    promotion_of(database).promote(UID, "glip-nano-0001", "gate", "better")
    assert in_production(database, "glip-t-00000000") is None
    assert in_production(database) == "glip-nano-0001"


def test_a_rollback_past_a_change_of_the_base_leaves_the_configured_one_to_serve() -> None:
    database, other = with_versions(1), "glip-t-00000000"
    with database() as unit:
        unit.versions.add(make_version(2, base=other))
        unit.commit()
    promotion_of(database).promote(UID, "glip-nano-0001", "gate", "better")
    promotion_of(database, base=other).promote(UID, "glip-nano-0002", "gate", "better")
    with pytest.raises(UsageError, match=f"glip-nano-0002 was trained from {other}, but {BASE} is configured"):
        promotion_of(database).rollback(UID, "command")
    told = promotion_of(database, base=other).rollback(UID, "command").reason
    assert told == f"rollback of glip-nano-0002; {other} serves until {BASE} is configured again"
    assert in_production(database, other) is None
    assert in_production(database) == "glip-nano-0001"


def test_the_next_request_is_answered_by_what_is_in_production_then() -> None:
    database = with_versions(1)
    models = FakeModels(FakeDetector(version=BASE), glip_nano_0001=FakeDetector(version="glip-nano-0001"))
    predict = Predict(Production(database, models), FakeImages(), database, database)
    versions = []
    for step in (lambda: None, lambda: promote(database), lambda: promotion_of(database).rollback(UID, "test")):
        step()
        (outcome,) = predict([make_ask()])
        assert isinstance(outcome, Prediction)
        versions.append(outcome.model_version)

    assert versions == [BASE, "glip-nano-0001", BASE]
    kept = [prediction.model_version for prediction in database.tables.predictions.values()]
    assert sorted(kept) == sorted({BASE, "glip-nano-0001"})


def promote(database: FakeDatabase) -> None:
    promotion_of(database).promote(UID, "glip-nano-0001", "test", "")


def test_no_prediction_mixes_versions_while_production_moves_under_load() -> None:
    database = with_versions(1)

    def detector(version: str) -> FakeDetector:
        """Proposes boxes that tell which model they are of."""

        def finds(picture: object, query: object) -> list[Proposal]:
            return [Proposal(Box(1, 1, 9 + (version == BASE), 9), "cat", 0.9, version)]

        return FakeDetector(finds, version)

    models = FakeModels(detector(BASE), glip_nano_0001=detector("glip-nano-0001"))
    predict = Predict(Production(database, models), FakeImages(), database, database)
    promotion, stop = promotion_of(database), Event()

    def move() -> int:
        moves = 0
        while not stop.is_set():
            promotion.promote(UID, "glip-nano-0001", "test", "")
            promotion.rollback(UID, "test")
            moves += 2
        return moves

    def ask(start: int) -> list[Prediction]:
        answered = predict([make_ask(number, f"/{number}.png") for number in range(start, start + 8)])
        predictions = [each for each in answered if isinstance(each, Prediction)]
        assert len(predictions) == 8
        assert len({each.model_version for each in predictions}) == 1
        return predictions

    with ThreadPoolExecutor(5) as pool:
        moving = pool.submit(move)
        predictions = [each for part in pool.map(ask, range(0, 400, 4)) for each in part]
        stop.set()
        assert moving.result() > 0

    assert {each.model_version for each in predictions} == {BASE, "glip-nano-0001"}
    for prediction in predictions:
        assert [region.proposal.prompt for region in prediction.regions] == [prediction.model_version]
