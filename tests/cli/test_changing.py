"""`tertulia prune`, `rewind`, `end`, `reopen` and `unlock`."""

from __future__ import annotations

import sys

from tests.cli.program import Program, read_until

HOLD = """
import asyncio, sys
from tertulia import Runtime

async def hold(url):
    async with Runtime(url) as runtime:
        async with runtime.session("s0").turn("hold it"):
            print("held", flush=True)
            await asyncio.Event().wait()

asyncio.run(hold(sys.argv[-1]))
"""


def test_prune_reports_what_it_hid(program: Program) -> None:
    report = program.json("prune", "s0", "keep_last_n", "--n", "4")
    assert (report["hidden"], report["kept"]) == (8, 4)
    assert len(program.json("show", "s0")["messages"]) == 4
    assert "hidden" in program.ok("prune", "s1", "sliding_window", "--window-size", "4")


def test_a_strategy_that_does_not_exist_is_refused(program: Program) -> None:
    assert "keep_nothing" in program.refused("prune", "s0", "keep_nothing")


def test_a_strategy_that_asks_a_model_asks_the_one_of_the_environment(program: Program) -> None:
    assert "TERTULIA_MODEL" in program.refused("prune", "s0", "keep_important", "--n", "4")
    asked = ("prune", "s0", "keep_important", "--n", "4")
    report = program.json(*asked, TERTULIA_MODEL="offline")
    assert report["kept"] >= 4
    assert program.ok("verify", "s0")


def test_a_strategy_that_asks_a_model_asks_the_one_that_is_named(program: Program) -> None:
    asked = ("prune", "s0", "summarize_old", "--threshold", "4", "--model")
    report = program.json(*asked, "offline", TERTULIA_MODEL="nowhere:none")
    assert (report["hidden"], report["kept"]) == (8, 4)
    assert "question 0" in report["summary"]
    assert "names no model" in program.refused(*asked, "nonsense")


def test_rewind_goes_back_and_forth(program: Program) -> None:
    last = program.json("show", "s0")["events"]
    program.ok("rewind", "s0", "0")
    assert program.json("show", "s0")["messages"] == []
    program.ok("rewind", "s0", str(last))
    assert len(program.json("show", "s0")["messages"]) == 12
    assert "beyond the end" in program.refused("rewind", "s0", "10000")


def test_a_session_is_ended_and_reopened(program: Program) -> None:
    program.ok("end", "s0", "--reason", "enough")
    assert program.json("show", "s0")["status"] == "ended"
    assert "was ended" in program.refused("prune", "s0", "keep_last_2")
    program.ok("reopen", "s0")
    assert program.json("show", "s0")["status"] == "open"


def test_unlock_takes_a_session_away_from_a_process_that_lives(program: Program) -> None:
    with program.started(program.url, command=(sys.executable, "-c", HOLD), store=None) as process:
        read_until(process, "held")
        assert "held by a living process" in program.ok("show", "s0")
        assert "of a living process was closed as abandoned" in program.ok("unlock", "s0")
        assert "turn.abandoned" in program.ok("tail", "s0", "-n", "1")
        program.ok("prune", "s0", "keep_last_2")
    assert program.ok("verify", "s0")


def test_unlock_of_a_free_session_says_so(program: Program) -> None:
    assert "no turn had to be closed" in program.ok("unlock", "s0")


def test_show_tells_of_a_turn_that_a_dead_process_left_open(program: Program) -> None:
    with program.started(program.url, command=(sys.executable, "-c", HOLD), store=None) as process:
        read_until(process, "held")
        process.kill()
        process.wait()
    assert "abandoned by a process that died" in program.ok("show", "s0")
    assert "of a process that died was closed" in program.ok("unlock", "s0")
