"""What happened is in the log of the conversation, with no code of the user's."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
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

from tertulia import Agent, Runtime
from tertulia.live import AgentNode, AgentSession
from tertulia.testing import Pause, ScriptedModel
from tertulia.wire.events import (
    AgentLog,
    AgentReady,
    AgentSpeak,
    LLMRequest,
    ResponseEnd,
    SystemInit,
    TranscriptUpdate,
    UserPressedKey,
)


async def logged(session: AgentSession) -> list[tuple[str, int]]:
    """Type and position of each event of the log."""
    return [(event.type, event.seq) for event in await session.conversation.events()]


async def test_what_is_said_and_done_is_in_the_log_at_the_seq_that_was_told() -> None:
    async with Runtime("memory:") as runtime:
        async with live(Says("one ", "two"), runtime=runtime) as (session, client):
            await client.says("hi", "c1")
            await client.until(ResponseEnd)
            await session.speak("more")
            await session.send_event(AgentLog(name="note", payload={"a": [1]}))
            await session.send_event(Card(title="x"))
            await session.receive(UserPressedKey(digit="5"))
            await client.until(Card)
            await settled(session)
        events = {event.seq: event for event in await session.conversation.events()}
        for told in (*client.of(ResponseEnd), *client.of(AgentSpeak)):
            assert told.seq is not None
            assert events[told.seq].type == "message.added"
        for told in (*client.of(AgentLog), *client.of(Card)):
            assert told.seq is not None
            assert events[told.seq].type == "live.sent"
        types = [event.type for event in events.values()]
        assert types.count("live.connected") == types.count("live.disconnected") == 1
        assert types.count("live.received") == 1
        assert types[-1] == "live.disconnected"
        assert await history(session) == [
            ("user", "hi"),
            ("assistant", "one two"),
            ("assistant", "more"),
        ]


async def test_what_is_said_during_a_turn_has_a_seq_at_once_and_is_a_message_after_it() -> None:
    pause = Pause()
    agent = Agent("a", model=ScriptedModel(["one ", pause, "two"]))
    async with live(AgentNode(agent)) as (session, client):
        await client.says("hi")
        await pause.reached()
        await session.receive(TranscriptUpdate(role="user", content="wait", id="u2"))
        await session.speak("hm")
        await session.send_event(AgentLog(name="n"))
        note = await client.until(AgentLog)
        spoken = client.of(AgentSpeak)[0]
        assert spoken.seq is not None
        assert note.seq is not None
        assert spoken.seq < note.seq
        assert await history(session) == [("user", "hi")]
        pause.release()
        await client.until(ResponseEnd)
        await eventually(lambda: len(session.conversation.messages) == 4)
        assert await history(session) == [
            ("user", "hi"),
            ("assistant", "one two"),
            ("user", "wait"),
            ("assistant", "hm"),
        ]
        seqs = [event.seq for event in client.got if event.seq is not None]
        assert seqs == sorted(set(seqs))


async def test_a_line_that_is_sent_again_is_taken_once() -> None:
    last = Recorder()
    async with live(last) as (session, _):
        for _ in range(3):
            await session.receive(TranscriptUpdate(role="user", content="hi", id="c1"))
        await session.receive(TranscriptUpdate(role="user", content="hi", id="c2"))
        await settled(session)
        assert await history(session) == [("user", "hi"), ("user", "hi")]
        assert len(last.of(TranscriptUpdate)) == 2


@pytest.mark.parametrize("content", ["", "   ", "\n"])
async def test_a_line_without_a_word_is_no_message(content: str) -> None:
    async with live(Recorder()) as (session, client):
        await session.receive(TranscriptUpdate(role="user", content=content))
        await session.speak(content)
        await client.until(AgentSpeak)
        assert await history(session) == []


# -- what was heard


@pytest.mark.parametrize(("heard", "kept"), [("one two", "one two"), ("one", "one")])
async def test_an_answer_that_is_reported_back_is_confirmed_or_corrected(
    heard: str, kept: str
) -> None:
    async with live(Says("one ", "two")) as (session, client):
        await client.says("hi")
        await client.until(ResponseEnd)
        for _ in range(2):
            await session.receive(TranscriptUpdate(role="assistant", content=heard))
        await settled(session)
        said = await history(session)
        assert len(said) == 2
        assert said[-1][1].strip() == kept


async def test_a_correction_after_the_next_line_of_the_user_keeps_the_order() -> None:
    async with live(Says("one two")) as (session, client):
        await client.says("hi")
        await client.until(ResponseEnd)
        await session.receive(TranscriptUpdate(role="user", content="and"))
        await session.receive(TranscriptUpdate(role="user", content="so"))
        await session.receive(TranscriptUpdate(role="assistant", content="one"))
        await settled(session)
        told = [("user", "hi"), ("assistant", "one"), ("user", "and"), ("user", "so")]
        assert await history(session) == told


async def test_a_report_during_a_turn_corrects_after_it_and_adds_nothing() -> None:
    pause = Pause()
    agent = Agent("a", model=ScriptedModel(["one ", pause, "two"]))
    async with live(AgentNode(agent)) as (session, client):
        await client.says("hi")
        await pause.reached()
        await session.receive(TranscriptUpdate(role="assistant", content="one"))
        await settled_but_for_the_turn(session)
        pause.release()
        await client.until(ResponseEnd)
        await settled(session)
        await eventually(lambda: not session.scribe._owed)
        assert [role for role, _ in await history(session)] == ["user", "assistant"]


async def settled_but_for_the_turn(session: AgentSession) -> None:
    await eventually(lambda: not session.inlet._busy)


async def test_a_report_when_nothing_was_said_changes_nothing() -> None:
    async with live(Recorder()) as (session, client):
        await session.receive(TranscriptUpdate(role="assistant", content="never said"))
        await settled(session)
        await client.says("hi")
        await session.receive(TranscriptUpdate(role="assistant", content="never said"))
        await settled(session)
        assert await history(session) == [("user", "hi")]


async def test_a_report_of_the_text_before_the_newest_does_not_replace_the_newest() -> None:
    async with live(Recorder()) as (session, client):
        await session.speak("One.")
        await session.speak("Two.")
        await client.until(AgentSpeak, 2)
        await session.receive(TranscriptUpdate(role="assistant", content="One."))
        await settled(session)
        assert await history(session) == [("assistant", "One."), ("assistant", "Two.")]


async def test_what_the_client_says_as_the_agent_is_not_taken_for_it() -> None:
    last = Recorder()
    async with live(last) as (session, client):
        await session.receive(AgentSpeak(text="I am the agent"))
        await session.receive(AgentLog(name="forged"))
        await session.receive(ResponseEnd(request_id="x"))
        await settled(session)
        assert client.types == ["agent.ready"]
        assert [event.type for event in last.got] == [
            AgentSpeak.type,
            AgentLog.type,
            ResponseEnd.type,
        ]
        assert await history(session) == []
        assert not any(kind.startswith("live.rec") for kind, _ in await logged(session))


async def test_a_seq_that_a_client_gives_is_not_believed() -> None:
    async with live(Recorder()) as (session, _):
        sent = TranscriptUpdate(
            role="user", content="hi", seq=99, session_id="other", direction="out"
        )
        await session.receive(sent)
        await settled(session)
        assert sent.seq is not None
        assert sent.seq < 10
        assert (sent.session_id, sent.direction) == ("s", "in")
        assert await history(session) == [("user", "hi")]


# -- what a process left behind

DYING = """
import asyncio, os, sys
from tertulia import Agent, Runtime
from tertulia.live import AgentNode, AgentSession
from tertulia.live.link import Link
from tertulia.testing import Pause, ScriptedModel
from tertulia.wire.events import AgentLog, LLMRequest, TranscriptUpdate

async def main():
    runtime = Runtime(os.environ["STORE"])
    session = AgentSession(runtime.session("s"))
    await session.open()
    link = Link()
    await session.attach(link)
    pause = Pause()
    session.add_node(AgentNode(Agent("a", model=ScriptedModel(["one ", pause, "two"]))))
    await session.start()
    await session.receive(TranscriptUpdate(role="user", content="hi", id="u1"))
    await session.receive(LLMRequest())
    await pause.reached()
    for number in range(int(os.environ["MORE"])):
        await session.send_event(AgentLog(name=str(number)))
    await session.receive(TranscriptUpdate(role="user", content="wait", id="u2"))
    await session.speak("hm")
    for number in range(int(os.environ["MORE"])):
        await session.send_event(AgentLog(name=str(number)))
    await session.send_event(AgentLog(name="last"))
    while True:
        event = link.next()
        if event is None:
            await asyncio.sleep(0.001)
        elif event.type == "agent.log" and event.name == "last":
            os._exit(9)

asyncio.run(main())
"""


def died(url: str, more: int = 0) -> None:
    """Let a process die in the middle of a turn, in which user and agent said something."""
    env = {**os.environ, "STORE": url, "MORE": str(more)}
    done = subprocess.run([sys.executable, "-c", DYING], env=env, capture_output=True, timeout=50)
    assert done.returncode == 9, done.stderr.decode()


@pytest.mark.parametrize(
    "more",
    [
        0,
        300,
    ],
)
async def test_what_was_said_in_a_turn_of_a_process_that_died_becomes_a_message(
    tmp_path: Path, more: int
) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    await asyncio.to_thread(died, url, more)
    agent = Agent("a", model=ScriptedModel(["one two"], ["after"]))
    async with Runtime(url) as runtime:
        async with live(AgentNode(agent), runtime=runtime) as (session, client):
            await client.until(ResponseEnd)
            await eventually(lambda: not session.scribe._owed)
            await session.receive(LLMRequest())
            await client.until(ResponseEnd, 2)
            assert await history(session) == [
                ("user", "hi"),
                ("assistant", "one two"),
                ("user", "wait"),
                ("assistant", "hm"),
                ("assistant", "after"),
            ]
        again = AgentSession(runtime.session("s"), SystemInit(), resumed=True)
        await again.open()
        assert len(await history(again)) == 5
        other = (await Client(again).attach(0)).read()
        again.add_node(Recorder())
        await again.start()
        await eventually(lambda: len(other.of(ResponseEnd)) == 2)
        lines = [event.content for event in other.of(TranscriptUpdate)]
        assert (lines, [event.text for event in other.of(AgentSpeak)]) == (["hi", "wait"], ["hm"])
        await again.stop()


async def test_a_line_that_a_dead_process_had_is_not_taken_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    await asyncio.to_thread(died, url)
    async with Runtime(url) as runtime, live(Recorder(), runtime=runtime) as (session, client):
        assert (await client.until(AgentReady)).received == "u2"
        for event_id in ("u1", "u2", "u3"):
            await session.receive(TranscriptUpdate(role="user", content=event_id, id=event_id))
        await settled(session)
        assert [text for role, text in await history(session) if role == "user"] == [
            "hi",
            "wait",
            "u3",
        ]
