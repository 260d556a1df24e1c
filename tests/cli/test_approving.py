"""`tertulia pending`, `approve`, `reject`, and what `show` tells of agents and of what waits."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys

import pytest
from tests.cli.program import Program, environment, read_until

from tertulia import Agent, Runtime, tool
from tertulia.agents import Response
from tertulia.testing import ScriptedModel, call


@tool(requires_approval=True)
def refund(amount: int) -> str:
    """Give money back."""
    return f"refunded {amount}"


def clerk(*steps: object) -> Agent:
    """An agent whose refunds need an approval."""
    return Agent("clerk", ScriptedModel(*steps), tools=[refund])


async def _ask(url: str) -> None:
    async with Runtime(url) as runtime:
        asked = clerk([call("refund", amount=7), call("refund", amount=9)])
        model = ScriptedModel(call("transfer_to_clerk", reason="money"))
        desk = Agent("desk", model, handoffs=[asked])
        await desk.session("till", runtime=runtime).run_async("My money back")
        shop = clerk(call("refund", amount=1))
        await shop.session("other", app_name="shop", runtime=runtime).run_async("One euro")


def resume(url: str, *steps: object) -> Response:
    """Go on with the turn, as the program of the session would."""

    async def work() -> Response:
        async with Runtime(url) as runtime:
            return await clerk(*steps).session("till", runtime=runtime).resume_async()

    return asyncio.run(work())


@pytest.fixture
def waiting(empty: Program) -> Program:
    """A store in which two sessions wait: `till` for two calls, `other` for one."""
    asyncio.run(_ask(empty.url))
    return empty


def ids(program: Program, *words: str) -> list[str]:
    return [each["id"] for each in program.json("pending", *words)]


def test_what_waits_is_listed_in_one_session_and_in_all(waiting: Program) -> None:
    printed = waiting.ok("pending", "till")
    assert printed.splitlines()[0].split() == [
        *("session", "app", "call", "agent", "since", "wants", "to"),
    ]
    assert [line.split()[0] for line in printed.splitlines()[1:]] == ["till", "till"]
    assert "refund(amount=7)" in printed
    assert "clerk" in printed
    everywhere = waiting.json("pending")
    assert [(each["session"], each["app"]) for each in everywhere] == [
        ("till", None),
        ("till", None),
        ("other", "shop"),
    ]
    assert everywhere[0]["arguments"] == {"amount": 7}
    assert [each["session"] for each in waiting.json("pending", "--app", "shop")] == ["other"]


CUT_OFF = """
import sys, threading
from tertulia import Agent, Runtime, tool
from tertulia.testing import ScriptedModel, call

@tool
def slow() -> str:
    print("running", flush=True)
    threading.Event().wait()
    return "never"

@tool(requires_approval=True)
def refund(amount: int) -> str:
    return "refunded"

model = ScriptedModel([call("slow"), call("refund", amount=7)])
Agent("clerk", model, tools=[slow, refund], runtime=Runtime(sys.argv[1])).session("till").run("Go")
"""


def test_what_a_killed_process_left_waiting_is_listed_and_what_a_living_one_has_is_not(
    empty: Program,
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", CUT_OFF, empty.url],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(empty.folder),
    )
    with process:
        try:
            read_until(process, "running")
            assert ids(empty) == ids(empty, "till") == []
        finally:
            process.kill()
    assert ids(empty) == ids(empty, "till") != []
    [waits] = empty.json("pending")
    assert waits["session"] == "till"
    assert empty.ok("approve", "till", waits["id"]).startswith("approved: refund(amount=7)")


def test_where_nothing_waits_nothing_is_listed(program: Program) -> None:
    assert program.json("pending") == []
    done = program("pending", "s0")
    assert (done.returncode, done.stdout) == (0, "")
    assert "nothing waits for an approval" in done.stderr


def test_a_call_is_approved_and_another_rejected_and_the_turn_goes_on(waiting: Program) -> None:
    first, second = ids(waiting, "till")
    approved = waiting.ok("approve", "till", first)
    assert approved.startswith("approved: refund(amount=7)\n1 call of till still to be decided")
    rejected = waiting.ok("reject", "till", second, "--reason", "not yours")
    assert rejected.startswith("rejected: refund(amount=9)\nsession.resume() goes on with turn ")
    response = resume(waiting.url, "Seven back, nine not.")
    assert response.text == "Seven back, nine not."
    results = [message.text for message in response.messages if message.role == "tool"]
    assert "refunded 7" in results
    assert any("not yours" in text for text in results)
    assert ids(waiting, "till") == []
    shown = waiting.ok("tail", "till", "-n", "50")
    assert "approval.granted" in shown
    assert "approval.rejected" in shown
    assert waiting.ok("verify", "till").startswith("ok: ")


def test_a_decision_can_be_repeated_and_not_changed(waiting: Program) -> None:
    first, _ = ids(waiting, "till")
    waiting.ok("approve", "till", first)
    assert waiting.json("approve", "till", first)["decision"] == "approved"
    assert "was approved already" in waiting.refused("reject", "till", first)


def test_what_does_not_wait_cannot_be_decided(waiting: Program) -> None:
    told = waiting.refused("approve", "till", "nonsense")
    assert "no call 'nonsense' of session 'till' waits" in told
    assert all(f"{each} (refund)" in told for each in ids(waiting, "till"))
    assert "`tertulia sessions` lists" in waiting.refused("approve", "nowhere", "c1")
    assert waiting.refused("pending", "nowhere").startswith("error: there is no session")


def test_show_tells_who_has_the_floor_what_was_handed_over_and_what_waits(
    waiting: Program,
) -> None:
    first, _ = ids(waiting, "till")
    printed = waiting.ok("show", "till")
    assert "waits for an approval" in printed
    assert f"waits for an approval: {first}  refund(amount=7)" in printed
    resumed = [waiting.ok("approve", "till", each) for each in ids(waiting, "till")]
    assert len(resumed) == 2
    resume(waiting.url, "Done.")
    printed = waiting.ok("show", "till")
    assert re.search(r"^floor +clerk$", printed, re.MULTILINE)
    assert "handoff: desk -> clerk: money" in printed
    assert printed.index("transfer_to_clerk") < printed.index("handoff: ")
    assert printed.index("handoff: ") < printed.index("refund(amount=7)")
    assert "assistant (clerk): Done." in printed
    shown = waiting.json("show", "till")
    assert [(each["from"], each["to"]) for each in shown["handoffs"]] == [("desk", "clerk")]
    assert shown["floor"] == "clerk"
    assert shown["pending"] == []


def test_a_command_that_may_not_change_a_waiting_turn_says_what_to_do(waiting: Program) -> None:
    told = waiting.refused("rewind", "till", "1")
    assert "`tertulia pending till`" in told
    assert "`tertulia unlock till`" in told
    assert "waited for an approval, and was closed as interrupted" in waiting.ok("unlock", "till")
    assert ids(waiting, "till") == []
    waiting.ok("rewind", "till", "1")
