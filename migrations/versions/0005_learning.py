"""Learning: model versions, what is in production, and training jobs."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)


def _text(*names: str, nullable: bool = False) -> "list[sa.Column[Any]]":
    return [sa.Column(name, sa.Text(), nullable=nullable) for name in names]


def _short(name: str, length: int, nullable: bool = False) -> "sa.Column[Any]":
    return sa.Column(name, sa.String(length), nullable=nullable)


def _moments(*names: str, nullable: bool = False) -> "list[sa.Column[Any]]":
    return [sa.Column(name, _MOMENT, nullable=nullable) for name in names]


def _of_project(table: str) -> "list[sa.schema.SchemaItem]":
    return [
        sa.Column("id", sa.Integer(), nullable=False),
        _short("project_uid", 64),
        _refers(table, "project_uid", "projects.uid"),
        sa.PrimaryKeyConstraint("id", name=f"pk_{table}"),
    ]


def _refers(table: str, column: str, other: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        [column], [other], name=f"fk_{table}_{column}_{other.partition('.')[0]}", ondelete="CASCADE"
    )


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "model_versions",
        *_of_project("model_versions"),
        _short("name", 200),
        *_text("parent", "base"),
        _short("mode", 16),
        _short("fingerprint", 64),
        *_text("files", "metrics"),
        *_moments("created_at"),
        sa.UniqueConstraint("project_uid", "name", name="uq_model_versions_project_uid"),
    )
    op.create_table(
        "aliases",
        *_of_project("aliases"),
        _short("alias", 64),
        sa.Column("version_id", sa.Integer(), nullable=True),
        _refers("aliases", "version_id", "model_versions.id"),
        _short("kind", 16),
        *_moments("moved_at"),
        *_text("actor", "reason", "numbers"),
    )
    op.create_index("ix_aliases_project_uid", "aliases", ["project_uid"])
    op.create_table(
        "training_jobs",
        *_of_project("training_jobs"),
        *_text("request"),
        _short("state", 16),
        *_moments("requested_at"),
        *_text("worker", nullable=True),
        *_moments("lease_until", "heartbeat_at", "finished_at", nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        *_text("progress", nullable=True),
        _short("fingerprint", 64, nullable=True),
        *_text("data", "version", "outcome", nullable=True),
    )
    op.create_index("ix_training_jobs_project_uid", "training_jobs", ["project_uid"])
    unfinished = sa.text("finished_at IS NULL")
    op.create_index(
        "uq_training_jobs_open",
        "training_jobs",
        ["project_uid"],
        unique=True,
        sqlite_where=unfinished,
        postgresql_where=unfinished,
    )


def downgrade() -> None:
    """Drop them: every project is back on the configured model, and the versions' folders are of no use."""
    op.drop_table("training_jobs")
    op.drop_table("aliases")
    op.drop_table("model_versions")
