"""What somebody found who tried many machines without having built them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import pytest

from tertulia import Agent, AgentApp, Message, Runtime, Swarm
from tertulia.errors import ConfigurationError, StoreReadOnly
from tertulia.stores import open_store
from tertulia.stores.postgres import driver
from tertulia.stores.postgres.errors import translate
from tertulia.testing import Pause, ScriptedModel

SWARM = "shop"


def swarm_of(*steps: Any) -> Swarm:
    return Swarm(SWARM, agents=[Agent(name="triage", model=ScriptedModel(*steps))])


def seat_of(client: Any) -> Any:
    return client._desk.seat


async def connected(runtime: Any) -> None:
    """Wait until others can reach it over NATS."""
    await runtime.cluster.start()
    assert await runtime.bus.connection.ready(10)


def lease_ends(store: Any) -> None:
    """The store finds that it has not renewed its lease in time."""
    store._engine.thread.loop.call_soon_threadsafe(store._presence.lapse.renewed, -1e9)


def on_another_loop(work: Callable[[], Any]) -> Any:
    """What a coroutine gives that runs on a loop that ends with it."""
    given: list[Any] = []

    async def main() -> None:
        given.append(await work())

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    thread.join()
    return given[0]


async def test_a_runtime_that_was_made_on_a_loop_that_has_ended_stops_its_turns_in_time(
    postgres: str,
) -> None:
    async def make() -> Runtime:
        return Runtime(postgres)

    pause = Pause()
    async with on_another_loop(make) as runtime:
        agent = Agent(name="a", model=ScriptedModel(pause))
        turn = asyncio.ensure_future(agent.session(session_id="s", runtime=runtime).run_async("x"))
        await pause.reached()
        lease_ends(runtime.store)
        try:
            async with asyncio.timeout(2):
                await asyncio.wait([turn])
            assert turn.done()
        finally:
            turn.cancel()
            await asyncio.wait([turn])


async def test_what_is_said_to_a_client_reaches_it_after_it_has_moved(
    postgres: str, nats: str
) -> None:
    bus = f"{nats}?name=moved"
    async with (
        Runtime(postgres, bus=bus, swarms=[swarm_of("one")]) as before,
        Runtime(postgres, bus=bus, swarms=[swarm_of()]) as after,
    ):
        for runtime in (before, after):
            await connected(runtime)
        await before.client_session("c", SWARM).execute("1")
        moved = after.client_session("c", SWARM)
        await seat_of(moved).claim()  # as a live session of the client does
        heard: list[str] = []
        moved.connect(lambda outgoing: heard.append(outgoing.data))
        await before.client_session("c", SWARM).notify("news")
        assert heard == ["news"]


async def test_a_client_is_served_although_there_is_no_nats_where_the_address_says(
    postgres: str,
) -> None:
    bus = "nats://127.0.0.1:1"
    async with (
        Runtime(postgres, bus=bus, swarms=[swarm_of()]) as there,
        Runtime(postgres, bus=bus, swarms=[swarm_of("one")]) as here,
    ):
        await seat_of(there.client_session("c", SWARM)).claim()
        async with asyncio.timeout(2):
            assert await here.client_session("c", SWARM).execute("1") == "one"


async def test_who_asks_with_a_key_is_answered_although_the_worker_asked_is_told_to_stop(
    postgres: str, nats: str
) -> None:
    bus, pause = f"{nats}?name=stopped", Pause()
    there = Runtime(postgres, bus=bus, swarms=[swarm_of(pause)])
    async with Runtime(postgres, bus=bus, swarms=[swarm_of("here")]) as here:
        for runtime in (there, here):
            await connected(runtime)
        await seat_of(there.client_session("c", SWARM)).claim()
        client = here.client_session("c", SWARM)
        waiting = asyncio.ensure_future(client.execute("x", idempotency_key="k"))
        await pause.reached()
        await there.close()
        assert await waiting == "here"


async def test_a_worker_that_starts_on_one_loop_is_used_on_another(postgres: str) -> None:
    async with Runtime(postgres, swarms=[swarm_of("ok")]) as runtime:
        cluster: Any = runtime.cluster
        starting = asyncio.ensure_future(cluster.advertise("http://127.0.0.1:1"))
        await asyncio.sleep(0)

        async def execute() -> str:
            return await runtime.client_session("c", SWARM).execute("x")

        try:
            assert await asyncio.to_thread(lambda: asyncio.run(execute())) == "ok"
        finally:
            await starting


async def test_a_direct_address_of_another_database_is_refused(
    new_postgres: Callable[[], str],
) -> None:
    one, other = new_postgres(), new_postgres()
    for address in (one, other):
        async with Runtime(address) as runtime:
            await runtime.session("s").send_message(Message.user("x"))
    async with Runtime(f"{one}?direct={quote(other, safe='')}") as runtime:
        with pytest.raises(ConfigurationError):
            await runtime.session("s").history()


@pytest.mark.parametrize("address", ["postgresql://[::1/x", "postgresql://host:abc/x"])
def test_an_address_that_is_none_is_refused_as_such(address: str) -> None:
    with pytest.raises(ConfigurationError):
        open_store(address)


def test_a_database_that_may_only_be_read_is_said_to_be_so() -> None:
    refused = driver.module("asyncpg.exceptions").ReadOnlySQLTransactionError("cannot execute")
    assert isinstance(translate(refused, "postgresql://host/x"), StoreReadOnly)


async def test_a_schema_that_an_administrator_has_made_is_used(postgres: str) -> None:
    connection = await driver.connect(postgres)
    await connection.execute("CREATE SCHEMA tertulia")
    await connection.close()
    async with Runtime(postgres) as runtime:
        await runtime.session("s").send_message(Message.user("x"))


async def test_a_server_that_may_not_use_its_database_is_not_ready(postgres: str) -> None:
    parts = urlsplit(postgres)
    address = urlunsplit(parts._replace(netloc=f"postgres:wrong@{parts.hostname}:{parts.port}"))
    app = AgentApp(agent=Agent(name="a", model=ScriptedModel()), store=address)
    async with app.app.router.lifespan_context(app.app):
        sent: list[dict[str, Any]] = []
        scope = {"type": "http", "method": "GET", "path": "/ready", "query_string": b""}
        client = {"headers": [(b"host", b"localhost")], "client": ("127.0.0.1", 1)}
        await app({**scope, **client}, _nothing, _into(sent))
    assert sent[0]["status"] == 503


async def _nothing() -> Any:
    await asyncio.Event().wait()


def _into(sent: list[dict[str, Any]]) -> Callable[[Any], Any]:
    async def send(message: Any) -> None:
        sent.append(message)

    return send
