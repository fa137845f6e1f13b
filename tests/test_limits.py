"""The limits on size: files of 350 lines, functions of 60, six arguments."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = ("backend", "benchmarks", "glip_model", "integrations", "migrations", "tests")
MAX_LINES, MAX_FUNCTION_LINES, MAX_ARGUMENTS = 350, 60, 6


def sources() -> Iterator[tuple[str, str]]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


def functions(source: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def number_of_arguments(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return sum(argument.arg not in ("self", "cls") for argument in named)


def number_of_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def is_command(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """A command takes one argument per option of the command line."""
    return any("command" in ast.unparse(decorator) for decorator in function.decorator_list)


def test_no_file_is_too_long_to_read_in_one_sitting() -> None:
    long = [name for name, source in sources() if source.count("\n") > MAX_LINES]
    assert long == []


def test_no_function_is_too_long_to_see_at_once() -> None:
    long = [
        f"{name}:{function.name}"
        for name, source in sources()
        for function in functions(source)
        if number_of_lines(function) > MAX_FUNCTION_LINES
    ]
    assert long == []


def test_no_function_takes_too_many_arguments() -> None:
    wide = [
        f"{name}:{function.name}"
        for name, source in sources()
        for function in functions(source)
        if number_of_arguments(function) > MAX_ARGUMENTS and not is_command(function)
    ]
    assert wide == []
