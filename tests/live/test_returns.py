"""A client that comes back: with much to catch up on, beside others, and at odd moments."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from tests.live.serving import Wire, serving
from tests.live.talking import (
    Card,
    Client,
    Recorder,
    Says,
    eventually,
    history,
    live,
    settled,
)

from tertulia import Runtime
from tertulia.errors import StoreError
from tertulia.live import AgentSession, Settings
from tertulia.live import link as links
from tertulia.live.link import COALESCE, Link
from tertulia.server import AgentApp
from tertulia.server.hub import Hub
from tertulia.wire.events import (
    AgentReady,
    AgentSpeak,
    LLMRequest,
    ResponseChunk,
    ResponseEnd,
    SystemInit,
)


async def quietly(session: AgentSession) -> None:
    """A setup handler of a graph that says nothing."""
    session.add_node(Recorder())
    await session.start()
    await session.wait_until_complete()


def titles(wire: Wire | Client) -> list[str]:
    """Of the cards that came."""
    return [card.title for card in wire.of(Card)]


async def test_who_missed_more_than_may_wait_gets_all_and_the_next_client_too() -> None:
    async with serving(AgentApp(quietly, store="memory:")) as server:
        async with server.connected() as wire:
            ready = await wire.init("s")
            wire.abort()
        await server.left("s")
        session = server.session("s")
        count = COALESCE * 3
        for number in range(count):
            await session.send_event(Card(title=str(number)))
        async with server.connected() as back:
            await back.init("s", after=ready.seq)
            await back.until(Card, count)
            await session.send_event(Card(title="live"))
            await back.until(Card, count + 1)
            assert titles(back) == [*map(str, range(count)), "live"]
            async with server.connected() as newer:
                await newer.init("s")
                await session.send_event(Card(title="newer"))
                await newer.until(Card)
                assert titles(newer) == ["newer"]
            assert (await back.closed())[0] == links.REPLACED


async def test_a_client_that_returns_and_does_not_read_does_not_block_a_newer_one() -> None:
    big, count = "x" * 20_000, 600
    async with serving(AgentApp(quietly, store="memory:")) as server:
        async with server.connected() as wire:
            await wire.init("s")
            wire.abort()
        await server.left("s")
        session = server.session("s")
        for number in range(count):
            await session.send_event(Card(title=f"{number} {big}"))
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        deaf.setblocking(False)
        await asyncio.get_running_loop().sock_connect(deaf, ("127.0.0.1", server.port))
        async with server.connected(sock=deaf, max_queue=1) as slow:
            await slow.send("system.init", session_id="s", after=0)
            await eventually(lambda: _waits(session))
            async with server.connected() as newer:
                await newer.init("s", after=0)
                await newer.until(Card, count)
                assert [title.split()[0] for title in titles(newer)] == [*map(str, range(count))]
            slow.abort()


def _waits(session: AgentSession) -> bool:
    """Whether the link of a client that returns is full."""
    link = session.presence.link
    return link is not None and link._room is not None


async def test_a_link_that_nobody_reads_does_not_block_a_newer_one() -> None:
    async with Runtime("memory:") as runtime:
        hub = Hub(quietly, Settings())
        first = await hub.enter(runtime, SystemInit(session_id="s"), Link())
        await eventually(lambda: first.presence.link and first.presence.link.greeted)
        for number in range(200):
            await first.send_event(Card(title=str(number)))
        deaf = Client(first)
        assert await hub.enter(runtime, SystemInit(session_id="s"), deaf.link) is first
        coming = asyncio.create_task(deaf.attach(0, again=True))
        await eventually(lambda: _waits(first))
        back = Client(first).read()
        assert await hub.enter(runtime, SystemInit(session_id="s"), back.link) is first
        await back.attach(0, again=True)
        await back.until(Card, 200)
        await coming
        assert deaf.link.closed == (links.REPLACED, "a newer connection took over")
        first.finish("over")
        await eventually(lambda: hub.held == 0)


async def test_more_facts_than_a_page_that_show_nothing_do_not_end_the_replay() -> None:
    async with live(Says("the answer")) as (session, client):
        await session.send_event(Card(title="first"))
        first = await client.until(Card)
        client.lose()
        for number in range(250):
            await session.conversation.set_state("page", number)
        await session.receive(LLMRequest(id="q"))
        await settled(session)
        back = (await Client(session).attach(first.seq, again=True)).read()
        end = await back.until(ResponseEnd)
        assert back.text("q") == "the answer"
        await session.send_event(Card(title="later"))
        later = await back.until(Card)
        assert (end.seq or 0) < (later.seq or 0)


@pytest.mark.parametrize("after", [None, 0])
async def test_what_setup_says_before_start_reaches_a_new_client(after: int | None) -> None:
    async with live(Recorder(), start=False) as (session, client):
        client.lose()
        client = await Client(session).attach(after)  # noqa: PLW2901
        await session.speak("hello before start")
        await session.send_event(Card(title="too"))
        await settled(session)
        await session.start()
        client.read()
        await client.until(Card)
        assert client.types == ["agent.ready", "agent.speak", "test.card"]
        assert await history(session) == [("assistant", "hello before start")]


@pytest.mark.parametrize("after", [None, 0, 1_000])
async def test_what_setup_says_before_start_reaches_a_client_that_comes_again(
    after: int | None,
) -> None:
    async with Runtime("memory:") as runtime:
        async with live(Recorder(), runtime=runtime) as (session, client):
            await session.send_event(Card(title="old"))
            seen = (await client.until(Card)).seq
        async with live(Recorder(), runtime=runtime, start=False) as (session, client):
            assert session.resumed
            client.lose()
            client = await Client(session).attach(seen if after == 1_000 else after)  # noqa: PLW2901
            await session.speak("welcome back")
            await settled(session)
            await session.start()
            client.read()
            await client.until(AgentSpeak)
            assert [event.text for event in client.of(AgentSpeak)] == ["welcome back"]
            assert titles(client) == (["old"] if after == 0 else [])
            assert client.types[0] == "agent.ready"


async def test_an_attach_that_fails_leaves_no_dead_link_and_the_session_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def down(*_: Any) -> int:
        raise StoreError("the store is down")

    async with live(Recorder()) as (session, client):
        client.lose()
        await settled(session)
        with monkeypatch.context() as patched:
            patched.setattr(session.scribe, "note", down)
            failed = Client(session)
            with pytest.raises(StoreError):
                await failed.attach(0, again=True)
        assert session.presence.link is None
        assert not session.connected
        assert session.presence._leaving is not None
        assert failed.link.closed is not None
        assert failed.link.closed[0] == links.FAILED
        back = (await Client(session).attach(0, again=True)).read()
        await back.until(AgentReady)
        assert session.presence._leaving is None


@pytest.mark.parametrize("passes", range(30))
async def test_who_comes_while_the_session_starts_is_greeted_once(passes: int) -> None:
    async with Runtime("memory:") as runtime:
        session = AgentSession(runtime.session("x"))
        await session.open()
        session.add_node(Recorder())
        first = await Client(session).attach()
        await session.send_event(Card(title="before"))
        first.lose()
        back = Client(session).read()

        async def late() -> None:
            for _ in range(passes):
                await asyncio.sleep(0)
            await session.start()

        await asyncio.gather(late(), back.attach(0, again=True))
        await settled(session)
        await back.until(Card)
        await session.send_event(Card(title="after"))
        await back.until(Card, 2)
        assert back.types == ["agent.ready", "test.card", "test.card"]
        await session.stop()


async def test_an_answer_that_was_given_while_a_turn_ran_is_replayed_with_its_text() -> None:
    async with live(Says("the whole ", "answer")) as (session, client):
        for _ in range(2):
            async with session.conversation.turn():
                await session.receive(LLMRequest())
                await settled(session)
        ended = [event.request_id for event in client.of(ResponseEnd)]
        client.lose()
        back = (await Client(session).attach(0, again=True)).read()
        await back.until(ResponseEnd, 4)  # those of the turns, too
        given = [event.request_id for event in back.of(ResponseEnd)]
        assert [request_id for request_id in given if request_id in ended] == ended
        for request_id in ended:
            assert back.text(request_id) == "the whole answer"
        assert len(back.of(ResponseChunk)) == 2
        await eventually(lambda: len(session.conversation.messages) == 2)
        assert await history(session) == [("assistant", "the whole answer")] * 2
