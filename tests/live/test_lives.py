"""Sessions end, go away and are deleted as they should, whoever asks for it and whatever hangs."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from tests.live.serving import serving
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
from tests.server.web import Client as Web
from websockets.exceptions import ConnectionClosed

from tertulia import Agent, Runtime, Token, tool
from tertulia.errors import AccessDenied
from tertulia.live import AgentNode, AgentSession, Node, Settings
from tertulia.live import link as links
from tertulia.live.link import Link
from tertulia.live.scribe import Said
from tertulia.messages import Message
from tertulia.server import AgentApp
from tertulia.server.hub import Hub
from tertulia.session import Session
from tertulia.testing import Pause, ScriptedModel, call
from tertulia.wire.events import (
    ResponseChunk,
    SystemInit,
    TranscriptUpdate,
)


async def quietly(session: AgentSession) -> None:
    """A setup handler of a graph that says nothing."""
    session.add_node(Recorder())
    await session.start()
    await session.wait_until_complete()


async def test_a_tool_of_an_agent_may_stop_the_session() -> None:
    @tool
    async def hang_up() -> str:
        """End it."""
        await AgentSession.current().stop()
        return "done"

    agent = Agent("a", model=ScriptedModel(call("hang_up"), "bye then"), tools=[hang_up])
    async with live(AgentNode(agent)) as (session, client):
        await client.says("go")
        await session.wait_until_complete()
        await eventually(lambda: len(client.link) == 0)
        assert session.reason == "stopped"
        assert client.link.closed == (links.NORMAL, "stopped")
        assert (await history(session))[0] == ("user", "go")


async def test_nodes_whose_stop_hangs_do_not_keep_the_session_from_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stopped: list[str] = []

    class Stuck(Recorder):
        async def stop(self) -> None:
            await asyncio.Event().wait()

    class Good(Recorder):
        async def stop(self) -> None:
            stopped.append(self.name)

    really = asyncio.wait_for

    async def impatient(what: Any, timeout: float | None) -> Any:
        return await really(what, None if timeout is None else min(timeout, 0.01))

    monkeypatch.setattr(asyncio, "wait_for", impatient)
    async with live(Stuck("first"), Good("between"), Stuck("last")) as (session, _):
        session.finish("over")
        await session.wait_until_complete()
        assert session.complete
        assert stopped == ["between"]


async def test_a_connection_whose_session_ends_with_a_full_inbox_goes_away() -> None:
    fail = asyncio.Event()

    async def setup(session: AgentSession) -> None:
        if session.session_id != "startup-validation":
            await fail.wait()
            raise ValueError("no line")
        await quietly(session)

    async with serving(AgentApp(setup, store="memory:")) as server:
        async with server.connected() as wire:
            await wire.send("system.init", session_id="s")
            for _ in range(1_100):
                await wire.send("system.user.started_speaking")
            await eventually(lambda: server.app.hub.find("s"))
            inlet = server.session("s").inlet
            await eventually(lambda: len(inlet._inbox._freed))
            fail.set()
            assert (await wire.closed())[0] == links.FAILED
        await eventually(lambda: server.app.hub.connections == 0)
        await eventually(lambda: server.app.hub.held == 0)


async def test_a_setup_that_hangs_before_start_is_dropped_when_its_client_is_gone() -> None:
    async def setup(session: AgentSession) -> None:
        if session.session_id != "startup-validation":
            await asyncio.Event().wait()
        await quietly(session)

    async with serving(AgentApp(setup, store="memory:", resume_for=0.01)) as server:
        hub = server.app.hub
        for number in range(5):
            async with server.connected() as wire:
                await wire.send("system.init", session_id=f"s{number}")
                await eventually(lambda n=number: hub.find(f"s{n}"))
        await eventually(lambda: hub.held == 0)
        await eventually(lambda: not hub._setups and not hub._returning)
        assert hub.connections == 0


async def test_two_that_open_one_session_make_one_also_where_a_first_was_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[AgentSession] = []
    row = Session._row

    async def slow(self: Session) -> Any:
        for _ in range(20):  # as a store on another machine
            await asyncio.sleep(0)
        return await row(self)

    async def setup(session: AgentSession) -> None:
        made.append(session)
        await quietly(session)

    async with Runtime("memory:") as runtime:
        owned = runtime.session("x", user_id="alice")
        await owned.send_message({"role": "user", "content": "hi"})
        monkeypatch.setattr(Session, "_row", slow)
        hub, init = Hub(setup, Settings()), SystemInit(session_id="x")
        later: list[asyncio.Task[AgentSession]] = []

        async def good() -> AgentSession:
            return await hub.enter(runtime, init, Link(), user_id="alice")

        async def bad() -> None:
            with pytest.raises(AccessDenied):
                await hub.enter(runtime, init, Link(), user_id="mallory")
            later.append(asyncio.create_task(good()))

        refused = asyncio.create_task(bad())
        second = asyncio.create_task(good())
        await refused
        assert await second is await later[0]
        await eventually(lambda: made)
        assert (len(made), hub.held, len(hub._opening)) == (1, 1, 0)
        made[0].finish("over")
        await eventually(lambda: hub.held == 0)


async def test_who_shows_a_token_does_not_get_a_session_that_is_nobodys() -> None:
    app = AgentApp(quietly, store="memory:", auth=Token({"bobs-long-token": "bob"}))
    async with serving(app) as server:
        call = app.runtime.session("call-CA1")
        await call.send_message({"role": "user", "content": "my card is 4111"})
        async with server.connected("?token=bobs-long-token") as wire:
            await wire.send("system.init", session_id="call-CA1", after=0)
            code, reason = await wire.closed()
            assert (code, "4111" in reason, wire.got) == (links.NOT_ALLOWED, False, [])
        assert app.hub.held == 0


# -- what was said in a turn of somebody else


async def test_what_was_said_in_a_turn_is_in_the_history_also_where_the_session_ended_first() -> (
    None
):
    async with Runtime("memory:") as runtime, live(Recorder(), runtime=runtime) as (session, _):
        async with session.conversation.turn():
            told = TranscriptUpdate(role="user", content="said in the turn", id="u1")
            await session.receive(told)
            await settled(session)
            session.finish("the client left")
            await session.wait_until_complete()
            assert await history(session) == []
        await eventually(lambda: len(session.conversation.messages) == 1)
        assert await history(session) == [("user", "said in the turn")]


async def test_what_is_said_in_a_turn_that_http_runs_is_in_the_history_after_it() -> None:
    pause = Pause()
    agent = Agent("clerk", model=ScriptedModel(["one ", pause, "two"]))
    app = AgentApp(quietly, agents={"clerk": agent}, store="memory:")
    async with serving(app) as server:
        web = Web(server.port)
        async with server.connected() as wire:
            await wire.init("s")
            body = {"input": "from HTTP", "agent": "clerk"}
            running = asyncio.create_task(web.post("/v1/sessions/s/run", body))
            await pause.reached()
            await wire.says("from the socket", id="u1")
            await eventually(lambda: server.session("s").inlet.newest == "u1")
        await eventually(lambda: app.hub.held == 0)
        pause.release()
        await running
        conversation = app.runtime.session("s")
        said = [("user", "from HTTP"), ("assistant", "one two"), ("user", "from the socket")]
        while [(each.role, each.text) for each in await conversation.history()] != said:
            await asyncio.sleep(0.001)


async def test_a_write_that_is_cancelled_still_becomes_a_message() -> None:
    async with live(Recorder()) as (session, _):
        async with session.conversation.turn():
            event = TranscriptUpdate(role="user", content="hi", id="u1")
            session.stamp(event, "in")
            said = [Said(event, Message.user("hi"))]
            async with session.scribe._one_at_a_time:  # the log is slow
                writing = asyncio.create_task(session.scribe.write(said, "in"))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                writing.cancel()
                await asyncio.wait([writing])
            await session.scribe.note("live.connected", {})
        await eventually(lambda: len(session.conversation.messages) == 1)
        assert await history(session) == [("user", "hi")]


# -- deleted sessions


@pytest.mark.parametrize("how", ["runtime", "http"])
@pytest.mark.parametrize("moment", ["idle", "answering"])
@pytest.mark.parametrize("kind", ["output", "agent"])
async def test_a_session_that_is_deleted_does_not_come_back_and_its_client_is_closed(
    how: str, moment: str, kind: str
) -> None:
    pause, go = Pause(), asyncio.Event()

    def node() -> Node:
        if kind == "output":
            return Says("one ", go, "two")
        return AgentNode(Agent("a", model=ScriptedModel(["one ", pause, "two"])))

    async def setup(session: AgentSession) -> None:
        session.add_node(node())
        await session.start()
        await session.wait_until_complete()

    async with serving(AgentApp(setup, store="memory:")) as server:
        async with server.connected() as wire:
            await wire.init("s")
            session = server.session("s")
            session.context["secret"] = "kept"
            await session.flush()
            if moment == "idle":
                await wire.send("agent.transcript.update", role="user", content="42", id="u1")
                await eventually(lambda: session.inlet.newest == "u1")
                await settled(session)
            else:
                await wire.says("42")
                await wire.until(ResponseChunk)
            removing = asyncio.create_task(deleted(server.app.runtime, server.port, how))
            pause.release()  # a turn that runs is waited for
            await removing
            session.context["secret"] = "again"
            go.set()
            with suppress(ConnectionClosed):
                await wire.send("agent.transcript.update", role="user", content="43")
            await wire.closed()
        await eventually(lambda: server.app.hub.held == 0)
        assert await server.app.runtime.session("s")._row() is None
        answered = await Web(server.port).ask("GET", "/v1/sessions/s")
        assert answered.status == 404


async def deleted(runtime: Runtime, port: int, how: str) -> None:
    """Delete the session, here or over HTTP."""
    if how == "http":
        answered = await Web(port).ask("DELETE", "/v1/sessions/s")
        assert answered.status == 200, answered
    else:
        await runtime.session("s").delete()


async def test_the_client_of_a_session_that_is_deleted_over_http_is_closed_at_once() -> None:
    app = AgentApp(quietly, store="memory:")
    async with serving(app) as server, server.connected() as wire:
        await wire.init("s")
        await deleted(app.runtime, server.port, "http")
        async with asyncio.timeout(1):
            await wire.closed()


async def test_deleting_a_session_of_another_app_leaves_the_live_one_of_the_same_id() -> None:
    app = AgentApp(quietly, store="memory:")
    async with serving(app) as server, server.connected() as wire:
        await wire.init("s")
        other = app.runtime.session("s", app_name="another")
        await other.send_message({"role": "user", "content": "hi"})
        answered = await Web(server.port).ask("DELETE", "/v1/sessions/s?app_name=another")
        assert answered.status == 200, answered
        live_one = app.hub.find("s")
        assert live_one is not None
        assert not live_one.ending


async def test_a_deleted_session_stays_deleted_when_its_client_is_lost_and_comes_back() -> None:
    async with (
        Runtime("memory:") as runtime,
        live(Recorder(), runtime=runtime) as (session, client),
    ):
        await session.send_event(Card(title="x"))
        await client.until(Card)
        await session.conversation.delete()
        client.lose()
        back = Client(session)
        with pytest.raises(Exception, match="deleted"):
            await back.attach(0, again=True)
        session.finish("over")
        await session.wait_until_complete()
        assert await runtime.session("s")._row() is None
