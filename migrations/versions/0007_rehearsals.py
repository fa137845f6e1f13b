"""Rehearsals: what became of a version's proposals on held-out images before anybody saw them."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table; of earlier versions no rehearsal is known."""
    op.create_table(
        "rehearsals",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_uid", sa.String(64), nullable=False),
        sa.Column("model_version", sa.String(200), nullable=False),
        sa.Column("image", sa.String(64), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("iou", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_uid"], ["projects.uid"], name="fk_rehearsals_project_uid_projects", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_rehearsals"),
    )
    op.create_index("ix_rehearsals_version", "rehearsals", ["project_uid", "model_version"])


def downgrade() -> None:
    """Drop it: versions are fitted to verdicts alone again."""
    op.drop_table("rehearsals")
