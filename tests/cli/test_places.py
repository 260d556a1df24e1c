"""Which store a command works on, and what is said when it is none."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from tests.cli.program import Program, fill

from tertulia.cli import places
from tertulia.stores.database import connect

READING = ("sessions", "show s0", "tail s0", "export s0", "fork s0", "verify s0", "prune s0 x",
           "rewind s0 0", "end s0", "reopen s0", "unlock s0", "erase ana --yes", "sweep",
           "backup copy.db", "doctor")  # fmt: skip


@pytest.mark.parametrize("command", READING)
def test_no_command_but_chat_makes_a_store(empty: Program, command: str) -> None:
    said = empty.refused(*command.split())
    assert f"there is no store at {empty.file}" in said
    assert list(empty.folder.iterdir()) == []


@pytest.mark.parametrize("data", [b"", b"this is no database", b"x" * 10_000])
def test_a_file_that_is_no_store_is_refused_and_left_as_it_is(empty: Program, data: bytes) -> None:
    empty.file.write_bytes(data)
    assert str(empty.file) in empty.refused("sessions")
    assert empty.file.read_bytes() == data


def test_a_database_of_another_application_is_refused(empty: Program) -> None:
    database = connect(str(empty.file))
    database.execute("CREATE TABLE theirs (a)")
    database.close()
    assert "another application" in empty.refused("sessions")


def test_a_folder_is_no_store(empty: Program) -> None:
    assert "is a folder" in empty.refused("sessions", store=f"sqlite:///{empty.folder}")


def test_a_store_of_a_newer_version_is_refused(program: Program) -> None:
    database = connect(str(program.file))
    database.execute("PRAGMA user_version = 999")
    database.close()
    assert "upgrade Tertulia" in program.refused("show", "s0")


def test_a_store_that_may_not_be_made_is_said_in_one_line(empty: Program) -> None:
    said = empty.refused("chat", store=f"sqlite:///{empty.folder}/gone/x.db", stdin="hello\n")
    assert "gone/x.db" in said


def test_addresses_that_name_no_store_are_refused(empty: Program) -> None:
    assert "names no store" in empty.refused("sessions", store="store.db")
    assert "memory:" in empty.refused("sessions", store="memory:")


def test_a_missing_session_is_said_in_one_line(program: Program) -> None:
    for command in ("show", "tail", "export", "verify", "fork", "end", "unlock"):
        assert "there is no session 'nobody'" in program.refused(command, "nobody")


def test_the_store_is_named_on_the_first_line_of_standard_error(program: Program) -> None:
    assert program("sessions").stderr.splitlines()[0] == f"store: {program.url}"


def test_the_option_of_the_command_goes_before_that_of_the_group_and_the_environment(
    program: Program,
) -> None:
    other = f"sqlite:///{program.folder}/other.db"
    fill(other)
    for words, env, expected in (
        (("--store", "memory:", "sessions", "--store", other), "memory:", other),
        (("--store", other, "sessions"), "memory:", other),
        (("sessions",), other, other),
    ):
        done = program(*words, store=None, TERTULIA_STORE=env)
        assert done.returncode == 0, done.stderr
        assert done.stderr.splitlines()[0] == f"store: {expected}"


def test_without_any_of_them_it_is_in_the_data_folder(empty: Program) -> None:
    home = f"{empty.folder}/my data"
    url = f"sqlite:///{empty.folder}/my%20data/tertulia/tertulia.db"
    assert "there is no store" in empty.refused("sessions", store=None, XDG_DATA_HOME=home)
    assert not Path(home).exists()
    talked = empty.ok("chat", stdin="hello\n", store=None, XDG_DATA_HOME=home)
    assert talked.splitlines()[0].endswith(url)
    assert "--store" not in talked.split("To look inside:")[1]
    listed = empty("sessions", store=None, XDG_DATA_HOME=home)
    assert listed.stderr.splitlines()[0] == f"store: {url}"


@pytest.mark.parametrize(
    ("platform", "folder"),
    [
        ("linux", "/h/.local/share"),
        ("darwin", "/h/Library/Application Support"),
        ("win32", "/h/AppData/Local"),
    ],
)
def test_the_data_folder_of_each_system(
    monkeypatch: pytest.MonkeyPatch, platform: str, folder: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setattr(Path, "home", lambda: Path("/h"))
    assert places.data_folder() == Path(folder)


def test_what_the_system_says_goes_before_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "environ", {"XDG_DATA_HOME": "/d", "LOCALAPPDATA": "/l"})
    assert places.default_store() == "sqlite:////d/tertulia/tertulia.db"
    monkeypatch.setattr(sys, "platform", "win32")
    assert places.data_folder() == Path("/l")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "environ", {"XDG_DATA_HOME": "relative"})
    assert places.data_folder().is_absolute()
