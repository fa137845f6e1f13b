"""``glip-label next``: the tasks that are worth doing next."""

import json

import click

# A tab has one condition per task, and a Label Studio on SQLite, which stops at a depth of 1000, could not open it.
_LARGEST_BATCH = 500


@click.command(short_help="The tasks that are worth doing next, as ids or as a tab in the Data Manager.")
@click.option("--project", required=True, help="Name or id of the Label Studio project.")
@click.option("--batch", default=25, show_default=True, type=click.IntRange(1, _LARGEST_BATCH), help="How many tasks.")
@click.option("--view", metavar="NAME", help="Write them as a tab of this name in Label Studio's Data Manager.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(project: str, batch: int, view: str | None, as_json: bool) -> None:
    """Choose the tasks that stand for what the model is unsure of, short and long ones, and every fifth by chance.

    Only tasks that nobody reviewed yet. The figures rest on predictions of the version in production: retrieve them
    first. Before anything was judged, and where the order does not pay, chance chooses all tasks.

    \b
    Example:
      glip-label next --project 7 --batch 50 --view "next batch"
    """
    from backend.bootstrap import base_version, open_database
    from backend.services.next_batch import next_batch
    from backend.services.projects import find_project
    from backend.services.promotion import production_version
    from backend.settings import Settings
    from integrations.label_studio.api import label_studio_api
    from integrations.label_studio.views import write_view

    settings = Settings.from_env()
    unit_of_work = open_database(settings, reads_only=True)
    base = base_version(settings)
    with unit_of_work() as unit:
        state = find_project(unit.projects.all(), project)
        production = production_version(unit, state.uid, base)
    version = base if production is None else production.name
    found = next_batch(unit_of_work, state, version, batch)
    view_id = None
    if view is not None:
        with label_studio_api(settings.label_studio_url, settings.label_studio_token) as api:
            view_id = write_view(api, state.id, view, found.tasks)
    if not found.waiting:
        click.echo("glip-label: no task waits that is known (glip-label sync asks Label Studio)", err=True)
    if found.unpredicted:
        click.echo(
            f"glip-label: {found.unpredicted} of {found.waiting} tasks have no prediction of {version}: only chance "
            "chooses these (retrieve predictions in the Data Manager)",
            err=True,
        )
    if as_json:
        drawn = [task for task in found.tasks if task in found.drawn]
        figures = {"model_version": version, "tasks": found.tasks, "by_chance": drawn, "view": view_id}
        click.echo(json.dumps({**figures, "waiting": found.waiting, "unpredicted": found.unpredicted}, indent=1))
    elif view is None:
        for task in found.tasks:
            click.echo(task)
    else:
        click.echo(f"{len(found.tasks)} tasks in the tab {view!r} (number {view_id})")
