"""Corrections: what projects, tasks and annotations are, verdicts, and the inbox of facts."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)


def _id() -> "sa.Column[int]":
    return sa.Column("id", sa.Integer(), nullable=False)


def _optional(kind: type[sa.types.TypeEngine[Any]], *names: str) -> "list[sa.Column[Any]]":
    return [sa.Column(name, kind(), nullable=True) for name in names]


def _doubles(*names: str) -> "list[sa.Column[float]]":
    return [sa.Column(name, sa.Double(), nullable=False) for name in names]


def _refers(table: str, column: str, other: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        [column], [other], name=f"fk_{table}_{column}_{other.partition('.')[0]}", ondelete="CASCADE"
    )


def upgrade() -> None:
    """Extend the projects, whose ids their uids tell, and make the other tables."""
    with op.batch_alter_table("projects") as projects:
        projects.add_column(sa.Column("label_studio_id", sa.BigInteger(), nullable=True))
        projects.add_column(sa.Column("title", sa.Text(), nullable=True))
        projects.add_column(sa.Column("label_config", sa.Text(), nullable=True))
        projects.add_column(sa.Column("updated_at", _MOMENT, nullable=True))
    connection = op.get_bind()
    for (uid,) in connection.execute(sa.text("SELECT uid FROM projects")).all():
        connection.execute(
            sa.text("UPDATE projects SET label_studio_id = :id, title = '' WHERE uid = :uid"),
            {"id": int(uid.partition(".")[0]), "uid": uid},
        )
    with op.batch_alter_table("projects") as projects:
        projects.alter_column("label_studio_id", existing_type=sa.BigInteger(), nullable=False)
        projects.alter_column("title", existing_type=sa.Text(), nullable=False)
        projects.create_index("ix_projects_label_studio_id", ["label_studio_id"])
    _make_tasks()
    _make_annotations()
    _make_verdicts()
    op.create_table(
        "inbox",
        _id(),
        sa.Column("received_at", _MOMENT, nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        *_optional(sa.BigInteger, "project_id"),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("applied_at", _MOMENT, nullable=True),
        *_optional(sa.Text, "error"),
        sa.PrimaryKeyConstraint("id", name="pk_inbox"),
    )
    op.create_index("ix_inbox_applied_at", "inbox", ["applied_at"])


def _make_tasks() -> None:
    op.create_table(
        "labels",
        sa.Column("project_uid", sa.String(64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        _refers("labels", "project_uid", "projects.uid"),
        sa.PrimaryKeyConstraint("project_uid", "number", name="pk_labels"),
        sa.UniqueConstraint("project_uid", "name", name="uq_labels_project_uid"),
    )
    op.create_table(
        "tasks",
        _id(),
        sa.Column("project_uid", sa.String(64), nullable=False),
        sa.Column("label_studio_id", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", _MOMENT, nullable=True),
        sa.Column("deleted", sa.Boolean(), nullable=False),
        _refers("tasks", "project_uid", "projects.uid"),
        sa.PrimaryKeyConstraint("id", name="pk_tasks"),
        sa.UniqueConstraint("project_uid", "label_studio_id", name="uq_tasks_project_uid"),
    )
    op.create_table(
        "images",
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.Column("data_key", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        *_optional(sa.Integer, "width", "height"),
        sa.Column("sha256", sa.String(64), nullable=True),
        _refers("images", "task_id", "tasks.id"),
        sa.PrimaryKeyConstraint("task_id", "data_key", name="pk_images"),
    )


def _make_annotations() -> None:
    op.create_table(
        "annotations",
        _id(),
        sa.Column("project_uid", sa.String(64), nullable=False),
        sa.Column("label_studio_id", sa.BigInteger(), nullable=False),
        sa.Column("deleted", sa.Boolean(), nullable=False),
        _refers("annotations", "project_uid", "projects.uid"),
        sa.PrimaryKeyConstraint("id", name="pk_annotations"),
        sa.UniqueConstraint("project_uid", "label_studio_id", name="uq_annotations_project_uid"),
    )
    op.create_table(
        "annotation_versions",
        _id(),
        sa.Column("annotation_id", sa.Integer(), nullable=False),
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("updated_at", _MOMENT, nullable=False),
        *_optional(sa.BigInteger, "annotator"),
        sa.Column("cancelled", sa.Boolean(), nullable=False),
        sa.Column("ground_truth", sa.Boolean(), nullable=False),
        *_optional(sa.Double, "lead_time"),
        *_optional(sa.BigInteger, "parent_prediction"),
        _refers("annotation_versions", "annotation_id", "annotations.id"),
        _refers("annotation_versions", "task_id", "tasks.id"),
        sa.PrimaryKeyConstraint("id", name="pk_annotation_versions"),
        sa.UniqueConstraint("annotation_id", "updated_at", name="uq_annotation_versions_annotation_id"),
    )
    op.create_index("ix_annotation_versions_task_id", "annotation_versions", ["task_id"])
    op.create_table(
        "annotation_regions",
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("region_id", "image", "labels")),
        *_doubles("x", "y", "width", "height", "rotation"),
        *_optional(sa.Integer, "image_width", "image_height"),
        *_optional(sa.Text, "origin", "prediction"),
        *_optional(sa.Double, "score"),
        _refers("annotation_regions", "version_id", "annotation_versions.id"),
        sa.PrimaryKeyConstraint("version_id", "position", name="pk_annotation_regions"),
    )


def _make_verdicts() -> None:
    op.create_table(
        "verdicts",
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        *_optional(sa.Text, "emitted_region", "final_region", "label_before", "label_after"),
        *_optional(sa.Double, "iou", "dx1", "dy1", "dx2", "dy2"),
        *_optional(sa.Text, "model_version", "prompt"),
        *_optional(sa.Double, "score"),
        *_optional(sa.BigInteger, "annotator"),
        *_optional(sa.Double, "lead_time"),
        _refers("verdicts", "version_id", "annotation_versions.id"),
        sa.PrimaryKeyConstraint("version_id", "position", name="pk_verdicts"),
    )


def downgrade() -> None:
    """Drop them; the projects keep what they had before."""
    for table in ("inbox", "verdicts", "annotation_regions", "annotation_versions", "annotations", "images", "tasks"):
        op.drop_table(table)
    op.drop_table("labels")
    with op.batch_alter_table("projects") as projects:
        projects.drop_index("ix_projects_label_studio_id")
        for column in ("label_studio_id", "title", "label_config", "updated_at"):
            projects.drop_column(column)
