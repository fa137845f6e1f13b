"""Data sets out of and into the database, on both kinds."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from backend.db.dataset_import import SqlImportedImages
from backend.db.dataset_store import SqlAnnotatedImages
from backend.db.engine import snapshot
from backend.db.schema import upgrade
from backend.db.unit_of_work import SqlUnitOfWork
from backend.domain.annotations import Annotation
from backend.domain.dataset import AnnotatedImage, DatasetLabel, ImageState, Provenance
from backend.domain.facts import Fact, ProjectState, TaskState
from backend.domain.geometry import Box
from backend.domain.matching import verdicts_of
from backend.domain.records import Look, Prediction, Proposal, Region
from backend.errors import UsageError
from backend.services.corrections import apply_fact
from backend.services.export import ExportRequest
from backend.services.import_ import import_images
from integrations.coco_import import read_dataset
from tests.datasets import START, FakeProject, export_to, make_annotation, make_image, make_region

PROJECT = ProjectState("7.1", 7, "street", labels=("cat", "dog"))


def annotation(number: int, *regions: object, task: int = 1, hours: int = 1, cancelled: bool = False) -> Annotation:
    made = make_annotation(*regions, number=number, cancelled=cancelled).annotation  # type: ignore[arg-type]
    return replace(made, task_id=task, updated_at=START + timedelta(hours=hours))


def told(engine: Engine, *tasks: TaskState, annotations: tuple[Annotation, ...] = ()) -> None:
    upgrade(engine)
    with SqlUnitOfWork(engine) as unit:
        apply_fact(unit, Fact(PROJECT, tasks, annotations))
        unit.commit()


def stored(engine: Engine, keys: dict[str, str] | None = None, version: str | None = None) -> list[AnnotatedImage]:
    with snapshot(engine) as connection:
        return list(SqlAnnotatedImages(connection, PROJECT, keys or {}, version).images())


def test_an_image_comes_with_the_newest_version_of_each_annotation(engine: Engine) -> None:
    task = TaskState(5, START, (("image", "/data/upload/7/0134dd4e-a.png"),))
    region = make_region(30, rotation=20)
    told(
        engine,
        task,
        TaskState(6, START, (("image", "b.png"),), deleted=True),
        TaskState(9, START, (("image", "c.png"),)),
        annotations=(
            annotation(1, make_region(), task=5),
            annotation(1, region, task=5, hours=2),
            annotation(2, make_region(), task=5, cancelled=True),
        ),
    )
    first, second = stored(engine)
    assert (first.id, first.task_id, first.reference) == (5, 5, task.images[0][1])
    assert [(each.annotation.id, each.annotation.cancelled) for each in first.annotations] == [(1, False), (2, True)]
    assert first.annotations[0].annotation.regions == (region,)
    assert first.annotations[0].provenance == (Provenance(5, 1, 1, "added"),)
    assert (second.id, second.annotations, second.file_name) == (9, (), None)
    with snapshot(engine) as connection:
        assert SqlAnnotatedImages(connection, PROJECT, {}).labels() == [DatasetLabel(1, "cat"), DatasetLabel(2, "dog")]


@pytest.mark.parametrize("page", [1, 2])
def test_an_annotation_that_went_to_another_task_is_on_that_one_alone(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr("backend.db.dataset_store._PAGE", page)
    tasks = [TaskState(number, START, (("image", f"{number}.png"),)) for number in (1, 2)]
    before, after = annotation(1, make_region(), task=1), annotation(1, make_region(30), task=2, hours=2)
    told(engine, *tasks, annotations=(before, after))
    with SqlUnitOfWork(engine) as unit:
        assert list(unit.corrections.current(PROJECT.uid)) == [after]
    assert [[each.annotation for each in image.annotations] for image in stored(engine)] == [[], [after]]


def test_a_deleted_annotation_says_nothing(engine: Engine) -> None:
    told(engine, TaskState(1, START, (("image", "a.png"),)), annotations=(annotation(1, make_region()),))
    with SqlUnitOfWork(engine) as unit:
        apply_fact(unit, Fact(PROJECT, deleted_annotations=(1,)))
        unit.commit()
    assert [image.annotations for image in stored(engine)] == [()]


def test_a_task_with_two_images_is_two_images_with_their_own_regions(engine: Engine) -> None:
    left, right = replace(make_region(10), image="left"), replace(make_region(20), image="right")
    lost = replace(make_region(30), image="nowhere")
    told(
        engine,
        TaskState(3, START, (("a", "a.png"), ("b", "b.png"), ("source", "https://example.org/page"))),
        annotations=(annotation(1, left, right, lost, task=3),),
    )
    with snapshot(engine) as connection:
        source = SqlAnnotatedImages(connection, PROJECT, {"left": "b", "right": "a"})
        images = list(source.images())
        assert (source.unplaced, source.without_image) == (1, 0)
    assert [(image.id, image.reference) for image in images] == [(5, "a.png"), (6, "b.png")]
    assert [[region.image for region in image.annotations[0].annotation.regions] for image in images] == [
        ["right"],
        ["left"],
    ]


def test_what_lies_on_an_image_that_is_not_served_lies_on_none(engine: Engine) -> None:
    served, aside = replace(make_region(10), image="photo"), replace(make_region(20), image="pages")
    unknown = replace(make_region(30), image="photo-before-it-was-renamed", labels=(), tool="polygonlabels")
    told(
        engine, TaskState(3, START, (("image", "a.png"),)), annotations=(annotation(1, served, aside, unknown, task=3),)
    )
    with snapshot(engine) as connection:
        source = SqlAnnotatedImages(connection, PROJECT, {"photo": "image", "pages": None})
        (image,) = source.images()
        assert source.unplaced == 1
    (only,) = image.annotations
    assert only.annotation.regions == (served, unknown)
    assert len(only.provenance) == 2


def test_predictions_of_the_wanted_version_and_what_became_of_them_come_along(engine: Engine) -> None:
    proposal = Proposal(Box(64, 48, 192, 96), "cat", 0.75, "kitten")
    prediction = Prediction(1, "glip-t-1", 640, 480, (Region("p-0", proposal),), "p", Look("image", "a.png", "f" * 64))
    of_another = replace(prediction, id="q", regions=(), width=8, look=Look("image", "before.png", "0" * 64))
    prompted = replace(prediction, id="r", regions=(), look=replace(prediction.look, prompted=True))
    upgrade(engine)
    with SqlUnitOfWork(engine) as unit:
        for each in (prediction, of_another, prompted):
            unit.predictions.add(PROJECT.uid, each.id, each)
        unit.commit()
    accepted = replace(make_region(), id="p-0", prediction="p", image_width=640, image_height=480)
    told(engine, TaskState(1, START, (("image", "a.png"),)), annotations=(annotation(1, accepted),))
    (image,) = stored(engine, version="glip-t-1")
    assert image.predictions == (prediction,)
    (provenance,) = image.annotations[0].provenance
    assert (provenance.verdict, provenance.model_version, provenance.prompt, provenance.score) == (
        "accepted",
        "glip-t-1",
        "kitten",
        0.75,
    )
    (other,) = stored(engine, version="glip-t-2")
    assert (other.predictions, other.width, other.height) == ((), 640, 480)  # as seen when it was predicted
    assert other.sha256 == "f" * 64


def test_versions_whose_predictions_are_there_are_named(engine: Engine) -> None:
    upgrade(engine)
    look = Look("image", "a.png", "f" * 64)
    with SqlUnitOfWork(engine) as unit:
        for place, version in enumerate(("glip-t-2", "glip-t-1", "glip-t-2")):
            unit.predictions.add(PROJECT.uid, str(place), Prediction(1, version, 640, 480, (), str(place), look))
        prompted = Prediction(1, "glip-t-3", 640, 480, (), "3", replace(look, prompted=True))
        unit.predictions.add(PROJECT.uid, "3", prompted)
        unit.predictions.add("7.2", "4", Prediction(1, "glip-t-4", 640, 480, (), "4", look))
        unit.commit()
    told(engine, TaskState(1, START, (("image", "a.png"),)))
    with snapshot(engine) as connection:
        assert SqlAnnotatedImages(connection, PROJECT, {}).model_versions() == ["glip-t-1", "glip-t-2"]


def test_images_come_by_their_ids_over_several_pages(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.db.dataset_store._PAGE", 2)
    told(engine, *(TaskState(number, START, (("image", f"{number}.png"),)) for number in (4, 1, 3, 9, 7)))
    assert [image.id for image in stored(engine)] == [1, 3, 4, 7, 9]


def test_an_export_keeps_no_writer_waiting_and_sees_nothing_new(engine: Engine) -> None:
    told(engine, TaskState(1, START, (("image", "a.png"),)))
    with snapshot(engine) as connection:
        source = SqlAnnotatedImages(connection, PROJECT, {})
        assert len(source.labels()) == 2
        told(engine, TaskState(2, START, (("image", "b.png"),)))
        assert [image.id for image in source.images()] == [1]
    assert [image.id for image in stored(engine)] == [1, 2]


def test_an_imported_data_set_is_exported_byte_for_byte(engine: Engine, tmp_path: Path) -> None:
    upgrade(engine)
    known = Provenance(8, 11, 5, "moved", "glip-t-1", "größer Hund", 0.75, 2, 3)
    regions = (make_region(-3, 7, 30.123456, 30, 77.7, ["dog", "cat"]), make_region(labels=["traffic light"]))
    project = FakeProject(
        [
            make_image(2, make_annotation(*regions, provenance=known), reference="/data/upload/7/0134dd4e-a.png"),
            make_image(4, make_annotation(), reference="https://host/data/upload/7/0134dd4f-a.png"),
            replace(make_image(9), sha256=None, task_id=None),
        ]
    )
    request = ExportRequest(include_unreviewed=True)
    export_to(tmp_path / "one", project, request)
    found = read_dataset([tmp_path / "one/annotations.json"])
    assert [image.state for image in found.images] == [*list(ImageState)[:2], ImageState.NEVER_REVIEWED]
    import_images(SqlImportedImages(engine, "mine"), found.labels, found.images, START)
    with SqlUnitOfWork(engine) as unit:
        (state,) = [each for each in unit.projects.all() if each.title == "mine"]
        for each in unit.corrections.versions(state.uid):
            assert unit.corrections.verdicts(state.uid, each) == verdicts_of(each, ())
    with snapshot(engine) as connection:
        export_to(tmp_path / "two", SqlAnnotatedImages(connection, state, {}), request)
    assert (tmp_path / "one/annotations.json").read_bytes() == (tmp_path / "two/annotations.json").read_bytes()


def test_a_project_of_that_name_is_not_imported_into(engine: Engine) -> None:
    upgrade(engine)
    import_images(SqlImportedImages(engine, "mine"), (), (), START)
    with pytest.raises(UsageError, match="there is a project 'mine' already"):
        import_images(SqlImportedImages(engine, "mine"), (), (), START)
