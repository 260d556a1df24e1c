# pyright: reportPrivateUsage=false, reportArgumentType=false, reportUnknownLambdaType=false
"""Clients whose seat is at another worker, for long: what is left behind, lost, or taken over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

import pytest

from tertulia import Agent, Runtime, Swarm
from tertulia.cluster.switchboard import Switchboard
from tertulia.errors import ClientDisposed, StoreUnavailable
from tertulia.swarm import ClientSession
from tertulia.swarm.desk import Desk
from tertulia.swarm.seating import Seat
from tertulia.testing import Pause, ScriptedModel, call

SWARM = "shop"
LARGE = 5_000_000
"""More characters than one message of a channel takes."""


class Two(NamedTuple):
    """Two workers of one database; the client has its seat at `there` once `seated`."""

    here: Runtime
    there: Runtime
    models: tuple[ScriptedModel, ScriptedModel]

    async def seated(self) -> ClientSession:
        await desk_of(self.there).seat.claim()
        return client_of(self.here)


Make = Callable[..., Any]


@pytest.fixture
async def make(nats: str, postgres: str) -> AsyncGenerator[Make]:
    """Makes two workers, whose models have the steps given."""
    async with AsyncExitStack() as stack:

        async def made(*models: ScriptedModel, tools: Any = (), **options: Any) -> Two:
            limits = {"idle_timeout": options.pop("idle_timeout", None)}
            runtimes: list[Runtime] = []
            models = models or (ScriptedModel(), ScriptedModel())
            for model, own in zip(models, tools or ([], []), strict=True):
                agent = Agent(name="triage", model=model, tools=own)
                swarm = Swarm(SWARM, agents=[agent], **limits)
                bus = f"{nats}?name=mended"
                runtimes.append(Runtime(postgres, bus=bus, swarms=[swarm], **options))
                stack.push_async_callback(runtimes[-1].close)
            return Two(runtimes[0], runtimes[1], (models[0], models[1]))

        yield made


def client_of(runtime: Runtime, client: str = "client-1") -> ClientSession:
    return runtime.client_session(client, SWARM)


def desk_of(runtime: Runtime, client: str = "client-1") -> Desk:
    return client_of(runtime, client)._desk


def seat_of(runtime: Runtime) -> Seat:
    return desk_of(runtime).seat


async def board(runtime: Runtime) -> Switchboard:
    cluster = runtime.cluster
    assert cluster is not None
    return await cluster._station.switchboard()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def hearing(runtime: Runtime) -> AsyncGenerator[list[str]]:
    """What a connector at a worker gets."""
    got: list[str] = []
    send = client_of(runtime).connect(lambda out: got.append(out.data))
    yield got
    send.close()


async def test_a_connector_that_is_closed_leaves_nothing_at_either_worker(make: Make) -> None:
    two = await make()
    client = await two.seated()
    there = desk_of(two.there).outlet
    boards = await board(two.here), await board(two.there)
    for _ in range(3):
        sends = [client.connect(lambda out: None) for _ in range(3)]
        await until(lambda: len(there.sends) == 1)
        assert boards[0].channels == 1
        for send in sends:
            send.close()
        await until(lambda: not there.sends and not client._desk.life._tasks)
        await until(lambda: not boards[0].channels and not boards[1].channels)


async def test_a_client_that_is_disposed_leaves_nothing_at_the_other_worker(make: Make) -> None:
    two = await make()
    client = await two.seated()
    there = desk_of(two.there).outlet
    client.connect(lambda out: None)
    await until(lambda: len(there.sends) == 1)
    far = await board(two.there)
    await client.dispose()
    await until(lambda: not there.sends and not far.channels)


async def test_a_connector_hears_again_after_the_store_was_away(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = await make()
    await two.seated()
    there = desk_of(two.there).outlet
    async with hearing(two.here) as got:
        await until(lambda: len(there.sends) == 1)
        real, asked = two.here.cluster.take_seat, list[int]()

        async def away(place: str, *, over: bytes | None = None) -> bytes | None:
            asked.append(1)
            if len(asked) == 1:
                raise StoreUnavailable("the store is away")
            return await real(place, over=over)

        monkeypatch.setattr(two.here.cluster, "take_seat", away)
        for link in (await board(two.here))._all():
            link.lose("cut")
        await until(lambda: len(asked) >= 2 and len(there.sends) == 1)
        await client_of(two.there).notify("two")
        await until(lambda: got == ["two"])


async def test_a_worker_that_loses_a_seat_hears_of_it_and_forwards_what_it_is_asked(
    make: Make,
) -> None:
    two = await make()
    assert await seat_of(two.here).elsewhere() is None
    async with hearing(two.here) as here, hearing(two.there) as there:
        await seat_of(two.there).claim()
        await until(lambda: len(desk_of(two.there).outlet.sends) == 2)
        assert await client_of(two.here).notify("psst") == "psst"
        await until(lambda: here == there == ["psst"])


async def test_a_connector_follows_the_seat_from_worker_to_worker(make: Make) -> None:
    two = await make()
    await two.seated()
    async with hearing(two.here) as here, hearing(two.there) as there:
        await until(lambda: len(desk_of(two.there).outlet.sends) == 2)
        await seat_of(two.here).claim()
        await until(lambda: len(desk_of(two.here).outlet.sends) == 2)
        await client_of(two.there).notify("psst")
        await until(lambda: here == there == ["psst"])


async def test_a_connector_hears_where_the_client_is_after_a_lapse(make: Make) -> None:
    two = await make()
    assert await seat_of(two.here).elsewhere() is None
    async with hearing(two.here) as here:
        await two.there.cluster.start()
        client_of(two.there)
        place, worker = seat_of(two.here)._place, two.here.cluster.worker
        assert await two.there.cluster.take_seat(place, over=worker) is None
        two.here.cluster._lapses.note(True)
        two.here.cluster._lapses.note(False)
        await until(lambda: len(desk_of(two.there).outlet.sends) == 1)
        await client_of(two.there).notify("psst")
        await until(lambda: here == ["psst"])


async def test_a_claim_that_comes_to_a_seat_known_elsewhere_is_served_here(make: Make) -> None:
    two = await make()
    await two.seated()
    there = await seat_of(two.here).elsewhere()
    assert there is not None
    await seat_of(two.here).claim()
    two.here.cluster._lapses.note(True)
    two.here.cluster._lapses.note(False)
    assert await seat_of(two.here).elsewhere() is None


async def test_a_client_that_is_used_is_not_idle_where_its_seat_is_elsewhere(make: Make) -> None:
    pause = Pause()
    two = await make(ScriptedModel(), ScriptedModel(pause, "two"), idle_timeout=0.6)
    for runtime in two[:2]:
        await board(runtime)
    client = await two.seated()
    asked = asyncio.ensure_future(client.execute("one"))
    await pause.reached()
    await asyncio.sleep(0.9)
    assert not client.disposed
    pause.release()
    await asked
    await until(lambda: client.disposed)


async def test_what_a_disposed_client_asked_elsewhere_ends_and_its_turn_is_cancelled(
    make: Make,
) -> None:
    pauses = Pause(), Pause()
    two = await make(ScriptedModel(), ScriptedModel(*pauses, "next"))
    client = await two.seated()
    asked = asyncio.ensure_future(client.execute("one"))
    await pauses[0].reached()
    await client.dispose()
    with pytest.raises(ClientDisposed):
        await asked
    client = client_of(two.here)
    stream = client.stream("two")
    assert (await anext(stream)).type == "turn_started"
    await pauses[1].reached()
    await client.dispose()
    with pytest.raises(ClientDisposed):
        async for _ in stream:
            pass
    assert await client_of(two.there).execute("three") == "next"
    session = await two.here.get("client-1", app_name=SWARM)
    assert len(await session.events(types="turn.interrupted")) == 2
    for raises in (client.emit("x"), client.notify("x"), client.resume()):
        with pytest.raises(ClientDisposed):
            await raises


async def test_a_turn_inside_of_one_at_another_worker_needs_no_place_of_its_own(
    make: Make,
) -> None:
    made: list[Two] = []

    async def ask_there() -> str:
        """Ask a client that is served at the other worker."""
        return await client_of(made[0].here, "client-2").execute("two", timeout=2)

    async def ask_back() -> str:
        """Ask a client that is served at the first worker."""
        return await client_of(made[0].there, "client-3").execute("three", timeout=2)

    here = ScriptedModel(call("ask_there"), "three said", "one said")
    there = ScriptedModel(call("ask_back"), "two said")
    tools = [[ask_there], [ask_back]]
    made.append(await make(here, there, tools=tools, max_turns=1))
    for runtime, client in ((0, "client-1"), (1, "client-2"), (0, "client-3")):
        await desk_of(made[0][runtime], client).seat.claim()
    async with asyncio.timeout(5):
        assert await client_of(made[0].here).execute("one") == "one said"


async def test_a_worker_with_too_many_channels_has_not_heard_the_call(make: Make) -> None:
    two = await make(ScriptedModel(), ScriptedModel("hello"))
    client = await two.seated()
    own = await board(two.here)
    limit, own._limit = own._limit, 0
    asked = asyncio.ensure_future(client.execute("hi"))
    await asyncio.sleep(0.15)
    own._limit = limit
    assert await asked == "hello"


async def test_too_many_connections_of_other_workers_are_refused_and_wait(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tertulia.swarm import desk as desks

    two = await make()
    await two.seated()
    there = desk_of(two.there).outlet
    connected: list[str] = []
    two.there.bus.listen("client-1", "session.connect", lambda event: connected.append("x"))
    monkeypatch.setattr(desks, "MAX_SENDS", 1)
    own = client_of(two.there).connect(lambda out: None)
    async with hearing(two.here):
        await asyncio.sleep(0.3)
        assert list(there.sends) == [own]
        own.close()
        await until(lambda: len(there.sends) == 1)
    assert len(connected) <= 2


async def test_what_is_large_is_carried_as_what_is_small(make: Make) -> None:
    two = await make()
    client = await two.seated()
    async with hearing(two.here) as got:
        await until(lambda: len(desk_of(two.there).outlet.sends) == 1)
        await asyncio.gather(client.notify("a" * LARGE), client.notify("b" * LARGE))
        await until(lambda: len(got) == 2)
        assert sorted(each[:1] + each[-1:] for each in got) == ["aa", "bb"]
