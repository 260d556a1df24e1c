"""The pages about many machines: an app is served twice on one database, programs run there."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.docs.serving import served
from tests.nursery import finished

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "how-to" / "many-machines.md").read_text()
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
APP, *PROGRAMS = _BLOCK.findall(PAGE)
[CHANNEL] = _BLOCK.findall((DOCS / "reference" / "cluster.md").read_text())
ADDRESSES = ("127.0.0.1:8081", "127.0.0.1:8082")
COMMANDS = [
    command.split("#")[0]
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    for command in block.splitlines()
    if re.match(r"tertulia (migrate|cluster|doctor)", command)
]


@pytest.fixture(params=["with NATS", "without NATS"])
def settings(request: pytest.FixtureRequest, postgres: str) -> dict[str, str]:
    """The environment of the page."""
    bus = request.getfixturevalue("nats") if request.param == "with NATS" else ""
    return {"TERTULIA_STORE": postgres, "TERTULIA_BUS": bus}


def run(command: list[str], settings: Mapping[str, str], folder: Path) -> list[str]:
    """What a program of the page prints."""
    words = ["-W", "error", *command]
    env = {**os.environ, **settings}
    ran = finished(words, "", cwd=folder, env=env, timeout=60, reader=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def test_the_programs_of_the_page_run_on_two_servers(
    settings: dict[str, str], tmp_path: Path
) -> None:
    client, *programs = PROGRAMS
    assert all(address in client for address in ADDRESSES)
    with ExitStack() as stack:
        for number, address in enumerate(ADDRESSES):
            folder = tmp_path / str(number)
            folder.mkdir()
            bound = stack.enter_context(served(APP, folder, settings))
            client = client.replace(address, bound)
        assert run(["-c", client], settings, tmp_path) == [
            "Nice to meet you, Ada.",
            "True",
            "Your name is Ada.",
        ]
        printed = [line for code in programs for line in run(["-c", code], settings, tmp_path)]
    assert "offline model" in printed[0]
    assert len([line for line in printed[1:] if " True " in line]) == 3


def test_the_commands_of_the_page_run(postgres: str, tmp_path: Path) -> None:
    assert len(COMMANDS) >= 5
    for command in COMMANDS:
        run(["-m", *shlex.split(command)], {"TERTULIA_STORE": postgres}, tmp_path)


def test_the_workers_of_the_reference_talk(postgres: str, nats: str, tmp_path: Path) -> None:
    settings = {"TERTULIA_STORE": postgres, "TERTULIA_BUS": nats}
    assert run(["-c", CHANNEL], settings, tmp_path) == ["b'HELLO'"]
