"""Predictions hang on a project's uid: its number comes again in another installation of Label Studio, or a new one."""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Give each prediction to the project with its number that was the newest when it was made.

    One whose project was never told of keeps the number alone.
    """
    with op.batch_alter_table("predictions") as predictions:
        predictions.add_column(sa.Column("project_uid", sa.String(64), nullable=True))
    connection = op.get_bind()
    connection.execute(sa.text("UPDATE predictions SET project_uid = CAST(project_id AS VARCHAR(64))"))
    # Imported data sets have the number 0, and a hash for a moment; nothing was predicted for them.
    told = sa.text("SELECT label_studio_id, uid FROM projects WHERE label_studio_id > 0")
    projects = connection.execute(told).all()
    for number, uid in sorted(projects, key=lambda row: (row[0], _created(row[1]))):
        connection.execute(
            sa.text(
                "UPDATE predictions SET project_uid = :uid WHERE project_id = :number "
                "AND (created_at >= :created OR project_uid = CAST(project_id AS VARCHAR(64)))"
            ).bindparams(sa.bindparam("created", type_=sa.DateTime(timezone=True))),
            {"uid": uid, "number": number, "created": _created(uid)},
        )
    _move("project_id", "project_uid", sa.String(64))


def downgrade() -> None:
    """Give them back to the number, which is the part of the uid before the point."""
    with op.batch_alter_table("predictions") as predictions:
        predictions.add_column(sa.Column("project_id", sa.Integer(), nullable=True))
    connection = op.get_bind()
    for (uid,) in connection.execute(sa.text("SELECT DISTINCT project_uid FROM predictions")).all():
        connection.execute(
            sa.text("UPDATE predictions SET project_id = :number WHERE project_uid = :uid"),
            {"number": int(uid.partition(".")[0]), "uid": uid},
        )
    _move("project_uid", "project_id", sa.Integer())


def _created(uid: str) -> datetime:
    """When the project was made, as ``ID.CREATED`` tells; long ago where it does not."""
    try:
        return datetime.fromtimestamp(int(uid.partition(".")[2] or 0), UTC)
    except (ValueError, OverflowError, OSError):  # /setup takes any number for one
        return datetime.fromtimestamp(0, UTC)


def _move(old: str, new: str, kind: "sa.types.TypeEngine[str] | sa.types.TypeEngine[int]") -> None:
    """Drop the old column, and let the new one tell predictions apart in its place."""
    # SQLite makes the table anew; the regions of the one that is dropped would go with it.
    aside = op.get_context().dialect.name == "sqlite"
    if aside:
        op.execute("CREATE TABLE prediction_regions_aside AS SELECT * FROM prediction_regions")
    with op.batch_alter_table("predictions") as predictions:
        predictions.drop_constraint(f"uq_predictions_{old}", type_="unique")
        predictions.drop_column(old)
        predictions.alter_column(new, existing_type=kind, nullable=False)
        predictions.create_unique_constraint(f"uq_predictions_{new}", [new, "task_id", "model_version", "query_key"])
    if aside:
        op.execute("INSERT INTO prediction_regions SELECT * FROM prediction_regions_aside")
        op.execute("DROP TABLE prediction_regions_aside")
