"""``glip-label worker``: apply the events that came in."""

import logging
import os
import signal
import sys
from threading import Event, Thread

import click


@click.command()
@click.option("--once", is_flag=True, help="Apply what waits, then end.")
@click.option("--retry", is_flag=True, help="First let events wait again that could not be applied.")
@click.option("--until-stdin-ends", is_flag=True, hidden=True)
def command(once: bool, retry: bool, until_stdin_ends: bool) -> None:
    """Apply the events that came in, train and fit scores where that is due, and poll Label Studio, until Ctrl-C.

    `glip-label serve` has the same done beside answering; this is for a machine of its own, or after serving with
    --no-worker. Any number may run at once.

    \b
    Example:
      glip-label worker
    """
    from backend.bootstrap import build_worker, open_database
    from backend.services.corrections import CorrectionsService
    from backend.settings import Settings

    settings = Settings.from_env()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    unit_of_work = open_database(settings)
    if retry:
        click.echo(f"{CorrectionsService(unit_of_work).retry()} events wait again")
    worker = build_worker(settings, unit_of_work)
    if once:
        click.echo(f"{worker.drain()} events applied")
        return
    stop = Event()
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, lambda *_: stop.set())
    if until_stdin_ends:  # as a child of `serve`, whose answers people wait for
        if hasattr(os, "nice"):
            os.nice(10)
        Thread(target=_wait_for_stdin, args=(stop,), daemon=True).start()
    else:
        click.echo("glip-label applies events")
    worker.run(stop)


def _wait_for_stdin(stop: Event) -> None:
    sys.stdin.buffer.read()
    stop.set()
