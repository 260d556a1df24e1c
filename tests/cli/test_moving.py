"""`tertulia move`."""

from __future__ import annotations

import sys
from collections.abc import Callable

from tests.cli.program import Program, read_until
from tests.cli.test_changing import HOLD

from tertulia.stores import open_store


def test_a_store_moves_to_a_database_and_is_verified(
    program: Program, new_postgres: Callable[[], str]
) -> None:
    target = new_postgres()
    done = program("move", "--from", program.url, "--to", target, store=None)
    assert done.returncode == 0, done.stderr
    assert "moved and verified: 3 sessions, 78 events" in done.stdout
    assert target not in done.stdout + done.stderr, "the password is not shown"
    shown = open_store(target).url
    assert f", to {shown}" in done.stderr
    assert [info["id"] for info in program.json("sessions", store=target)] == ["s0", "s1", "s2"]
    assert program.ok("verify", "s0", store=target).startswith("ok: ")
    assert f"was moved to {shown};" in program.refused("prune", "s0", "keep_last_2")
    assert program.ok("verify", "s0").startswith("ok: ")
    again = program.ok("move", "--from", program.url, "--to", target, store=None)
    assert "moved before: 3 sessions" in again


def test_a_dry_run_makes_no_store(program: Program) -> None:
    target = program.folder / "new.db"
    found = program.json(
        "move", "--from", program.url, "--to", f"sqlite:///{target}", "--dry-run", store=None
    )
    assert (found["sessions"], found["events"], found["dry_run"]) == (3, 78, True)
    assert not target.exists()


def test_one_app_moves_alone(program: Program) -> None:
    target = f"sqlite:///{program.folder}/new.db"
    program.ok("move", "--from", program.url, "--to", target, "--app", "shop", store=None)
    assert [info["id"] for info in program.json("sessions", store=target)] == ["s2"]


def test_what_is_left_is_named_and_the_exit_status_tells(program: Program) -> None:
    target = f"sqlite:///{program.folder}/new.db"
    words = ("move", "--from", program.url, "--to", target, "--wait", "0")
    with program.started(program.url, command=(sys.executable, "-c", HOLD), store=None) as process:
        read_until(process, "held")
        done = program(*words, store=None)
        assert done.returncode == 1, done.stderr
        assert "LEFT: session s0: a turn of it is running" in done.stdout
    assert "moved and verified: 1 session," in program.ok(*words, store=None)


def test_stores_that_cannot_be_moved_are_refused(program: Program) -> None:
    there = f"sqlite:///{program.folder}/new.db"
    for source, target, why in (
        (program.url, "memory:", "cannot be moved"),
        ("memory:", there, "memory:"),
        (f"sqlite:///{program.folder}/none.db", there, "there is no store"),
        (program.url, program.url, "one store"),
    ):
        assert why in program.refused("move", "--from", source, "--to", target, store=None)
