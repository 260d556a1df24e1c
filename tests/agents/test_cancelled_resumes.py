"""A turn that waits for an approval, goes on and is handed over, cancelled at every step."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.agents.histories import check_whole, kinds
from tests.agents.test_cancellation import Steps, nothing_left, still_open

from tertulia import Agent, Runtime, Session, tool
from tertulia.agents.protocol import ModelRequest
from tertulia.errors import UsageError
from tertulia.testing.models import ScriptedModel, call

PATIENCE = 20
"""Seconds, on a slow machine, that a cancelled call has to end."""


class Scene:
    """Ann notes something and asks for a refund, and hands over to Bob, who answers."""

    def __init__(self, runtime: Runtime) -> None:
        self.ran: list[str] = []
        tools = [
            tool(name="note")(self.note),
            tool(name="refund", requires_approval=True)(self.refund),
        ]
        answers = [self.answer] * 10_000
        bob = Agent("bob", ScriptedModel(*answers), tools=tools)
        self.ann = Agent("ann", ScriptedModel(*answers), tools=tools, handoffs=[bob])
        self.runtime = runtime

    async def note(self) -> str:
        """Note something."""
        self.ran.append("note")
        await asyncio.sleep(0)
        return "noted"

    async def refund(self) -> str:
        """Give money back."""
        self.ran.append("refund")
        await asyncio.sleep(0)
        return "refunded"

    def answer(self, request: ModelRequest) -> Any:
        """What a model says, by what it sees of the running turn."""
        last = max(n for n, m in enumerate(request.messages) if m.role == "user")
        if request.messages[last].text == "Next":
            return "Well."
        called = {c.name for m in request.messages[last:] for c in m.tool_calls or ()}
        if "note" not in called:
            return [call("note"), call("refund")]
        return "Done." if "transfer_to_bob" in called else call("transfer_to_bob")

    async def cancelled_before(self, number: int, *, everything: bool) -> tuple[bool, list[str]]:
        """The whole of it, cancelled before a step; whether it was, and what was in the log."""
        self.ran.clear()
        session = self.ann.session(runtime=self.runtime)
        before = asyncio.all_tasks()
        steps = Steps(number, everything=everything)
        with steps.counted():
            steps.task = asyncio.ensure_future(converse(session))
            await asyncio.wait([steps.task], timeout=PATIENCE)
        assert steps.task.done()
        if not steps.cancelled or not steps.task.cancelled():
            assert steps.task.result() == "Done."
        await Session(runtime=self.runtime).send_message({"role": "user", "content": "Done?"})
        left = await kinds(session)
        await self.check(session)
        await nothing_left(before)
        return steps.cancelled, left

    async def check(self, session: Session) -> None:
        """What waits can be finished, the next turn works, and nothing ran twice."""
        if await session.events():
            await asyncio.wait_for(finish(session), PATIENCE)
        assert await still_open(session) == 0
        response = await asyncio.wait_for(session.run_async("Next"), PATIENCE)
        assert response.text == "Well."
        await check_whole(session)
        assert len(set(self.ran)) == len(self.ran)


async def converse(session: Session) -> str:
    """A turn that is suspended, approved and resumed."""
    waiting = await session.run_async("Go")
    session.approve(waiting.pending[0].id)
    return (await session.resume_async()).text


async def finish(session: Session) -> None:
    """Approve what waits, and go on with what is open."""
    for _ in range(3):
        for each in session.pending:
            session.approve(each.id)
        try:
            await session.resume_async()
        except UsageError as error:
            assert "nothing to resume" in str(error)  # noqa: PT017
            return
    raise AssertionError("it waits again and again")


@pytest.mark.parametrize("everything", [False, True], ids=["caller", "everything"])
async def test_wherever_it_is_cancelled_it_can_be_finished_or_is_closed(
    runtime: Runtime, everything: bool
) -> None:
    scene = Scene(runtime)
    ends = set[str]()
    number = 0
    while True:
        cancelled, left = await scene.cancelled_before(number, everything=everything)
        if not cancelled:
            break
        ends.add(left[-1] if left else "")
        number += 1
    assert number > 20, ends
    assert {"turn.interrupted", "turn.suspended"} <= ends
