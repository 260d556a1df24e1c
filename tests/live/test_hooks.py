"""Hooks look at events beside the flow: each once, in order, and never in its way."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from tests.live.talking import Card, Recorder, Says, Tick, eventually, live, settled

from tertulia.errors import InvalidInput
from tertulia.live import AgentSession
from tertulia.live.hooks import Hook
from tertulia.live.inbox import Inbox
from tertulia.wire.events import (
    AgentErrorEvent,
    AgentLog,
    LiveEvent,
    LLMRequest,
    ResponseEnd,
    TranscriptUpdate,
    UserInterrupt,
    UserJoined,
)


class Seen:
    """Notes which hook got which event."""

    def __init__(self) -> None:
        self.events: list[tuple[str, LiveEvent]] = []

    def on(self, session: AgentSession, name: str) -> None:
        """Register a hook that notes."""
        session.add_event_handler(name, lambda _, event: self.events.append((name, event)))

    def of(self, name: str) -> list[str]:
        """The types that a hook got."""
        return [event.type for hook, event in self.events if hook == name]


@pytest.mark.parametrize("late", [False, True])
async def test_each_name_gets_its_events_in_both_directions_once(late: bool) -> None:
    seen = Seen()
    names = (
        *("agent.speak", "agent.*", "system.*", "*", "on_event_received"),
        *("system.user_joined", "system.user.joined", "agent.end_call", "test.card"),
    )

    def register(session: AgentSession) -> None:
        for name in names:
            seen.on(session, name)

    build = None if late else register
    async with live(Recorder(), Recorder(), build=build) as (session, _):
        if late:
            register(session)
        await session.receive(UserJoined())
        await session.receive(TranscriptUpdate(role="user", content="hi"))
        await session.receive(UserInterrupt())
        await session.receive(Card(title="in"))
        await settled(session)
        await session.speak("hello")
        await session.send_event(Card(title="out"))
        await settled(session)
    told = ["system.user.joined", "agent.transcript.update", "system.control.interrupt"]
    ready = [] if late else ["agent.ready"]
    assert sorted(seen.of("on_event_received")) == sorted([*told, "test.card"])
    assert sorted(seen.of("*")) == sorted([*ready, *told, "test.card", "agent.speak", "test.card"])
    assert seen.of("agent.speak") == ["agent.speak"]
    assert seen.of("agent.*") == [*ready, "agent.transcript.update", "agent.speak"]
    assert sorted(seen.of("system.*")) == ["system.control.interrupt", "system.user.joined"]
    assert seen.of("system.user_joined") == seen.of("system.user.joined") == ["system.user.joined"]
    assert seen.of("agent.end_call") == []
    assert len(seen.of("test.card")) == 2


async def test_an_event_that_a_hook_sees_says_where_it_belongs() -> None:
    seen = Seen()
    async with live(Says("one ", "two")) as (session, client):
        seen.on(session, "*")
        await client.says("hi")
        await client.until(ResponseEnd)
        await settled(session)
        await session.send_event(AgentLog(name="n"))
        await settled(session)
    for _, event in seen.events:
        assert event.session_id == "s"
        assert event.id
        assert event.timestamp
        assert event.direction in ("in", "out")
        partial = event.type in (
            "system.llm.request",
            "agent.llm.response.start",
            "agent.llm.response.chunk",
        )
        assert (event.seq is None) == partial, event
    seqs = [event.seq for _, event in seen.events if event.seq is not None]
    assert seqs == sorted(seqs)


async def test_a_hook_gets_its_events_one_at_a_time_in_order_sync_or_async() -> None:
    got: list[tuple[str, int]] = []
    running: list[int] = []
    async with live(Recorder()) as (session, _):

        @session.on_event("test.tick")
        async def slow(_session: AgentSession, event: Tick) -> None:
            running.append(event.number)
            await asyncio.sleep(0)
            assert running.pop() == event.number
            assert not running
            got.append(("slow", event.number))

        @session.on_event("test.tick")
        def quick(_session: AgentSession, event: Tick) -> None:
            got.append(("quick", event.number))

        for number in range(200):
            await session.receive(Tick(number=number))
        await settled(session)
    for name in ("slow", "quick"):
        assert [number for hook, number in got if hook == name] == list(range(200))


async def test_a_hook_that_hangs_delays_nobody_and_its_events_wait_for_it() -> None:
    go, got = asyncio.Event(), list[int]()
    last = Recorder()
    async with live(last) as (session, client):

        @session.on_event("test.tick")
        async def hanging(_session: AgentSession, event: Tick) -> None:
            await go.wait()
            got.append(event.number)

        for number in range(100):
            await session.receive(Tick(number=number))
            await session.send_event(Card(title=str(number)))
        await client.until(Card, 100)
        await eventually(lambda: len(last.of(Tick)) == 100)
        assert not got
        go.set()
        await eventually(lambda: got == list(range(100)))


async def test_a_hook_behind_by_more_than_its_inbox_misses_events_and_it_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    go, last, seen = asyncio.Event(), Recorder(), Seen()
    async with live(last) as (session, _):

        @session.on_event("test.tick")
        async def hanging(_session: AgentSession, event: Tick) -> None:
            await go.wait()
            seen.events.append(("hanging", event))

        session._hooks._hooks[0]._inbox = Inbox(10)
        for number in range(100):
            await session.receive(Tick(number=number))
            await eventually(lambda n=number: len(last.of(Tick)) == n + 1)
        assert caplog.text.count("takes too long") == 1
        go.set()
        await settled(session)
        await session.receive(Tick(number=100))
        await settled(session)
        numbers = [event.number for _, event in seen.events if isinstance(event, Tick)]
        assert numbers == [*range(11), 100]


async def test_a_hook_that_raises_is_reported_and_every_other_goes_on() -> None:
    seen, last = Seen(), Recorder()
    async with live(last) as (session, client):

        @session.on_event("test.tick")
        async def wrong(_session: AgentSession, event: Tick) -> None:
            seen.events.append(("wrong", event))
            raise ValueError("{braces} %s")

        seen.on(session, "test.tick")
        await session.receive(Tick(number=1))
        await session.receive(Tick(number=2))
        await client.until(AgentErrorEvent, 2)
        await settled(session)
        told = client.of(AgentErrorEvent)
        assert len(told) == 2
        assert told[0].message == "ValueError in the hook 'test.tick': {braces} %s"
        assert told[0].severity == "warning"
        assert len(seen.of("wrong")) == len(seen.of("test.tick")) == len(last.of(Tick)) == 2
        assert not session.complete


@pytest.mark.parametrize("name", ["agent.error", "*", "agent.*"])
async def test_a_hook_that_raises_at_errors_too_makes_no_loop(name: str) -> None:
    calls: list[str] = []
    async with live(Recorder()) as (session, client):

        @session.on_event(name)
        def wrong(_session: AgentSession, event: LiveEvent) -> None:
            calls.append(event.type)
            raise ValueError(event.type)

        await session.send_event(Card(title="x"))
        await session.report("something")
        await settled(session)
        expected = {"agent.error": 1, "agent.*": 1, "*": 2}[name]
        assert len(client.of(AgentErrorEvent)) == expected
        assert calls.count("agent.error") == expected


async def test_a_hook_whose_own_task_was_cancelled_goes_on() -> None:
    got: list[int] = []
    async with live(Recorder()) as (session, _), asyncio.timeout(2):

        @session.on_event("test.tick")
        async def cancelled(_session: AgentSession, event: Tick) -> None:
            got.append(event.number)
            task = asyncio.create_task(asyncio.Event().wait())
            task.cancel()
            await task

        await session.receive(Tick(number=1))
        await session.receive(Tick(number=2))
        await eventually(lambda: got == [1, 2])


async def test_a_hook_may_speak_and_send_and_answer_a_request() -> None:
    async with live(Recorder()) as (session, client):

        @session.on_event("system.llm.request")
        async def answer(session: AgentSession, event: LLMRequest) -> None:
            session.context["asked"] = event.id
            await session.speak("from the hook")
            await session.send_event(Card(title="hook"))

        await session.receive(LLMRequest())
        await client.until(Card)
        assert client.types == ["agent.ready", "agent.speak", "test.card"]
        assert session.context["asked"]
        texts = [message.text for message in await session.conversation.history()]
        assert texts == ["from the hook"]


async def test_a_hook_that_hangs_does_not_keep_the_session_from_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tertulia.live.hooks.CLOSING", 0.05)
    cancelled: list[bool] = []
    async with live(Recorder()) as (session, _):

        @session.on_event("test.tick")
        async def hanging(_session: AgentSession, event: Tick) -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(True)
                raise

        await session.receive(Tick())
        await settled_but_for_hooks(session)
    assert cancelled == [True]


async def settled_but_for_hooks(session: AgentSession) -> None:
    hook: Any = session._hooks._hooks[0]
    await eventually(lambda: hook._busy)


async def test_hooks_finish_what_they_were_given_before_the_end() -> None:
    got: list[str] = []
    async with live(Recorder()) as (session, _):

        @session.on_event("test.card")
        async def slow(_session: AgentSession, event: Card) -> None:
            await asyncio.sleep(0)
            got.append(event.title)

        for number in range(50):
            await session.send_event(Card(title=str(number)))
    assert got == [str(number) for number in range(50)]


async def test_an_unknown_name_is_allowed_and_warned_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "tertulia.live")
    async with live(Recorder()) as (session, _):
        names = (*["agent.speek"] * 3, "agent.speak", "nobody.*", "system.user_joined", "*")
        for name in names:
            Seen().on(session, name)
    assert [record.getMessage() for record in caplog.records] == [
        "on_event('agent.speek'): no event of this type is known yet; did you mean 'agent.speak'?"
    ]


@pytest.mark.parametrize(("name", "fn"), [("", print), (None, print), (7, print), ("*", "no")])
async def test_what_is_no_hook_is_refused(name: Any, fn: Any) -> None:
    async with live(Recorder()) as (session, _):
        with pytest.raises(InvalidInput):
            session.add_event_handler(name, fn)
        with pytest.raises(InvalidInput):
            session.on_event(name)(fn)


@pytest.mark.parametrize(
    ("name", "kind", "direction", "wants"),
    [
        ("agent.*", "agentx.y", "out", False),
        ("agent.*", "agent.speak", "in", True),
        ("on_event_received", "agent.speak", "out", False),
        ("on_event_received", "test.tick", "in", True),
        ("test.*", "test.tick", "out", True),
        ("*", "test.tick", "out", True),
        ("test.tick", "test.card", "out", False),
    ],
)
def test_a_name_wants_its_events(name: str, kind: str, direction: str, wants: bool) -> None:
    class Made:
        type = kind

    made: Any = Made()
    made.direction = direction
    assert Hook(name, print).wants(made) is wants
