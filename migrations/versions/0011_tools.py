"""What was drawn with other tools than rectangles with labels is kept as well."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; only rectangles were kept until now."""
    op.add_column("annotation_regions", sa.Column("tool", sa.Text(), nullable=True))


def downgrade() -> None:
    """Drop it, and what it tells of: boxes without labels would come of that."""
    op.execute("DELETE FROM annotation_regions WHERE tool IS NOT NULL")
    op.drop_column("annotation_regions", "tool")
