"""The predict service: one result per ask, whatever becomes of the others; who asks at once shares an inference."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier, Event

import pytest

from backend.domain.geometry import Box
from backend.domain.records import Label, Picture, Prediction, Proposal, Query
from backend.errors import BusyError, ImageError, StorageError, UsageError
from backend.ports import UnitOfWork
from backend.services.predict import Ask, Predict, PredictLimits
from tests.fakes import FakeDatabase, FakeDetector, FakeImages, FakeUnitOfWork, one_box_per_label
from tests.make import make_ask


def make_predict(
    detector: FakeDetector | None = None,
    images: FakeImages | None = None,
    database: Callable[[], UnitOfWork] | None = None,
    limits: PredictLimits | None = None,
) -> Predict:
    detector, limits, database = detector or FakeDetector(), limits or PredictLimits(), database or FakeDatabase()
    return Predict(lambda project: detector, images or FakeImages(), database, database, limits)


def predicted(outcome: object) -> Prediction:
    assert isinstance(outcome, Prediction), outcome
    return outcome


def test_outcomes_come_in_the_order_of_the_asks() -> None:
    images = FakeImages({"/2.png": ImageError("/2.png: gone")})
    outcomes = make_predict(images=images)([make_ask(number, f"/{number}.png") for number in range(6)])
    assert [outcome.task_id if isinstance(outcome, Prediction) else str(outcome) for outcome in outcomes] == [
        0,
        1,
        "/2.png: gone",
        3,
        4,
        5,
    ]


def test_predictions_are_stored_in_one_order_whatever_that_of_the_asks() -> None:
    """So that two services that store the same ones do not wait for each other: PostgreSQL ends one of them."""
    database = FakeDatabase()
    make_predict(database=database)([make_ask(number, f"/{number}.png") for number in (3, 1, 2)])
    assert [task for _, task, _, _ in database.tables.predictions] == [1, 2, 3]


def test_two_threads_asking_the_same_share_one_inference() -> None:
    begun, release = Event(), Event()

    def slow(picture: Picture, query: Query) -> list[Proposal]:
        begun.set()
        assert release.wait(10)
        return one_box_per_label(picture, query)

    detector = FakeDetector(slow)
    predict = make_predict(detector)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(predict, [make_ask()])
        assert begun.wait(10)
        second = threads.submit(predict, [make_ask()])
        release.set()
        assert first.result(10) == second.result(10)
    assert len(detector.asked) == 1


def test_many_threads_over_overlapping_tasks_look_at_each_picture_once() -> None:
    images = FakeImages()
    predict = make_predict(images=images)
    together = Barrier(8)

    def ask(first: int) -> list[object]:
        together.wait(10)
        return list(predict([make_ask(number, f"/{number}.png") for number in range(first, first + 6)]))

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(ask, range(8)))
    assert all(isinstance(outcome, Prediction) for answer in answers for outcome in answer)
    assert sorted(images.fetched) == sorted(f"/{number}.png" for number in range(13))


def test_one_task_twice_in_a_request_is_looked_at_once() -> None:
    detector = FakeDetector()
    first, second = make_predict(detector)([make_ask(), make_ask()])
    assert predicted(first) == predicted(second)
    assert len(detector.asked) == 1


def test_who_shares_a_failure_gets_the_failure_and_may_ask_again() -> None:
    images = FakeImages(default=None)
    predict = make_predict(images=images)
    assert [str(outcome) for outcome in predict([make_ask()])] == ["/data/upload/1/a.png: not there"]
    assert [str(outcome) for outcome in predict([make_ask()])] == ["/data/upload/1/a.png: not there"]
    assert len(images.fetched) == 2


@pytest.mark.parametrize(
    "other",
    [
        make_ask(task_id=2),
        make_ask(reference="/data/upload/1/b.png"),
        make_ask(query=(Label("cat"),)),
        make_ask(query=(Label("cat", ("kitten",)), Label("dog"))),
        replace(make_ask(), look=replace(make_ask().look, image="right")),
        replace(make_ask(), project="7.1800000000"),
    ],
)
def test_another_question_is_another_prediction_with_other_ids(other: Ask) -> None:
    first, second = (predicted(outcome) for outcome in make_predict()([make_ask(), other]))
    assert first.id != second.id
    assert not {region.id for region in first.regions} & {region.id for region in second.regions}


def test_another_version_asks_again() -> None:
    database = FakeDatabase()
    old, new = FakeDetector(version="a-1"), FakeDetector(version="a-2")
    (first,), (second,) = (make_predict(detector, database=database)([make_ask()]) for detector in (old, new))
    assert (predicted(first).model_version, predicted(second).model_version) == ("a-1", "a-2")
    assert predicted(first).id != predicted(second).id


def crowd(picture: Picture, query: Query) -> list[Proposal]:
    return [Proposal(Box(x, 1, x + 5, 9), "cat", 0.9, "cat") for x in range(40)]


def test_who_opens_an_image_of_a_model_that_nobody_judged_gets_few_boxes_and_a_batch_all() -> None:
    alone, batch = ([make_ask(number) for number in range(count)] for count in (1, 2))
    predict = make_predict(FakeDetector(crowd))
    assert [len(predicted(outcome).regions) for asks in (alone, batch) for outcome in predict(asks)] == [10, 40, 40]


def test_who_opens_a_task_of_two_pictures_gets_few_boxes_on_each() -> None:
    pictures = [make_ask(1, "/left.png"), make_ask(1, "/right.png")]
    assert [len(predicted(each).regions) for each in make_predict(FakeDetector(crowd))(pictures)] == [10, 10]


def test_who_asks_for_something_by_words_gets_all_of_it() -> None:
    ask = make_ask()
    (outcome,) = make_predict(FakeDetector(crowd))([replace(ask, look=replace(ask.look, prompted=True))])
    assert len(predicted(outcome).regions) == 40


def test_what_a_batch_hides_is_shown_to_who_asks_for_it_by_words() -> None:
    def unsure(picture: Picture, query: Query) -> list[Proposal]:
        return [Proposal(Box(1, 1, 5, 9), "cat", 0.35, "cat")]

    batch = [make_ask(1), make_ask(2)]
    ask = replace(batch[0], look=replace(batch[0].look, prompted=True))
    outcomes = (predicted(each) for asks in (batch, [ask]) for each in make_predict(FakeDetector(unsure))(asks))
    assert [len(outcome.regions) for outcome in outcomes] == [0, 0, 1]


def test_what_was_retrieved_in_a_batch_is_not_asked_for_again_by_who_opens_it() -> None:
    detector = FakeDetector(crowd)
    predict = make_predict(detector)
    first, _ = predict([make_ask(1), make_ask(2)])
    assert predict([make_ask(1)]) == [first]
    assert sum(len(pictures) for pictures, _ in detector.asked) == 2


def test_a_threshold_that_a_person_chose_shows_everything_above_it() -> None:
    database = FakeDatabase()
    with database() as unit:
        unit.projects.set_score_threshold(make_ask().project, 0.5)
        unit.commit()
    (outcome,) = make_predict(FakeDetector(crowd), database=database)([make_ask()])
    assert len(predicted(outcome).regions) == 40


def test_pictures_are_asked_for_in_batches_of_one_query() -> None:
    detector = FakeDetector()
    asks = [make_ask(number, f"/{number}.png", (Label("cat" if number % 2 else "dog"),)) for number in range(10)]
    make_predict(detector, limits=PredictLimits(batch_size=4))(asks)
    assert sorted(len(pictures) for pictures, _ in detector.asked) == [1, 1, 4, 4]


def test_a_name_the_model_cannot_ask_for_fails_its_tasks_only() -> None:
    def finds(picture: Picture, query: Query) -> list[Proposal]:
        if query == (Label("?"),):
            raise UsageError("'?' has no tokens")
        return one_box_per_label(picture, query)

    bad, good = make_predict(FakeDetector(finds))([make_ask(1, query=(Label("?"),)), make_ask(2)])
    assert str(bad) == "'?' has no tokens"
    assert predicted(good).task_id == 2


def test_a_database_that_cannot_be_written_fails_the_tasks_it_could_not_keep() -> None:
    class ReadOnly(FakeUnitOfWork):
        def commit(self) -> None:
            raise StorageError("the database is read-only")

    database = FakeDatabase()
    predict = make_predict(database=lambda: ReadOnly(database))
    assert [str(each) for each in predict([make_ask()])] == ["the database is read-only"]


def test_waiting_for_another_request_ends_with_the_time_there_is() -> None:
    begun, release = Event(), Event()

    def slow(picture: Picture, query: Query) -> list[Proposal]:
        begun.set()
        assert release.wait(10)
        return [Proposal(Box(0, 0, 1, 1), "cat", 0.5, "cat")]

    predict = make_predict(FakeDetector(slow), limits=PredictLimits(seconds=0.05))
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(predict, [make_ask()])
        assert begun.wait(10)
        (second,) = predict([make_ask()])
        release.set()
        assert isinstance(second, BusyError)
        assert predicted(first.result(10)[0])


def test_pictures_that_are_not_there_in_time_are_not_waited_for() -> None:
    release = Event()

    class SlowImages(FakeImages):
        def fetch(self, reference: str, task_id: int | None = None) -> Picture:
            assert task_id == 1 or release.wait(10)
            return super().fetch(reference, task_id)

    predict = make_predict(images=SlowImages(), limits=PredictLimits(seconds=0.2, batch_size=1))
    first, second = predict([make_ask(1), make_ask(2)])
    release.set()
    assert predicted(first)
    assert isinstance(second, BusyError)
    assert all(map(predicted, predict([make_ask(1), make_ask(2)])))


def test_a_defect_in_one_request_does_not_hang_those_who_wait_for_it() -> None:
    def breaks(picture: Picture, query: Query) -> list[Proposal]:
        raise ZeroDivisionError

    predict = make_predict(FakeDetector(breaks))
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            predict([make_ask()])
