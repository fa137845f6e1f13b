"""What a training job knows of: the newest version of an annotation, and how many annotations its data have."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; earlier jobs know of all that was annotated until now, and how much they learnt is not told."""
    op.add_column("training_jobs", sa.Column("seen", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("training_jobs", sa.Column("learnt", sa.Integer(), nullable=False, server_default="0"))
    op.execute(
        "UPDATE training_jobs SET seen = COALESCE((SELECT MAX(annotation_versions.id) FROM annotation_versions "
        "JOIN annotations ON annotations.id = annotation_versions.annotation_id "
        "WHERE annotations.project_uid = training_jobs.project_uid), 0)"
    )
    op.execute("UPDATE training_jobs SET progress = NULL")  # it has a field that is no more, and is told anew


def downgrade() -> None:
    """Drop them: what is new is told by moments again."""
    op.drop_column("training_jobs", "learnt")
    op.drop_column("training_jobs", "seen")
