"""Projects and their labels in tables."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.db.tables import LabelRow, ProjectRow
from backend.domain.facts import ProjectState


class SqlProjects:
    """``ports.Projects`` in tables."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def score_threshold(self, project: str) -> float | None:
        row = self._session.get(ProjectRow, project)
        return None if row is None else row.score_threshold

    def set_score_threshold(self, project: str, value: float | None) -> None:
        row = self._session.get(ProjectRow, project)
        if row is None:
            row = ProjectRow(uid=project, label_studio_id=int(project.partition(".")[0]), title="")
            self._session.add(row)
        row.score_threshold = value

    def state(self, project: str) -> ProjectState | None:
        row = self._session.get(ProjectRow, project)
        return None if row is None else _state(row)

    def put(self, state: ProjectState) -> None:
        row = self._session.get(ProjectRow, state.uid)
        if row is None:
            row = ProjectRow(uid=state.uid)
            self._session.add(row)
        row.label_studio_id = state.id
        row.title = state.title
        row.updated_at = state.updated_at
        row.label_config = state.label_config

    def labels(self, project: str) -> Mapping[str, datetime | None]:
        query = select(LabelRow.name, LabelRow.since).filter_by(project_uid=project).order_by(LabelRow.number)
        return dict(self._session.execute(query).all())

    def add_labels(self, project: str, names: Sequence[str], since: datetime | None) -> None:
        known = self.labels(project)
        new = [name for name in dict.fromkeys(names) if name not in known]
        self._session.add_all(
            LabelRow(project_uid=project, number=number, name=name, since=since)
            for number, name in enumerate(new, start=len(known) + 1)
        )

    def all(self) -> Sequence[ProjectState]:
        rows = self._session.scalars(select(ProjectRow).order_by(ProjectRow.label_studio_id, ProjectRow.uid))
        return [_state(row) for row in rows]


def _state(row: ProjectRow) -> ProjectState:
    return ProjectState(row.uid, row.label_studio_id, row.title, row.updated_at, row.label_config)
