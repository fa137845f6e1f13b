"""Imported data sets: the names their files had, and where their boxes came from."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "imported_images",
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.Column("file_name", sa.Text(), nullable=False),
        sa.Column("original_task", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name="fk_imported_images_task_id_tasks", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("task_id", name="pk_imported_images"),
    )
    op.create_table(
        "imported_regions",
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("provenance", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["version_id"],
            ["annotation_versions.id"],
            name="fk_imported_regions_version_id_annotation_versions",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("version_id", "position", name="pk_imported_regions"),
    )


def downgrade() -> None:
    """Drop them: exports of imported projects lose what only the import told."""
    op.drop_table("imported_regions")
    op.drop_table("imported_images")
