"""A user's mistake ends in one line on stderr and status 2;
a fault of the program keeps its traceback.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner, Result

import hypernet
from hypernet.cli_options import Limit
from hypernet.cli_support import user_errors
from hypernet.errors import T2lError


def run(fail: Callable[[], object]) -> Result:
    app = typer.Typer()

    @app.command()
    @user_errors()
    def command() -> None:
        fail()

    return CliRunner().invoke(app, [])


def test_a_user_error_is_one_line_and_status_2(tmp_path: Path) -> None:
    def fail() -> None:
        raise T2lError("tasks.jsonl, line 3: no description.\n  Add one.")

    result = run(fail)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "t2l: tasks.jsonl, line 3: no description. Add one.\n"


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (lambda folder: (folder / "absent").read_bytes(), "absent: No such file or directory"),
        (lambda folder: folder.read_bytes(), ": Is a directory"),
        (lambda folder: (folder / "file" / "below").mkdir(), "below: Not a directory"),
    ],
)
def test_a_path_that_cannot_be_used_is_named(
    act: Callable[[Path], object], reason: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    result = run(lambda: act(tmp_path))
    assert result.exit_code == 2
    assert result.stderr.startswith(f"t2l: {tmp_path}") and result.stderr.endswith(f"{reason}\n")


def test_a_fault_of_the_program_keeps_its_traceback() -> None:
    result = run(lambda: {}["key"])
    assert isinstance(result.exception, KeyError)


def test_a_decorated_command_keeps_its_options() -> None:
    app = typer.Typer()

    @app.command()
    @user_errors()
    def command(name: Annotated[str, typer.Argument()], limit: Limit = 20) -> None:
        typer.echo(f"{name} {limit}")

    assert CliRunner().invoke(app, ["x", "--limit", "3"]).stdout == "x 3\n"


def test_every_error_of_the_package_is_a_user_error() -> None:
    for module in pkgutil.walk_packages(hypernet.__path__, "hypernet."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, type) and value.__module__ == module.name and name.endswith("Error"):
                assert issubclass(value, T2lError), f"{module.name}.{name}"
