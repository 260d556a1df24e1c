"""Whoever is cut off after any frame of a conversation gets every answer exactly once."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.live.serving import Wire, serving
from tests.live.talking import Client, Merged, eventually, live, settled

from tertulia import Agent, Runtime
from tertulia.agents.protocol import Finished, ModelEvent, ModelRequest, TextDelta, UsageReport
from tertulia.live import AgentNode, AgentSession, BackgroundNode, Node
from tertulia.server import AgentApp
from tertulia.wire.events import (
    AgentLog,
    AgentReady,
    LiveEvent,
    LLMRequest,
    ResponseEnd,
    TranscriptUpdate,
)

QUESTIONS = ("first", "second")
ANSWERS = ["You said first.", "You said second."]
LATE = range(0, 46, 2)
FRAMES = 13
"""agent.ready; of each question a log, the start, three pieces and the end."""


class Echoing:
    """A model that answers without any delay."""

    name = "echoing"

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Three pieces that name the question."""
        for piece in ("You ", "said ", f"{request.messages[-1].text}."):
            yield TextDelta(piece)
        yield UsageReport(1, 1)
        yield Finished("stop")


class Counts(BackgroundNode):
    """Notes each line of the user, in an event that is kept; late by so many passes of the loop,
    so that it comes before the turn, in it, or between its end and that of the answer."""

    def __init__(self, late: int = 0) -> None:
        super().__init__()
        self.late = late

    async def process_event(self, event: LiveEvent) -> None:
        if isinstance(event, TranscriptUpdate):
            for _ in range(self.late):
                await asyncio.sleep(0)
            await self.session.send_event(AgentLog(name=event.content))


class Filter(Node):
    """Lets everything through."""


def nodes(late: int = 0) -> tuple[Node, ...]:
    """What answers."""
    return Counts(late), Filter(), AgentNode(Agent("a", model=Echoing()))


async def setup(session: AgentSession) -> None:
    """The same, as a setup handler."""
    counts, lets, answers = nodes()
    for node in (counts, lets, answers):
        session.add_node(node)
    session.add_edge(counts, lets)
    session.add_edge(lets, answers)
    await session.start()
    await session.wait_until_complete()


class Guest:
    """Asks its two questions once each, over all its connections, and merges what it got."""

    def __init__(self) -> None:
        self.merged = Merged()
        self.asked = 0

    def next_question(self, seen: Merged | None = None) -> str | None:
        """What it says now, if it has something to say: the second after the first answer."""
        answered = len((seen or self.merged).ended)
        if self.asked < len(QUESTIONS) and self.asked == answered:
            self.asked += 1
            return QUESTIONS[self.asked - 1]
        return None

    @property
    def done(self) -> bool:
        """Whether it has all that it waits for."""
        return len(self.merged.ended) == len(self.notes) == len(QUESTIONS)

    @property
    def notes(self) -> list[str]:
        """What it got that was noted."""
        return [event.name for event in self.merged.others if isinstance(event, AgentLog)]

    def check(self) -> None:
        """It got everything once."""
        assert list(self.merged.ended.values()) == ANSWERS
        assert self.notes == list(QUESTIONS)
        assert not self.merged.texts


async def took(guest: Guest, client: Client, frames: int, *, calmly: bool) -> None:
    """Take so many frames of a connection, asking as the answers come, and lose it.

    `calmly` is a client so slow that everything was sent when it takes the next frame.
    """
    session, number = client.session, 0
    while number < frames and not guest.done:
        question = guest.next_question()
        if question is not None:
            await session.receive(TranscriptUpdate(role="user", content=question))
            await session.receive(LLMRequest())
        if calmly:
            await settled(session)
        await eventually(lambda: len(client.link))
        guest.merged.take(client.take(1), first=number == 0)
        number += 1


@pytest.mark.parametrize("late", LATE)
@pytest.mark.parametrize("calmly", [False, True])
async def test_a_cut_after_any_frame_leaves_every_answer_once(late: int, calmly: bool) -> None:
    for cut in range(1, FRAMES + 1):
        guest = Guest()
        async with live(*nodes(late), reading=False) as (session, first):
            await took(guest, first, cut, calmly=calmly)
            first.lose()
            back = await Client(session).attach(guest.merged.after, again=True)
            await took(guest, back, 1_000, calmly=calmly)
            guest.check()


@pytest.mark.parametrize("calmly", [False, True])
@pytest.mark.parametrize("cut", range(1, FRAMES + 1))
async def test_two_cuts_after_any_frames_leave_every_answer_once(cut: int, calmly: bool) -> None:
    for again in range(1, FRAMES + 1):
        guest = Guest()
        async with live(*nodes(), reading=False) as (session, first):
            client = first
            for frames in (cut, again, 1_000):
                await took(guest, client, frames, calmly=calmly)
                client.lose()
                client = Client(session)
                await client.attach(guest.merged.after, again=True)
            guest.check()
            await settled(session)
            client.take()
            assert client.types == ["agent.ready"]


@pytest.mark.parametrize("calmly", [False, True])
@pytest.mark.parametrize("cut", range(1, FRAMES + 1))
async def test_a_cut_after_any_frame_of_a_websocket_leaves_every_answer_once(
    cut: int, calmly: bool
) -> None:
    guest = Guest()
    async with serving(AgentApp(setup, store="memory:")) as server:
        for frames in (cut, 1_000):
            async with server.connected() as wire:
                await converse(guest, wire, frames)
                if frames == cut and calmly:
                    await settled(server.session("s"))
                wire.abort()
            await server.left("s")
        guest.check()


async def converse(guest: Guest, wire: Wire, frames: int) -> None:
    """Take so many frames of a connection, asking as the answers come."""
    merged = guest.merged
    ready = await wire.init("s", after=merged.after)
    assert merged.after is None or ready.seq == merged.after
    merged.take([ready])
    for _ in range(frames - 1):
        question = guest.next_question()
        if question is not None:
            await wire.says(question)
        if guest.done:
            return
        merged.take([await wire.next()], first=False)


DYING = """
import asyncio, os
from tertulia import Agent, Runtime
from tertulia.live import AgentNode, AgentSession, Node
from tertulia.live.link import Link
from tertulia.testing import ScriptedModel
from tertulia.wire.events import LLMRequest, ResponseEnd, TranscriptUpdate

class Dies(Node):
    async def process_event(self, event):
        if isinstance(event, ResponseEnd):
            os._exit(9)
        await self.send_event(event)

async def main():
    session = AgentSession(Runtime(os.environ["STORE"]).session("s"))
    await session.open()
    await session.attach(Link())
    answers, dies = AgentNode(Agent("a", model=ScriptedModel(["one ", "two"]))), Dies()
    session.add_node(answers)
    session.add_node(dies)
    session.add_edge(answers, dies)
    await session.start()
    await session.receive(TranscriptUpdate(role="user", content="hi", id="u1"))
    await session.receive(LLMRequest(id="q1"))
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("after", [None, 0])
async def test_an_answer_has_its_end_where_the_process_died_before_it_was_told(
    tmp_path: Path, after: int | None
) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    died = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", DYING],
        env={**os.environ, "STORE": url},
        capture_output=True,
        timeout=50,
    )
    assert died.returncode == 9, died.stderr.decode()
    async with Runtime(url) as runtime:
        told = await runtime.session("s").events()
        ended = next(event for event in told if event.type == "turn.completed")
        assert not [event for event in told if event.seq > ended.seq]
        for _ in range(2):
            async with live(*nodes(), runtime=runtime) as (session, client):
                client.lose()
                seen = told[1].seq if after is None else after
                back = (await Client(session).attach(seen, again=True)).read()
                end = await back.until(ResponseEnd)
                await settled(session)
                assert back.text() == "one two"
                assert (end.interrupted, end.discarded, len(back.of(ResponseEnd))) == (
                    False,
                    False,
                    1,
                )
                assert end.metadata == {"request": "q1"}
                assert (end.seq or 0) > ended.seq
                assert isinstance(back.got[0], AgentReady)
                later = await Client(session).attach(end.seq, again=True)
                later.take()
                assert later.types == ["agent.ready"]
