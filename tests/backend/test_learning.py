import json
from dataclasses import replace
from hashlib import sha256
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from backend.domain.geometry import Box
from backend.domain.learning import next_version_name
from backend.domain.training_data import FrozenData, LabelledBox, Part, PseudoImage, ReviewedImage, split_of

LABELS = (("cat", ("cat",)), ("dog", ("dog", "puppy")))


def digest(number: int) -> str:
    return sha256(str(number).encode()).hexdigest()


def reviewed(number: int, *boxes: LabelledBox) -> ReviewedImage:
    return ReviewedImage(digest(number), 64, 48, ((number, "2026-11-23T08:43:32+00:00"),), boxes)


def test_seventy_fifteen_and_fifteen_percent_of_the_images_are_for_training_tuning_and_the_gate() -> None:
    parts = [split_of(digest(number)) for number in range(10_000)]

    assert abs(parts.count(Part.TRAIN) - 7000) < 150
    assert abs(parts.count(Part.TUNE) - 1500) < 120
    assert abs(parts.count(Part.GATE) - 1500) < 120


def test_the_part_of_an_image_is_written_in_stone() -> None:
    assert split_of("b3333333" + "f" * 56) is Part.TRAIN
    assert split_of("b3333334" + "0" * 56) is Part.TUNE
    assert split_of("d9999999" + "f" * 56) is Part.TUNE
    assert split_of("d999999a" + "0" * 56) is Part.GATE


@given(st.permutations(range(6)))
def test_images_come_in_one_order_whatever_order_they_are_given_in(order: list[int]) -> None:
    images = [reviewed(number, LabelledBox(Box(1, 2, 3, 4 + number), "cat")) for number in range(6)]
    data, again = (FrozenData(LABELS, tuple(each)) for each in (images, [images[index] for index in order]))

    assert again == data
    assert again.fingerprint == data.fingerprint


def test_the_fingerprint_changes_with_every_thing_that_a_model_could_learn() -> None:
    box, other = LabelledBox(Box(1, 2, 3, 4), "cat"), LabelledBox(Box(1, 2, 3, 4), "dog")
    images = [
        reviewed(1, box),
        reviewed(1, other),
        reviewed(1),
        reviewed(2, box),
        ReviewedImage(digest(1), 64, 48, ((2, "2026-11-23T08:43:32+00:00"),), (box,)),
        ReviewedImage(digest(1), 64, 48, ((1, "2026-11-24T08:43:32+00:00"),), (box,)),
        ReviewedImage(digest(1), 64, 48, ((1, "2026-11-23T08:43:32+00:00"),), (box,), (other,)),
        replace(reviewed(1, box), unasked=("dog",)),
        replace(reviewed(1, box), doubtful=(box.box,)),
    ]
    every = [FrozenData(LABELS, (image,)) for image in images]
    every += [FrozenData(LABELS[:1], (images[0],)), FrozenData(LABELS, ()), FrozenData(LABELS, (images[0],) * 2)]

    assert len({each.fingerprint for each in every}) == len(every)


def test_frozen_data_come_back_from_json_as_they_were() -> None:
    earlier = replace(reviewed(2), unasked=("dog",), doubtful=(Box(5, 6, 7.5, 8),))
    data = FrozenData(LABELS, (reviewed(1, LabelledBox(Box(0.1, 2, 3.7, 4), "käse")), earlier))

    assert FrozenData.from_json(data.to_json()) == data


def test_data_without_pseudo_or_added_labels_or_doubt_keep_the_text_and_the_fingerprint_that_they_always_had() -> None:
    cat, dog = LabelledBox(Box(0.1, 2, 3.7, 4), "cat"), LabelledBox(Box(5, 6, 7, 8), "dog")
    annotations = ((1, "2026-11-23T08:43:32+00:00"),)
    data = FrozenData(LABELS, (ReviewedImage("ab" * 32, 64, 48, annotations, (cat,), (dog,)),))
    written = (
        '{"labels":[["cat",["cat"]],["dog",["dog","puppy"]]],"images":[{"sha256":"' + "ab" * 32 + '","width":64,'
        '"height":48,"annotations":[[1,"2026-11-23T08:43:32+00:00"]],'
        '"boxes":[{"box":{"x1":0.1,"y1":2,"x2":3.7,"y2":4},"label":"cat"}],'
        '"rejected":[{"box":{"x1":5,"y1":6,"x2":7,"y2":8},"label":"dog"}]}]}'
    )

    assert data.to_json() == written
    assert data.fingerprint == "8753d1c72834846fbc07192fd27c82665b5b2104f941dfc1d7b923d3ba7d6534"
    assert FrozenData.from_json(written) == data


def pseudo(number: int, **fields: Any) -> PseudoImage:
    box = LabelledBox(Box(1, 2, 3, 4.5), "käse")
    return replace(PseudoImage(digest(number), 64, 48, "nano-1", (box,), (Box(5, 6, 7, 8.5),)), **fields)


def test_pseudo_labels_come_back_from_json_as_they_were() -> None:
    data = FrozenData(LABELS, (reviewed(1),), (pseudo(2),))

    assert FrozenData.from_json(data.to_json()) == data


def test_the_fingerprint_changes_with_every_thing_that_a_pseudo_label_teaches_and_not_with_their_order() -> None:
    box = LabelledBox(Box(1, 2, 3, 4.5), "dog")
    one, other = pseudo(1), pseudo(2)
    every = [(), (one,), (other,), (one, other), (one, one), (pseudo(1, teacher="nano-2"),)]
    every += [(pseudo(1, boxes=(box,)),), (pseudo(1, doubtful=()),), (pseudo(1, width=65),), (pseudo(1, height=49),)]

    assert len({FrozenData(LABELS, (reviewed(3),), each).fingerprint for each in every}) == len(every)
    assert FrozenData(LABELS, (), (one, other)).fingerprint == FrozenData(LABELS, (), (other, one)).fingerprint


def test_frozen_data_know_where_learning_starts() -> None:
    base, further = (FrozenData(LABELS, (reviewed(1),), start=start) for start in (None, "glip-nano-0001"))

    assert "start" not in json.loads(base.to_json())
    assert FrozenData.from_json(further.to_json()) == further
    assert base.fingerprint != further.fingerprint


def test_frozen_data_know_what_was_left_out_seen_and_meant_for_which_teaches_nothing() -> None:
    whole = FrozenData(LABELS, (reviewed(1),))
    data = replace(whole, base="glip-nano-3f9a12cd", left_out={"file-cannot-be-had": 2}, seen=7)

    assert FrozenData.from_json(data.to_json()) == data
    assert data.fingerprint == whole.fingerprint


def test_what_a_model_says_belongs_to_no_part_of_what_people_said() -> None:
    data = FrozenData(LABELS, (reviewed(1),), (pseudo(2),))

    assert [image.sha256 for part in Part for image in data.part(part)] == [digest(1)]


def test_a_version_is_called_after_its_base_and_the_next_number() -> None:
    assert next_version_name("glip-nano-3f9a12cd", []) == "glip-nano-0001"
    assert next_version_name("glip-t-3f9a12cd", ["glip-nano-0001", "glip-nano-0012"]) == "glip-t-0013"
    assert next_version_name("glip-t-3f9a12cd", ["glip-t-9999"]) == "glip-t-10000"
