"""Who waits for a session that another process holds, and gives up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from tests.agents.histories import check_whole, kinds

from tertulia import Agent, Runtime, Session, tool
from tertulia.errors import SessionBusy, TurnTimeout
from tertulia.testing.models import Pause, ScriptedModel, call

AT_ONCE = 5.0


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[tuple[Runtime, Runtime]]:
    address = f"sqlite:///{tmp_path / 'x.db'}"
    async with Runtime(address) as here, Runtime(address) as there:
        yield here, there


async def holding(runtime: Runtime) -> tuple[Session, asyncio.Task[str], Pause]:
    """A turn of another worker, which waits for its model."""
    pause = Pause()
    session = Agent("ann", ScriptedModel([pause, "Done."])).session("s", runtime=runtime)

    async def run() -> str:
        return (await session.run_async("Go")).text

    task = asyncio.ensure_future(run())
    await pause.reached()
    return session, task, pause


async def arrived(session: Session) -> None:
    """Wait until somebody's input is in the inbox."""
    store = session._host.store  # pyright: ignore[reportPrivateUsage]
    with anyio.fail_after(AT_ONCE):
        while not await store.inputs(1):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("door", ["run", "stream"])
async def test_who_is_cancelled_while_waiting_takes_nothing_from_the_holder(
    two: tuple[Runtime, Runtime], door: str
) -> None:
    here, there = two
    mine, first, pause = await holding(here)
    other = Agent("ann", ScriptedModel("never")).session("s", runtime=there)

    async def wait() -> None:
        if door == "run":
            await other.run_async("Too")
        else:
            async for _ in other.stream_async("Too"):
                pass

    second = asyncio.ensure_future(wait())
    await arrived(other)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert "turn.abandoned" not in await kinds(mine)
    pause.release()
    assert await first == "Done."
    assert [m.text for m in await check_whole(mine)] == ["Go", "Done."]
    assert other.pending_inputs == []


async def test_who_waits_too_long_takes_nothing_from_the_holder(
    two: tuple[Runtime, Runtime],
) -> None:
    here, there = two
    mine, first, pause = await holding(here)
    other = Agent("ann", ScriptedModel("never")).session("s", runtime=there)
    with pytest.raises(TurnTimeout):
        await other.run_async("Too", timeout=0.05)
    with pytest.raises(SessionBusy):
        await other.run_async("Too", busy="reject")
    with pytest.raises(SessionBusy):
        await other.resume_async()
    pause.release()
    assert await first == "Done."
    assert [m.text for m in await check_whole(mine)] == ["Go", "Done."]
    assert other.pending_inputs == []


async def test_who_is_cancelled_before_a_suspended_turn_leaves_it_as_it_is(
    two: tuple[Runtime, Runtime],
) -> None:
    here, there = two

    @tool(requires_approval=True)
    def pay() -> str:
        """Pay."""
        return "paid"

    model = ScriptedModel(call("pay"), "Done.")
    mine = Agent("ann", model, tools=[pay]).session("s", runtime=here)
    await mine.run_async("Go")
    for steps in range(15):
        other = Agent("ann", ScriptedModel("never")).session("s", runtime=there)
        task = asyncio.ensure_future(other.run_async("Too"))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert [each.name for each in mine.pending] == ["pay"]
    mine.approve("call_1")
    assert (await mine.resume_async()).text == "Done."
    await check_whole(mine)
