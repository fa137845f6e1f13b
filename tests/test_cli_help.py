"""The command's face: every sub-command is listed and explained, at once."""

import os
import re
import subprocess
import sys

import pytest

from backend.analysis.simulated_project import Strategy
from backend.cli import COMMANDS, run
from backend.commands import pretrain, simulate
from glip_model.pretraining.recipe import DEFAULT_SETS

HEAVY = ("torch", "transformers", "numpy", "sqlalchemy", "flask", "label_studio_sdk", "PIL", "pycocotools")
PROBE = f"""
import sys
from backend.cli import run
code = run(sys.argv[1:])
print("loaded:", [name for name in {HEAVY!r} if name in sys.modules])
sys.exit(code)
"""


def help_in_own_process(*words: str) -> str:
    finished = subprocess.run([sys.executable, "-c", PROBE, *words, "--help"], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_help_lists_every_command_and_imports_nothing_heavy() -> None:
    text = help_in_own_process()
    for name, line in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(line)}$", text, re.MULTILINE)
    assert "loaded: []" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example_and_without_loading_a_model(name: str) -> None:
    text = help_in_own_process(name)
    assert "Example" in text
    assert f"glip-label {name}" in text
    assert "'torch'" not in text
    assert "'transformers'" not in text


@pytest.mark.parametrize("words", [("list",), ("pull",), ("convert",)])
def test_every_weights_command_has_an_example(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["weights", *words, "--help"]) == 0
    assert f"glip-label weights {words[0]}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["prelable"], "glip-label: No such command 'prelable'"),
        (["prelabel"], "glip-label: Missing argument 'PATH...'. (see glip-label prelabel --help)"),
        (["prelabel", "x", "--threshold", "2"], "glip-label: Invalid value for '--threshold'"),
        (["train", "--project", "7", "--seed", "-1"], "glip-label: Invalid value for '--seed'"),
        (["train", "--project", "7", "--seed", str(2**31)], "glip-label: Invalid value for '--seed'"),
        (["pretrain", "out", "--seed", "-1"], "glip-label: Invalid value for '--seed'"),
        (["--nonsense"], "glip-label: No such option '--nonsense'"),
        (["doubts", "--project", "7", "--least", "nan"], "glip-label: Invalid value for '--least': 'nan' is no number"),
        (["demo", "--labels", "cat"], "glip-label: --labels are names to find in the pictures of --images"),
        (["demo", "--port", "99999"], "glip-label: Invalid value for '--port'"),
        (["pretrain", "out", "--data", ".", "--sets", ""], "glip-label: --sets names no set"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 2
    error = capsys.readouterr().err
    assert error.startswith(complaint)
    assert error.count("\n") == 1


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_under_what_is_printed_is_one_line(unbuffered: str) -> None:
    with open("/dev/full", "w") as full:
        finished = subprocess.run(
            [sys.executable, "-m", "backend.cli", "weights", "list"],
            stdout=full,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
            text=True,
        )
    line = "glip-label: cannot write what is printed: No space left on device\n"
    assert (finished.returncode, finished.stderr) == (1, line)


def test_no_command_at_all_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    assert "Commands:" in capsys.readouterr().err


def test_what_is_listed_a_second_time_so_that_help_is_fast_is_the_same() -> None:
    assert tuple(Strategy) == simulate.STRATEGIES
    sets = next(each for each in pretrain.command.params if each.name == "sets")
    assert sets.default == ",".join(DEFAULT_SETS)
