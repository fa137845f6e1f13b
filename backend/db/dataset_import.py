"""Imported data sets as projects of their own, which no Label Studio knows."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from hashlib import sha256

from sqlalchemy import Engine, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from backend.db.corrections import SqlCorrections
from backend.db.engine import storage_error
from backend.db.tables import (
    AnnotationRow,
    AnnotationVersionRow,
    ImageRow,
    ImportedImageRow,
    ImportedRegionRow,
    LabelRow,
    ProjectRow,
    TaskRow,
)
from backend.domain.dataset import AnnotatedImage, AttributedAnnotation, DatasetLabel
from backend.domain.facts import IMPORTED, TaskState
from backend.domain.matching import verdicts_of
from backend.errors import UsageError

_DATA_KEY = "image"


class SqlImportedImages:
    """``ports.ImportedImages`` in tables: a new project ``title``, whose tasks and annotations have the images' ids."""

    def __init__(self, engine: Engine, title: str) -> None:
        self._engine = engine
        self._title = title
        self._uid = f"{IMPORTED}.{sha256(title.encode()).hexdigest()[:16]}"

    def add(self, labels: Sequence[DatasetLabel], images: Iterable[AnnotatedImage]) -> None:
        """Keep a data set under its ids; all or nothing.

        Raises:
            UsageError: there is a project of this title already.
            StorageError: the database failed.
        """
        try:
            with Session(self._engine) as session:
                self._add_project(session, labels)
                for image in images:
                    self._add_image(session, image)
                    session.expunge_all()  # so that memory does not grow
                session.commit()
        except SQLAlchemyError as error:
            raise storage_error(self._engine, error) from error

    def _add_project(self, session: Session, labels: Sequence[DatasetLabel]) -> None:
        if session.scalar(select(ProjectRow.uid).filter_by(title=self._title)) is not None:
            raise UsageError(f"there is a project {self._title!r} already: choose another name with --project")
        session.add(ProjectRow(uid=self._uid, label_studio_id=IMPORTED, title=self._title))
        session.flush()
        session.add_all(LabelRow(project_uid=self._uid, number=label.id, name=label.name) for label in labels)
        session.flush()

    def _add_image(self, session: Session, image: AnnotatedImage) -> None:
        corrections = SqlCorrections(session)
        corrections.put_task(self._uid, TaskState(image.id, None, ((_DATA_KEY, image.reference),)))
        session.flush()
        task = select(TaskRow.id).filter_by(project_uid=self._uid, label_studio_id=image.id)
        task_id = session.scalars(task).one()
        stored = session.get_one(ImageRow, (task_id, _DATA_KEY))
        stored.width, stored.height, stored.sha256 = image.width, image.height, image.sha256
        session.add(ImportedImageRow(task_id=task_id, file_name=image.file_name, original_task=image.task_id))
        for attributed in image.annotations:
            self._add_annotation(session, corrections, attributed)
        session.flush()

    def _add_annotation(self, session: Session, corrections: SqlCorrections, attributed: AttributedAnnotation) -> None:
        annotation = attributed.annotation
        corrections.put_version(self._uid, annotation)
        # As ever, they follow from the annotation alone; what the data set told of its boxes is kept beside them.
        corrections.put_verdicts(self._uid, annotation, verdicts_of(annotation, ()))
        version = (
            select(AnnotationVersionRow.id)
            .join(AnnotationRow, AnnotationRow.id == AnnotationVersionRow.annotation_id)
            .filter(AnnotationRow.project_uid == self._uid, AnnotationRow.label_studio_id == annotation.id)
        )
        version_id = session.scalars(version).one()
        for position, provenance in enumerate(attributed.provenance):
            known = {key: value for key, value in asdict(provenance).items() if value is not None}
            text = json.dumps(known, ensure_ascii=True)
            session.add(ImportedRegionRow(version_id=version_id, position=position, provenance=text))
