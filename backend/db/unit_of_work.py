"""One transaction over the stores, on SQLAlchemy."""

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import astuple
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, func, select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from backend.db.corrections import SqlCorrections
from backend.db.engine import for_reading, storage_error
from backend.db.fits import SqlFits
from backend.db.inbox import SqlInbox
from backend.db.jobs import SqlTrainingJobs
from backend.db.letterbox import Letterbox
from backend.db.projects import SqlProjects
from backend.db.rows import emitted_region
from backend.db.tables import PredictionRegionRow, PredictionRow
from backend.db.versions import SqlModelVersions
from backend.domain.geometry import Box
from backend.domain.records import Look, Prediction, Proposal, Region
from backend.ports import Corrections, Fits, Inbox, Predictions, Projects
from backend.ports.learning import ModelVersions, TrainingJobs

_BATCH = 500


class SqlPredictions:
    """``ports.Predictions`` in tables."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def find(self, project: str, task_id: int, model_version: str, query_key: str) -> Prediction | None:
        row = self._session.scalar(
            select(PredictionRow).filter_by(
                project_uid=project, task_id=task_id, model_version=model_version, query_key=query_key
            )
        )
        return None if row is None else _record(row)

    def add(self, project: str, query_key: str, prediction: Prediction) -> None:
        """Keep a prediction; the same one from another process is left as it stands."""
        row = PredictionRow(
            id=prediction.id,
            project_uid=project,
            task_id=prediction.task_id,
            model_version=prediction.model_version,
            query_key=query_key,
            width=prediction.width,
            height=prediction.height,
            image=prediction.look.image,
            reference=prediction.look.reference,
            sha256=prediction.look.sha256,
            prompted=prediction.look.prompted,
            hidden=_proposals_json(prediction.hidden),
            fit_id=prediction.fit,
            order=prediction.order,
            regions=[_region_row(position, region) for position, region in enumerate(prediction.regions)],
        )
        try:
            with self._session.begin_nested():
                self._session.add(row)
        except IntegrityError:
            if self.find(project, prediction.task_id, prediction.model_version, query_key) is None:
                raise

    def of_task(self, project: str, task_id: int, until: datetime, named: Collection[str] = ()) -> Sequence[Prediction]:
        rows = self._session.scalars(
            select(PredictionRow)
            .filter_by(project_uid=project, task_id=task_id)
            .order_by(PredictionRow.created_at, PredictionRow.id)
        )
        # Of ids there may be more than a statement takes; predictions of one task are few.
        return [_record(row) for row in rows if row.created_at <= until or _is_named(row, named)]

    def newest(self, project: str, model_version: str) -> Iterator[Prediction]:
        return self._newest(project, model_version, (PredictionRow.task_id,))

    def newest_by_picture(self, project: str, model_version: str) -> Iterator[Prediction]:
        return self._newest(project, model_version, (PredictionRow.task_id, PredictionRow.reference))

    def prompted_regions(self, project: str) -> frozenset[str]:
        of_project = select(PredictionRegionRow.id).join(PredictionRow).where(PredictionRow.project_uid == project)
        return frozenset(self._session.scalars(of_project.where(PredictionRegionRow.weight == 0)))

    def _newest(self, project: str, model_version: str, of_each: Sequence[Any]) -> Iterator[Prediction]:
        of_version = (
            PredictionRow.project_uid == project,
            PredictionRow.model_version == model_version,
            PredictionRow.prompted.is_(False),
        )
        rank = func.row_number().over(
            partition_by=of_each, order_by=(PredictionRow.created_at.desc(), PredictionRow.id.desc())
        )
        ranked = select(PredictionRow.id, rank.label("rank")).where(*of_version).subquery()
        query = select(PredictionRow).join(ranked, ranked.c.id == PredictionRow.id).where(ranked.c.rank == 1)
        for row in self._session.scalars(query.execution_options(yield_per=_BATCH)):
            yield _record(row)


class SqlUnitOfWork:
    """``ports.UnitOfWork``: the transaction lasts as long as the ``with`` block.

    Args:
        engine: the database.
        letterbox: where facts come in, if not in the database itself.
        reads_only: nothing will be written: then the transaction keeps no writer waiting, however long it takes.

    Raises:
        StorageError: instead of any SQLAlchemy error inside the block.
    """

    predictions: Predictions
    projects: Projects
    corrections: Corrections
    inbox: Inbox
    versions: ModelVersions
    jobs: TrainingJobs
    fits: Fits

    def __init__(self, engine: Engine, letterbox: Letterbox | None = None, *, reads_only: bool = False) -> None:
        self._engine = for_reading(engine) if reads_only else engine
        self._letterbox = letterbox

    def __enter__(self) -> "SqlUnitOfWork":
        self._session = Session(self._engine)
        self.predictions = SqlPredictions(self._session)
        self.projects = SqlProjects(self._session)
        self.corrections = SqlCorrections(self._session)
        self.inbox = self._inbox = SqlInbox(self._session, self._letterbox)
        self.versions = SqlModelVersions(self._session)
        self.jobs = SqlTrainingJobs(self._session)
        self.fits = SqlFits(self._session)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._session.close()
        error = exc_info[1]
        if isinstance(error, SQLAlchemyError):
            raise storage_error(self._engine, error) from error

    def commit(self) -> None:
        self._session.commit()
        self._inbox.committed()


def _is_named(row: PredictionRow, named: Collection[str]) -> bool:
    return row.id in named or any(region.id in named for region in row.regions)


def _region_row(position: int, region: Region) -> PredictionRegionRow:
    proposal = region.proposal
    box = proposal.box
    return PredictionRegionRow(
        id=region.id,
        position=position,
        label=proposal.label,
        prompt=proposal.prompt,
        score=proposal.score,
        x1=box.x1,
        y1=box.y1,
        x2=box.x2,
        y2=box.y2,
        probability=region.probability,
        weight=region.weight,
    )


def _record(row: PredictionRow) -> Prediction:
    return Prediction(
        task_id=row.task_id,
        model_version=row.model_version,
        width=row.width,
        height=row.height,
        regions=tuple(map(emitted_region, row.regions)),
        id=row.id,
        look=Look(row.image, row.reference, row.sha256, row.prompted),
        hidden=_proposals(row.hidden),
        fit=row.fit_id,
        order=row.order,
    )


def _proposals_json(proposals: Sequence[Proposal]) -> str:
    rows = [[*astuple(each.box), each.label, each.score, each.prompt] for each in proposals]
    return json.dumps(rows, ensure_ascii=False, separators=(",", ":"))


def _proposals(text: str) -> tuple[Proposal, ...]:
    return tuple(Proposal(Box(*row[:4]), *row[4:]) for row in json.loads(text))
