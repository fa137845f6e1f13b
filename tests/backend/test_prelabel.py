"""Many pictures, one outcome each."""

from collections.abc import Iterator, Sequence

import pytest

from backend.domain.records import Label, Picture, Proposal, Query
from backend.errors import ImageError, UsageError
from backend.services.prelabel import Found, PrelabelSettings, Skipped, prelabel
from tests.fakes import FakeDetector, FakeImages
from tests.make import pictures_held

QUERY = (Label("cat"), Label("dog"))


def settings(score_threshold: float = 0.0, batch_size: int = 2) -> PrelabelSettings:
    return PrelabelSettings(score_threshold, batch_size)


def test_every_reference_has_one_outcome_in_order() -> None:
    images = FakeImages({"b": ImageError("b: damaged")})
    outcomes = list(prelabel("abcde", QUERY, images=images, detector=FakeDetector(), settings=settings()))
    assert [outcome.reference for outcome in outcomes] == list("abcde")
    assert outcomes[1] == Skipped("b", "b: damaged")
    found = [outcome for outcome in outcomes if isinstance(outcome, Found)]
    assert [outcome.picture.source for outcome in found] == list("acde")
    assert all(len(outcome.proposals) == 2 for outcome in found)


def test_pictures_come_in_batches() -> None:
    detector = FakeDetector()
    list(prelabel("abcde", QUERY, images=FakeImages(), detector=detector, settings=settings()))
    assert [len(pictures) for pictures, _ in detector.asked] == [2, 2, 1]


def test_no_picture_is_fetched_before_its_batch_is_due() -> None:
    images = FakeImages()

    def references() -> Iterator[str]:
        yield from "abcdef"

    outcomes = prelabel(references(), QUERY, images=images, detector=FakeDetector(), settings=settings())
    next(outcomes)
    assert images.fetched == ["a", "b"]


def test_no_more_pictures_are_held_than_a_batch_has() -> None:
    held = []

    class Forgetful(FakeDetector):
        def detect(
            self, pictures: Sequence[Picture], query: Query, *, score_threshold: float = 0.05
        ) -> list[list[Proposal]]:
            return [[] for _ in pictures]

    class Counting(FakeImages):
        def fetch(self, reference: str, task_id: int | None = None) -> Picture:
            held.append(pictures_held())
            return super().fetch(reference, task_id)

    before = pictures_held()
    outcomes = prelabel("abcdef", QUERY, images=Counting(), detector=Forgetful(), settings=settings(batch_size=3))
    assert sum(len(outcome.reference) for outcome in outcomes) == 6
    assert max(held) - before <= 3  # of the second batch, beside the last one of the first


def test_only_boxes_from_the_threshold_on_are_kept() -> None:
    (outcome,) = prelabel("a", QUERY, images=FakeImages(), detector=FakeDetector(), settings=settings(0.5))
    assert isinstance(outcome, Found)
    assert [proposal.label for proposal in outcome.proposals] == ["cat"]


def test_a_batch_of_unreadable_pictures_does_not_trouble_the_model() -> None:
    detector = FakeDetector()
    outcomes = list(prelabel("ab", QUERY, images=FakeImages(default=None), detector=detector, settings=settings()))
    assert [type(outcome) for outcome in outcomes] == [Skipped, Skipped]
    assert detector.asked == []


def test_an_impossible_query_ends_the_run() -> None:
    detector = FakeDetector(error=UsageError("a name without tokens"))
    with pytest.raises(UsageError):
        list(prelabel("ab", QUERY, images=FakeImages(), detector=detector, settings=settings()))
