"""``glip-label demo``: a real Label Studio beside the service, with pre-annotated projects."""

import shlex
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import click

from backend.errors import LabelStudioError, UsageError
from backend.settings import PREFIX, Settings, child_environment, sqlite_url

if TYPE_CHECKING:
    from label_studio_sdk import LabelStudio

    from integrations.label_studio.connect import Connection
    from integrations.label_studio.sample_project import SampleProject
    from integrations.label_studio.server import RunningLabelStudio

_LOG = "service.log"
_ENVIRONMENT = "environment"
_PORT = click.IntRange(1, 65535)


@click.command()
@click.option(
    "--images",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder of pictures for a second project.",
)
@click.option("--labels", help="Names to find in them, with commas between.  [default: those of the scenes]")
@click.option("--scenes", type=click.IntRange(1, 500), default=24, show_default=True, help="Generated scenes.")
@click.option(
    "--port", default=8080, show_default=True, type=_PORT, help="Label Studio's port; another one where it is busy."
)
@click.option("--backend-port", default=9090, show_default=True, type=_PORT, help="The service's port; likewise.")
@click.option("--label-studio", type=click.Path(path_type=Path), help="Label Studio's executable.  [default: searched]")
def command(
    images: Path | None,
    labels: str | None,
    scenes: int,
    port: int,
    backend_port: int,
    label_studio: Path | None,
) -> None:
    """Show pre-annotations in a real Label Studio, until Ctrl-C.

    Starts Label Studio and the service on this machine, makes a project of generated scenes and one of the pictures
    in --images, connects them and has all pictures pre-annotated. Work done in them is kept for the next time.

    \b
    Example:
      glip-label demo --images photos/ --labels "cat,dog"
    """
    from backend.model_folders import DEMO_MODEL, DEMO_REMARK
    from integrations.label_studio.api import label_studio_api
    from integrations.label_studio.server import label_studio_server

    if labels is not None and images is None:
        raise UsageError("--labels are names to find in the pictures of --images DIR: give that, too")
    executable = label_studio or _installed_label_studio()
    settings = Settings.from_env()
    data = settings.home / "demo"
    samples = list(_samples(data / "label-studio" / "files", scenes, images, labels))
    for ending in (signal.SIGTERM, signal.SIGHUP):  # stop as cleanly as on Ctrl-C, unless nohup says otherwise
        if signal.getsignal(ending) is not signal.SIG_IGN:
            signal.signal(ending, signal.default_int_handler)
    click.echo("starting Label Studio (the first time takes about a minute)")
    with label_studio_server(executable, data / "label-studio", port=port) as running:
        given = _settings(running, data)
        with (
            _service(given, data, backend_port) as service_url,
            label_studio_api(running.url, running.account.token) as api,
        ):
            for sample in samples:
                project, connection = _show(api, sample, service_url, data / _LOG)
                click.echo(f"  {sample.title}: {running.url}/projects/{project}/data")
            remark = f" ({DEMO_REMARK})" if settings.model == DEMO_MODEL else ""
            click.echo(f"model {connection.model_version}{remark}")
            click.echo(f"log in at {running.url} as {running.account.email} with password {running.account.password}")
            kept = _kept(data, given)
            click.echo(f"for `glip-label stats --project {project}` and the like in another terminal: {kept}")
            click.echo("Ctrl-C stops everything")
            _wait_for_interrupt()
            click.echo("stopping")


def _installed_label_studio() -> Path:
    beside = Path(".label-studio-venv/bin/label-studio")
    found = str(beside) if beside.is_file() else shutil.which("label-studio")
    if found is None:
        raise LabelStudioError("Label Studio is not installed here: `make demo` installs it, or give --label-studio")
    return Path(found)


def _samples(files: Path, scenes: int, images: Path | None, labels: str | None) -> "Iterator[SampleProject]":
    from backend.demo_pictures import SCENE_LABELS, copy_pictures, write_scenes
    from backend.domain.records import Label
    from backend.local_images import find_images
    from backend.services.queries import parse_labels
    from integrations.label_studio.sample_project import SampleProject

    scene_labels = tuple(map(Label, SCENE_LABELS))
    wanted = scene_labels if labels is None else parse_labels(labels)
    folder = files / "scenes"
    yield SampleProject("Demo: generated scenes", scene_labels, folder, write_scenes(folder, scenes))
    if images is not None:
        folder, copies = copy_pictures(find_images([str(images)]), images, files)
        yield SampleProject(f"Demo: {folder.name}"[:50], wanted, folder, copies)


def _settings(running: "RunningLabelStudio", data: Path) -> dict[str, str]:
    """What the service works with, and other commands on the same projects."""
    return {
        "LABEL_STUDIO_URL": running.url,
        "LABEL_STUDIO_TOKEN": running.account.token,
        "DATABASE_URL": sqlite_url(data / "glip-label.sqlite3"),
    }


def _kept(data: Path, given: Mapping[str, str]) -> str:
    """Write the settings where a shell can read them, and nobody else; the command that does."""
    path = (data / _ENVIRONMENT).absolute()
    path.touch(0o600)
    lines = (f"export {PREFIX}{name}={shlex.quote(value)}\n" for name, value in given.items())
    path.write_text("".join(lines), encoding="utf-8")
    return f". {shlex.quote(str(path))}"


def service_environment(given: Mapping[str, str]) -> dict[str, str]:
    """What the service runs with: nothing that it would ask Label Studio for, which is connected without."""
    return child_environment(**given, BASIC_AUTH_USER="", BASIC_AUTH_PASSWORD="", WEBHOOK_SECRET="")


@contextmanager
def _service(given: Mapping[str, str], data: Path, port: int) -> Iterator[str]:
    """Run ``glip-label serve`` as a child; yields its address."""
    from integrations.processes import LOOPBACK, child_server, free_port

    chosen = free_port(port)
    url = f"http://{LOOPBACK}:{chosen}"
    environment = service_environment(given)
    serve = [sys.executable, "-m", "backend.cli", "serve", "--host", LOOPBACK, "--port", str(chosen)]
    with child_server(serve, health_url=f"{url}/health", log=data / _LOG, environment=environment):
        yield url


def _show(api: "LabelStudio", sample: "SampleProject", service_url: str, log: Path) -> "tuple[int, Connection]":
    """Make the project, connect it and have it pre-annotated."""
    from integrations.label_studio.connect import Backend, connect
    from integrations.label_studio.sample_project import open_project, retrieve_predictions, unpredicted_tasks

    project = open_project(api, sample)
    connection = connect(api, project, Backend(service_url), replace=True)
    with click.progressbar(length=len(sample.pictures), label=f"pre-annotating {len(sample.pictures)} pictures") as bar:
        for done in retrieve_predictions(api, project):
            bar.update(done)
    missing = unpredicted_tasks(api, project)
    if missing:
        click.echo(f"note: {len(missing)} pictures have no prediction; the service's log tells why: {log}", err=True)
    return project, connection


def _wait_for_interrupt() -> None:
    with suppress(KeyboardInterrupt):
        Event().wait()
