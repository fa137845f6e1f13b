"""Alembic's entry: runs the migrations on the connection it is given, or on the configured database."""

from alembic import context
from sqlalchemy import Connection, create_engine

from backend.db.tables import Base
from backend.settings import Settings


def run(connection: Connection) -> None:
    """Run the pending migrations inside one transaction."""
    context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is None:
    with create_engine(Settings.from_env().database_url).connect() as own:
        run(own)
        own.commit()
else:
    run(given)
