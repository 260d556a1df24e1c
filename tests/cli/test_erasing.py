"""`tertulia erase` and `tertulia sweep`."""

from __future__ import annotations

import asyncio

from tests.cli.program import Program

from tertulia import Runtime


def test_erase_asks_and_refuses_where_nobody_answers(program: Program) -> None:
    assert "say --yes" in program.refused("erase", "ana")
    assert len(program.json("sessions")) == 3


def test_erase_of_a_user_leaves_a_receipt_and_nothing_else(program: Program) -> None:
    receipt = program.json("erase", "ana", "--yes")
    assert (receipt["user"], receipt["sessions"], receipt["held"]) == ("ana", 2, [])
    assert receipt["out_of_reach"] == ["backups", "exports"]
    assert [info["id"] for info in program.json("sessions")] == ["s0"]


def test_erase_of_one_session(program: Program) -> None:
    assert "s2" in program.ok("erase", "--session", "s2", "--yes")
    assert [info["id"] for info in program.json("sessions")] == ["s0", "s1"]
    program.refused("erase", "--session", "s2", "--yes")


def test_erase_needs_to_know_whom_and_only_one(program: Program) -> None:
    for words in ((), ("ana", "--session", "s0"), ("ana", "--app", "shop")):
        done = program("erase", *words, "--yes")
        assert done.returncode == 2
        assert "Error: " in done.stderr
    assert len(program.json("sessions")) == 3


def test_a_sweep_lists_before_it_acts(program: Program) -> None:
    asyncio.run(_limit(program.url))
    planned = program.json("sweep", "--dry-run")
    assert [(one["session_id"], one["action"], one["done"]) for one in planned] == [
        ("s0", "prune", False)
    ]
    assert "left" in program.ok("sweep")
    assert len(program.json("show", "s0")["messages"]) == 12
    assert program.ok("sweep", "--dry-run").splitlines()[0].split()[0] == "session"


def test_a_sweep_with_nothing_due_says_so(program: Program) -> None:
    assert program.ok("sweep") == "nothing is due\n"
    assert program.json("sweep") == []


async def _limit(url: str) -> None:
    async with Runtime(url) as runtime:
        session = runtime.session("s0", retention={"max_messages": 2})
        await session.set_state("color", "red")
