"""Model versions, and what a project's aliases mean, in tables."""

import json
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.db.tables import AliasRow, ModelVersionRow, ProjectRow
from backend.domain.learning import AliasMove, Mode, ModelVersion, MoveKind


class SqlModelVersions:
    """``ports.learning.ModelVersions`` in tables."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def lock(self, project: str) -> None:
        # SQLite has one writer at a time anyway, and leaves the clause out.
        self._session.execute(select(ProjectRow.uid).filter_by(uid=project).with_for_update())

    def add(self, version: ModelVersion) -> None:
        self._session.add(
            ModelVersionRow(
                project_uid=version.project,
                name=version.name,
                parent=version.parent,
                base=version.base,
                mode=version.mode.value,
                fingerprint=version.fingerprint,
                files=json.dumps(dict(version.files)),
                metrics=json.dumps(version.metrics, ensure_ascii=False),
                created_at=version.created_at,
            )
        )
        self._session.flush()

    def find(self, project: str, name: str) -> ModelVersion | None:
        row = self._row(project, name)
        return None if row is None else _version(row)

    def all(self, project: str) -> Sequence[ModelVersion]:
        rows = self._session.scalars(select(ModelVersionRow).filter_by(project_uid=project).order_by("id"))
        return [_version(row) for row in rows]

    def names(self) -> frozenset[str]:
        return frozenset(self._session.scalars(select(ModelVersionRow.name).distinct()))

    def alias(self, project: str, alias: str) -> ModelVersion | None:
        newest = (
            select(AliasRow.version_id)
            .filter_by(project_uid=project, alias=alias)
            .order_by(AliasRow.id.desc())
            .limit(1)
            .scalar_subquery()
        )
        row = self._session.scalar(select(ModelVersionRow).where(ModelVersionRow.id == newest))
        return None if row is None else _version(row)

    def move(self, move: AliasMove) -> None:
        version_id = None
        if move.version is not None:
            row = self._row(move.project, move.version)
            if row is None:
                raise ValueError(f"project {move.project} has no version {move.version}")
            version_id = row.id
        self._session.add(
            AliasRow(
                project_uid=move.project,
                alias=move.alias,
                version_id=version_id,
                kind=move.kind.value,
                moved_at=move.moved_at,
                actor=move.actor,
                reason=move.reason,
                numbers=json.dumps(move.numbers, ensure_ascii=False),
            )
        )
        self._session.flush()

    def moves(self, project: str, alias: str) -> Sequence[AliasMove]:
        rows = self._session.execute(
            select(AliasRow, ModelVersionRow.name)
            .outerjoin(ModelVersionRow, ModelVersionRow.id == AliasRow.version_id)
            .where(AliasRow.project_uid == project, AliasRow.alias == alias)
            .order_by(AliasRow.id)
        )
        return [_move(row, name) for row, name in rows]

    def _row(self, project: str, name: str) -> ModelVersionRow | None:
        return self._session.scalar(select(ModelVersionRow).filter_by(project_uid=project, name=name))


def _version(row: ModelVersionRow) -> ModelVersion:
    return ModelVersion(
        project=row.project_uid,
        name=row.name,
        parent=row.parent,
        base=row.base,
        mode=Mode(row.mode),
        fingerprint=row.fingerprint,
        files=tuple(json.loads(row.files).items()),
        metrics=json.loads(row.metrics),
        created_at=row.created_at,
    )


def _move(row: AliasRow, version: str | None) -> AliasMove:
    return AliasMove(
        project=row.project_uid,
        alias=row.alias,
        version=version,
        kind=MoveKind(row.kind),
        moved_at=row.moved_at,
        actor=row.actor,
        reason=row.reason,
        numbers=json.loads(row.numbers),
    )
