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
@click.option("--repair", is_flag=True, help="Write the verdicts again that differ.")
def check(repair: bool) -> None:
    """Tell whether the database is of the newest schema, and whether what is in it holds together.

    Counts the events that wait or could not be applied, and derives all verdicts again to compare them with the
    stored ones. Exit code 1 where something is wrong.

    \b
    Example:
      glip-label db check
    """
    from functools import partial

    from backend.db.engine import open_engine
    from backend.db.letterbox import open_letterbox
    from backend.db.schema import check as check_schema
    from backend.db.schema import shown
    from backend.db.unit_of_work import SqlUnitOfWork
    from backend.errors import StorageError
    from backend.services.corrections import CorrectionsService, check_verdicts
    from backend.settings import Settings

    engine = open_engine(Settings.from_env().database_url)
    click.echo(f"{shown(engine)}: schema {check_schema(engine)}, up to date")
    unit_of_work = partial(SqlUnitOfWork, engine, open_letterbox(engine), reads_only=not repair)
    counts, failures = CorrectionsService(unit_of_work).inbox()
    click.echo(f"events: {counts.applied} applied, {counts.waiting} waiting, {counts.failed} failed")
    for failure in failures:
        of = "" if failure.project_id is None else f" of project {failure.project_id}"
        click.echo(f"  {failure.entry} {failure.action}{of}: {failure.error}")
    checked, stale = check_verdicts(unit_of_work, repair=repair)
    click.echo(f"verdicts: of {checked} annotation versions, {stale} differ" + (" and were written again" * repair))
    problems = [f"{counts.failed} events failed: see above, then `glip-label worker --retry`"] if counts.failed else []
    if stale and not repair:
        problems.append(f"the verdicts on {stale} annotation versions are stale: run `glip-label db check --repair`")
    if problems:
        raise StorageError("; ".join(problems))
