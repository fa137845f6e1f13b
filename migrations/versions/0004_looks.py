"""Which picture each prediction looked at, and whether a person asked for it."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; of earlier predictions it is not known."""
    op.add_column("predictions", sa.Column("image", sa.Text(), nullable=True))
    op.add_column("predictions", sa.Column("reference", sa.Text(), nullable=True))
    op.add_column("predictions", sa.Column("sha256", sa.String(64), nullable=True))
    op.add_column("predictions", sa.Column("prompted", sa.Boolean(), nullable=False, server_default=sa.false()))


def downgrade() -> None:
    """Drop them: predictions lose their pictures."""
    for name in ("prompted", "sha256", "reference", "image"):
        op.drop_column("predictions", name)
