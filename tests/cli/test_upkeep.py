"""`tertulia backup`, `restore` and `doctor`."""

from __future__ import annotations

import os
import sys

import pytest
from tests.cli.program import Program, read_until
from tests.cli.test_changing import HOLD


def test_a_backup_is_a_store_itself(program: Program) -> None:
    done = program("backup", "copy.db")
    assert done.returncode == 0, done.stderr
    assert "wrote copy.db" in done.stderr
    listed = program.json("sessions", store=f"sqlite:///{program.folder}/copy.db")
    assert [info["id"] for info in listed] == ["s0", "s1", "s2"]


def test_a_backup_writes_over_nothing(program: Program) -> None:
    program.ok("backup", "copy.db")
    assert "exists already" in program.refused("backup", "copy.db")
    assert "gone" in program.refused("backup", "gone/copy.db")


def test_a_restored_store_has_what_was_backed_up_but_for_what_was_erased(program: Program) -> None:
    program.ok("backup", "copy.db")
    program.ok("prune", "s0", "keep_last_2")
    program.ok("erase", "--session", "s1", "--yes")
    assert "say --yes" in program.refused("restore", "copy.db")
    done = program("restore", "copy.db", "--yes")
    assert done.returncode == 0, done.stderr
    assert "repeated 1 erasure" in done.stderr
    assert [info["id"] for info in program.json("sessions")] == ["s0", "s2"]
    assert len(program.json("show", "s0")["messages"]) == 12


def test_restore_makes_a_store_where_there_was_none(program: Program) -> None:
    program.ok("backup", "copy.db")
    fresh = f"sqlite:///{program.folder}/fresh.db"
    program.ok("restore", "copy.db", store=fresh)
    assert len(program.json("sessions", store=fresh)) == 3


def test_restore_refuses_what_is_no_backup_and_a_store_in_use(program: Program) -> None:
    (program.folder / "text").write_text("no store")
    assert "text" in program.refused("restore", "text", "--yes")
    assert "there is no backup at" in program.refused("restore", "nothing.db", "--yes")
    program.ok("backup", "copy.db")
    holder = (sys.executable, "-c", HOLD)
    with program.started(program.url, command=holder, store=None) as process:
        read_until(process, "held")
        said = program.refused("restore", "copy.db", "--yes")
        assert f"in use by process {process.pid}" in said
    assert len(program.json("sessions")) == 3


def test_doctor_says_how_a_store_is(program: Program) -> None:
    printed = program.ok("doctor", "--sessions")
    assert printed.splitlines()[-1] == "ok: nothing is damaged"
    found = program.json("doctor")
    assert found["faults"] == []
    assert found["schema_version"] >= 1


def test_doctor_names_the_processes_that_have_the_store_open(program: Program) -> None:
    holder = (sys.executable, "-c", HOLD)
    with program.started(program.url, command=holder, store=None) as process:
        read_until(process, "held")
        assert f"process {process.pid} lives" in program.ok("doctor")


@pytest.mark.parametrize("words", [("doctor",), ("doctor", "--json")])
def test_doctor_finds_damage(program: Program, words: tuple[str, ...]) -> None:
    size = program.file.stat().st_size
    with program.file.open("r+b") as file:
        file.seek(size // 2)
        file.write(os.urandom(size // 2))
    done = program(*words)
    assert done.returncode in {1, 2}
    assert "Traceback" not in done.stderr


def test_doctor_with_sessions_finds_a_changed_log(program: Program) -> None:
    from tertulia.stores.database import connect

    database = connect(str(program.file))
    database.execute("UPDATE events SET time = time + 1 WHERE session = 2 AND seq = 3")
    database.close()
    assert program("doctor").returncode == 0
    done = program("doctor", "--sessions")
    assert done.returncode == 1
    assert "BAD: session s1: " in done.stdout
