"""What a candidate and the version in production are held to."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from backend.domain.geometry import Box
from backend.domain.records import Picture, Proposal, Query
from tests.backend.test_gathering import CAT, annotated_image
from tests.backend.test_learn import House
from tests.facts import make_annotation, make_region
from tests.fake_learning import digest_of

Finds = Callable[[Picture, Query], list[Proposal]]


def finding(*found: tuple[str, Box]) -> Finds:
    return lambda picture, query: [Proposal(box, label, 0.9, label) for label, box in found]


def test_what_is_found_where_nobody_knows_what_is_there_counts_for_nobody(tmp_path: Path) -> None:
    unlabelled = [replace(make_region(f"r{x}", x=x), labels=()) for x in (10.0, 60.0)]  # one of them on the cat
    annotation = make_annotation(5, 0, make_region(), *unlabelled, task_id=5)
    house = House(tmp_path, unreviewed=[annotated_image("gate-5", annotation, task_id=5)])
    known, unknown, elsewhere = CAT.box, Box(390, 96, 580, 290), Box(300, 300, 400, 400)
    finds = finding(("cat", known), ("dog", known), ("cat", unknown), ("dog", unknown), ("dog", elsewhere))
    house.production._finds = house.candidate._finds = finds
    house.run()

    (contest,) = house.contests
    number = [image.sha256 for image in contest.images].index(digest_of("gate-5"))
    for answers in (contest.production, contest.candidate):
        told = [(each.label, each.box) for each in answers.proposals[number]]
        assert told == [("cat", known), ("dog", elsewhere)]
        assert all(len(found) == 5 for place, found in enumerate(answers.proposals) if place != number)


def test_of_the_copies_of_a_picture_the_one_that_was_annotated_last_counts(tmp_path: Path) -> None:
    copies = [
        annotated_image("gate-5", make_annotation(number, hour, make_region(x=x), task_id=number), task_id=number)
        for number, hour, x in ((5, 1, 10.0), (6, 3, 20.0), (7, 2, 30.0))
    ]
    house = House(tmp_path, unreviewed=copies)
    house.run()

    (contest,) = house.contests
    assert len({image.sha256 for image in contest.images}) == len(contest.images) == 3
    (kept,) = [image for image in contest.images if image.sha256 == digest_of("gate-5")]
    assert [number for number, _ in kept.annotations] == [6]
