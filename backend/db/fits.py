"""Fits in a table."""

from collections.abc import Sequence

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from backend.db.tables import FitRow, RehearsalRow
from backend.domain.calibration import Calibration
from backend.domain.fits import Fit
from backend.domain.review import Judgement, ShowThresholds
from backend.domain.verdicts import VerdictKind


class SqlFits:
    """``ports.Fits`` in a table."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def newest(self, project: str, model_version: str) -> Fit | None:
        row = self._session.scalar(
            select(FitRow)
            .filter_by(project_uid=project, model_version=model_version)
            .order_by(FitRow.fitted_at.desc(), FitRow.id)
            .limit(1)
        )
        return None if row is None else _fit(row)

    def add(self, fit: Fit) -> None:
        self._session.merge(
            FitRow(
                id=fit.id,
                project_uid=fit.project,
                model_version=fit.model_version,
                judgements=fit.judgements,
                fitted_at=fit.fitted_at,
                fitted=fit.to_json(),
            )
        )

    def find(self, fit: str) -> Fit | None:
        row = self._session.get(FitRow, fit)
        return None if row is None else _fit(row)

    def rehearsed(self, project: str, model_version: str) -> Sequence[Judgement]:
        rows = self._session.scalars(
            select(RehearsalRow).filter_by(project_uid=project, model_version=model_version).order_by(RehearsalRow.id)
        )
        return [Judgement(row.image, row.label, row.score, VerdictKind(row.kind), row.iou) for row in rows]

    def count_rehearsed(self, project: str, model_version: str) -> int:
        of_version = select(func.count()).select_from(RehearsalRow)
        return self._session.scalar(of_version.filter_by(project_uid=project, model_version=model_version)) or 0

    def add_rehearsal(self, project: str, model_version: str, judgements: Sequence[Judgement]) -> None:
        names = ("image", "label", "score", "kind", "iou")
        rows = [
            {"project_uid": project, "model_version": model_version, **{name: getattr(each, name) for name in names}}
            for each in judgements
        ]
        if rows:
            self._session.execute(insert(RehearsalRow), rows)


def _fit(row: FitRow) -> Fit:
    blank = Fit(row.project_uid, row.model_version, Calibration(), ShowThresholds(0.0), row.judgements, row.fitted_at)
    return blank.with_json(row.fitted)
