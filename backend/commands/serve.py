"""``glip-label serve``: the service beside Label Studio."""

import errno
import logging
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from threading import Event, Thread

import click

from backend.errors import GlipLabelError, UsageError
from backend.settings import address, child_environment

# Waiting for a picture or the model takes a thread; /health, which Label Studio gives one second, must find another.
_THREADS = 32
_LOOK_SECONDS = 0.5

log = logging.getLogger("glip_label.serve")


@click.command()
@click.option("--host", help="Address to listen on; 0.0.0.0 for all.  [default: GLIP_LABEL_HOST or 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on.  [default: GLIP_LABEL_PORT or 9090]")
@click.option("--model", help="Model by name, or its folder.  [default: GLIP_LABEL_MODEL or glip-nano]")
@click.option("--worker/--no-worker", default=True, help="Also do what `glip-label worker` does.  [default: worker]")
def command(host: str | None, port: int | None, model: str | None, worker: bool) -> None:
    """Run the service that Label Studio asks for predictions.

    Set GLIP_LABEL_LABEL_STUDIO_URL and GLIP_LABEL_LABEL_STUDIO_TOKEN so that it can get the tasks' images.

    \b
    Example:
      glip-label serve --port 9090
    """
    from waitress import create_server

    from backend.bootstrap import build_backend, build_detector
    from backend.settings import Settings
    from backend.web.app import MAX_BODY, create_app

    settings = Settings.from_env()
    settings = replace(
        settings,
        host=host or settings.host,
        port=settings.port if port is None else port,
        model=model or settings.model,
    )
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    detector = build_detector(settings)
    backend = build_backend(settings, detector)
    version = detector.version
    try:
        server = create_server(
            create_app(backend),
            host=settings.host,
            port=settings.port,
            threads=_THREADS,
            max_request_body_size=MAX_BODY,
        )
    except ValueError as error:  # waitress's, of a name that no address is found for
        raise UsageError(f"cannot listen on {settings.host}: no such address; choose one with --host") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UsageError(f"port {settings.port} is in use: choose another with --port") from error
        raise UsageError(f"cannot listen on {settings.host}:{settings.port}: {error.strerror}") from error
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # waitress ends cleanly on KeyboardInterrupt
    Thread(target=_warm_up, args=(detector.load,), name="load model").start()
    click.echo(f"glip-label serves {version} on {address(settings.host, server.effective_port)}")
    if backend.model_remark is not None:
        click.echo(backend.model_remark)
    with _worker(settings.model) if worker else nullcontext():
        server.run()


@contextmanager
def _worker(model: str) -> Iterator[None]:
    """Keep a worker at work that trains the same model, until the ``with`` block ends or we are killed.

    It is a process of its own: in this one, answers to events would wait for the interpreter while it works.
    """
    stop = Event()
    keeper = Thread(target=_keep_worker, args=(model, stop), name="worker")
    keeper.start()
    try:
        yield
    finally:
        stop.set()
        keeper.join()


def _keep_worker(model: str, stop: Event) -> None:
    command = [sys.executable, "-m", "backend.cli", "worker", "--until-stdin-ends"]
    environment = child_environment(MODEL=model)
    while not stop.is_set():
        with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment) as worker:  # noqa: S603 - ourselves
            while worker.poll() is None and not stop.wait(_LOOK_SECONDS):
                pass
        if not stop.is_set():
            log.error("the worker ended with %s: another one starts", worker.returncode)
            stop.wait(_LOOK_SECONDS)


def _warm_up(load: Callable[[], None]) -> None:
    try:
        load()
    except GlipLabelError as error:
        log.error("%s", error)  # asked for a prediction, the service tries again and answers this
