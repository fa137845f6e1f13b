"""Self-training: which images and boxes of a model teach its successor."""

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime

import pytest

from backend.domain.calibration import PLAIN, Calibration, KnotCurve
from backend.domain.dataset import AnnotatedImage
from backend.domain.fits import Fit
from backend.domain.geometry import Box
from backend.domain.learning import PRODUCTION, AliasMove, MoveKind, TrainingProgress, TrainingRequest
from backend.domain.records import Look, Prediction, Proposal, Region
from backend.domain.review import ShowThresholds
from backend.domain.training_data import FrozenData, LabelledBox, PseudoImage
from backend.errors import TrainingError
from backend.services.gathering import Gathering
from backend.services.self_training import LEAST_JUDGED, SelfTraining
from tests.backend.test_gathering import PROJECT, annotated_image, known
from tests.backend.test_learn import BASE
from tests.backend.test_learning_stores import make_version
from tests.facts import UID, at, make_annotation, make_region
from tests.fake_learning import FakeModels, FakeReviewedProjects, digest_of
from tests.fakes import FakeDetector


def found(label: str, score: float, x: float = 1.0) -> Proposal:
    return Proposal(Box(x, 1, x + 10, 11), label, score, label)


SURE = found("cat", 0.9)


def reviewed(reference: str = "train-1", task_id: int = 1) -> AnnotatedImage:
    return annotated_image(reference, make_annotation(task_id, 0, make_region(), task_id=task_id), task_id=task_id)


def unreviewed(task_id: int, reference: str | None = None) -> AnnotatedImage:
    return annotated_image(reference or f"train-{task_id}", task_id=task_id)


def make_fit(version: str = BASE, judgements: int = LEAST_JUDGED, calibration: Calibration = PLAIN) -> Fit:
    return Fit(UID, version, calibration, ShowThresholds(0.3), judgements, at(0))


def make_prediction(
    image: AnnotatedImage, *shown: Proposal, hidden: Collection[Proposal] = (), version: str = BASE
) -> Prediction:
    """What a version found in an image, under an id of its own."""
    name = f"{image.task_id}-{image.reference}"
    regions = tuple(Region(f"{name}-{index}", each) for index, each in enumerate(shown))
    look = Look("image", image.reference, digest_of(image.reference))
    return Prediction(int(image.task_id or 0), version, 640, 480, regions, name, look, tuple(hidden))


KNOWN = make_fit()
EARLY = at(0)


class Street:
    """A project on fakes whose base model is in production; probabilities are its scores unless told otherwise."""

    def __init__(self, *images: AnnotatedImage, fit: Fit | None = KNOWN) -> None:
        self.database = known(*images)
        self.projects = FakeReviewedProjects(images)
        self.told: list[TrainingProgress] = []
        if fit is not None:
            with self.database() as unit:
                unit.fits.add(fit)
                unit.commit()

    def keep(self, *predictions: Prediction, made_at: datetime = EARLY) -> None:
        with self.database() as unit:
            for each in predictions:
                unit.predictions.add(UID, each.id, each)
            unit.commit()
        self.database.tables.predicted_at.update({each.id: made_at for each in predictions})

    def sure_of(self, *images: AnnotatedImage) -> None:
        self.keep(*(make_prediction(image, SURE) for image in images))

    def gather(self, seed: int = 0, images: int | None = None) -> FrozenData:
        return self.gather_for(TrainingRequest("command", images=images, seed=seed, self_training=True))

    def gather_for(self, request: TrainingRequest) -> FrozenData:
        models = FakeModels(FakeDetector(version=BASE))
        gathering = Gathering(self.projects, self.database, self.database)
        return SelfTraining(gathering, self.projects, self.database, models)(PROJECT, request, self.told.append)


def references(gathered: FrozenData, *images: AnnotatedImage) -> set[str]:
    """Which of these images are pseudo-labelled."""
    taken = [image.sha256 for image in gathered.pseudo]
    assert len(taken) == len(set(taken))
    return {image.reference for image in images if digest_of(image.reference) in taken}


def test_what_the_teacher_is_sure_of_becomes_boxes_and_what_it_doubts_parts_that_teach_nothing() -> None:
    image = unreviewed(2)
    street = Street(reviewed(), image)
    shown = [found("cat", 0.95, 0), found("dog", 0.8, 20), found("cat", 0.79, 40), found("cat", 0.09, 60)]
    hidden = [found("dog", 0.1, 80), found("dog", 0.09, 100), found("cat", 0.99, 120)]
    street.keep(make_prediction(image, *shown, hidden=hidden))
    gathered = street.gather()

    boxes = (LabelledBox(shown[0].box, "cat"), LabelledBox(shown[1].box, "dog"))
    doubtful = (shown[2].box, hidden[0].box, hidden[2].box)
    assert gathered.pseudo == (PseudoImage(digest_of("train-2"), 640, 480, BASE, boxes, doubtful),)
    assert [each.sha256 for each in gathered.images] == [digest_of("train-1")]
    assert gathered.left_out == {}


def test_the_probability_that_people_leave_a_box_decides_and_not_its_score() -> None:
    image = unreviewed(2)
    curves = {"cat": KnotCurve((0.0, 1.0), (0.0, 0.5)), "dog": KnotCurve((0.0, 0.3), (0.0, 0.9))}
    street = Street(reviewed(), image, fit=make_fit(calibration=Calibration(labels=curves)))
    cat, dog = found("cat", 0.95), found("dog", 0.35, 20)
    street.keep(make_prediction(image, cat, dog))
    (pseudo,) = street.gather().pseudo

    assert (pseudo.boxes, pseudo.doubtful) == ((LabelledBox(dog.box, "dog"),), (cat.box,))


def test_unless_it_is_asked_for_nothing_is_learnt_from_what_nobody_reviewed() -> None:
    images = [reviewed(), unreviewed(2)]
    for fit in (KNOWN, None):
        street = Street(*images, fit=fit)
        street.sure_of(images[1])
        gathered = street.gather_for(TrainingRequest("command"))
        assert gathered.pseudo == ()
        assert gathered.left_out == {}


@pytest.mark.parametrize("fit", [None, make_fit(judgements=LEAST_JUDGED - 1), make_fit("glip-nano-0001")])
def test_before_scores_mean_anything_one_line_asks_for_more_reviews_and_no_file_is_fetched(fit: Fit | None) -> None:
    image = unreviewed(2)
    street = Street(reviewed(), image, fit=fit)
    street.sure_of(image)
    with pytest.raises(
        TrainingError, match=f"'street' yet: review more images first, .* {BASE} .* {LEAST_JUDGED} of its"
    ):
        street.gather()
    assert street.projects.was_read == []


def test_skipped_images_and_those_without_a_prediction_teach_nothing() -> None:
    skipped = annotated_image("train-2", make_annotation(2, 0, task_id=2, cancelled=True), task_id=2)
    street = Street(reviewed(), skipped, unreviewed(3))
    street.sure_of(skipped)
    gathered = street.gather()

    assert gathered.pseudo == ()
    assert gathered.left_out == {"pseudo-not-predicted": 1}


def test_held_out_images_stay_held_out() -> None:
    images = [unreviewed(2, "tune-2"), unreviewed(3, "gate-3"), unreviewed(4)]
    street = Street(*(reviewed(f"train-1{task}", task) for task in (11, 12, 13)), *images)
    street.sure_of(*images)
    gathered = street.gather()

    assert references(gathered, *images) == {"train-4"}
    assert gathered.left_out == {"pseudo-held-out": 2}


def test_a_copy_of_an_image_that_people_decided_on_teaches_nothing() -> None:
    skipped = annotated_image("train-2", make_annotation(2, 0, task_id=2, cancelled=True), task_id=2)
    copies = {name: unreviewed(task, f"copy/{name}") for task, name in enumerate(["train-1", "train-2"], start=3)}
    street = Street(reviewed(), replace(skipped, sha256=digest_of("train-2")), *copies.values())
    for name, image in copies.items():
        prediction = make_prediction(image, SURE)
        street.keep(replace(prediction, look=replace(prediction.look, sha256=digest_of(name))))
    gathered = street.gather()

    assert gathered.pseudo == ()
    assert gathered.left_out == {"pseudo-copy": 2}


def test_of_several_copies_one_teaches() -> None:
    copies = [unreviewed(task, "train-9") for task in (3, 4)]
    street = Street(reviewed(), reviewed("train-2", 2), *copies)
    street.sure_of(*copies)
    gathered = street.gather()

    assert references(gathered, copies[0]) == {"train-9"}
    assert gathered.left_out == {"pseudo-copy": 1}


def test_the_version_in_production_teaches_and_no_other() -> None:
    images = [unreviewed(2), unreviewed(3)]
    street = Street(reviewed(), *images, fit=make_fit("glip-nano-0001"))
    street.keep(make_prediction(images[0], SURE), make_prediction(images[1], SURE, version="glip-nano-0001"))
    with street.database() as unit:
        unit.versions.add(make_version(1))
        unit.versions.move(AliasMove(UID, PRODUCTION, "glip-nano-0001", MoveKind.PROMOTION, at(1), "x", "", {}))
        unit.commit()
    gathered = street.gather()

    assert references(gathered, *images) == {"train-3"}
    assert [each.teacher for each in gathered.pseudo] == ["glip-nano-0001"]
    assert gathered.left_out == {"pseudo-not-predicted": 1}


def test_what_a_person_prompted_does_not_count() -> None:
    image = unreviewed(2)
    street = Street(reviewed(), image)
    prediction = make_prediction(image, SURE)
    street.keep(replace(prediction, look=replace(prediction.look, prompted=True)))

    assert street.gather().left_out == {"pseudo-not-predicted": 1}


def test_a_prediction_of_a_picture_that_nobody_noted_does_not_count() -> None:
    image = unreviewed(2)
    street = Street(reviewed(), image)
    prediction = make_prediction(image, SURE)
    street.keep(replace(prediction, look=replace(prediction.look, sha256=None)))

    assert street.gather().left_out == {"pseudo-not-predicted": 1}


def test_the_newest_prediction_counts() -> None:
    image = unreviewed(2)
    street = Street(reviewed(), image)
    newest = replace(make_prediction(image, found("dog", 0.9)), id="new")
    street.keep(newest, made_at=at(9))
    street.keep(make_prediction(image, SURE), made_at=at(5))

    assert [each.label for each in street.gather().pseudo[0].boxes] == ["dog"]


def test_each_picture_of_a_task_has_its_own_boxes() -> None:
    left, right = (unreviewed(2, f"{side}/train-{side}") for side in ("left", "right"))
    street = Street(reviewed(), reviewed("train-3", 3), left, right)
    street.keep(make_prediction(left, SURE), make_prediction(right, found("dog", 0.9, 50)))

    assert {(each.sha256, each.boxes[0].label) for each in street.gather().pseudo} == {
        (digest_of(left.reference), "cat"),
        (digest_of(right.reference), "dog"),
    }


def test_an_image_on_which_the_teacher_is_sure_of_nothing_is_left_out() -> None:
    images = [unreviewed(2), unreviewed(3)]
    street = Street(reviewed(), *images)
    street.keep(make_prediction(images[0], found("cat", 0.79)), make_prediction(images[1]))

    assert street.gather().left_out == {"pseudo-nothing-sure": 2}


def test_boxes_of_labels_that_are_not_asked_any_more_are_neither_sure_nor_doubtful() -> None:
    image = unreviewed(2)
    street = Street(reviewed(), image)
    street.keep(make_prediction(image, SURE, found("cow", 0.9, 20), found("cow", 0.5, 40)))
    (pseudo,) = street.gather().pseudo

    assert (pseudo.boxes, pseudo.doubtful) == ((LabelledBox(SURE.box, "cat"),), ())


def test_no_more_images_join_than_people_reviewed_and_the_same_for_the_same_seed() -> None:
    people = [reviewed("train-1", 1), reviewed("train-2", 2), reviewed("train-3", 3), reviewed("gate-4", 4)]
    images = [unreviewed(task) for task in range(5, 25)]
    street = Street(*people, *images)
    street.sure_of(*images)
    first, again, other = (street.gather(seed=seed) for seed in (1, 1, 2))
    limited = street.gather(seed=1, images=2)

    assert [len(each.pseudo) for each in (first, again, other, limited)] == [3, 3, 3, 2]
    assert [each.left_out for each in (first, limited)] == [{"pseudo-not-drawn": 17}, {"pseudo-not-drawn": 18}]
    assert first.fingerprint == again.fingerprint
    assert references(first, *images) != references(other, *images)
    assert references(limited, *images) < references(first, *images)


def test_images_that_cannot_be_had_or_changed_since_are_left_out_and_only_those_drawn_are_fetched() -> None:
    images = [unreviewed(2), unreviewed(3, "gone/train-3"), unreviewed(4)]
    people = [reviewed(f"train-1{task}", task) for task in (11, 12, 13)]
    street = Street(*people, reviewed("gone/train-14", 14), *images)
    street.sure_of(*images[:2])
    changed = make_prediction(images[2], SURE)
    street.keep(replace(changed, look=replace(changed.look, sha256=digest_of("train-5"))))
    gathered = street.gather()

    assert references(gathered, *images) == {"train-2"}
    assert gathered.left_out == {
        "file-cannot-be-had": 1,
        "pseudo-file-cannot-be-had": 1,
        "pseudo-file-has-changed": 1,
    }
    street.projects.was_read.clear()
    assert len(street.gather(images=1).images) == 1
    assert len({image.reference for image in images}.intersection(street.projects.was_read)) == 1


def test_progress_tells_how_many_of_the_drawn_images_were_looked_at() -> None:
    images = [unreviewed(3), unreviewed(4), unreviewed(5)]
    street = Street(reviewed(), reviewed("train-2", 2), *images)
    street.sure_of(*images)
    street.gather()

    assert street.told[2:] == [TrainingProgress("data", 0, 2), TrainingProgress("data", 1, 2)]


def test_a_file_that_is_kept_is_not_fetched_again() -> None:
    class Kept(FakeReviewedProjects):
        def has(self, sha256: str) -> bool:
            return sha256 == digest_of("train-2")

    images = [reviewed(), unreviewed(2)]
    street = Street(*images)
    street.projects = Kept(images)
    street.sure_of(images[1])

    assert references(street.gather(), *images) == {"train-2"}
    assert street.projects.was_read == ["train-1"]
