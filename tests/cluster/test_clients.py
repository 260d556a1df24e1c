"""Clients of swarms whose seat is at another worker: two runtimes on one database, with a pipe."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

import pytest
from tests.cluster.boards import served

from tertulia import Agent, Message, Runtime, Swarm
from tertulia.errors import ModelError, NotConnected, WorkerLost
from tertulia.policies import Policy, PolicyContext
from tertulia.server.peers import Peers
from tertulia.swarm import ClientSession
from tertulia.swarm.answer import Outgoing
from tertulia.testing import Pause, ScriptedModel

SWARM = "shop"


class NoSecrets(Policy):
    """Refuses what has the word secret in it."""

    async def validate_input(self, message: str, context: PolicyContext, /) -> bool:
        return "secret" not in message


class Pair(NamedTuple):
    """Two workers of one database. The client has its seat at `there`."""

    here: Runtime
    there: Runtime
    model: ScriptedModel
    """That of `there`; the one of `here` has nothing to say."""

    def client(self, runtime: Runtime) -> ClientSession:
        return runtime.client_session("client-1", SWARM)

    async def seated(self) -> ClientSession:
        """The client at `here`, once its seat is at `there`."""
        await self.client(self.there)._desk.seat.claim()  # pyright: ignore[reportPrivateUsage]
        return self.client(self.here)


def swarm_of(model: ScriptedModel) -> Swarm:
    agent = Agent(name="triage", model=model)
    return Swarm(SWARM, agents=[agent], policies=[NoSecrets(name="no-secrets")])


@asynccontextmanager
async def reachable(runtime: Runtime) -> AsyncGenerator[None]:
    """Let others reach a runtime over HTTP."""
    cluster = runtime.cluster
    assert cluster is not None
    await cluster.start()
    assert cluster.http is not None
    async with served(Peers(cluster.http)) as url:
        await cluster.advertise(url)
        yield


@pytest.fixture
async def pair(pipe: str, nats: str, postgres: str) -> AsyncGenerator[Callable[..., Any]]:
    """Makes a pair whose model at `there` has the steps given."""
    async with AsyncExitStack() as stack:

        async def make(*steps: Any) -> Pair:
            model = ScriptedModel(*steps)
            made: list[Runtime] = []
            for each in (ScriptedModel(), model):
                bus = f"{nats}?name=clients" if pipe == "nats" else "local:"
                runtime = Runtime(postgres, bus=bus, swarms=[swarm_of(each)])
                stack.push_async_callback(runtime.close)
                if pipe == "http":
                    await stack.enter_async_context(reachable(runtime))
                made.append(runtime)
            return Pair(made[0], made[1], model)

        yield make


async def texts(runtime: Runtime) -> list[str]:
    session = await runtime.get("client-1", app_name=SWARM)
    return [message.text for message in await session.history()]


async def test_what_is_executed_at_another_worker_is_answered_where_the_seat_is(pair: Any) -> None:
    two = await pair("hello", "hello again")
    client = await two.seated()
    answer = await client.execute("hi")
    assert (answer, answer.kind, answer.agent) == ("hello", "answer", "triage")
    assert answer.turn is not None
    refused = await client.execute("a secret")
    assert refused.kind == "ban"
    assert refused.verdict is not None
    assert (refused.verdict.policy, refused.verdict.allowed) == ("no-secrets", False)
    assert await two.client(two.there).execute("hi again") == "hello again"
    assert await texts(two.here) == ["hi", "hello", "hi again", "hello again"]


async def test_a_stream_comes_as_it_happens(pair: Any) -> None:
    two = await pair("one two three")
    client = await two.seated()
    stream = client.stream("count")
    kinds = [event.type async for event in stream]
    assert kinds[0] == "turn_started"
    assert kinds[-1] == "turn_completed"
    assert "text_delta" in kinds
    assert stream.answer == "one two three"


async def test_a_stream_that_is_closed_stops_the_turn_there(pair: Any) -> None:
    pause = Pause()
    two = await pair(pause, "next")
    client = await two.seated()
    stream = client.stream("wait")
    assert (await anext(stream)).type == "turn_started"
    await pause.reached()
    await stream.aclose()
    assert stream.answer.kind == "cancelled"
    assert await client.execute("go on") == "next"
    session = await two.here.get("client-1", app_name=SWARM)
    assert len(await session.events(types="turn.interrupted")) == 1


async def test_what_goes_wrong_there_is_raised_here_as_what_it_is(pair: Any) -> None:
    two = await pair(*[ModelError("out of order")] * 9)
    client = await two.seated()
    with pytest.raises(ModelError, match="out of order"):
        await client.execute("hi")
    with pytest.raises(NotConnected, match="client-1"):
        await client.notify("hello?")


async def test_a_turn_is_cancelled_from_another_worker(pair: Any) -> None:
    pause = Pause()
    two = await pair(pause)
    client = await two.seated()
    waiting = asyncio.ensure_future(client.execute("wait"))
    await pause.reached()
    assert await client.cancel() is True
    assert (await waiting).kind == "cancelled"
    assert await client.cancel() is False


async def test_whoever_is_connected_anywhere_gets_what_is_emitted_anywhere(pair: Any) -> None:
    two = await pair()
    client = await two.seated()
    got: list[tuple[str, str]] = []

    def hearing(at: str) -> Callable[[Outgoing], None]:
        return lambda out: got.append((at, out.data))

    two.client(two.there).connect(hearing("there"))
    client.connect(hearing("here"))
    joined = two.client(two.there)._desk.outlet.sends
    async with asyncio.timeout(5):
        while len(joined) < 2:
            await asyncio.sleep(0.01)
    assert await client.emit("news") == "news"
    await two.client(two.there).notify("a note")
    async with asyncio.timeout(5):
        while len(got) < 4:
            await asyncio.sleep(0.01)
    assert sorted(got) == sorted(
        (at, said) for at in ("here", "there") for said in ("news", "a note")
    )
    assert await texts(two.here) == ["news"]


async def test_a_client_that_was_disposed_there_is_served_there_anew(pair: Any) -> None:
    two = await pair("one", "two")
    client = await two.seated()
    assert await client.execute("1") == "one"
    await two.client(two.there).dispose()
    assert await client.execute("2") == "two"
    assert two.there.client_sessions() != []


async def test_a_worker_that_goes_leaves_its_clients_to_the_others(pair: Any) -> None:
    two = await pair("from there")
    client = await two.seated()
    assert await client.execute("one", idempotency_key="k") == "from there"
    await two.there.close()
    assert await client.execute("one", idempotency_key="k") == "from there"
    assert len(await texts(two.here)) == 2


async def test_a_call_without_a_key_that_may_have_been_made_is_not_made_again(pair: Any) -> None:
    pause = Pause()
    two = await pair(pause)
    client = await two.seated()
    waiting = asyncio.ensure_future(client.execute("wait"))
    await pause.reached()
    cluster = two.there.cluster
    assert cluster is not None
    await cluster.close()
    with pytest.raises(WorkerLost):
        await waiting


async def test_a_worker_that_nobody_can_reach_keeps_no_seat(postgres: str) -> None:
    models = [ScriptedModel("one"), ScriptedModel("two")]
    runtimes = [Runtime(postgres, swarms=[swarm_of(model)]) for model in models]
    try:
        said = [await each.client_session("c", SWARM).execute("hi") for each in runtimes]
    finally:
        for each in runtimes:
            await each.close()
    assert said == ["one", "two"]


def test_messages_are_carried_as_they_are() -> None:
    from tertulia.swarm.parcels import Call, call_in, packed

    request = Message.user("hi", metadata={"mode": "user", "deep": [1, {"a": None}]})
    call = Call(op="execute", swarm="s", client_id="c", request=request, options={"timeout": 1.5})
    assert call_in(packed(call)) == call
