"""``glip-label doubts``: annotations that are likely wrong."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from backend.commands.numbers import RealRange

if TYPE_CHECKING:
    from backend.services.doubts import ProjectDoubt


@click.command(short_help="Annotations that are likely wrong, with reasons.")
@click.option("--project", required=True, help="Name or id of the Label Studio project.")
@click.option("--least", default=0.5, show_default=True, type=RealRange(0, 1), help="Lowest probability of an error.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(project: str, least: float, as_json: bool) -> None:
    """List likely errors in a project's annotations, the likeliest first, with task, region and reason.

    Each annotation is held against the newest prediction from before anybody annotated its task: no model that learned
    from it is asked. People decided on every place, and are taken to err once in twenty times: where the model is 95 %
    sure of something else, an error is as likely as not. Probabilities are as good as the scores: they are honest once
    enough verdicts have come.

    \b
    Example:
      glip-label doubts --project 7 --least 0.3
    """
    from backend.bootstrap import open_database
    from backend.services.doubts import project_doubts
    from backend.settings import Settings

    settings = Settings.from_env()
    database = open_database(settings, reads_only=True)
    told = project_doubts(database, project, least, overlapping_labels=settings.overlapping_labels)
    if told.unpredicted:
        click.echo(
            f"glip-label: {told.unpredicted} of {told.reviewed} annotations could not be looked at: no prediction is "
            "from before anybody annotated their tasks",
            err=True,
        )
    if as_json:
        click.echo(json.dumps([_to_json(each) for each in told.found], ensure_ascii=False, indent=1))
        return
    for each in told.found:
        # One without an id is called by its place: "region 1 of annotation 12".
        region = f"region {each.region.removeprefix('region ')}" if each.region else "no region"
        doubt = each.doubt
        click.echo(f"task {each.task}  {region}  {doubt.kind.value}  {doubt.probability:.0%}  {doubt.reason}")
    if not told.found:
        click.echo(f"no annotation is wrong with a probability of {least:g} or more, as far as its prediction tells")


def _to_json(found: "ProjectDoubt") -> dict[str, object]:
    about = {key: value for key, value in asdict(found).items() if key != "doubt"}
    return about | {key: value for key, value in asdict(found.doubt).items() if key not in ("image", "region")}
