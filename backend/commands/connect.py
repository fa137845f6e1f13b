"""``glip-label connect``: register the service with a Label Studio project."""

import json
from dataclasses import asdict

import click

from backend.settings import Settings, address


@click.command()
@click.option("--project", required=True, help="Id or exact title of the project.")
@click.option("--url", help="Address under which Label Studio reaches the service.  [default: from HOST and PORT]")
@click.option("--replace", is_flag=True, help="Remove the project's other ML backends and their webhooks.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def command(project: str, url: str | None, replace: bool, as_json: bool) -> None:
    """Register the service with a Label Studio project.

    Sets what live predictions, score ordering and the events about corrections need. Running it again repairs what
    is missing and doubles nothing. GLIP_LABEL_LABEL_STUDIO_URL and GLIP_LABEL_LABEL_STUDIO_TOKEN say where.

    \b
    Example:
      glip-label connect --project 7 --url http://192.0.2.10:9090
    """
    from integrations.label_studio.api import find_project, label_studio_api
    from integrations.label_studio.connect import Backend, connect

    settings = Settings.from_env()
    backend = Backend(url or _own_address(settings), settings.basic_auth, settings.webhook_secret)
    with label_studio_api(settings.label_studio_url, settings.label_studio_token) as api:
        connection = connect(api, find_project(api, project), backend, replace=replace)
    if as_json:
        click.echo(json.dumps(asdict(connection)))
        return
    done = "connected" if connection.created else "was connected, now up to date"
    click.echo(f"project {connection.project_id}: {backend.url} {done}, model version {connection.model_version}")
    for remark in connection.remarks:
        click.echo(f"note: {remark}", err=True)


def _own_address(settings: Settings) -> str:
    # A service that listens everywhere listens on loopback too.
    host = "127.0.0.1" if settings.host in {"", "0.0.0.0", "::"} else settings.host  # noqa: S104
    return address(host, settings.port)
