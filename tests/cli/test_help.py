"""The help of every command, the version, and the reference that must tell the same."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import tertulia as package
from tertulia.cli.main import COMMANDS, tertulia

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"


def command(name: str) -> click.Command:
    found = tertulia.get_command(click.Context(tertulia), name)
    assert found is not None
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_that_says_what_it_does(name: str) -> None:
    shown = CliRunner().invoke(tertulia, [name, "--help"])
    assert shown.exit_code == 0
    assert shown.output.startswith(f"Usage: tertulia {name}")
    for option in command(name).params:
        assert not isinstance(option, click.Option) or option.help, option.name


def test_the_help_of_the_program_lists_the_commands() -> None:
    shown = CliRunner().invoke(tertulia, ["--help"]).output
    assert re.findall(r"^  ([a-z]+)  ", shown, re.MULTILINE) == list(COMMANDS)


def test_the_version_is_said_both_ways() -> None:
    for flag in ("--version",):
        done = subprocess.run(
            [sys.executable, "-m", "tertulia", flag], capture_output=True, text=True
        )
        assert done.stdout == f"tertulia {package.__version__}\n"


def test_a_command_that_does_not_exist_is_refused() -> None:
    shown = CliRunner().invoke(tertulia, ["shwo"])
    assert shown.exit_code == 2
    assert "No such command 'shwo'" in shown.output


def test_the_start_imports_neither_rich_nor_a_model_library() -> None:
    look = (
        "import sys, tertulia.cli.main\n"
        "print([name for name in ('rich', 'pydantic', 'httpx', 'cryptography', 'starlette')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_reference_tells_every_command_with_every_option(name: str) -> None:
    page = REFERENCE.read_text(encoding="utf-8")
    found = re.search(rf"^## `tertulia {name}`$(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert found, f"docs/reference/cli.md has no section on {name}"
    section = " ".join(found[1].split())
    context = click.Context(command(name))
    for parameter in command(name).params:
        named = parameter.make_metavar(context).strip("[]")
        wanted = parameter.opts if isinstance(parameter, click.Option) else [named]
        for word in wanted:
            assert word in section, f"{name}: {word} is not in the reference"


def test_the_reference_tells_of_no_command_that_is_gone() -> None:
    page = REFERENCE.read_text(encoding="utf-8")
    assert re.findall(r"^## `tertulia ([a-z]+)`$", page, re.MULTILINE) == list(COMMANDS)
