"""A request with an idempotency key runs once, also where two processes have it at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from tertulia import Agent, Runtime, Session, tool
from tertulia.agents.protocol import Finished, ModelEvent, ModelRequest, TextDelta
from tertulia.errors import IdempotencyConflict
from tertulia.testing.models import Pause, ScriptedModel, call

PATIENCE = 20.0
"""Seconds, on a slow machine, in which what waits for nobody has ended."""


async def test_the_same_key_at_the_same_moment_in_two_workers_runs_once(tmp_path: Path) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(request: ModelRequest) -> AsyncIterator[ModelEvent]:
        asked.set()
        await go_on.wait()
        yield TextDelta("paid")
        yield Finished("stop")

    address = f"sqlite:///{tmp_path / 'x.db'}"
    unused = ScriptedModel("paid again", "other")
    async with Runtime(store=address) as here, Runtime(store=address) as there:
        mine = Agent(model=ScriptedModel(slowly)).session("s", runtime=here)
        other = Agent(model=unused).session("s", runtime=there)
        first = asyncio.create_task(mine.run_async("pay", idempotency_key="k"))
        await asked.wait()
        second = asyncio.create_task(other.run_async("pay", idempotency_key="k"))
        conflicting = asyncio.create_task(other.run_async("pay more", idempotency_key="j"))
        await asyncio.sleep(0)
        go_on.set()
        assert (await first).text == (await second).text == "paid"
        assert (await conflicting).text == "paid again"
        assert len(unused.requests) == 1
        texts = [message.text for message in await mine.history()]
        assert texts == ["pay", "paid", "pay more", "paid again"]
        assert other.pending_inputs == []
        with pytest.raises(IdempotencyConflict):
            await other.run_async("something else", idempotency_key="k")
        assert await mine.verify()


async def until_attached(session: Session, key: str) -> None:
    """Two wait for what becomes of the request with a key."""
    requests = session._conversation.requests  # pyright: ignore[reportPrivateUsage]
    with anyio.fail_after(PATIENCE):
        while len(requests[key][1]._waiters) < 2:  # pyright: ignore[reportPrivateUsage]
            await asyncio.sleep(0.001)


async def test_a_repetition_runs_by_itself_when_who_asked_first_goes_away(
    runtime: Runtime,
) -> None:
    pause = Pause()
    model = ScriptedModel([pause, "Late."], "Paid.")
    session = Agent("ann", model, runtime=runtime).session("s")
    first = asyncio.ensure_future(session.run_async("Pay", idempotency_key="k"))
    await pause.reached()
    second = asyncio.ensure_future(session.run_async("Pay", idempotency_key="k"))
    await until_attached(session, "k")
    first.cancel()
    with anyio.fail_after(PATIENCE):
        assert (await second).text == "Paid."
        with pytest.raises(asyncio.CancelledError):
            await first
        assert (await session.run_async("Pay", idempotency_key="k")).text == "Paid."
    assert len(model.requests) == 2
    assert await session.verify()


async def test_of_many_repetitions_one_runs_when_who_asked_first_goes_away(
    runtime: Runtime,
) -> None:
    pause, then = Pause(), Pause()
    model = ScriptedModel([pause, "Late."], [then, "Paid."])
    session = Agent("ann", model, runtime=runtime).session("s")
    first = asyncio.ensure_future(session.run_async("Pay", idempotency_key="k"))
    await pause.reached()
    others = [
        asyncio.ensure_future(session.run_async("Pay", idempotency_key="k")) for _ in range(5)
    ]
    await until_attached(session, "k")
    first.cancel()
    await then.reached()
    then.release()
    with anyio.fail_after(PATIENCE):
        assert {response.text for response in await asyncio.gather(*others)} == {"Paid."}
    assert len(model.requests) == 2
    assert await session.verify()


@pytest.mark.parametrize("harmful", [False, True])
async def test_a_request_that_was_interrupted_runs_again(runtime: Runtime, harmful: bool) -> None:
    @tool(read_only=not harmful)
    def act() -> str:
        """Act."""
        return "acted"

    pause = Pause()
    model = ScriptedModel(call("act"), [pause, "Late."], "Paid.")
    session = Agent("ann", model, tools=[act], runtime=runtime).session("s")
    first = asyncio.ensure_future(session.run_async("Pay", idempotency_key="k"))
    await pause.reached()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    with anyio.fail_after(PATIENCE):
        assert (await session.run_async("Pay", idempotency_key="k")).text == "Paid."
        assert (await session.run_async("Pay", idempotency_key="k")).text == "Paid."
    assert len(model.requests) == 3
    assert await session.verify()
