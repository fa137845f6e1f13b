"""What people see of a model's proposals, and that it is kept."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from backend.db.schema import upgrade
from backend.db.unit_of_work import SqlUnitOfWork
from backend.domain.calibration import Calibration, KnotCurve, PlattCurve
from backend.domain.edges import EdgeCorrection, EdgeShift
from backend.domain.fits import Fit, Reading
from backend.domain.geometry import Box
from backend.domain.records import Look, Picture, Prediction, Proposal, Query, Region
from backend.domain.review import EXPLORED_PROPOSALS, EXPLORED_SHARE, FLOOR, Judgement, ShowThresholds, is_explored
from backend.domain.verdicts import VerdictKind
from backend.services.corrections import apply_fact
from backend.services.fitting import judgements_of
from backend.services.predict import Predict
from integrations.label_studio.import_json import default_target
from integrations.label_studio.regions import region_to_json
from tests.facts import PROJECT, UID, annotated, at, make_annotation, make_region
from tests.fakes import FakeDatabase, FakeDetector, FakeImages
from tests.make import make_ask

MOMENT = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
HALVED = Calibration(PlattCurve(1.0, 0.0), {"cat": KnotCurve((0.0, 1.0), (0.0, 0.5))})
EXPLORED = next(digest for digest in (f"{number:064x}" for number in range(1000)) if is_explored(digest))
PLAIN = next(digest for digest in (f"{number:064x}" for number in range(1000)) if not is_explored(digest))


def make_fit(minutes: float = 0, version: str = "nano-1", **parts: object) -> Fit:
    fields = {"calibration": HALVED, "thresholds": ShowThresholds(0.3, {"cat": 0.6}), "judgements": 40, **parts}
    return Fit(UID, version, fitted_at=MOMENT + timedelta(minutes=minutes), **fields)  # type: ignore[arg-type]


def found(label: str, score: float, x: float = 1.0) -> Proposal:
    return Proposal(Box(x, 1, x + 10, 11), label, score, label)


def picture(digest: str = PLAIN) -> Picture:
    return Picture(100, 50, b"", digest, "a.png")


def scores(regions: tuple[Region, ...]) -> list[tuple[str, float]]:
    return [(region.proposal.label, region.score) for region in regions]


def test_without_a_fit_the_models_own_scores_are_cut_at_the_threshold() -> None:
    proposals = [found("cat", 0.5), found("dog", 0.3), found("dog", 0.2)]
    regions, hidden = Reading(None, 0.3, theirs=False).read(proposals, picture(), "p")
    assert regions == (Region("p-0", proposals[0]), Region("p-1", proposals[1]))
    assert hidden == (proposals[2],)


def test_a_fit_decides_by_label_and_people_see_its_probabilities_best_first() -> None:
    proposals = [found("cat", 0.8), found("cat", 0.5), found("dog", 0.45), found("dog", 0.2)]
    regions, hidden = Reading(make_fit(), 0.9, theirs=False).read(proposals, picture(), "p")
    assert scores(regions) == [("dog", 0.45), ("cat", 0.4)]
    assert [region.proposal.score for region in regions] == [0.45, 0.8]
    assert hidden == (proposals[1], proposals[3])


def test_an_explored_image_shows_what_thresholds_hide_and_it_stands_for_twenty() -> None:
    proposals = [found("cat", 0.5), found("dog", 0.06), found("dog", 0.04)]
    regions, hidden = Reading(None, 0.3, theirs=False).read(proposals, picture(EXPLORED), "p")
    assert [(region.proposal.score, region.weight) for region in regions] == [(0.5, 1.0), (0.06, 20.0)]
    assert hidden == (proposals[2],)


def test_of_much_that_is_hidden_an_explored_image_shows_a_little_which_stands_for_all_of_it() -> None:
    proposals = [found("cat", 0.5), *(found("dog", 0.06 + index / 1000) for index in range(100))]
    regions, hidden = Reading(None, 0.3, theirs=False).read(proposals, picture(EXPLORED), "p")
    explored = [region for region in regions if region.weight > 1]
    assert len(explored) == EXPLORED_PROPOSALS
    assert len(hidden) == 100 - EXPLORED_PROPOSALS
    assert sum(region.weight for region in explored) == pytest.approx(100 / EXPLORED_SHARE)
    again, _ = Reading(None, 0.3, theirs=False).read(proposals, picture(EXPLORED), "p")
    assert again == regions


def test_below_a_threshold_that_a_person_chose_nothing_is_shown_not_even_to_explore() -> None:
    proposals = [found("dog", 0.5), found("cat", 0.7), found("dog", 0.3)]
    for fit in (None, make_fit()):
        regions, _ = Reading(fit, 0.4, theirs=True).read(proposals, picture(EXPLORED), "p")
        assert [score for _, score in scores(regions)] == ([0.7, 0.5] if fit is None else [0.5])


@pytest.mark.parametrize(("least", "shown"), [(0.1, 5), (0.3, 7), (0.85, 10)])
def test_of_a_model_that_nobody_judged_the_best_boxes_are_shown_and_nothing_to_explore(
    least: float, shown: int
) -> None:
    proposals = [found("dog", least + index / 1000) for index in range(100)]
    regions, hidden = Reading(None, 0.12, theirs=False, most=10).read(proposals, picture(EXPLORED), "p")
    assert [region.proposal for region in regions] == proposals[: -shown - 1 : -1]
    assert {region.weight for region in regions} == {1.0}
    assert len(hidden) == 100 - shown


@pytest.mark.parametrize(
    ("most", "theirs", "shown"), [(10, False, [0.5, 0.31]), (None, False, [0.5]), (10, True, [0.5])]
)
def test_who_opens_one_image_sees_boxes_from_two_thirds_of_the_threshold_on(
    most: int | None, theirs: bool, shown: list[float]
) -> None:
    proposals = [found("dog", score) for score in (0.5, 0.31, 0.29)]
    regions, _ = Reading(None, 0.45, theirs, most).read(proposals, picture(), "p")
    assert [region.proposal.score for region in regions] == shown


@pytest.mark.parametrize(("judged", "shown"), [(4, 10), (40, 40), (200, 100)])
def test_the_more_was_judged_the_more_boxes_are_shown(judged: int, shown: int) -> None:
    proposals = [found("dog", 0.4 + index / 1000) for index in range(100)]
    regions, _ = Reading(make_fit(judgements=judged), 0.3, theirs=False, most=10).read(proposals, picture(), "p")
    assert len(regions) == shown


def test_edges_are_moved_only_by_a_fit_that_says_so() -> None:
    fit = make_fit(edges=EdgeCorrection({"dog": EdgeShift(left=-0.1, right=0.2)}))
    regions, _ = Reading(fit, 0.3, theirs=False).read([found("dog", 0.5), found("cat", 0.9)], picture(), "p")
    assert [region.proposal.box for region in regions] == [Box(0, 1, 13, 11), Box(1, 1, 11, 11)]


def test_a_fit_comes_back_as_it_was_and_the_newest_of_a_version_holds(engine: Engine) -> None:
    upgrade(engine)
    old, new = make_fit(0), make_fit(5, edges=EdgeCorrection({"dog": EdgeShift(0.1)}), ordering=(0.25, 1.5))
    with SqlUnitOfWork(engine) as unit:
        unit.projects.put(PROJECT)
        for fit in (new, old, make_fit(9, "nano-2"), old):
            unit.fits.add(fit)
        unit.commit()
    with SqlUnitOfWork(engine) as unit:
        assert unit.fits.newest(UID, "nano-1") == new
        assert unit.fits.find(old.id) == old
        assert unit.fits.newest(UID, "nano-3") is None
        assert unit.fits.find("f") is None


def test_a_rehearsal_comes_back_as_it_was_and_belongs_to_its_version(engine: Engine) -> None:
    upgrade(engine)
    judgements = [
        Judgement("0" * 64, "Schiff 🚢", 0.1 + 0.2, VerdictKind.RELABELLED, 2 / 3),
        Judgement("f" * 64, "cat", 0.05, VerdictKind.DELETED, 0.0),
    ]
    with SqlUnitOfWork(engine) as unit:
        unit.projects.put(PROJECT)
        unit.fits.add_rehearsal(UID, "nano-1", judgements)
        unit.fits.add_rehearsal(UID, "nano-2", [])
        unit.commit()
    with SqlUnitOfWork(engine) as unit:
        assert unit.fits.rehearsed(UID, "nano-1") == judgements
        assert unit.fits.rehearsed(UID, "nano-2") == []
        assert [unit.fits.count_rehearsed(UID, version) for version in ("nano-1", "nano-2")] == [2, 0]


def make_prediction(identity: str, task_id: int = 1, version: str = "nano-1") -> Prediction:
    shown = Region(f"{identity}-0", found("cat", 0.5), 0.25, 20.0)
    hidden = (found("Ω", 0.1),)
    return Prediction(task_id, version, 640, 480, (shown,), identity, hidden=hidden, fit="fit", order=0.75)


def test_what_was_shown_and_what_was_hidden_is_kept_and_the_newest_of_each_task_found(engine: Engine) -> None:
    upgrade(engine)
    with SqlUnitOfWork(engine) as unit:
        for index, prediction in enumerate((make_prediction("a"), make_prediction("b"), make_prediction("c", 2))):
            unit.predictions.add(UID, str(index), prediction)
        unit.predictions.add(UID, "key", make_prediction("d", version="nano-2"))
        unit.predictions.add("7.1800000000", "key", make_prediction("e"))
        unit.predictions.add(UID, "typed", replace(make_prediction("f"), look=Look(prompted=True)))
        unit.commit()
    with SqlUnitOfWork(engine) as unit:
        assert unit.predictions.find(UID, 1, "nano-1", "1") == make_prediction("b")
        newest = {each.task_id: each for each in unit.predictions.newest(UID, "nano-1")}
        assert newest == {1: make_prediction("b"), 2: make_prediction("c", 2)}
        assert make_prediction("b").proposals == (found("cat", 0.5), found("Ω", 0.1))


def test_the_newest_prediction_of_each_picture_is_found_where_a_task_has_several(engine: Engine) -> None:
    upgrade(engine)

    def look(identity: str, reference: str, prompted: bool = False, version: str = "nano-1") -> Prediction:
        return replace(make_prediction(identity, version=version), look=Look("image", reference, "f" * 64, prompted))

    made = [look("a", "left"), look("b", "right"), look("c", "left"), replace(look("d", "left"), task_id=2)]
    others = [look("e", "left", prompted=True), look("f", "left", version="nano-2")]
    with SqlUnitOfWork(engine) as unit:
        for index, prediction in enumerate([*made, *others]):
            unit.predictions.add(UID, str(index), prediction)
        unit.predictions.add("7.1800000000", "key", look("g", "left"))
        unit.commit()
    with SqlUnitOfWork(engine) as unit:
        newest = sorted(unit.predictions.newest_by_picture(UID, "nano-1"), key=lambda each: each.id)
    assert newest == made[1:]


def test_verdicts_on_what_a_prompt_found_are_not_counted(engine: Engine) -> None:
    upgrade(engine)
    region = Region("a-0", found("cat", 0.5), weight=0.0)
    with SqlUnitOfWork(engine) as unit:
        unit.projects.put(PROJECT)
        unit.predictions.add(UID, "key", Prediction(1, "nano-1", 640, 480, (region,), "a"))
        apply_fact(unit, annotated(make_annotation(1, 4e9, make_region("a-0"))))
        unit.commit()
    with SqlUnitOfWork(engine) as unit:
        assert [each.region for each in unit.corrections.judged(UID, "nano-1", 1000)] == [region]
        assert unit.corrections.count_judged(UID) == {}


def test_a_verdict_tells_how_its_region_was_shown_or_that_it_was_missed(engine: Engine) -> None:
    upgrade(engine)
    with SqlUnitOfWork(engine) as unit:
        unit.projects.put(PROJECT)
        unit.predictions.add(UID, "key", make_prediction("a"))
        unit.commit()
    with SqlUnitOfWork(engine) as unit:
        drawn = make_region("new", "Ω", prediction="a")
        apply_fact(unit, annotated(replace(make_annotation(1, 4e9, drawn), created_at=at(4e9))))
        unit.commit()
    with SqlUnitOfWork(engine) as unit:
        judged = unit.corrections.judged(UID, "nano-1", 1000)
        assert [(each.verdict.kind, each.task_id, each.region, each.fit) for each in judged] == [
            (VerdictKind.ADDED, 1, None, "fit"),
            (VerdictKind.DELETED, 1, make_prediction("a").regions[0], "fit"),
        ]
        assert unit.corrections.count_judged(UID) == {"nano-1": 1}
        assert unit.corrections.judged(UID, "nano-1", 1) == judged[1:]
        assert unit.corrections.judged(UID, "nano-2", 1000) == []


def test_a_new_fit_is_a_new_prediction_of_its_own_and_the_model_is_asked_for_all_above_the_floor() -> None:
    database, asked = FakeDatabase(), []

    class Low(FakeDetector):
        def detect(
            self, pictures: Sequence[Picture], query: Query, *, score_threshold: float = 0.05
        ) -> list[list[Proposal]]:
            asked.append(score_threshold)
            return [[found("cat", 0.8), found("cat", 0.1)] for _ in pictures]

    detector = Low(version="nano-1")
    predict = Predict(lambda project: detector, FakeImages(), database, database)
    (before,) = predict([make_ask()])
    fit = make_fit()
    with database() as unit:
        unit.fits.add(fit)
        unit.commit()
    (after,) = predict([make_ask()])
    assert isinstance(before, Prediction)
    assert isinstance(after, Prediction)
    assert (before.fit, after.fit) == (None, fit.id)
    assert (scores(before.regions), scores(after.regions)) == ([("cat", 0.8)], [("cat", 0.4)])
    assert before.hidden == after.hidden == (found("cat", 0.1),)
    assert not {each.id for each in before.regions} & {each.id for each in after.regions}
    assert asked == [FLOOR, FLOOR]


def test_what_a_prompt_found_is_neither_explored_nor_deleted_nor_judged() -> None:
    database = FakeDatabase()
    low = FakeDetector(lambda picture, query: [found("cat", 0.8), found("cat", 0.7), found("cat", 0.1)], "nano-1")
    images = FakeImages({"a.png": Picture(64, 48, b"", EXPLORED, "a.png")})
    with database() as unit:
        unit.projects.put(PROJECT)
        unit.fits.add(make_fit())
        unit.commit()
    ask = replace(make_ask(reference="a.png"), look=Look(prompted=True))
    (asked,) = Predict(lambda project: low, images, database, database)([ask])
    assert isinstance(asked, Prediction)
    assert (scores(asked.regions), asked.fit) == ([("cat", 0.8), ("cat", 0.7)], None)
    with database() as unit:
        apply_fact(unit, annotated(make_annotation(1, 4e9, make_region(asked.regions[1].id))))
        unit.commit()
    with database() as unit:
        judged = unit.corrections.judged(UID, "nano-1", 1000)
        assert unit.corrections.count_judged(UID) == {}
    assert [each.region for each in judged] == [asked.regions[1]]
    assert judgements_of(judged) == []


def test_label_studio_gets_the_probability_and_provenance_keeps_the_models_own_score() -> None:
    prediction = make_prediction("a")
    target = default_target(["cat"])
    written: Any = region_to_json(prediction.regions[0], prediction, target)
    assert (written["score"], written["meta"]["glip"]["score"]) == (0.25, 0.5)
