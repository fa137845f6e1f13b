"""``glip-label db``: the database's schema."""

import click


@click.group()
def command() -> None:
    """Upgrade and check the database.

    \b
    Example:
      glip-label db upgrade
    """


@command.command()
def upgrade() -> None:
    """Bring the database to the newest schema; makes its tables where there are none.

    \b
    Example:
      GLIP_LABEL_DATABASE_URL=postgresql://me@host/glip glip-label db upgrade
    """
    from backend.db.engine import open_engine
    from backend.db.schema import shown
    from backend.db.schema import upgrade as upgrade_schema
    from backend.settings import Settings

    engine = open_engine(Settings.from_env().database_url)
    click.echo(f"{shown(engine)}: schema {upgrade_schema(engine)}")


@command.command()
def check() -> None:
    """Tell whether the database is of the newest schema; exit code 1 where it is not.

    \b
    Example:
      glip-label db check
    """
    from backend.db.engine import open_engine
    from backend.db.schema import check as check_schema
    from backend.db.schema import shown
    from backend.settings import Settings

    engine = open_engine(Settings.from_env().database_url)
    click.echo(f"{shown(engine)}: schema {check_schema(engine)}, up to date")
