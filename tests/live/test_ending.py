"""How live sessions end: for good, by the call's end, by fatal errors; and nothing is left."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from tests.live.talking import (
    Card,
    Client,
    Recorder,
    Says,
    Tick,
    eventually,
    history,
    live,
    settled,
)

from tertulia import Agent, Runtime
from tertulia.live import AgentNode, AgentSession, BackgroundNode, Node, Settings
from tertulia.live import link as links
from tertulia.server.hub import Hub
from tertulia.testing import Pause, ScriptedModel
from tertulia.wire.events import (
    AgentErrorEvent,
    EndCall,
    LiveEvent,
    LLMRequest,
    ResponseEnd,
    ResponseStart,
    SystemInit,
    TranscriptUpdate,
    TransferCall,
)


async def reason(session: AgentSession) -> Any:
    """Why the session ended, as the log says."""
    last = (await session.conversation.events())[-1]
    assert last.type == "live.disconnected"
    return last.body


async def test_it_ends_when_the_client_leaves_for_good() -> None:
    async with live(Recorder()) as (session, client):
        client.lose(for_good=True)
        await session.wait_until_complete()
        assert await reason(session) == {"reason": "lost", "final": True}
        assert session.complete
        await session.wait_until_complete()


async def test_it_ends_when_the_call_is_ended_and_the_client_hears_all_that_was_said() -> None:
    async with live(Recorder()) as (session, client):
        await session.speak("bye")
        await session.send_event(EndCall())
        await session.wait_until_complete()
        await eventually(lambda: len(client.link) == 0)
        await eventually(lambda: len(client.got) == 3)
        assert client.types == ["agent.ready", "agent.speak", "agent.end_call"]
        assert client.link.closed == (links.NORMAL, "the call was ended")
        assert await history(session) == [("assistant", "bye")]


async def test_it_ends_at_a_fatal_error_of_the_users_code_only() -> None:
    class Wrong(Node):
        async def process_event(self, event: LiveEvent) -> None:
            raise ValueError("not the end")

    async with live(Wrong()) as (session, client):
        await session.receive(Tick())
        await client.until(AgentErrorEvent)
        await session.receive(AgentErrorEvent(message="from the client", severity="fatal"))
        await session.send_event(AgentErrorEvent(message="only a warning"))
        await settled(session)
        assert not session.ending
        await session.send_event(AgentErrorEvent(message="it is over", severity="fatal"))
        await session.wait_until_complete()
        assert (await reason(session))["reason"] == "fatal error: it is over"
        assert client.of(AgentErrorEvent)[-1].message == "it is over"


async def test_it_ends_when_the_client_does_not_come_back_in_time() -> None:
    async with live(Recorder(), resume_for=0.01) as (session, client):
        client.lose()
        await session.wait_until_complete()
        assert (await reason(session))["reason"] == "the client did not come back"


async def test_it_does_not_end_while_the_client_is_back() -> None:
    async with live(Recorder(), resume_for=0.02) as (session, client):
        for _ in range(5):
            client.lose()
            client = (await Client(session).attach(0, again=True)).read()  # noqa: PLW2901
        assert session.presence._leaving is None
        assert not session.ending


async def test_no_answer_is_given_after_the_call_was_handed_over() -> None:
    node = Says("one")
    async with live(node) as (session, client):
        await session.send_event(TransferCall(transfer_call_number="+15550100"))
        await client.until(TransferCall)
        await session.receive(LLMRequest())
        await settled(session)
        assert node.requests == 0
        assert not session.ending


async def test_an_answer_that_was_being_given_when_the_client_left_is_kept_as_interrupted() -> None:
    go = asyncio.Event()
    node = Says("one ", "two ", go)
    async with live(node, reading=False) as (session, client):
        await client.says("hi")
        await node.waiting.wait()
        client.take(3)
        client.lose(for_good=True)
        await session.wait_until_complete()
        assert await history(session) == [("user", "hi"), ("assistant", "one ")]


async def test_a_turn_that_was_under_way_when_the_client_left_keeps_what_was_written() -> None:
    pause = Pause()
    agent = Agent("a", model=ScriptedModel(["one two ", pause, "three"]))
    async with live(AgentNode(agent), reading=False) as (session, client):
        await client.says("hi")
        await pause.reached()
        await eventually(lambda: len(client.link) == 4)
        client.take(3)
        assert client.text() == "one "
        client.lose(for_good=True)
        await session.wait_until_complete()
        assert await history(session) == [("user", "hi"), ("assistant", "one ")]


@pytest.mark.parametrize("who", ["hook", "node", "background"])
async def test_hooks_and_nodes_may_stop_the_session(
    who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tertulia.live.hooks.CLOSING", 0.05)

    class Stopping(Node):
        async def process_event(self, event: LiveEvent) -> None:
            await self.session.stop()

    class Beside(BackgroundNode):
        async def process_event(self, event: LiveEvent) -> None:
            await self.session.stop()

    node = {"hook": Recorder, "node": Stopping, "background": Beside}[who]()
    async with live(node, ends_in=1) as (session, _):
        if who == "hook":

            @session.on_event("test.tick")
            async def stop(session: AgentSession, event: Tick) -> None:
                await session.stop()

        await session.receive(Tick())
        async with asyncio.timeout(1):
            await session.wait_until_complete()
        assert session.reason == "stopped"


async def test_what_is_said_after_the_end_leaves_no_task() -> None:
    async with Runtime("memory:") as runtime, live(Recorder(), runtime=runtime) as (session, _):
        session.add_event_handler("*", nothing)
        await session.stop()
        await session.speak("too late")
        await eventually(lambda: not session.sink._busy)
        left = [task for task in asyncio.all_tasks() if "Hook._work" in repr(task)]
        for task in left:
            task.cancel()
        assert not left


def nothing(session: AgentSession, event: LiveEvent) -> None:
    """A hook that does nothing."""


# -- the setup handler, as the server runs it


async def hub_and_client(setup: Any, **settings: Any) -> tuple[Runtime, Hub, AgentSession, Client]:
    runtime = Runtime("memory:")
    hub = Hub(setup, Settings(**settings))
    link = links.Link()
    session = await hub.enter(runtime, SystemInit(session_id="s"), link)
    client = Client(session)
    client.link = link
    client.read()
    return runtime, hub, session, client


async def test_code_after_wait_until_complete_runs_and_then_nothing_is_held() -> None:
    after: list[str] = []

    async def setup(session: AgentSession) -> None:
        session.add_node(Recorder())
        await session.start()
        await session.wait_until_complete()
        after.append(session.reason or "")

    runtime, hub, session, client = await hub_and_client(setup)
    await client.until(LiveEvent)
    assert (hub.active, hub.held) == (1, 1)
    client.lose()
    assert (hub.active, hub.held) == (0, 1)
    session.finish("over")
    await eventually(lambda: hub.held == 0)
    assert after == ["over"]
    await runtime.close()


async def test_a_setup_that_returns_early_does_not_end_the_session() -> None:
    async def setup(session: AgentSession) -> None:
        session.add_node(Says("still here"))
        await session.start()

    runtime, hub, session, client = await hub_and_client(setup)
    await client.says("hi")
    assert (await client.until(ResponseEnd)).seq is not None
    assert client.text() == "still here"
    client.lose(for_good=True)
    await session.wait_until_complete()
    await eventually(lambda: hub.held == 0)
    await runtime.close()


@pytest.mark.parametrize("when", ["before", "after", "never"])
async def test_a_setup_that_fails_is_told_and_closes_the_connection(when: str) -> None:
    async def setup(session: AgentSession) -> None:
        session.add_node(Recorder())
        if when == "before":
            raise ValueError("{no} line")
        if when == "after":
            await session.start()
            raise ValueError("{no} line")

    runtime, hub, _, client = await hub_and_client(setup)
    told = await client.until(AgentErrorEvent)
    assert told.severity == "fatal"
    assert ("start()" if when == "never" else "{no} line") in told.message
    await eventually(lambda: hub.held == 0)
    assert client.link.closed == (links.FAILED, "the session could not be set up")
    assert hub.counts.failed_setups == 1
    await runtime.close()


async def test_a_session_that_is_over_can_be_had_again_under_its_id() -> None:
    async def setup(session: AgentSession) -> None:
        session.add_node(Says("one"))
        await session.start()
        await session.wait_until_complete()

    runtime, hub, session, client = await hub_and_client(setup)
    await client.says("hi")
    await client.until(ResponseEnd)
    client.lose(for_good=True)
    again = await hub.enter(runtime, SystemInit(session_id="s", after=0), links.Link())
    assert again is not session
    assert again.resumed
    assert session.complete
    back = Client(again)
    back.link = again.presence.link  # pyright: ignore[reportAttributeAccessIssue]
    back.read()
    await back.until(ResponseEnd)
    assert back.text() == "one"
    again.finish("over")
    await eventually(lambda: hub.held == 0)
    await runtime.close()


CHECKS = "the way in which a setup handler is checked gets out of Hub.check"


@pytest.mark.parametrize(
    "kind",
    [
        "plain",
        "try",
        "group",
    ],
)
async def test_a_setup_is_checked_without_a_client_however_it_is_written(kind: str) -> None:
    async def setup(session: AgentSession) -> None:
        session.add_node(Recorder("only"))
        if kind == "group":
            async with asyncio.TaskGroup():
                await session.start()
        elif kind == "try":
            try:
                await session.start()
            except Exception:
                pytest.fail("a check is no exception of the user's")
        else:
            await session.start()

    hub = Hub(setup, Settings())
    await hub.check()
    assert hub.not_ready is None
    assert hub.graph["nodes"] == [{"name": "only", "kind": "Recorder"}]
    assert hub.held == 0


@pytest.mark.parametrize("kind", ["raises", "empty", "cycle", "no start", "sync"])
async def test_a_setup_that_cannot_be_is_found_when_it_is_checked(kind: str) -> None:
    async def setup(session: AgentSession) -> None:
        node = Recorder()
        if kind == "raises":
            raise KeyError("API_KEY")
        if kind != "empty":
            session.add_node(node)
        if kind == "cycle":
            session.add_edge(node, node)
        if kind != "no start":
            await session.start()

    def sync(session: AgentSession) -> None:
        session.add_node(Recorder())

    hub = Hub(sync if kind == "sync" else setup, Settings())
    await hub.check()
    assert hub.not_ready is not None
    says = {
        "raises": "API_KEY",
        "empty": "empty",
        "cycle": "cycles",
        "no start": "start()",
        "sync": "async def",
    }
    assert says[kind] in hub.not_ready


async def test_two_hundred_sessions_leave_no_task_and_no_object() -> None:
    async def setup(session: AgentSession) -> None:
        session.add_node(Recorder())
        session.add_node(Says("one ", "two"))
        session.add_event_handler("*", nothing)
        await session.start()
        await session.wait_until_complete()

    runtime, hub = Runtime("memory:"), Hub(setup, Settings())
    before = asyncio.all_tasks()
    session = client = link = None
    for number in range(200):
        link = links.Link()
        session = await hub.enter(runtime, SystemInit(session_id=f"s{number}"), link)
        client = Client(session)
        client.link = link
        client.read()
        await client.says("hi")
        await client.until(ResponseStart)
        session.context["a"] = number
        if number % 2:
            await session.send_event(Card(title="x"))
            await client.until(ResponseEnd)
            client.lose(for_good=True)
        else:
            client.lose()
            session.finish("over")
        await session.wait_until_complete()
    await eventually(lambda: hub.held == 0)
    session = client = link = None
    await eventually(lambda: not asyncio.all_tasks() - before)
    gc.collect()
    left = [each for each in gc.get_objects() if isinstance(each, AgentSession)]
    assert len(left) <= 1
    assert not hub._setups
    assert not hub._opening
    await runtime.close()


async def test_of_what_was_said_just_before_the_end_nothing_is_lost() -> None:
    for number in range(20):
        async with live(Recorder()) as (session, _):
            await session.receive(TranscriptUpdate(role="user", content="last word"))
            await session.speak("mine too")
            for _ in range(number):
                await asyncio.sleep(0)
            session.finish("over")
            await session.wait_until_complete()
            said = sorted(await history(session))
            assert ("assistant", "mine too") in said
