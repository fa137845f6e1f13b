"""What a job learns from: what people said, all of it, and nothing that nobody said."""

from dataclasses import replace
from datetime import datetime

import pytest

from backend.domain.annotations import AnnotatedRegion, Annotation
from backend.domain.dataset import AnnotatedImage, AttributedAnnotation, Provenance
from backend.domain.facts import Fact, ProjectState, TaskState
from backend.domain.geometry import Box
from backend.domain.learning import TrainingProgress, TrainingRequest
from backend.domain.records import Label, Look, Prediction, Proposal, Region
from backend.domain.training_data import FrozenData, LabelledBox, Part, ReviewedImage
from backend.errors import TrainingError
from backend.services.corrections import apply_fact
from backend.services.gathering import Gathering
from tests.facts import UID, at, make_annotation, make_region
from tests.fake_learning import FakeReviewedProjects, digest_of
from tests.fakes import FakeDatabase

PROJECT = ProjectState(UID, 7, "street")
CAT = LabelledBox(Box(64.0, 96.0, 256.0, 288.0), "cat")  # what make_region draws


def annotated_image(reference: str, *annotations: Annotation, task_id: int = 1) -> AnnotatedImage:
    attributed = tuple(AttributedAnnotation(each, (Provenance(),) * len(each.regions)) for each in annotations)
    return AnnotatedImage(task_id, reference, None, None, None, task_id, attributed)


def known(*images: AnnotatedImage) -> FakeDatabase:
    """A database with these images' tasks and annotations."""
    database = FakeDatabase()
    with database() as unit:
        for image in images:
            assert image.task_id is not None
            task = TaskState(image.task_id, at(0), (("image", image.reference),))
            annotations = tuple(each.annotation for each in image.annotations)
            apply_fact(unit, Fact(PROJECT, (task,), annotations))
        unit.commit()
    return database


def gather(
    *images: AnnotatedImage, request: TrainingRequest | None = None, database: FakeDatabase | None = None
) -> FrozenData:
    database = database or known(*images)
    gathering = Gathering(FakeReviewedProjects(images), database, database)
    return gathering(PROJECT, request or TrainingRequest("command"), lambda progress: None)


def test_boxes_become_objects_and_a_submit_without_boxes_an_image_without_objects() -> None:
    gathered = gather(
        annotated_image("train-1", make_annotation(1, 5, make_region())),
        annotated_image("gate-2", make_annotation(2, 6, task_id=2), task_id=2),
    )

    assert gathered.labels == (("cat", ("cat",)), ("dog", ("dog",)))
    first, second = gathered.images
    assert first == ReviewedImage(digest_of("train-1"), 640, 480, ((1, at(5).isoformat()),), (CAT,))
    assert (second.boxes, second.part) == ((), Part.GATE)


def test_skipped_and_never_reviewed_images_teach_nothing() -> None:
    skipped = annotated_image("train-2", make_annotation(2, 0, make_region(), task_id=2, cancelled=True), task_id=2)
    never = annotated_image("train-3", task_id=3)
    gathered = gather(annotated_image("train-1", make_annotation(1, 0, make_region())), skipped, never)

    assert [image.sha256 for image in gathered.images] == [digest_of("train-1")]


def test_an_image_that_cannot_be_had_is_left_out_and_counted() -> None:
    gathered = gather(
        annotated_image("train-1", make_annotation(1, 0, make_region())),
        annotated_image("gone/train-2", make_annotation(2, 0, make_region(), task_id=2), task_id=2),
    )

    assert len(gathered.images) == 1
    assert gathered.left_out == {"file-cannot-be-had": 1}


def test_an_image_whose_file_is_not_the_predicted_one_is_left_out_and_named(caplog: pytest.LogCaptureFixture) -> None:
    other = annotated_image("train-2", make_annotation(2, 0, make_region(), task_id=2), task_id=2)
    images = annotated_image("train-1", make_annotation(1, 0, make_region())), replace(other, sha256="of another file")
    database = known(*images)
    gathered = gather(*images, database=database)

    assert [image.sha256 for image in gathered.images] == [digest_of("train-1")]
    assert gathered.left_out == {"file-has-other-content": 1}
    assert "task=2 left out: train-2: is not the picture that was predicted" in caplog.text
    assert [reference for _, _, reference in database.tables.facts] == ["train-1"]


def test_nothing_is_learned_where_most_files_are_not_the_predicted_ones() -> None:
    image = replace(annotated_image("train-1", make_annotation(1, 0, make_region())), sha256="of another file")
    with pytest.raises(TrainingError, match="1 images of project 'street' cannot be had, the first: train-1: is not"):
        gather(image)


def test_what_was_annotated_before_gathering_began_is_seen() -> None:
    image = annotated_image("train-1", make_annotation(1, 0, make_region()), make_annotation(2, 3))
    database = known(image)
    gathered = gather(image, database=database)

    with database() as unit:
        assert gathered.seen == unit.corrections.newest_version(UID) > 0
    assert gathered.learnt == 2


def test_sizes_and_hashes_of_fetched_files_are_kept() -> None:
    image = annotated_image("train-1", make_annotation(1, 0, make_region()))
    database = known(image)
    gather(image, database=database)

    (facts,) = database.tables.facts.items()
    assert facts[0] == (UID, 1, "train-1")
    assert (facts[1].width, facts[1].height, facts[1].sha256) == (640, 480, digest_of("train-1"))


def test_a_file_that_is_kept_is_not_fetched_again() -> None:
    class Kept(FakeReviewedProjects):
        def has(self, sha256: str) -> bool:
            return sha256 == digest_of("train-1")

    image = replace(
        annotated_image("train-1", make_annotation(1, 0, make_region())),
        width=640,
        height=480,
        sha256=digest_of("train-1"),
    )
    projects = Kept([image])
    database = known(image)
    gathered = Gathering(projects, database, database)(PROJECT, TrainingRequest("command"), lambda progress: None)

    assert projects.was_read == []
    assert gathered.images[0].boxes == (CAT,)


def with_deleted(*kept: AnnotatedRegion, added: datetime | None = None) -> FrozenData:
    """An image with what was left or drawn of two proposals, the others deleted; when dogs were added."""
    image = annotated_image("train-1", make_annotation(1, 5, *kept))
    database = FakeDatabase()
    proposals = [
        Proposal(Box(400, 100, 500, 200), "dog", 0.6, "dog"),
        Proposal(Box(64, 96, 200, 280), "cat", 0.5, "cat"),
    ]
    regions = tuple(Region(f"p-{index}", proposal) for index, proposal in enumerate(proposals))
    with database() as unit:
        look = Look("image", "train-1", digest_of("train-1"))
        unit.predictions.add(UID, "key", Prediction(1, "glip-nano-3f9a12cd", 640, 480, regions, "p", look))
        unit.commit()
    database.tables.predicted_at["p"] = at(0)
    with database() as unit:
        annotations = tuple(each.annotation for each in image.annotations)
        apply_fact(unit, Fact(PROJECT, (TaskState(1, at(0), (("image", "train-1"),)),), annotations))
        unit.commit()
    database.tables.labels[UID] = {"dog": added}
    return gather(image, database=database)


def test_deleted_proposals_are_rejected_boxes() -> None:
    (image,) = with_deleted(replace(make_region("p-1"), prediction="p")).images

    assert image.rejected == (LabelledBox(Box(400, 100, 500, 200), "dog"),)
    assert [each.label for each in image.boxes] == ["cat"]


def test_a_deleted_box_that_was_drawn_anew_is_not_rejected() -> None:
    anew = AnnotatedRegion("new", "image", ("cat",), make_region().value, 640, 480, "manual")
    (image,) = with_deleted(anew).images

    assert [each.label for each in image.rejected] == ["dog"]


def test_boxes_of_labels_that_are_not_asked_any_more_are_left_out() -> None:
    (image,) = gather(
        annotated_image("train-1", make_annotation(1, 0, make_region(), make_region("r2", "cow"))),
    ).images

    assert image.boxes == (CAT,)


@pytest.mark.parametrize("labels", [(), ("?",)])
def test_what_was_drawn_without_a_known_label_beside_others_is_in_doubt(labels: tuple[str, ...]) -> None:
    drawn = replace(make_region("r2", x=90.0), labels=labels)
    senseless = replace(drawn, id="r3", value=replace(drawn.value, x=float("nan")))
    outside = replace(drawn, id="r4", value=replace(drawn.value, x=120.0))
    shown = make_annotation(1, 5, make_region(), drawn, senseless, outside)
    (image,) = gather(annotated_image("train-1", shown, make_annotation(2, 4, replace(drawn, id="r5")))).images

    assert image.boxes == (CAT,)
    assert image.doubtful == (Box(576.0, 96.0, 640.0, 288.0),)


def test_where_all_was_drawn_without_a_label_there_is_nothing_to_learn() -> None:
    unlabelled = annotated_image(
        "train-2", make_annotation(2, 0, replace(make_region(), labels=()), task_id=2), task_id=2
    )
    gathered = gather(annotated_image("train-1", make_annotation(1, 0, make_region())), unlabelled)

    assert [image.doubtful for image in gathered.images] == [()]
    assert gathered.left_out == {"no-usable-box": 1}


def with_added(*annotations: Annotation) -> ReviewedImage:
    """An image of a project to which dogs were added at second 5."""
    image = annotated_image("train-1", *annotations)
    database = known(image)
    database.tables.labels[UID] = {"cat": None, "dog": at(5), "cow": at(5)}
    return gather(image, database=database).images[0]


@pytest.mark.parametrize(("reviewed", "unasked"), [(4, ("dog",)), (5, ("dog",)), (6, ())])
def test_a_label_that_was_added_after_the_review_is_not_known_to_be_absent(
    reviewed: int, unasked: tuple[str, ...]
) -> None:
    assert with_added(make_annotation(1, reviewed, make_region())).unasked == unasked


def test_where_there_is_a_box_of_an_added_label_or_one_was_deleted_somebody_looked_for_it() -> None:
    (deleted,) = with_deleted(added=at(9)).images

    assert with_added(make_annotation(1, 4, make_region("r2", "dog"))).unasked == ()
    assert (deleted.unasked, [each.label for each in deleted.rejected]) == ((), ["dog", "cat"])


def test_of_several_annotations_the_one_whose_boxes_count_tells_when_an_image_was_reviewed() -> None:
    early, late = make_annotation(1, 4, make_region()), make_annotation(2, 6, make_region())

    assert with_added(early, late).unasked == ()
    assert with_added(replace(early, ground_truth=True), late).unasked == ("dog",)
    assert with_added(early, replace(late, cancelled=True)).unasked == ("dog",)


def test_a_limit_takes_the_same_images_for_the_same_seed_and_leaves_the_held_out_ones_alone() -> None:
    images = [
        annotated_image(f"{part}-{number}", make_annotation(number, 0, make_region(), task_id=number), task_id=number)
        for number, part in enumerate(["train"] * 8 + ["gate", "tune"], start=1)
    ]
    drawn = [gather(*images, request=TrainingRequest("command", images=3, seed=seed)) for seed in (1, 1, 2)]

    assert [len(each.part(Part.TRAIN)) for each in drawn] == [3, 3, 3]
    assert [len(each.part(Part.GATE)) + len(each.part(Part.TUNE)) for each in drawn] == [2, 2, 2]
    assert drawn[0].fingerprint == drawn[1].fingerprint != drawn[2].fingerprint


def test_without_an_image_to_learn_from_the_reason_is_told() -> None:
    with pytest.raises(TrainingError, match="'street' has no image to learn from: annotate some"):
        gather(annotated_image("gate-1", make_annotation(1, 0, make_region())))


def test_nothing_is_learned_where_most_images_cannot_be_had() -> None:
    images = [
        annotated_image(name, make_annotation(number, 0, make_region(), task_id=number), task_id=number)
        for number, name in enumerate(["train-1", "gone/train-2", "gone/train-3"], start=1)
    ]
    with pytest.raises(TrainingError, match="2 images of project 'street' cannot be had, the first: gone/train-2: not"):
        gather(*images)


def test_progress_tells_how_many_images_were_looked_at() -> None:
    image = annotated_image("train-1", make_annotation(1, 0, make_region()))
    told: list[TrainingProgress] = []
    database = known(image)
    gathering = Gathering(FakeReviewedProjects([image], [Label("cat")]), database, database)
    gathering(PROJECT, TrainingRequest("x"), told.append)

    assert told == [TrainingProgress("data", 0, 1)]
