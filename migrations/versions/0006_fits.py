"""Fits: what verdicts taught about scores, and what of each prediction people saw."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table; of what was predicted before, people saw everything that is known."""
    op.create_table(
        "fits",
        sa.Column("id", sa.String(16), nullable=False),
        sa.Column("project_uid", sa.String(64), nullable=False),
        sa.Column("model_version", sa.String(200), nullable=False),
        sa.Column("judgements", sa.Integer(), nullable=False),
        sa.Column("fitted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("fitted", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_uid"], ["projects.uid"], name="fk_fits_project_uid_projects", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_fits"),
    )
    op.create_index("ix_fits_project_uid", "fits", ["project_uid"])
    op.add_column("predictions", sa.Column("hidden", sa.Text(), nullable=False, server_default="[]"))
    op.add_column("predictions", sa.Column("fit_id", sa.String(16), nullable=True))
    op.add_column("predictions", sa.Column("order", sa.Double(), nullable=True))
    op.add_column("prediction_regions", sa.Column("probability", sa.Double(), nullable=True))
    op.add_column("prediction_regions", sa.Column("weight", sa.Double(), nullable=False, server_default="1"))


def downgrade() -> None:
    """Drop them: scores are the models' own again, and what people did not see is forgotten."""
    for table, column in (
        ("prediction_regions", "weight"),
        ("prediction_regions", "probability"),
        ("predictions", "order"),
        ("predictions", "fit_id"),
        ("predictions", "hidden"),
    ):
        op.drop_column(table, column)
    op.drop_table("fits")
