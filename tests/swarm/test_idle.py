"""Idle client sessions: they are let go of, and those that somebody needs are not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.swarm.stage import SWARM, Heard, Stage, soon, swarm_of, until

from tertulia import MemoryStore, Runtime
from tertulia.bus import BusEvent
from tertulia.errors import ClientDisposed
from tertulia.policies import Policy, PolicyContext
from tertulia.swarm import ClientSession
from tertulia.testing import FrozenClock, Pause, ScriptedModel

SHORT = 0.02
HOUR = 3_600.0


def runtime_of(stage: Stage, *steps: Any, idle: float | None = SHORT, **options: Any) -> Runtime:
    return stage.runtime(swarm_of(ScriptedModel(*steps), idle_timeout=idle, **options))


async def looked_at(client: ClientSession, times: int = 3) -> None:
    """Wait until the timer of a client has gone off so many times and found it needed."""
    for _ in range(times):
        timer = client._desk.life._timer  # pyright: ignore[reportPrivateUsage]
        await until(lambda timer=timer: client._desk.life._timer is not timer)  # pyright: ignore[reportPrivateUsage]


async def test_a_client_that_nobody_uses_is_disposed(stage: Stage) -> None:
    ended: list[str] = []

    def on_dispose(client: ClientSession, _: BusEvent) -> None:
        ended.append(client.client_id)

    runtime = runtime_of(stage, "Hello.", on_dispose=on_dispose)
    client, heard = runtime.client_session("ann", SWARM), Heard()
    runtime.bus.listen("ann", "session.dispose", heard)
    await client.execute("Hi")
    await until(lambda: bool(ended))
    await until(lambda: len(heard.events) == 1)
    assert client.disposed
    assert ended == ["ann"]
    assert runtime.client_sessions() == []
    with pytest.raises(ClientDisposed):
        await client.execute("Hello?")


async def test_a_client_that_was_never_used_is_disposed_too(stage: Stage) -> None:
    runtime = runtime_of(stage)
    runtime.client_session("ann", SWARM)
    await until(lambda: runtime.client_sessions() == [])


async def test_its_conversation_goes_on_with_the_next_one(stage: Stage) -> None:
    runtime = runtime_of(stage, "One.", "Two.")
    client = runtime.client_session("ann", SWARM)
    await client.execute("First")
    await until(lambda: runtime.client_sessions() == [])
    again = runtime.client_session("ann", SWARM)
    assert again is not client
    await again.execute("Second")
    assert [m.text for m in await again.session.history()] == ["First", "One.", "Second", "Two."]


async def test_a_client_that_is_held_stays(stage: Stage) -> None:
    runtime = runtime_of(stage, "Hello.")
    async with runtime.client_session("ann", SWARM) as client:
        await looked_at(client)
        assert not client.disposed
        assert await client.execute("Hi") == "Hello."
    assert client.disposed


async def test_a_client_with_a_connector_stays_until_that_is_closed(stage: Stage) -> None:
    runtime = runtime_of(stage, "Hello.")
    client = runtime.client_session("ann", SWARM)
    send = client.connect(lambda _: None)
    await looked_at(client)
    assert not client.disposed
    assert await send("Hi") == "Hello."
    send.close()
    await until(lambda: client.disposed)


async def test_a_client_whose_turn_runs_stays(stage: Stage) -> None:
    pause = Pause()
    runtime = runtime_of(stage, [pause, "At last."])
    client = runtime.client_session("ann", SWARM)
    task = asyncio.ensure_future(client.execute("Hi"))
    await pause.reached()
    await looked_at(client)
    pause.release()
    assert await soon(task) == "At last."
    await until(lambda: client.disposed)


async def test_a_client_that_was_used_meanwhile_stays(stage: Stage, frozen: FrozenClock) -> None:
    runtime = runtime_of(stage, "One.", idle=HOUR)
    client = runtime.client_session("ann", SWARM)
    frozen.advance(HOUR - 1)
    await client.execute("First")
    client._desk.life._look(HOUR)  # pyright: ignore[reportPrivateUsage]
    assert not client.disposed
    frozen.advance(HOUR)
    client._desk.life._look(HOUR)  # pyright: ignore[reportPrivateUsage]
    await until(lambda: client.disposed)


async def test_without_a_limit_nobody_is_let_go_of(stage: Stage, frozen: FrozenClock) -> None:
    runtime = runtime_of(stage, "One.", idle=None)
    client = runtime.client_session("ann", SWARM)
    await client.execute("First")
    frozen.advance(days=365)
    assert client._desk.life._timer is None  # pyright: ignore[reportPrivateUsage]
    assert not client.disposed


async def test_a_disposed_client_leaves_no_timer(stage: Stage) -> None:
    client = runtime_of(stage, "One.", idle=HOUR).client_session("ann", SWARM)
    await client.execute("First")
    await client.dispose()
    timer = client._desk.life._timer  # pyright: ignore[reportPrivateUsage]
    assert timer is None or timer.cancelled()


async def test_clients_that_wait_for_a_scheduled_execution_stay(
    stage: Stage, frozen: FrozenClock
) -> None:
    client = runtime_of(stage, "Hello.", idle=HOUR).client_session("ann", SWARM)
    waiting = asyncio.create_task(client.scheduled(10 * SHORT)("Hi"))
    await until(lambda: client._desk.expected)  # pyright: ignore[reportPrivateUsage]
    frozen.advance(2 * HOUR)
    client._desk.life._look(HOUR)  # pyright: ignore[reportPrivateUsage]
    assert not client.disposed
    answer = await soon(waiting)
    assert (answer, answer.kind) == ("Hello.", "answer")


async def test_clients_whose_message_a_policy_still_looks_at_stay(stage: Stage) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    class Slow(Policy):
        async def validate_input(self, message: str, context: PolicyContext, /) -> bool:
            asked.set()
            await go_on.wait()
            return True

    swarm = swarm_of(ScriptedModel("Hello."), Slow(), idle_timeout=SHORT)
    client = stage.runtime(swarm).client_session("ann", SWARM)
    task = asyncio.ensure_future(client.execute("Hi"))
    await asked.wait()
    await looked_at(client)
    go_on.set()
    assert await soon(task) == "Hello."


async def test_listeners_of_a_client_that_was_let_go_of_are_gone(stage: Stage) -> None:
    runtime = runtime_of(stage, "Hello.")
    client = runtime.client_session("ann", SWARM)
    client.listen("session.*", lambda _: None)
    await client.execute("Hi")
    await until(lambda: client.disposed)
    await until(lambda: not runtime.bus.subscriptions)


def test_a_client_that_is_used_on_a_second_loop_is_disposed_there() -> None:
    runtime = Runtime(MemoryStore(), swarms=[swarm_of(ScriptedModel("1", "2"), idle_timeout=SHORT)])
    client = runtime.client_session("ann", SWARM)

    async def use() -> None:
        await client.execute("Hi")

    async def use_again() -> None:
        await client.execute("Hi")
        await until(lambda: client.disposed)
        await runtime.close()

    asyncio.run(use())
    asyncio.run(use_again())


def test_clients_that_were_made_where_no_loop_ran_are_disposed_by_the_next_one() -> None:
    runtime = Runtime(MemoryStore(), swarms=[swarm_of(ScriptedModel(), idle_timeout=SHORT)])
    for number in range(10):
        runtime.client_session(f"client-{number}", SWARM)

    async def others() -> None:
        runtime.client_session("ann", SWARM)
        await until(lambda: not runtime.client_sessions())
        await runtime.close()

    asyncio.run(others())
