"""One transaction over the stores, on SQLAlchemy."""

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import Engine, or_, select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from backend.db.corrections import SqlCorrections
from backend.db.engine import for_reading, storage_error
from backend.db.inbox import SqlInbox
from backend.db.jobs import SqlTrainingJobs
from backend.db.letterbox import Letterbox
from backend.db.projects import SqlProjects
from backend.db.tables import PredictionRegionRow, PredictionRow
from backend.db.versions import SqlModelVersions
from backend.domain.geometry import Box
from backend.domain.records import Look, Prediction, Proposal, Region
from backend.ports import Corrections, Inbox, Predictions, Projects
from backend.ports.learning import ModelVersions, TrainingJobs


class SqlPredictions:
    """``ports.Predictions`` in tables."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def find(self, project_id: int, task_id: int, model_version: str, query_key: str) -> Prediction | None:
        row = self._session.scalar(
            select(PredictionRow).filter_by(
                project_id=project_id, task_id=task_id, model_version=model_version, query_key=query_key
            )
        )
        return None if row is None else _record(row)

    def add(self, project_id: int, query_key: str, prediction: Prediction) -> None:
        """Keep a prediction; the same one from another process is left as it stands."""
        row = PredictionRow(
            id=prediction.id,
            project_id=project_id,
            task_id=prediction.task_id,
            model_version=prediction.model_version,
            query_key=query_key,
            width=prediction.width,
            height=prediction.height,
            image=prediction.look.image,
            reference=prediction.look.reference,
            sha256=prediction.look.sha256,
            prompted=prediction.look.prompted,
            regions=[_region_row(position, region) for position, region in enumerate(prediction.regions)],
        )
        try:
            with self._session.begin_nested():
                self._session.add(row)
        except IntegrityError:
            if self.find(project_id, prediction.task_id, prediction.model_version, query_key) is None:
                raise

    def of_task(
        self, project_id: int, task_id: int, until: datetime, named: Collection[str] = ()
    ) -> Sequence[Prediction]:
        rows = self._session.scalars(
            select(PredictionRow)
            .where(
                PredictionRow.project_id == project_id,
                PredictionRow.task_id == task_id,
                or_(PredictionRow.created_at <= until, PredictionRow.id.in_(named)),
            )
            .order_by(PredictionRow.created_at, PredictionRow.id)
        )
        return [_record(row) for row in rows]


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
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._session.close()
        error = exc_info[1]
        if isinstance(error, SQLAlchemyError):
            raise storage_error(self._engine, error) from error

    def commit(self) -> None:
        self._session.commit()
        self._inbox.committed()


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
    )


def _record(row: PredictionRow) -> Prediction:
    regions = tuple(
        Region(item.id, Proposal(Box(item.x1, item.y1, item.x2, item.y2), item.label, item.score, item.prompt))
        for item in row.regions
    )
    look = Look(row.image, row.reference, row.sha256, row.prompted)
    return Prediction(row.task_id, row.model_version, row.width, row.height, regions, row.id, look)
