"""Tasks, annotations and verdicts in tables."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TypeAlias, TypeVarTuple

from sqlalchemy import ColumnElement, ScalarSelect, Select, case, delete, func, select, update
from sqlalchemy.orm import Session, aliased

from backend.db.engine import lock
from backend.db.rows import annotation_of, emitted_region, is_newest, region_of
from backend.db.tables import (
    AnnotationRegionRow,
    AnnotationRow,
    AnnotationVersionRow,
    ImageRow,
    PredictionRegionRow,
    PredictionRow,
    ProjectRow,
    TaskRow,
    VerdictRow,
)
from backend.domain.annotations import AnnotatedRegion, Annotation
from backend.domain.dataset import ImageFacts
from backend.domain.facts import TaskState
from backend.domain.verdicts import EdgeOffsets, Judged, Verdict, VerdictKind

_BATCH = 500
_Columns = TypeVarTuple("_Columns")

# A version, then Label Studio's ids of annotation, task and project
_Rows: TypeAlias = "Select[AnnotationVersionRow, int, int, int]"


class SqlCorrections:
    """``ports.Corrections`` in tables."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def lock(self) -> None:
        lock(self._session.connection())

    def task(self, project: str, task_id: int) -> TaskState | None:
        row = self._task(project, task_id)
        if row is None:
            return None
        images = tuple((image.data_key, image.reference) for image in row.images)
        return TaskState(row.label_studio_id, row.updated_at, tuple(sorted(images)), row.deleted)

    def live_tasks(self, project: str) -> frozenset[int]:
        query = select(TaskRow.label_studio_id).filter_by(project_uid=project, deleted=False)
        return frozenset(self._session.scalars(query))

    def put_task(self, project: str, task: TaskState) -> None:
        row = self._task(project, task.id)
        if row is None:
            row = TaskRow(project_uid=project, label_studio_id=task.id)
            self._session.add(row)
        row.updated_at = task.updated_at
        row.deleted = task.deleted
        known = {(image.data_key, image.reference): image for image in row.images}
        gone = [image for key, image in known.items() if key not in task.images]
        for image in gone:
            row.images.remove(image)
        if gone:
            self._session.flush()  # a new reference takes the key of an old one
        row.images += [ImageRow(data_key=key[0], reference=key[1]) for key in task.images if key not in known]

    def version(self, project: str, annotation_id: int, updated_at: datetime) -> Annotation | None:
        found = self._session.execute(
            _versions(project).where(
                AnnotationRow.label_studio_id == annotation_id, AnnotationVersionRow.updated_at == updated_at
            )
        ).one_or_none()
        return None if found is None else _annotation(*found)

    def put_version(self, project: str, annotation: Annotation) -> None:
        task = self._task(project, annotation.task_id)
        if task is None:
            raise ValueError(f"annotation {annotation.id} is of task {annotation.task_id}, which is not known")
        owner = self._annotation(project, annotation.id)
        row = self._version(project, annotation)
        if row is None:
            row = AnnotationVersionRow(annotation_id=owner.id, updated_at=annotation.updated_at)
            self._session.add(row)
        else:
            row.regions.clear()
            self._session.execute(delete(VerdictRow).filter_by(version_id=row.id))
            self._session.flush()  # the new regions take the places of the old ones
        row.task_id = task.id
        row.created_at = annotation.created_at
        row.annotator = annotation.annotator
        row.cancelled = annotation.cancelled
        row.ground_truth = annotation.ground_truth
        row.lead_time = annotation.lead_time
        row.parent_prediction = annotation.parent_prediction
        row.regions = [_region_row(position, region) for position, region in enumerate(annotation.regions)]
        self._session.flush()

    def knows(self, project: str, annotation_id: int) -> bool:
        return self._known_annotation(project, annotation_id) is not None

    def delete_annotation(self, project: str, annotation_id: int) -> None:
        self._annotation(project, annotation_id).deleted = True

    def annotation_ids(self, project: str, after: int, limit: int) -> Sequence[int]:
        number = AnnotationRow.label_studio_id
        query = select(number).where(AnnotationRow.project_uid == project, number > after).order_by(number)
        return self._session.scalars(query.limit(limit)).all()

    def versions(self, project: str, ids: Collection[int] | None = None) -> Iterator[Annotation]:
        query = _versions(project).order_by(AnnotationRow.label_studio_id, AnnotationVersionRow.updated_at)
        return self._stream(query if ids is None else query.where(AnnotationRow.label_studio_id.in_(ids)))

    def current(self, project: str) -> Iterator[Annotation]:
        query = _versions(project).where(*_is_current())
        return self._stream(query.order_by(AnnotationRow.label_studio_id))

    def tasks_by_annotation(self, project: str, *, skipped: bool = True) -> Mapping[int, int]:
        query = _versions(project).where(*_is_current())
        if not skipped:
            query = query.where(AnnotationVersionRow.cancelled.is_(False))
        ids = query.with_only_columns(AnnotationRow.label_studio_id, TaskRow.label_studio_id)
        return dict(self._session.execute(ids).all())

    def put_facts(self, project: str, task_id: int, reference: str, facts: ImageFacts) -> None:
        task = select(TaskRow.id).filter_by(project_uid=project, label_studio_id=task_id).scalar_subquery()
        self._session.execute(
            update(ImageRow)
            .where(ImageRow.task_id == task, ImageRow.reference == reference)
            .values(width=facts.width, height=facts.height, sha256=facts.sha256)
        )

    def newest_version(self, project: str) -> int:
        mine = select(AnnotationRow.id).filter_by(project_uid=project)
        newest = select(func.max(AnnotationVersionRow.id)).where(AnnotationVersionRow.annotation_id.in_(mine))
        return self._session.scalars(newest).one() or 0

    def count_reviewed(self, project: str, after: int = 0) -> int:
        query = (
            select(func.count())
            .select_from(AnnotationRow)
            .join(AnnotationVersionRow, AnnotationVersionRow.annotation_id == AnnotationRow.id)
            .join(TaskRow, TaskRow.id == AnnotationVersionRow.task_id)
            .where(AnnotationRow.project_uid == project, AnnotationVersionRow.cancelled.is_(False), *_is_current())
            .where(AnnotationVersionRow.id > after)
        )
        return self._session.scalars(query).one()

    def put_verdicts(self, project: str, annotation: Annotation, verdicts: Sequence[Verdict]) -> None:
        row = self._version(project, annotation)
        if row is None:
            raise ValueError(f"annotation {annotation.id} has no version of {annotation.updated_at.isoformat()}")
        self._session.execute(delete(VerdictRow).filter_by(version_id=row.id))
        self._session.add_all(_verdict_row(row.id, verdict) for verdict in verdicts)

    def verdicts(self, project: str, annotation: Annotation) -> tuple[Verdict, ...]:
        row = self._version(project, annotation)
        if row is None:
            return ()
        rows = self._session.scalars(select(VerdictRow).filter_by(version_id=row.id).order_by(VerdictRow.position))
        return tuple(_verdict(annotation.id, each) for each in rows)

    def current_verdicts(self, project: str) -> Iterator[Verdict]:
        query = _of_current(select(VerdictRow, AnnotationRow.label_studio_id), project)
        query = query.order_by(AnnotationRow.label_studio_id, VerdictRow.position)
        for row, annotation_id in self._session.execute(query.execution_options(yield_per=_BATCH)):
            yield _verdict(annotation_id, row)

    def judged(self, project: str, model_version: str, newest: int) -> Sequence[Judged]:
        columns = select(VerdictRow, AnnotationRow.label_studio_id, TaskRow.label_studio_id, PredictionRegionRow)
        fit = case((VerdictRow.emitted_region.is_(None), _fit_of_answered(project)), else_=PredictionRow.fit_id)
        query = (
            _of_current(columns.add_columns(fit), project)
            .outerjoin(PredictionRegionRow, PredictionRegionRow.id == VerdictRow.emitted_region)
            .outerjoin(PredictionRow, PredictionRow.id == PredictionRegionRow.prediction_id)
            .where(VerdictRow.model_version == model_version)
            .order_by(AnnotationRow.label_studio_id.desc(), VerdictRow.position.desc())
            .limit(newest)
        )
        found = [
            Judged(_verdict(annotation_id, verdict), task_id, region and emitted_region(region), fit_id)
            for verdict, annotation_id, task_id, region, fit_id in self._session.execute(query)
        ]
        return found[::-1]

    def count_judged(self, project: str) -> Mapping[str, int]:
        query = (
            _of_current(select(VerdictRow.model_version, func.count()), project)
            .outerjoin(PredictionRegionRow, PredictionRegionRow.id == VerdictRow.emitted_region)
            .where(VerdictRow.emitted_region.is_not(None), func.coalesce(PredictionRegionRow.weight, 1.0) > 0)
            .group_by(VerdictRow.model_version)
        )
        return {version: count for version, count in self._session.execute(query) if version is not None}

    def _task(self, project: str, task_id: int) -> TaskRow | None:
        return self._session.scalar(select(TaskRow).filter_by(project_uid=project, label_studio_id=task_id))

    def _known_annotation(self, project: str, annotation_id: int) -> AnnotationRow | None:
        return self._session.scalar(select(AnnotationRow).filter_by(project_uid=project, label_studio_id=annotation_id))

    def _annotation(self, project: str, annotation_id: int) -> AnnotationRow:
        row = self._known_annotation(project, annotation_id)
        if row is None:
            row = AnnotationRow(project_uid=project, label_studio_id=annotation_id, deleted=False)
            self._session.add(row)
            self._session.flush()
        return row

    def _version(self, project: str, annotation: Annotation) -> AnnotationVersionRow | None:
        return self._session.scalar(
            select(AnnotationVersionRow)
            .join(AnnotationRow, AnnotationRow.id == AnnotationVersionRow.annotation_id)
            .where(
                AnnotationRow.project_uid == project,
                AnnotationRow.label_studio_id == annotation.id,
                AnnotationVersionRow.updated_at == annotation.updated_at,
            )
        )

    def _stream(self, query: _Rows) -> Iterator[Annotation]:
        for found in self._session.execute(query.execution_options(yield_per=_BATCH)):
            yield _annotation(*found)


def _versions(project: str) -> _Rows:
    return (
        select(AnnotationVersionRow, AnnotationRow.label_studio_id, TaskRow.label_studio_id, ProjectRow.label_studio_id)
        .join(AnnotationRow, AnnotationRow.id == AnnotationVersionRow.annotation_id)
        .join(TaskRow, TaskRow.id == AnnotationVersionRow.task_id)
        .join(ProjectRow, ProjectRow.uid == AnnotationRow.project_uid)
        .where(AnnotationRow.project_uid == project)
    )


def _of_current(columns: "Select[*_Columns]", project: str) -> "Select[*_Columns]":
    """Columns about the verdicts on the newest versions of a project's annotations."""
    return (
        columns.join(AnnotationVersionRow, AnnotationVersionRow.id == VerdictRow.version_id)
        .join(AnnotationRow, AnnotationRow.id == AnnotationVersionRow.annotation_id)
        .join(TaskRow, TaskRow.id == AnnotationVersionRow.task_id)
        .where(AnnotationRow.project_uid == project, *_is_current())
    )


def _fit_of_answered(project: str) -> "ScalarSelect[str | None]":
    """The fit of the last prediction of the task, by the verdict's version, before the annotation; no prompt's."""
    asked = aliased(PredictionRow)
    return (
        select(asked.fit_id)
        .where(
            asked.project_uid == project,
            asked.task_id == TaskRow.label_studio_id,
            asked.model_version == VerdictRow.model_version,
            asked.prompted.is_(False),
            asked.created_at <= AnnotationVersionRow.created_at,
        )
        .order_by(asked.created_at.desc(), asked.id.desc())
        .limit(1)
        .scalar_subquery()
    )


def _is_current() -> tuple[ColumnElement[bool], ...]:
    """Conditions on a version that is the newest of an annotation which was not deleted, nor its task."""
    return is_newest(), AnnotationRow.deleted.is_(False), TaskRow.deleted.is_(False)


def _annotation(row: AnnotationVersionRow, annotation_id: int, task_id: int, project_id: int) -> Annotation:
    regions = tuple(map(region_of, row.regions))
    return annotation_of(row, regions, annotation_id=annotation_id, task_id=task_id, project_id=project_id)


def _region_row(position: int, region: AnnotatedRegion) -> AnnotationRegionRow:
    return AnnotationRegionRow(
        position=position,
        region_id=region.id,
        image=region.image,
        labels=json.dumps(region.labels, ensure_ascii=False),
        x=region.value.x,
        y=region.value.y,
        width=region.value.width,
        height=region.value.height,
        rotation=region.value.rotation,
        image_width=region.image_width,
        image_height=region.image_height,
        origin=region.origin,
        prediction=region.prediction,
        score=region.score,
        tool=region.tool,
    )


def _verdict_row(version_id: int, verdict: Verdict) -> VerdictRow:
    offsets = verdict.offsets
    return VerdictRow(
        version_id=version_id,
        position=verdict.position,
        kind=verdict.kind.value,
        emitted_region=verdict.emitted_region,
        final_region=verdict.final_region,
        label_before=verdict.label_before,
        label_after=verdict.label_after,
        iou=verdict.iou,
        dx1=None if offsets is None else offsets.left,
        dy1=None if offsets is None else offsets.top,
        dx2=None if offsets is None else offsets.right,
        dy2=None if offsets is None else offsets.bottom,
        model_version=verdict.model_version,
        prompt=verdict.prompt,
        score=verdict.score,
        annotator=verdict.annotator,
        lead_time=verdict.lead_time,
    )


def _verdict(annotation_id: int, row: VerdictRow) -> Verdict:
    offsets = None
    if row.dx1 is not None and row.dy1 is not None and row.dx2 is not None and row.dy2 is not None:
        offsets = EdgeOffsets(row.dx1, row.dy1, row.dx2, row.dy2)
    return Verdict(
        annotation_id=annotation_id,
        position=row.position,
        kind=VerdictKind(row.kind),
        emitted_region=row.emitted_region,
        final_region=row.final_region,
        label_before=row.label_before,
        label_after=row.label_after,
        iou=row.iou,
        offsets=offsets,
        model_version=row.model_version,
        prompt=row.prompt,
        score=row.score,
        annotator=row.annotator,
        lead_time=row.lead_time,
    )
