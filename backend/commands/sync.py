"""``glip-label sync``: repair what events did not tell."""

import json
from dataclasses import asdict

import click


@click.command()
@click.option("--project", required=True, help="Id or exact title of the project.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def command(project: str, as_json: bool) -> None:
    """Make what is known of a project equal to Label Studio's state.

    Applies the events that wait, then polls all tasks with their annotations: what was never told is added, what was
    deleted meanwhile is marked, title and labelling config are updated. Running it again repairs nothing.

    \b
    Example:
      glip-label sync --project 7
    """
    from backend.bootstrap import build_sync, open_database
    from backend.services.corrections import CorrectionsService
    from backend.settings import Settings
    from backend.worker import Worker
    from integrations.label_studio.api import find_project, label_studio_api

    settings = Settings.from_env()
    with label_studio_api(settings.label_studio_url, settings.label_studio_token) as api:
        project_id = find_project(api, project)
    unit_of_work = open_database(settings)
    Worker(CorrectionsService(unit_of_work)).drain()
    report = build_sync(settings, unit_of_work, open_database(settings, reads_only=True))(project_id)
    if as_json:
        click.echo(json.dumps({**asdict(report), "repaired": report.repaired}, ensure_ascii=False))
        return
    updated = "; title or labels updated" if report.project_changed else ""
    click.echo(f"project {project_id}: " + (report.summary() + updated if report.repaired else "nothing to repair"))
    for problem in report.problems:
        click.echo(f"note: left as it was: {problem}", err=True)
