"""Training jobs in a table: whoever changes one must hold its newest claim."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, cast

from sqlalchemy import CursorResult, and_, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from backend.db.tables import TrainingJobRow
from backend.domain.learning import JobState, Mode, TrainingJob, TrainingProgress, TrainingRequest
from backend.domain.training_data import FrozenData


class SqlTrainingJobs:
    """``ports.learning.TrainingJobs`` in a table."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, project: str, request: TrainingRequest, now: datetime, seen: int = 0) -> TrainingJob:
        row = self._open(project)
        if row is None:
            row = TrainingJobRow(
                project_uid=project,
                request=json.dumps(asdict(request)),
                state=JobState.QUEUED.value,
                requested_at=now,
                attempts=0,
                seen=seen,
                learnt=0,
            )
            try:
                with self._session.begin_nested():
                    self._session.add(row)
            except IntegrityError:
                row = self._open(project)  # another one was faster
                if row is None:
                    raise
        return _job(row)

    def find(self, job: int) -> TrainingJob | None:
        row = self._session.get(TrainingJobRow, job, populate_existing=True)
        return None if row is None else _job(row)

    def of(self, project: str, limit: int) -> Sequence[TrainingJob]:
        query = select(TrainingJobRow).filter_by(project_uid=project).order_by(TrainingJobRow.id.desc())
        return [_job(row) for row in self._session.scalars(query.limit(limit))]

    def done(self, project: str) -> TrainingJob | None:
        query = select(TrainingJobRow).filter_by(project_uid=project, state=JobState.DONE.value)
        row = self._session.scalar(query.order_by(TrainingJobRow.id.desc()).limit(1))
        return None if row is None else _job(row)

    def claimable(self, now: datetime) -> Sequence[int]:
        return self._session.scalars(
            select(TrainingJobRow.id).where(_is_claimable(now)).order_by(TrainingJobRow.id)
        ).all()

    def claim(self, job: int, worker: str, now: datetime, until: datetime) -> TrainingJob | None:
        taken = self._update(
            (TrainingJobRow.id == job, _is_claimable(now)),
            state=JobState.RUNNING.value,
            worker=worker,
            lease_until=until,
            heartbeat_at=now,
            attempts=TrainingJobRow.attempts + 1,
        )
        return self.find(job) if taken else None

    def beat(self, job: TrainingJob, now: datetime, until: datetime, progress: TrainingProgress | None) -> bool:
        told = {} if progress is None else {"progress": json.dumps(asdict(progress))}
        return self._update(_held(job), heartbeat_at=now, lease_until=until, **told)

    def release(self, job: TrainingJob) -> None:
        self._update(_held(job), lease_until=None)

    def freeze(self, job: TrainingJob, data: FrozenData) -> bool:
        told = {"fingerprint": data.fingerprint, "seen": data.seen, "learnt": data.learnt}
        return self._update(_held(job), data=data.to_json(), **told)

    def data(self, job: int) -> FrozenData | None:
        text = self._session.scalar(select(TrainingJobRow.data).where(TrainingJobRow.id == job))
        return None if text is None else FrozenData.from_json(text)

    def finish(self, job: TrainingJob, state: JobState, now: datetime, outcome: str, version: str | None) -> bool:
        return self._update(
            _held(job), state=state.value, finished_at=now, lease_until=None, outcome=outcome, version=version
        )

    def _open(self, project: str) -> TrainingJobRow | None:
        return self._session.scalar(select(TrainingJobRow).filter_by(project_uid=project, finished_at=None))

    def _update(self, conditions: Sequence[Any], **values: object) -> bool:
        statement = update(TrainingJobRow).where(*conditions).values(**values)
        result = self._session.execute(statement, execution_options={"synchronize_session": False})
        return cast("CursorResult[Any]", result).rowcount > 0


def _is_claimable(now: datetime) -> Any:
    lease = TrainingJobRow.lease_until
    abandoned = and_(TrainingJobRow.state == JobState.RUNNING.value, or_(lease.is_(None), lease < now))
    return or_(TrainingJobRow.state == JobState.QUEUED.value, abandoned)


def _held(job: TrainingJob) -> tuple[Any, ...]:
    """Conditions on a row that nobody claimed after this claim."""
    return (
        TrainingJobRow.id == job.id,
        TrainingJobRow.state == JobState.RUNNING.value,
        TrainingJobRow.attempts == job.attempts,
    )


def _job(row: TrainingJobRow) -> TrainingJob:
    return TrainingJob(
        id=row.id,
        project=row.project_uid,
        request=_request(json.loads(row.request)),
        state=JobState(row.state),
        requested_at=row.requested_at,
        worker=row.worker,
        lease_until=row.lease_until,
        heartbeat_at=row.heartbeat_at,
        finished_at=row.finished_at,
        attempts=row.attempts,
        progress=None if row.progress is None else TrainingProgress(**json.loads(row.progress)),
        fingerprint=row.fingerprint,
        version=row.version,
        outcome=row.outcome,
        seen=row.seen,
        learnt=row.learnt,
    )


def _request(fields: Mapping[str, Any]) -> TrainingRequest:
    mode = None if fields["mode"] is None else Mode(fields["mode"])
    return TrainingRequest(**{**fields, "mode": mode, "frozen": tuple(fields.get("frozen", ()))})
