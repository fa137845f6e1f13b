"""When labels were added to a project, so that images which were reviewed before do not teach that nothing has them."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; of known labels nobody knows, and they count as there from the start, as before."""
    op.add_column("labels", sa.Column("since", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    """Drop it: all labels count as there from the start."""
    op.drop_column("labels", "since")
