"""Many clients at once, and clients that come and go: each is alone, and nothing is left."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.agents.histories import said

from tertulia import Agent, Runtime, Swarm, tool
from tertulia.agents.protocol import ModelEvent, ModelRequest
from tertulia.bus import BusEvent
from tertulia.policies import Policy, PolicyContext
from tertulia.swarm import ClientSession
from tertulia.testing import ScriptedModel, call

CLIENTS = 500
TURNS = 3
TIMERS = 100
"""How many timers that were cancelled asyncio keeps, with what was in their context."""
CYCLES = [300, pytest.param(10_000, marks=[pytest.mark.soak, pytest.mark.timeout(900)])]


class Polite(Policy):
    """Looks at everything and accepts it."""

    async def validate_input(self, message: str, context: PolicyContext, /) -> bool:
        context.state["asked"] = context.state.get("asked", 0) + 1
        return True

    async def validate_output(self, text: str, context: PolicyContext, /) -> bool:
        await asyncio.sleep(0)
        return context.client_id in text


def echo(request: ModelRequest) -> str:
    """An answer that has in it what was asked."""
    questions = [message.text for message in request.messages if message.role == "user"]
    return f"You said {questions[-1]}"


def transferring(request: ModelRequest) -> Any:
    """Go to the other agent; every new client begins here."""
    return call("transfer_to_second")


class Endless(ScriptedModel):
    """A model whose only step is repeated, and that keeps no requests."""

    def __init__(self, step: Any) -> None:
        super().__init__()
        self._step = step

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        self._steps.append(self._step)
        async for event in super().stream(request):
            yield event
        self.requests.clear()


def swarm_of_two(**options: Any) -> Swarm:
    return Swarm(
        "shop",
        agents=[
            Agent(name="first", model=Endless(transferring), handoffs=["second"]),
            Agent(name="second", model=Endless(echo)),
        ],
        **options,
    )


@pytest.mark.timeout(180)
async def test_five_hundred_clients_at_once_have_each_their_own_answers(tmp_path: Path) -> None:
    heard: Counter[str] = Counter()

    def hear(event: BusEvent) -> None:
        heard[event.client_id] += 1

    swarm = swarm_of_two(policies=[Polite()])
    async with Runtime(f"sqlite:///{tmp_path / 'x.db'}", swarms=[swarm]) as runtime:
        runtime.bus.listen("*", "session.execute", hear, size=CLIENTS * TURNS)

        async def live(name: str) -> list[str]:
            async with runtime.client_session(name, "shop") as client:
                questions = [f"{name}, question {number}" for number in range(TURNS)]
                return [await client.execute(question) for question in questions]

        names = [f"client-{number:03}" for number in range(CLIENTS)]
        answers = await asyncio.gather(*map(live, names))
        for name, given in zip(names, answers, strict=True):
            assert given == [f"You said {name}, question {number}" for number in range(TURNS)]
        assert runtime.client_sessions() == []
        await runtime.bus.drain(10)
        assert heard == dict.fromkeys(names, TURNS)
        for name in names[::50]:
            session = runtime.session(name, app_name="shop", user_id=name)
            questions = [text for role, text in said(await session.history()) if role == "user"]
            assert questions == [f"{name}, question {number}" for number in range(TURNS)]
            assert session.get_state("asked") == TURNS
            assert session.floor == "second"
            assert await session.verify()


async def test_clients_whose_messages_come_at_once_are_answered_in_order(tmp_path: Path) -> None:
    async with Runtime(f"sqlite:///{tmp_path / 'x.db'}", swarms=[swarm_of_two()]) as runtime:
        clients = [runtime.client_session(f"c{number}", "shop") for number in range(10)]
        work = [client.execute(f"{n}") for n in range(10) for client in clients]
        await asyncio.gather(*work)
        for client in clients:
            history = said(await client.session.history())
            assert [text for role, text in history if role == "user"] == list("0123456789")
            assert await client.session.verify()


async def come_and_go(runtime: Runtime, name: str) -> weakref.ref[ClientSession]:
    """One client with all that lives of it: a hold, connectors, listeners, pacing, a turn."""
    async with runtime.client_session(name, "shop") as client:
        client.connect(lambda _: None)
        client.listen("*", lambda _: None)
        client.rate(1.0)
        await client.scheduled(0.001)("One")
        await client.execute("Two")
    return weakref.ref(client)


@pytest.mark.parametrize("times", CYCLES)
async def test_clients_that_come_and_go_leave_nothing(times: int) -> None:
    async with Runtime("memory:", swarms=[swarm_of_two(idle_timeout=3_600.0)]) as runtime:
        await come_and_go(runtime, "warm-up")
        kinds = (ClientSession, *{type(each) for each in parts(runtime)})
        gc.collect()
        tasks, before = len(asyncio.all_tasks()), counted(kinds)
        gone = [await come_and_go(runtime, f"c{number % 100}") for number in range(times)]
        await asyncio.sleep(0)
        gc.collect()
        assert [ref for ref in gone if ref() is not None] == []
        assert runtime.client_sessions() == []
        assert not runtime.bus.subscriptions
        assert len(runtime.registry) == 0
        assert len(runtime.dirty) == 0
        assert len(asyncio.all_tasks()) == tasks
        assert counted(kinds) - before == Counter()


def parts(runtime: Runtime) -> list[object]:
    """What a client session is made of; it is made for this and forgotten."""
    client = runtime.client_session("part", "shop")
    desk = client._desk  # pyright: ignore[reportPrivateUsage]
    values = (*vars(client).values(), *vars(desk).values())
    made = [value for value in values if type(value).__module__.startswith("tert")]
    shared = (runtime, runtime.bus, client.swarm)
    runtime.clients._forget(client)  # pyright: ignore[reportPrivateUsage]
    timer = client._desk.life._timer  # pyright: ignore[reportPrivateUsage]
    if timer is not None:
        timer.cancel()
    return [value for value in made if value not in shared]


def counted(kinds: tuple[type, ...]) -> Counter[str]:
    return Counter(type(each).__name__ for each in gc.get_objects() if type(each) in kinds)


@pytest.mark.parametrize("times", CYCLES)
async def test_clients_that_were_disposed_in_the_middle_leave_nothing(times: int) -> None:
    inside, stuck = asyncio.Event(), asyncio.Event()

    @tool(timeout=None)
    async def hang() -> str:
        """Hang."""
        inside.set()
        await stuck.wait()
        return "never"

    agent = Agent(name="a", model=Endless(call("hang")), tools=[hang])

    async def be_cut_off(runtime: Runtime, name: str) -> None:
        inside.clear()
        client = runtime.client_session(name, "shop")
        running = asyncio.ensure_future(client.execute("Hi"))
        await inside.wait()
        await client.dispose()
        assert (await running).kind == "cancelled"

    async with Runtime("memory:", swarms=[Swarm("shop", agents=[agent])]) as runtime:
        tasks = len(asyncio.all_tasks())
        for number in range(times):
            await be_cut_off(runtime, f"c{number % 100}")
        assert len(asyncio.all_tasks()) == tasks
        assert runtime.client_sessions() == []
        gc.collect()
        assert len(runtime.registry) <= TIMERS
        assert len(runtime.dirty) == 0
