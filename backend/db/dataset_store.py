"""A project's images with all that was annotated on them, read page by page."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Engine, Row, and_, select

from backend.db.engine import snapshot
from backend.db.rows import REGION_COLUMNS, annotation_of, emitted_region, is_newest, region_of_columns
from backend.db.tables import (
    AnnotationRegionRow,
    AnnotationRow,
    AnnotationVersionRow,
    ImageRow,
    ImportedImageRow,
    ImportedRegionRow,
    LabelRow,
    PredictionRegionRow,
    PredictionRow,
    TaskRow,
    VerdictRow,
)
from backend.domain.annotations import AnnotatedRegion
from backend.domain.dataset import AnnotatedImage, AttributedAnnotation, DatasetLabel, Provenance
from backend.domain.facts import ProjectState
from backend.domain.records import Look, Prediction, Region

_PAGE = 500  # tasks

# All that an export needs of a prediction; what was not shown is long, and stays where it is.
_PREDICTION = (
    PredictionRow.id,
    PredictionRow.task_id,
    PredictionRow.model_version,
    PredictionRow.prompted,
    PredictionRow.width,
    PredictionRow.height,
    PredictionRow.image,
    PredictionRow.reference,
    PredictionRow.sha256,
)

_Rows = Sequence[Row[Any]]


class SqlAnnotatedImages:
    """``ports.AnnotatedImages`` in tables.

    Args:
        connection: of a `snapshot`.
        project: whose images.
        image_keys: name of each ``<Image>`` tag -> key of the task's data, None for one that is not served; empty takes
            every picture for an image.
        model_version: whose predictions go along.

    Attributes:
        unplaced: regions met so far that lie on none of their task's images.
        without_image: tasks met so far of which no image is known.
    """

    def __init__(
        self,
        connection: Connection,
        project: ProjectState,
        image_keys: Mapping[str, str | None],
        model_version: str | None = None,
    ) -> None:
        self._connection = connection
        self._project = project
        self._tags = image_keys
        self._model_version = model_version
        self._keys = sorted({key for key in image_keys.values() if key is not None}) or self._keys_there()
        self.unplaced = 0
        self.without_image = 0

    def labels(self) -> Sequence[DatasetLabel]:
        columns = select(LabelRow.number, LabelRow.name).where(LabelRow.project_uid == self._project.uid)
        return [DatasetLabel(row.number, row.name) for row in self._all(columns.order_by(LabelRow.number))]

    def model_versions(self) -> Sequence[str]:
        """Name the versions whose predictions are there, but for what people asked for with prompts."""
        of = PredictionRow.project_uid == self._project.uid
        columns = select(PredictionRow.model_version).where(of, PredictionRow.prompted.is_(False)).distinct()
        return [row.model_version for row in self._all(columns.order_by(PredictionRow.model_version))]

    def images(self) -> Iterator[AnnotatedImage]:
        """Yield the images by their ids: their task's where tasks have one image, numbered through where several."""
        last = -1
        while tasks := self._tasks_after(last):
            page = _Page(self._connection, tasks, self._project, self._model_version)
            for task in tasks:
                keys = [key for key in self._keys if key in page.images[task.id]]
                self.without_image += not keys
                annotations = page.annotations(task)
                for key in keys:
                    yield self._image(page, task, key, [self._on(each, key, keys) for each in annotations])
                self.unplaced += sum(
                    self._place(region.image, keys) is None
                    for each in annotations
                    for region in each.annotation.regions
                )
            last = tasks[-1].label_studio_id

    def _image(
        self, page: "_Page", task: Row[Any], key: str, annotations: Sequence[AttributedAnnotation]
    ) -> AnnotatedImage:
        stored, imported = page.images[task.id][key], page.imported.get(task.id)
        looked_at = page.looks.get((task.label_studio_id, stored.reference), stored)
        seen = stored if stored.width is not None else looked_at
        return AnnotatedImage(
            id=(task.label_studio_id - 1) * len(self._keys) + self._keys.index(key) + 1,
            reference=stored.reference,
            width=seen.width,
            height=seen.height,
            sha256=seen.sha256,
            task_id=task.label_studio_id if imported is None else imported.original_task,
            annotations=tuple(annotations),
            predictions=tuple(page.predictions[task.label_studio_id, stored.reference]),
            file_name=None if imported is None else imported.file_name,
        )

    def _on(self, attributed: AttributedAnnotation, key: str, keys: Sequence[str]) -> AttributedAnnotation:
        """The part of an annotation that lies on one of its task's images."""
        pairs = zip(attributed.annotation.regions, attributed.provenance, strict=True)
        mine = [pair for pair in pairs if self._place(pair[0].image, keys) == key]
        regions, provenance = tuple(pair[0] for pair in mine), tuple(pair[1] for pair in mine)
        return AttributedAnnotation(replace(attributed.annotation, regions=regions), provenance)

    def _place(self, tag: str, keys: Sequence[str]) -> str | None:
        """Which of a task's images a region lies on: a tag that no config names is taken for the only one."""
        key = self._tags.get(tag, keys[0] if len(keys) == 1 else tag)
        return key if key in keys else None

    def _keys_there(self) -> list[str]:
        columns = select(ImageRow.data_key).join(TaskRow, TaskRow.id == ImageRow.task_id)
        return sorted(
            row.data_key for row in self._all(columns.where(TaskRow.project_uid == self._project.uid).distinct())
        )

    def _tasks_after(self, last: int) -> _Rows:
        columns = select(TaskRow.id, TaskRow.label_studio_id).where(
            TaskRow.project_uid == self._project.uid, TaskRow.deleted.is_(False), TaskRow.label_studio_id > last
        )
        return self._all(columns.order_by(TaskRow.label_studio_id).limit(_PAGE))

    def _all(self, query: Any) -> _Rows:
        return self._connection.execute(query).all()


@contextmanager
def annotated_images(
    engine: Engine, project: ProjectState, image_keys: Mapping[str, str | None]
) -> Iterator[SqlAnnotatedImages]:
    """Give a project's images as they are now, for the length of a ``with`` block."""
    with snapshot(engine) as connection:
        yield SqlAnnotatedImages(connection, project, image_keys)


class _Page:
    """All rows that belong to some tasks, by what they belong to."""

    def __init__(self, connection: Connection, tasks: _Rows, project: ProjectState, model_version: str | None) -> None:
        self._connection = connection
        self._project = project
        ids = [task.id for task in tasks]
        self.images: dict[int, dict[str, Row[Any]]] = defaultdict(dict)
        for image in self._rows(ImageRow, ImageRow.task_id.in_(ids)):
            self.images[image.task_id][image.data_key] = image
        self.imported = {row.task_id: row for row in self._rows(ImportedImageRow, ImportedImageRow.task_id.in_(ids))}
        self._versions = self._current_versions(ids)
        self._regions: dict[int, list[AnnotatedRegion]] = defaultdict(list)
        self._provenance: dict[int, list[Provenance]] = defaultdict(list)
        self._read_regions({task.id: task.label_studio_id for task in tasks})
        # Upright size and hash of the pictures that something was predicted for: the last look at each.
        self.looks: dict[tuple[int, str], Any] = {}
        self.predictions: dict[tuple[int, str], list[Prediction]] = defaultdict(list)
        self._read_predictions([task.label_studio_id for task in tasks], model_version)

    def annotations(self, task: Row[Any]) -> list[AttributedAnnotation]:
        return [self._annotation(task.label_studio_id, row) for row in self._versions[task.id]]

    def _annotation(self, task_id: int, row: Row[Any]) -> AttributedAnnotation:
        annotation = annotation_of(
            row,
            tuple(self._regions[row.id]),
            annotation_id=row.label_studio_id,
            task_id=task_id,
            project_id=self._project.id,
        )
        return AttributedAnnotation(annotation, tuple(self._provenance[row.id]))

    def _read_regions(self, task_ids: Mapping[int, int]) -> None:
        """Read the regions of the current versions and where each comes from; ``task_ids`` are Label Studio's."""
        rows = [row for found in self._versions.values() for row in found]
        versions = {row.id: (task_ids[row.task_id], row.label_studio_id, row.annotator) for row in rows}
        told = {
            (row.version_id, row.position): Provenance(**json.loads(row.provenance))
            for row in self._rows(ImportedRegionRow, ImportedRegionRow.version_id.in_(versions))
        }
        place = AnnotationRegionRow.version_id, AnnotationRegionRow.position
        of_region = and_(VerdictRow.version_id == place[0], VerdictRow.position == place[1])
        verdict = VerdictRow.kind, VerdictRow.emitted_region, VerdictRow.model_version, VerdictRow.prompt
        columns = select(*place, *verdict, VerdictRow.score, *REGION_COLUMNS).outerjoin(VerdictRow, of_region)
        for version, position, kind, emitted, model_version, prompt, score, *region in self._connection.execute(
            columns.where(AnnotationRegionRow.version_id.in_(versions)).order_by(*place)
        ):
            # Where a person added a box, the version is the one that missed it.
            proposed = None if emitted is None else model_version
            provenance = Provenance(*versions[version], kind, proposed, prompt, score)
            self._regions[version].append(region_of_columns(region))
            self._provenance[version].append(told.get((version, position), provenance))

    def _current_versions(self, tasks: Sequence[int]) -> dict[int, list[Row[Any]]]:
        columns = select(AnnotationVersionRow.__table__, AnnotationRow.label_studio_id).join(
            AnnotationRow, AnnotationRow.id == AnnotationVersionRow.annotation_id
        )
        of_tasks = columns.where(AnnotationVersionRow.task_id.in_(tasks), AnnotationRow.deleted.is_(False))
        found = of_tasks.where(is_newest()).order_by(AnnotationRow.label_studio_id)
        by_task: dict[int, list[Row[Any]]] = defaultdict(list)
        for row in self._connection.execute(found):
            by_task[row.task_id].append(row)
        return by_task

    def _read_predictions(self, tasks: Sequence[int], model_version: str | None) -> None:
        columns = select(*_PREDICTION).where(
            PredictionRow.project_uid == self._project.uid, PredictionRow.task_id.in_(tasks)
        )
        rows: Sequence[Any] = self._connection.execute(
            columns.order_by(PredictionRow.created_at, PredictionRow.id)
        ).all()
        self.looks = {(row.task_id, row.reference): row for row in rows}
        wanted = [row for row in rows if row.model_version == model_version and not row.prompted]
        if not wanted:
            return
        regions: dict[str, list[Region]] = defaultdict(list)
        for region in self._rows(
            PredictionRegionRow,
            PredictionRegionRow.prediction_id.in_([row.id for row in wanted]),
            PredictionRegionRow.position,
        ):
            regions[region.prediction_id].append(emitted_region(region))
        for row in wanted:
            look = Look(row.image, row.reference, row.sha256)
            found = tuple(regions[row.id])
            prediction = Prediction(row.task_id, row.model_version, row.width, row.height, found, row.id, look)
            self.predictions[row.task_id, row.reference].append(prediction)

    def _rows(self, table: Any, condition: Any, *order: Any) -> _Rows:
        return self._connection.execute(select(table.__table__).where(condition).order_by(*order)).all()
