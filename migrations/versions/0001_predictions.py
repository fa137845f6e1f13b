"""Projects, predictions and their regions."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the first three tables."""
    op.create_table(
        "projects",
        sa.Column("uid", sa.String(64), nullable=False),
        sa.Column("score_threshold", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("uid", name="pk_projects"),
    )
    op.create_table(
        "predictions",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.Column("model_version", sa.String(200), nullable=False),
        sa.Column("query_key", sa.String(64), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_predictions"),
        sa.UniqueConstraint("project_id", "task_id", "model_version", "query_key", name="uq_predictions_project_id"),
    )
    op.create_table(
        "prediction_regions",
        sa.Column("id", sa.String(48), nullable=False),
        sa.Column("prediction_id", sa.String(32), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        *(sa.Column(name, sa.Double(), nullable=False) for name in ("score", "x1", "y1", "x2", "y2")),
        sa.ForeignKeyConstraint(
            ["prediction_id"],
            ["predictions.id"],
            name="fk_prediction_regions_prediction_id_predictions",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_prediction_regions"),
    )
    op.create_index("ix_prediction_regions_prediction_id", "prediction_regions", ["prediction_id"])


def downgrade() -> None:
    """Drop them."""
    op.drop_table("prediction_regions")
    op.drop_table("predictions")
    op.drop_table("projects")
