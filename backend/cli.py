"""The command ``glip-label``: finds sub-commands lazily and turns every error into one line and an exit code."""

import errno
import importlib
import sys
from collections.abc import Sequence
from contextlib import suppress
from keyword import iskeyword

import click

from backend.errors import GlipLabelError

INTERRUPTED = 130  # as shells report a process that SIGINT ended
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# Each command lives in backend/commands/NAME.py (NAME_.py where Python needs the word itself). The lines stand here so
# that `--help` imports none of them.
COMMANDS = {
    "prelabel": "Find boxes in pictures: COCO or Label Studio JSON, and drawings.",
    "evaluate": "Average precision of a model on COCO annotations.",
    "serve": "Run the service that Label Studio asks for predictions.",
    "worker": "Apply the events that came in, train and fit scores.",
    "sync": "Make what is known of a project equal to Label Studio's state.",
    "connect": "Register the service with a Label Studio project.",
    "demo": "Start Label Studio and the service with a pre-annotated project.",
    "weights": "List, fetch and convert model weights.",
    "pretrain": "Train the bundled glip-nano from scratch.",
    "train": "Fine-tune the model on what people annotated.",
    "simulate": "How much work learning saves, with a simulated person.",
    "models": "List, show, promote and roll back a project's model versions.",
    "stats": "What people changed, and what the proposals saved them.",
    "doubts": "Annotations that are likely wrong, with reasons.",
    "next": "The tasks that are worth doing next.",
    "import": "Bring in COCO data sets that were annotated elsewhere.",
    "export": "Write a project's annotations as COCO files.",
    "db": "Upgrade and check the database.",
}


class LazyGroup(click.Group):
    """Imports a sub-command only when it runs, so that ``--help`` stays fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = f"{cmd_name}_" if iskeyword(cmd_name) else cmd_name
        command = importlib.import_module(f"backend.commands.{module}").command
        if not isinstance(command, click.Command):
            raise TypeError(f"backend.commands.{cmd_name}.command is no click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="glip-label", prog_name="glip-label")
def cli() -> None:
    """Dataset annotation assistant: GLIP proposes boxes from class names, people correct them in Label Studio.

    \b
    Examples:
      glip-label prelabel photos/ --labels "cat,dog" --out boxes.json --draw drawn/
      glip-label serve
    """


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted.

    Args:
        arguments: the words after ``glip-label``; those of this process when None.
    """
    try:
        result = cli.main(args=arguments, prog_name="glip-label", standalone_mode=False)
    except GlipLabelError as error:
        return _complain(str(error), error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.UsageError as error:
        name = error.ctx.command_path if error.ctx else "glip-label"
        return _complain(f"{error.format_message()} (see {name} --help)", error.exit_code)
    except click.ClickException as error:
        return _complain(error.format_message(), error.exit_code)
    except click.Abort:
        return _complain("interrupted", INTERRUPTED)
    return result if isinstance(result, int) else 0


def _complain(message: str, exit_code: int) -> int:
    click.echo("glip-label: " + " ".join(message.split()), err=True)
    return exit_code


def main() -> None:
    """Entry point of the installed command."""
    try:
        exit_code = run()
        sys.stdout.flush()
    except OSError as error:
        if error.errno not in (*_NO_ROOM, errno.EPIPE):
            raise
        with suppress(OSError):
            sys.stdout.close()  # or Python tries once more at its end
        exit_code = 1
        if error.errno != errno.EPIPE:  # whoever closed a pipe, as `head` does, saw enough
            _complain(f"cannot write {error.filename or 'what is printed'}: {error.strerror}", exit_code)
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
