"""A client that is lost and comes back gets everything once, wherever it was cut off."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.live.talking import (
    Card,
    Client,
    Gate,
    Merged,
    Recorder,
    Says,
    eventually,
    history,
    live,
    settled,
)

from tertulia import Agent, Runtime
from tertulia.agents.protocol import Finished, ModelEvent, ModelRequest, TextDelta, UsageReport
from tertulia.live import AgentNode, AgentSession, Node, OutputNode
from tertulia.live import link as links
from tertulia.testing import Pause, ScriptedModel
from tertulia.wire.events import (
    AgentErrorEvent,
    AgentLog,
    AgentReady,
    AgentSpeak,
    LiveEvent,
    LLMRequest,
    ResponseChunk,
    ResponseEnd,
    ResponseStart,
    SystemInit,
    TranscriptUpdate,
)


class Counts(OutputNode):
    """Answers with numbered words, with a chance for others between them."""

    async def generate_response(self) -> AsyncIterator[str]:
        for number in range(30):
            await asyncio.sleep(0)
            yield f"w{number} "


class CountingModel:
    """The same, as a model."""

    name = "counting"

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """The words."""
        for number in range(30):
            await asyncio.sleep(0)
            yield TextDelta(f"w{number} ")
        yield UsageReport(1, 1)
        yield Finished("stop")


WHOLE = "".join(f"w{number} " for number in range(30))


def answering(kind: str) -> Node:
    return Counts() if kind == "output" else AgentNode(Agent("a", model=CountingModel()))


TWICE = "who comes back a second time before the end has passed gets the answer again"


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(
    "kind",
    ["output", "agent"],
)
@pytest.mark.parametrize("store", ["memory:", "file"])
async def test_cuts_at_any_moments_lose_nothing_and_repeat_nothing(
    kind: str, store: str, seed: int, tmp_path: Path
) -> None:
    chance = random.Random(f"{kind} {store} {seed}")
    url = store if store == "memory:" else f"sqlite:///{tmp_path / 'store.db'}"
    async with (
        Runtime(url) as runtime,
        live(answering(kind), Recorder(), runtime=runtime, reading=False) as (session, first),
    ):
        client, merged = first, Merged()
        talking = asyncio.create_task(_talk(session))
        while not talking.done():
            client.read()
            for _ in range(chance.choice([0, 1, 3, 10, 40, 200])):
                await asyncio.sleep(0)
            client.lose()
            merged.take(client.got)
            for _ in range(chance.choice([0, 0, 5, 50])):
                await asyncio.sleep(0)
            client = await Client(session).attach(merged.after, again=True)
        await talking
        await settled(session)
        client.take()
        merged.take(client.got)
        assert list(merged.ended.values()) == [WHOLE] * 3
        assert not merged.texts
        notes = [event.name for event in merged.others if isinstance(event, AgentLog)]
        assert notes == ["note 0", "note 1", "note 2"]
        texts = [text for role, text in await history(session) if role == "assistant"]
        assert texts == [WHOLE, "spoken 0", WHOLE, "spoken 1", WHOLE, "spoken 2"]
        fresh = await Client(session).attach(0, again=True)
        fresh.take()
        everything = Merged()
        everything.take(fresh.got)
        assert everything.ended == merged.ended
        assert set(merged.seqs) <= set(everything.seqs)


async def _talk(session: AgentSession) -> None:
    """Three questions, a note and a word of the application after each."""
    for number in range(3):
        await session.receive(TranscriptUpdate(role="user", content=f"q{number}"))
        await session.receive(LLMRequest())
        await eventually(lambda n=number: len(_answers(session)) > n)
        await session.send_event(AgentLog(name=f"note {number}"))
        await session.speak(f"spoken {number}")
    await eventually(lambda: len(_answers(session)) == 3)
    await eventually(lambda: not session.answers.running)


def _answers(session: AgentSession) -> list[str]:
    return [message.text for message in session.conversation.messages if message.text == WHOLE]


@pytest.mark.parametrize("kind", ["output", "agent"])
@pytest.mark.parametrize("moment", ["no token", "some text", "all text", "after"])
async def test_the_text_so_far_comes_once_then_the_live_stream(kind: str, moment: str) -> None:
    steps = [asyncio.Event() for _ in range(3)]
    pauses = [Pause() for _ in range(3)]
    node = (
        Says(steps[0], "one ", steps[1], "two", steps[2])
        if kind == "output"
        else AgentNode(
            Agent("a", model=ScriptedModel([pauses[0], "one ", pauses[1], "two", pauses[2]]))
        )
    )

    def go(place: int) -> None:
        steps[place].set()
        pauses[place].release()

    async with live(node) as (session, client):
        await client.says("hi", "u1")
        await client.until(ResponseStart)
        passed = ["no token", "some text", "all text", "after"].index(moment)
        for place in range(passed):
            go(place)
        await eventually(lambda: client.text() == ["", "one ", "one two", "one two"][passed])
        if moment == "after":
            await client.until(ResponseEnd)
        client.lose()
        after = max(event.seq or 0 for event in client.got)
        back = (await Client(session).attach(after, again=True)).read()
        for place in range(3):
            go(place)
        if moment == "after":
            await settled(session)
            assert back.types == ["agent.ready"]
        else:
            ended = await back.until(ResponseEnd)
            assert back.text() == "one two"
            assert back.of(ResponseStart)[0].resumed
            assert ended.request_id == client.of(ResponseStart)[0].request_id
            assert len(back.of(ResponseStart)) == len(back.of(ResponseEnd)) == 1


async def test_an_answer_without_text_that_ended_meanwhile_ends_for_the_client() -> None:
    go = asyncio.Event()
    async with live(Says(go)) as (session, client):
        await client.says("hi")
        begun = await client.until(ResponseStart)
        client.lose()
        go.set()
        await settled(session)
        after = max(event.seq or 0 for event in client.got)
        back = (await Client(session).attach(after, again=True)).read()
        await settled(session)
        assert [event.request_id for event in back.of(ResponseEnd)] == [begun.request_id]


async def test_of_two_that_come_back_at_once_the_newer_wins_and_the_older_is_told() -> None:
    go = asyncio.Event()
    async with live(Says("one ", go, "two")) as (session, client):
        await client.says("hi")
        await client.until(ResponseChunk)
        older, newer = Client(session).read(), Client(session).read()
        await asyncio.gather(older.attach(0, again=True), newer.attach(0, again=True))
        go.set()
        await newer.until(ResponseEnd)
        assert newer.text() == "one two"
        assert len(newer.of(AgentReady)) == 1
        for each in (client, older):
            assert each.link.closed is not None
            assert each.link.closed[0] == links.REPLACED
        session.detach(older.link, "late", for_good=True)
        assert session.connected
        assert not session.ending


async def test_events_that_come_while_a_client_comes_back_come_after_agent_ready() -> None:
    go, last = asyncio.Event(), asyncio.Event()
    async with live(Says("a", go, "b", last, "c")) as (session, client):
        await client.says("hi")
        await client.until(ResponseChunk)
        client.lose()
        back = Client(session).read()
        async with session.scribe._one_at_a_time:  # the log is slow
            coming = asyncio.create_task(back.attach(client.got[-1].seq or 0, again=True))
            await eventually(lambda: session.presence.link is back.link)
            go.set()
            await session.sink.queue_event(ResponseStart(request_id="other"))
        await coming
        last.set()
        await back.until(ResponseEnd)
        assert back.types[0] == "agent.ready"
        assert back.text(back.of(ResponseEnd)[0].request_id) == "abc"


async def test_who_comes_from_beyond_the_end_of_the_log_is_told_and_served() -> None:
    async with live(Recorder()) as (session, client):
        client.lose()
        back = (await Client(session).attach(10_000, again=True)).read()
        told = await back.until(AgentErrorEvent)
        assert told.payload == {"code": "cursor_expired"}
        assert back.got[0].type == "agent.ready"
        assert (back.got[0].seq or 0) <= 10
        await session.send_event(Card(title="x"))
        await back.until(Card)


async def test_a_long_log_is_replayed_whole_and_in_order() -> None:
    async with Runtime("memory:") as runtime:
        async with live(Recorder(), runtime=runtime) as (session, client):
            for number in range(950):
                await session.send_event(AgentLog(name=str(number)))
            await session.speak("done")
            await client.until(AgentSpeak)
        async with live(Recorder(), runtime=runtime) as (session, client):
            back = Client(session).read()
            await back.attach(0, again=True)
            await back.until(AgentSpeak)
            assert [event.name for event in back.of(AgentLog)] == [str(n) for n in range(950)]
            seqs = [event.seq or 0 for event in back.got][1:]
            assert seqs == sorted(set(seqs))
            assert {event.direction for event in back.got} == {"out"}
            assert {event.session_id for event in back.got} == {"s"}


async def test_a_long_log_that_grows_while_it_is_replayed_is_had_once() -> None:
    async with live(Recorder(inbox=5_000)) as (session, client):
        for number in range(500):
            await session.send_event(AgentLog(name=str(number)))
        await client.until(AgentLog, 500)
        client.lose()
        back = Client(session)
        coming = asyncio.create_task(back.attach(0, again=True))
        for number in range(500, 800):
            await session.send_event(AgentLog(name=str(number)))
            back.take(3)
        back.read()
        await coming
        await back.until(AgentLog, 800)
        assert [event.name for event in back.of(AgentLog)] == [str(n) for n in range(800)]


async def test_lines_keep_the_ids_that_the_client_gave_them() -> None:
    async with live(Recorder()) as (session, client):
        await client.says("hi", "c1")
        await settled(session)
        client.lose()
        back = (await Client(session).attach(0, again=True)).read()
        await back.until(TranscriptUpdate)
        assert [(event.id, event.content) for event in back.of(TranscriptUpdate)] == [("c1", "hi")]
        assert back.of(AgentReady)[0].received == "c1"
        assert back.of(AgentReady)[0].resumed


@pytest.mark.parametrize("kind", ["output", "agent"])
async def test_the_stream_of_a_slow_node_is_had_once_after_coming_back(kind: str) -> None:
    gate = Gate()
    async with live(answering(kind), gate) as (session, client):
        await client.says("hi")
        await gate.reached.wait()
        await eventually(lambda: len(gate._inbox) > 20)
        client.lose()
        merged = Merged()
        merged.take(client.got)
        back = (await Client(session).attach(merged.after, again=True)).read()
        gate.opened.set()
        await settled(session)
        merged.take(back.got)
        assert list(merged.ended.values()) == [WHOLE]


class HoldsEnds(Recorder):
    """Keeps the ends of answers back until it is opened."""

    def __init__(self) -> None:
        super().__init__("holds ends")
        self.opened = asyncio.Event()
        self.reached = asyncio.Event()

    async def process_event(self, event: LiveEvent) -> None:
        if isinstance(event, ResponseEnd):
            self.reached.set()
            await self.opened.wait()
        await super().process_event(event)


@pytest.mark.parametrize("times", [1, 2])
async def test_an_answer_whose_end_is_in_the_log_but_not_out_yet_is_had_once(times: int) -> None:
    hold = HoldsEnds()
    async with live(answering("agent"), hold) as (session, client):
        await client.says("hi")
        await hold.reached.wait()
        await eventually(lambda: client.text() == WHOLE)
        merged = Merged()
        for _ in range(times):
            client.lose()
            merged.take(client.got)
            client = (await Client(session).attach(merged.after, again=True)).read()  # noqa: PLW2901
            await settled_but_for(session, hold)
        hold.opened.set()
        await settled(session)
        merged.take(client.got)
        assert list(merged.ended.values()) == [WHOLE]
        assert not merged.texts


async def settled_but_for(session: AgentSession, node: HoldsEnds) -> None:
    await eventually(lambda: session.presence.link is not None and len(session.presence.link) == 0)
    assert node._current is not None


async def test_who_comes_back_in_an_answer_longer_than_what_may_wait_gets_its_text() -> None:
    go = asyncio.Event()
    pieces = ["x" * 90_000] * 12
    assert sum(map(len, pieces)) > links.MOST_TEXT
    async with live(Says(*pieces, go)) as (session, client):
        await session.receive(LLMRequest())
        await client.until(ResponseChunk, len(pieces))
        client.lose()
        back = Client(session).read()
        await back.attach(0, again=True)
        await back.until(ResponseChunk)
        assert back.text() == "".join(pieces)
        assert back.link.closed is None


def offers(price: bool) -> type[LiveEvent]:
    """The class of an event in the first release of an application, and in the second."""
    if price:

        class Offer(LiveEvent, type="test.offer", kept=True):  # pyright: ignore[reportRedeclaration]
            title: str
            price: int

        return Offer

    class Offer(LiveEvent, type="test.offer", kept=True):
        title: str

    return Offer


async def test_an_event_of_an_older_release_of_the_application_does_not_end_the_replay() -> None:
    older: Any = offers(price=False)
    async with Runtime("memory:") as runtime:
        async with live(Recorder(), runtime=runtime) as (session, client):
            await session.send_event(older(title="old"))
            await session.speak("still here")
            await client.until(AgentSpeak)
        offers(price=True)
        again = AgentSession(runtime.session("s"), SystemInit(), resumed=True)
        await again.open()
        back = await Client(again).attach(0)
        again.add_node(Recorder())
        try:
            await again.start()
            back.read()
            await back.until(AgentSpeak)
        finally:
            await again.stop()
