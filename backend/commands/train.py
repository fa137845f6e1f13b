"""``glip-label train``: fine-tune a project's model now."""

import json
import sys
import time
from typing import TYPE_CHECKING

import click

from backend.commands.numbers import RealRange
from backend.domain.learning import Mode, TrainingJob, TrainingProgress, TrainingRequest, job_to_json
from backend.errors import TrainingError, UsageError

if TYPE_CHECKING:
    from backend.services.training import Training
    from backend.training_process import TrainingProcess

_POLL_SECONDS = 0.5


@click.command()
@click.option("--project", required=True, help="Name or id of the Label Studio project.")
@click.option("--mode", type=click.Choice([each.value for each in Mode]), help="What to train.  [default: by the data]")
@click.option("--minutes", type=RealRange(0, min_open=True), help="Train for this long at most.")
@click.option("--images", type=click.IntRange(1), help="Learn from this many reviewed images at most.")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    default=0,
    show_default=True,
    help="The same data and seed give the same model.",
)
@click.option("--no-promote", is_flag=True, help="Compare, but leave in production what is there.")
@click.option(
    "--self-training",
    is_flag=True,
    help="Learn also from unreviewed images, as far as the model in production is sure of its boxes there.",
)
@click.option(
    "--freeze",
    metavar="PART",
    multiple=True,
    help="With --mode full, leave a part as it is: backbone, pyramid, text_encoder, tower, head, or any beginning of "
    "parameters' names, such as tower.0. May be repeated.",
)
@click.option("--from-base", is_flag=True, help="Begin at the base model, not at what was trained before.")
@click.option("--json", "as_json", is_flag=True, help="Print the job as JSON.")
def command(
    project: str,
    mode: str | None,
    minutes: float | None,
    images: int | None,
    seed: int,
    no_promote: bool,
    self_training: bool,
    freeze: tuple[str, ...],
    from_base: bool,
    as_json: bool,
) -> None:
    """Fine-tune the model on what people annotated, and promote the new version where it is measurably better.

    Training runs in a process of its own at the lowest priority. Ctrl-C stops it; run the same command again, or
    leave it to `glip-label serve`, and it goes on where it was. A project has one job at a time: where one is open
    already, this command waits for that one.

    \b
    Example:
      glip-label train --project 7 --mode prompt --minutes 5
    """
    if freeze and mode != "full":
        raise UsageError("--freeze goes with --mode full: the other modes freeze all but their own part")
    from backend.bootstrap import build_detector, open_database
    from backend.device import check_device
    from backend.services.corrections import CorrectionsService
    from backend.services.projects import find_project
    from backend.services.training import Training
    from backend.settings import Settings, child_environment
    from backend.training_process import TrainingProcess
    from backend.worker import Worker

    settings = Settings.from_env()
    unit_of_work = open_database(settings)
    Worker(CorrectionsService(unit_of_work)).drain()
    with unit_of_work() as unit:
        state = find_project(unit.projects.all(), project)
    build_detector(settings)  # what nobody could begin would stay open
    if settings.device is not None:
        check_device(settings.device)
    training = Training(unit_of_work, reading=open_database(settings, reads_only=True))
    chosen = None if mode is None else Mode(mode)
    wanted = TrainingRequest("command", chosen, minutes, images, seed, not no_promote, self_training, freeze, from_base)
    job = training.request(state.uid, wanted)
    if job.request != wanted:
        click.echo(f"job {job.id} is open already (asked by: {job.request.reason}); waiting for it", err=True)
    waits = lambda: job.id in training.claimable()  # noqa: E731
    done = watch(training, job, TrainingProcess(waits, child_environment(), job.id))
    if as_json:
        click.echo(json.dumps(job_to_json(done), ensure_ascii=False))
    if done.version is None:
        raise TrainingError(done.outcome or f"job {job.id} failed")
    if not as_json:
        click.echo(done.outcome)


def watch(training: "Training", job: TrainingJob, process: "TrainingProcess") -> TrainingJob:
    """Show the progress until the job is closed, by whomever.

    Raises:
        TrainingError: the job is gone, or its process ended before it took the job, as the next one would.
    """
    live, shown, attempts = sys.stderr.isatty(), "", job.attempts
    try:
        while True:
            found = training.find(job.id)
            if found is None:
                raise TrainingError(f"job {job.id} is gone with its project")
            if found.progress is not None and (line := progress_line(found.progress)) != shown:
                click.echo(f"\r\033[K{line}" if live else line, nl=not live, err=True)
                shown = line
            if not found.is_open:
                process.finish(found.worker)
                return found
            if process.pid is None:
                attempts = found.attempts
            try:
                process()
            except TrainingError as error:
                now = training.find(job.id)
                if now is not None and now.attempts == attempts:
                    raise TrainingError(
                        f"job {job.id} waits, since training could not begin: cure what the lines above tell, and run "
                        "this again"
                    ) from error
                click.echo(f"glip-label: training: {error}", err=True)
            time.sleep(_POLL_SECONDS)
    finally:
        if live and shown:
            click.echo(err=True)
        process.close()


def progress_line(progress: TrainingProgress) -> str:
    """Show a progress to people: ``train 120/200, epoch 6, loss 0.412, 35 s left``."""
    parts = [f"{progress.stage} {progress.step}/{progress.steps}" if progress.steps else progress.stage]
    if progress.epoch is not None:
        parts.append(f"epoch {progress.epoch}")
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.3f}")
    if progress.seconds_left is not None:
        minutes, seconds = divmod(round(progress.seconds_left), 60)
        parts.append(f"{minutes} min {seconds:02d} s left" if minutes else f"{seconds} s left")
    return ", ".join(parts)
