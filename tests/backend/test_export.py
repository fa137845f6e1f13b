"""What an export says about each image, and what it leaves out."""

from dataclasses import replace
from datetime import timedelta

import pytest

from backend.domain.annotations import AnnotatedRegion
from backend.domain.dataset import AnnotatedImage, DatasetImage, ImageFacts, ImageFile, ImageState
from backend.domain.geometry import Box
from backend.domain.policies import AnnotatorPolicy, Splits
from backend.domain.records import Prediction, Proposal, Region
from backend.errors import ImageError, UsageError
from backend.services.export import Export, ExportRequest
from tests.datasets import START, FakeProject, make_annotation, make_image, make_region, no_file


def exported(*images: AnnotatedImage, **wanted: object) -> tuple[list[DatasetImage], Export]:
    export = Export(FakeProject(list(images)), ExportRequest(**wanted), no_file)  # type: ignore[arg-type]
    return [image for image, _ in export.images()], export


def test_true_negatives_are_in_and_skipped_and_unseen_images_are_counted() -> None:
    images, export = exported(
        make_image(1, make_annotation(make_region())),
        make_image(2, make_annotation()),
        make_image(3, make_annotation(make_region(), cancelled=True)),
        make_image(4),
    )
    assert [(image.id, image.state) for image in images] == [(1, ImageState.REVIEWED), (2, ImageState.REVIEWED_EMPTY)]
    assert export.tally.images == {"skipped": 1, "never-reviewed": 1}


def test_unreviewed_images_come_along_on_request_and_say_so() -> None:
    images, export = exported(make_image(1), make_image(2, make_annotation(cancelled=True)), include_unreviewed=True)
    assert [(image.id, image.state) for image in images] == [(1, ImageState.NEVER_REVIEWED)]
    assert export.tally.images == {"skipped": 1}


def test_what_cannot_be_a_box_is_counted_by_its_reason() -> None:
    images, export = exported(
        make_image(
            1,
            make_annotation(
                make_region(),
                make_region(labels=()),
                make_region(labels=["unicorn"]),
                make_region(x=120, y=120),
                make_region(width=0),
                make_region(x=1e300),
                make_region(x=90, width=20),
            ),
        )
    )
    assert len(images[0].boxes) == 2
    reasons = ("no-label", "unknown-label", "outside-the-image", "no-area", "not-a-box")
    assert export.tally.boxes == dict.fromkeys(reasons, 1)
    assert export.tally.clipped == 1


def test_an_image_whose_every_box_is_unusable_does_not_pass_for_empty() -> None:
    images, export = exported(make_image(1, make_annotation(make_region(labels=()))))
    assert images == []
    assert export.tally.images == {"no-usable-box": 1}


@pytest.mark.parametrize(
    ("other", "left_out"),
    [
        (make_region(x=20), {"no-agreement": 2}),  # an IoU of 1/3
        (make_region(labels=["dog"]), {"no-agreement": 2}),
        (make_region(x=1e7), {"no-agreement": 1, "outside-the-image": 1}),
        (None, {"no-agreement": 1}),
    ],
)
def test_an_image_on_which_annotators_disagree_does_not_pass_for_empty(
    other: AnnotatedRegion | None, left_out: dict[str, int]
) -> None:
    second = make_annotation(*(() if other is None else (other,)), number=2, annotator=2)
    images, export = exported(make_image(1, make_annotation(make_region()), second), policy=AnnotatorPolicy.CONSENSUS)
    assert images == []
    assert export.tally.images == {"no-usable-box": 1}
    assert export.tally.boxes == left_out


@pytest.mark.parametrize(
    ("renamed", "written"),
    [
        ((("cat", "dog"),), [(2,)]),
        ((("cat", "dog"), ("dog", "traffic light")), []),  # one after the other is not one label
    ],
)
def test_annotators_agree_where_their_labels_become_one(
    renamed: tuple[tuple[str, str], ...], written: list[tuple[int, ...]]
) -> None:
    cat, dog = make_annotation(make_region()), make_annotation(make_region(labels=["dog"]), number=2, annotator=2)
    images, export = exported(make_image(1, cat, dog), policy=AnnotatorPolicy.CONSENSUS, renamed=renamed)
    assert [box.label_ids for image in images for box in image.boxes] == written
    assert export.tally.boxes["no-agreement"] == (0 if written else 2)


def test_a_dispute_about_other_labels_leaves_an_image_empty_of_the_wanted_ones() -> None:
    image = make_image(1, make_annotation(make_region(x=95)), make_annotation(number=2, annotator=2))
    wanted = {"policy": AnnotatorPolicy.CONSENSUS, "labels": frozenset(["dog"])}
    images, export = exported(image, **wanted)
    assert [image.state for image in images] == [ImageState.REVIEWED_EMPTY]
    assert export.tally.boxes == {"other-labels": 1}
    assert export.tally.clipped == 0


def test_an_image_with_boxes_of_other_labels_only_is_empty_of_the_wanted_ones() -> None:
    images, export = exported(make_image(1, make_annotation(make_region())), labels=frozenset(["dog"]))
    assert [image.state for image in images] == [ImageState.REVIEWED_EMPTY]
    assert [label.id for label in export.labels] == [2]
    assert export.tally.boxes == {"other-labels": 1}


def test_each_label_of_a_box_counts_once_and_renamed_ones_as_the_new_name() -> None:
    box = make_region(labels=["cat", "traffic light", "cat", "dog"])
    images, export = exported(make_image(1, make_annotation(box)), renamed=(("cat", "dog"),))
    assert images[0].boxes[0].label_ids == (2, 3)
    assert [label.name for label in export.labels] == ["dog", "traffic light"]


def test_only_annotations_of_the_wanted_people_and_days_are_looked_at() -> None:
    first = make_annotation(make_region(x=1), number=1, annotator=1)
    second = make_annotation(make_region(x=2), number=2, annotator=2)
    cases: list[tuple[dict[str, object], int]] = [
        ({}, 2),
        ({"annotators": frozenset([1])}, 1),
        ({"until": START + timedelta(hours=2)}, 1),
        ({"since": START + timedelta(hours=2)}, 2),
    ]
    for wanted, x in cases:
        images, _ = exported(make_image(1, first, second), **wanted)
        assert images[0].boxes[0].box.x == 6.4 * x
    images, export = exported(make_image(1, first), annotators=frozenset([3]))
    assert export.tally.images == {"other-annotators-or-dates": 1}


def test_an_image_is_in_one_part_by_its_content_and_filters_change_no_name() -> None:
    stored = [
        make_image(number, make_annotation(), reference="/data/upload/1/00000000-a.png") for number in range(1, 40)
    ]
    splits = Splits(("train", "val"), (50, 50))
    every, _ = exported(*stored, splits=splits)
    some, export = exported(*stored, splits=splits, parts=frozenset(["val"]))
    assert some == [image for image in every if image.split == "val"]
    assert export.tally.images == {"other-part": len(every) - len(some)}


def test_a_size_nobody_stored_is_what_the_editor_saw() -> None:
    image = replace(make_image(1), width=None, height=None)
    seen = replace(make_region(), image_width=400, image_height=800)
    images, _ = exported(replace(image, annotations=(make_annotation(seen),)))
    assert (images[0].width, images[0].height) == (400, 800)
    _, export = exported(replace(image, annotations=(make_annotation(make_region()),)))
    list(export.images())
    assert export.tally.images["file-cannot-be-had"] == 2


def test_copied_files_tell_hash_and_size_and_those_that_cannot_be_had_are_listed() -> None:
    def read(image: AnnotatedImage) -> ImageFile:
        if image.id == 1:
            raise ImageError("d/1.png: cannot be fetched (HTTP 404)")
        return ImageFile(b"bytes", ImageFacts(640 * (image.id - 1), 480, "ab"))

    project = FakeProject([make_image(number, make_annotation()) for number in (1, 2, 3)])
    export = Export(project, ExportRequest(), read, copy=True)
    ((image, content),) = export.images()
    assert (image.id, image.sha256, content) == (2, "ab", b"bytes")
    assert export.tally.images == {"file-cannot-be-had": 1, "file-has-other-size": 1}
    assert export.tally.failures == [
        "d/1.png: cannot be fetched (HTTP 404)",
        "d/3.png: annotated at 640 x 480, the file has 1280 x 480",
    ]


def test_files_are_looked_at_where_parts_need_their_content() -> None:
    image = replace(make_image(1, make_annotation()), sha256=None)
    file = ImageFile(b"bytes", ImageFacts(640, 480, "ab"))
    request = ExportRequest(splits=Splits(("train", "val"), (1, 1)))
    ((with_it, content),) = Export(FakeProject([image]), request, lambda _: file).images()
    assert (with_it.sha256, with_it.split, content) == ("ab", Splits(("train", "val"), (1, 1)).of("ab"), None)
    ((without, _),) = Export(FakeProject([image]), ExportRequest(), lambda _: file).images()
    assert without.sha256 is None


def test_proposals_of_the_wanted_model_version_come_along() -> None:
    regions = (
        Region("a", Proposal(Box(0, 0, 700, 10), "dog", 0.5, "dog")),
        Region("b", Proposal(Box(0, 0, 5, 5), "wolf", 0.4, "wolf")),
    )
    image = make_image(1, make_annotation())
    image = replace(image, predictions=(Prediction(1, "glip-t-1", 640, 480, regions, "p"),))
    (with_them,), _ = exported(image, predictions="glip-t-1")
    assert [(each.box, each.label_id, each.score) for each in with_them.proposals] == [(Box(0, 0, 640, 10), 2, 0.5)]
    (without,), _ = exported(image, predictions="glip-t-2")
    assert without.proposals == ()


@pytest.mark.parametrize(
    ("wanted", "complaint"),
    [
        ({"labels": frozenset(["wolf"])}, "no label 'wolf'; there are cat, dog, traffic light"),
        ({"renamed": (("dog", "wolf"),)}, "no label 'wolf'"),
        (
            {"labels": frozenset(["cat"]), "renamed": (("cat", "dog"),)},
            "no box is 'cat' where that becomes 'dog': ask for that one",
        ),
        ({"parts": frozenset(["val"])}, "no part 'val'; there are none"),
    ],
)
def test_a_wish_that_cannot_be_met_is_refused(wanted: dict[str, object], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        exported(**wanted)
