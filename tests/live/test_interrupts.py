"""Interrupts overtake queues, stop what is being generated at once, and lose nothing else."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.live.talking import (
    Card,
    Gate,
    Recorder,
    Says,
    Tick,
    chained,
    ends,
    eventually,
    history,
    live,
    settled,
)

from tertulia import Agent, tool
from tertulia.live import AgentNode, AgentSession, BackgroundNode, Node, inbox
from tertulia.testing import Pause, ScriptedModel, call
from tertulia.wire.events import (
    AgentErrorEvent,
    LiveEvent,
    LLMRequest,
    ResponseChunk,
    ResponseEnd,
    ResponseStart,
    TranscriptUpdate,
    UserInterrupt,
)


async def test_an_interrupt_stops_an_answer_and_the_history_keeps_what_was_written() -> None:
    go = asyncio.Event()
    node = Says("one ", "two ", go, "three ")
    async with live(node) as (session, client):
        await client.says("count")
        await client.until(ResponseChunk, 2)
        await session.receive(UserInterrupt())
        ended = await client.until(ResponseEnd)
        go.set()
        await settled(session)
        assert ended.interrupted
        assert ended.seq is not None
        assert client.text() == "one two "
        assert await history(session) == [("user", "count"), ("assistant", "one two ")]
        assert (await session.conversation.history())[-1].metadata == {
            "interrupted": True,
            "live": {"request_id": ended.request_id},
        }


async def test_a_slow_client_keeps_only_what_was_written_to_it() -> None:
    go = asyncio.Event()
    node = Says("one ", "two ", "three ", go, "four ")
    async with live(node, reading=False) as (session, client):
        await client.says("count")
        await node.waiting.wait()
        await eventually(lambda: len(client.link) == 5)
        client.take(3)
        assert client.types == ["agent.ready", "agent.llm.response.start", ResponseChunk.type]
        await session.receive(UserInterrupt())
        await settled(session)
        client.take()
        assert client.text() == "one "
        assert (await history(session))[-1] == ("assistant", "one ")


@pytest.mark.parametrize("taken", [0, 1, 2, 3])
async def test_an_agents_turn_keeps_what_was_written_to_a_slow_client(taken: int) -> None:
    pause = Pause()
    agent = Agent("a", model=ScriptedModel(["one two three ", pause, "four"], ["again"]))
    async with live(AgentNode(agent), reading=False) as (session, client):
        await client.says("count")
        await pause.reached()
        await eventually(lambda: len(client.link) == 5)
        client.take(2 + taken)
        await session.receive(UserInterrupt())
        await eventually(lambda: client.take() and client.of(ResponseEnd))
        await settled(session)
        text = "".join(["one ", "two ", "three "][:taken])
        assert client.text() == text
        kept = [("assistant", text)] if text else []
        assert await history(session) == [("user", "count"), *kept]
        await client.says("go on")
        await eventually(lambda: client.take() and len(client.of(ResponseEnd)) == 2)
        assert (await history(session))[-1] == ("assistant", "again")


async def test_the_chunk_that_is_being_written_is_part_of_what_the_client_got() -> None:
    go = asyncio.Event()
    node = Says("one ", go, "two ")
    async with live(node, reading=False) as (session, client):
        await client.says("count")
        await node.waiting.wait()
        await eventually(lambda: len(client.link) == 3)
        client.take(2)
        writing = client.link.next()
        assert isinstance(writing, ResponseChunk)
        await session.receive(UserInterrupt())
        await settled(session)
        session.answers.delivered(writing)
        assert (await history(session))[-1] == ("assistant", "one ")


async def test_what_the_client_says_was_heard_is_what_the_history_keeps() -> None:
    go = asyncio.Event()
    async with live(Says("one two three", go)) as (session, client):
        await client.says("count")
        await client.until(ResponseChunk)
        await session.receive(UserInterrupt(heard="one tw"))
        await client.until(ResponseEnd)
        assert (await history(session))[-1] == ("assistant", "one tw")


@pytest.mark.parametrize("heard", ["one tw", "", "one two three"])
async def test_of_an_answer_that_was_whole_the_history_keeps_what_was_heard(heard: str) -> None:
    async with live(Says("one two three")) as (session, client):
        await client.says("count")
        await client.until(ResponseEnd)
        await session.receive(UserInterrupt(heard=heard))
        await settled(session)
        kept = [("assistant", heard)] if heard else []
        assert await history(session) == [("user", "count"), *kept]


@pytest.mark.parametrize("kind", ["output", "agent"])
async def test_an_interrupt_before_the_first_token_ends_the_answer_without_text(kind: str) -> None:
    go, pause = asyncio.Event(), Pause()
    says = Says(go, "late")
    agent = Agent("a", model=ScriptedModel([pause, "late"], ["again"]))
    async with live(AgentNode(agent) if kind == "agent" else says) as (session, client):
        await client.says("count")
        await (pause.reached() if kind == "agent" else says.waiting.wait())
        await session.receive(UserInterrupt())
        ended = await client.until(ResponseEnd)
        go.set()
        pause.release()
        await settled(session)
        assert ended.interrupted
        assert not client.of(ResponseChunk)
        assert await history(session) == [("user", "count")]
        await client.says("more")
        assert not (await client.until(ResponseEnd, 2)).interrupted


async def test_two_interrupts_in_a_row_end_one_answer_once() -> None:
    go = asyncio.Event()
    async with live(Says("one", go)) as (session, client):
        await client.says("count")
        await client.until(ResponseChunk)
        await session.receive(UserInterrupt())
        await session.receive(UserInterrupt())
        await client.until(ResponseEnd)
        await settled(session)
        assert len(ends(client)) == 1
        go.set()
        await client.says("again")
        assert not (await client.until(ResponseEnd, 2)).interrupted


async def test_an_interrupt_while_a_tool_runs_leaves_a_history_that_goes_on() -> None:
    reached = asyncio.Event()

    @tool
    async def look() -> str:
        """Look it up."""
        reached.set()
        await asyncio.Event().wait()
        return "never"

    model = ScriptedModel(["let me look", call("look")], ["here it is"])
    agent = Agent("a", model=model, tools=[look])
    async with live(AgentNode(agent)) as (session, client):
        await client.says("where")
        await reached.wait()
        await session.receive(UserInterrupt())
        assert (await client.until(ResponseEnd)).interrupted
        await client.says("and now")
        assert not (await client.until(ResponseEnd, 2)).interrupted
        roles = [role for role, _ in await history(session)]
        assert roles == ["user", "assistant", "tool", "user", "assistant"]


async def test_an_interrupt_stops_chunks_that_wait_downstream_while_more_are_generated() -> None:
    go, gate = asyncio.Event(), Gate()
    node = Says("one ", "two ", go, "three ")
    async with live(node, gate) as (session, client):
        await client.says("count")
        await node.waiting.wait()
        await session.receive(UserInterrupt())
        gate.opened.set()
        ended = await client.until(ResponseEnd)
        await settled(session)
        assert ended.interrupted
        assert not client.of(ResponseChunk)
        assert await history(session) == [("user", "count")]


async def test_an_interrupt_stops_chunks_that_wait_downstream_of_a_node_that_is_done() -> None:
    gate = Gate()
    node = Says("one ", "two ")
    async with live(node, gate) as (session, client):
        await client.says("count")
        await gate.reached.wait()
        await eventually(lambda: node._request_id is None and node._current is None)
        await session.receive(UserInterrupt())
        gate.opened.set()
        await settled(session)
        assert not client.of(ResponseChunk)


async def test_an_interrupt_stops_chunks_of_a_whole_answer_that_wait_for_the_connection() -> None:
    async with live(Says("one ", "two ", "three "), reading=False) as (session, client):
        await client.says("count")
        await settled(session)
        client.take(3)
        assert client.text() == "one "
        await session.receive(UserInterrupt())
        await settled(session)
        client.take()
        assert client.text() == "one "
        assert (await history(session))[-1] == ("assistant", "one ")


async def test_a_request_that_was_sent_before_an_interrupt_is_not_answered_after_it() -> None:
    async with live(Says("one ", "two ")) as (session, client):
        await client.says("count")
        await session.receive(UserInterrupt())
        await settled(session)
        assert client.text() == ""
        assert await history(session) == [("user", "count")]


async def test_a_request_that_waits_for_the_node_ends_before_it_begins() -> None:
    go = asyncio.Event()
    node = Says("one ", go)
    async with live(node) as (session, client):
        await client.says("count")
        await node.waiting.wait()
        await session.receive(LLMRequest())
        await session.receive(UserInterrupt())
        await client.until(ResponseEnd, 2)
        await settled(session)
        assert node.requests == 1
        begun = [event.request_id for event in client.of(ResponseStart)]
        assert sorted(ends(client)) == sorted((each, True) for each in begun)


async def test_a_request_that_waits_ends_for_the_client_behind_a_background_node_too() -> None:
    go = asyncio.Event()
    node = Says("one ", go)
    async with live(node, BackgroundNode()) as (session, client):
        await client.says("count")
        await node.waiting.wait()
        await session.receive(LLMRequest())
        await session.receive(UserInterrupt())
        await client.until(ResponseEnd)
        await settled(session)
        assert len(ends(client)) == 2


async def test_transcripts_and_events_of_applications_that_wait_are_kept_in_their_order() -> None:
    go, last = asyncio.Event(), Recorder()
    node = Says("one ", go)
    async with live(node, last) as (session, client):
        await client.says("count")
        await node.waiting.wait()
        for number in range(20):
            await session.receive(TranscriptUpdate(role="user", content=f"t{number}"))
            await session.receive(Tick(number=number))
            await session.receive(Card(title=str(number)))
        await session.receive(UserInterrupt())
        await settled(session)
        assert [event.content for event in last.of(TranscriptUpdate)][1:] == [
            f"t{number}" for number in range(20)
        ]
        assert [event.number for event in last.of(Tick)] == list(range(20))
        assert [event.title for event in last.of(Card)] == [str(number) for number in range(20)]
        said = [text for role, text in await history(session) if role == "user"]
        assert said == ["count", *(f"t{number}" for number in range(20))]


async def test_a_transcript_that_waits_for_a_place_downstream_survives_an_interrupt() -> None:
    gate = Gate(inbox=1)
    async with live(Says("x"), gate) as (session, _):
        for number in range(4):
            await session.receive(TranscriptUpdate(role="user", content=str(number)))
        await gate.reached.wait()
        await eventually(lambda: len(session.nodes[0]._inbox) == 1)
        await session.receive(UserInterrupt())
        gate.opened.set()
        await settled(session)
        assert [event.content for event in gate.of(TranscriptUpdate)] == ["0", "1", "2", "3"]


async def test_an_interrupt_overtakes_all_that_waits_and_comes_to_each_node_once() -> None:
    gates = [Gate("a"), Gate("b")]
    end = Recorder("end")

    def build(session: AgentSession) -> None:
        for node in (*gates, end):
            session.add_node(node)
        for gate in gates:
            session.add_edge(gate, end)

    async with live(build=build) as (session, _):
        for number in range(5):
            await session.receive(Tick(number=number))
        await asyncio.gather(*(gate.reached.wait() for gate in gates))
        await session.receive(UserInterrupt())
        for gate in gates:
            gate.opened.set()
        await settled(session)
        for gate in gates:
            assert [event.type for event in gate.got][:3] == [
                "test.tick",
                "system.control.interrupt",
                "test.tick",
            ]
            assert len(gate.of(UserInterrupt)) == 1
        assert end.got[0].type == "system.control.interrupt"
        assert len(end.of(UserInterrupt)) == 1
        assert [event.number for event in end.of(Tick)] == list(range(5))


async def test_a_node_that_is_not_interruptible_finishes_its_answer() -> None:
    go = asyncio.Event()
    node = Says("one ", go, "two", is_interruptible=False)
    async with live(node) as (session, client):
        await client.says("count")
        await node.waiting.wait()
        await session.receive(UserInterrupt())
        go.set()
        assert not (await client.until(ResponseEnd)).interrupted
        assert client.text() == "one two"
        assert (await history(session))[-1] == ("assistant", "one two")


async def test_an_interrupt_while_a_sibling_raises_stops_the_answer_and_keeps_both_alive() -> None:
    class Raising(Recorder):
        async def process_event(self, event: LiveEvent) -> None:
            await super().process_event(event)
            raise ValueError(event.type)

    go, raising = asyncio.Event(), Raising("raising")
    node = Says("one", go)

    def build(session: AgentSession) -> None:
        session.add_node(raising)
        session.add_node(node)

    async with live(build=build) as (session, client):
        await client.says("count")
        await node.waiting.wait()
        await session.receive(UserInterrupt())
        assert (await client.until(ResponseEnd)).interrupted
        go.set()
        await client.says("again")
        assert not (await client.until(ResponseEnd, 2)).interrupted
        await settled(session)
        assert len(client.of(AgentErrorEvent)) == len(raising.got) == 5


async def test_an_interrupt_while_a_node_reports_its_exception_leaves_it_alive() -> None:
    class Raising(Recorder):
        async def process_event(self, event: LiveEvent) -> None:
            await super().process_event(event)
            if isinstance(event, Tick) and event.number == 0:
                raise ValueError("x")

    node = Raising(is_interruptible=True)
    async with live(node) as (session, _), asyncio.timeout(3):
        async with session.scribe._one_at_a_time:  # the log is slow
            number = 0
            while session.sink.offer(Card(title=str(number))):
                number += 1
            await session.receive(Tick(number=0))
            await eventually(lambda: node.of(Tick))
            await session.receive(UserInterrupt())
        await session.receive(Tick(number=1))
        await eventually(lambda: len(node.of(Tick)) == 2)


async def test_an_interrupt_overtakes_events_that_wait_for_a_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inbox, "PATIENCE", 3_600)
    go = asyncio.Event()
    node = Says("one ", go, inbox=1)
    async with live(node) as (session, client):

        async def connection() -> None:
            for number in range(4):
                await session.receive(Tick(number=number))
            await session.receive(UserInterrupt())

        await session.receive(LLMRequest())
        await node.waiting.wait()
        sending = asyncio.create_task(connection())
        try:
            async with asyncio.timeout(2):
                await client.until(ResponseEnd)
        finally:
            go.set()
            await sending


async def test_an_interrupt_is_not_the_oldest_that_is_dropped() -> None:
    gate = Gate(inbox=2, overflow="drop_oldest")
    async with live(gate) as (session, _):
        await session.receive(Tick(number=0))
        await gate.reached.wait()
        await session.receive(Tick(number=1))
        await session.receive(Tick(number=2))
        await session.receive(UserInterrupt())
        await session.receive(Tick(number=3))
        gate.opened.set()
        await settled(session)
        assert len(gate.of(UserInterrupt)) == 1
        assert [event.number for event in gate.of(Tick)] == [0, 2, 3]


async def test_text_before_a_tool_call_is_not_kept_twice_behind_a_slow_node() -> None:
    pause, gate = Pause(), Gate()

    @tool
    def look() -> str:
        """Look it up."""
        return "it is blue"

    model = ScriptedModel(["let me look ", call("look")], ["it is ", pause, "blue"])
    agent = AgentNode(Agent("a", model=model, tools=[look]))
    async with live(agent, gate) as (session, client):
        await client.says("which color")
        await pause.reached()
        gate.opened.set()
        await eventually(lambda: client.text().endswith("it is "))
        await session.receive(UserInterrupt())
        await client.until(ResponseEnd)
        texts = [text for role, text in await history(session) if role == "assistant"]
        assert texts == ["let me look ", "it is "]


async def test_an_agents_turn_keeps_nothing_while_its_start_waits_downstream() -> None:
    pause, gate = Pause(), Gate()
    agent = AgentNode(Agent("a", model=ScriptedModel(["it is ", pause, "blue"])))
    async with live(agent, gate) as (session, client):
        await client.says("which color")
        await pause.reached()
        await session.receive(UserInterrupt())
        gate.opened.set()
        await client.until(ResponseEnd)
        assert client.text() == ""
        assert await history(session) == [("user", "which color")]


async def test_no_text_goes_out_behind_an_interrupt_at_any_moment() -> None:
    class Counting(Says):
        async def generate_response(self) -> AsyncIterator[str]:
            for number in range(200):
                await asyncio.sleep(0)
                yield f"{number} "

    for moment in range(0, 60, 3):
        middle: Node = Recorder("middle")
        async with live(build=lambda session, m=middle: chained(session, Counting(), m)) as (
            session,
            client,
        ):
            await session.receive(LLMRequest())
            for _ in range(moment):
                await asyncio.sleep(0)
            await session.receive(UserInterrupt())
            before = len(client.of(ResponseChunk)) + len(client.link)
            await settled(session)
            assert len(client.of(ResponseChunk)) <= before
            for begun in client.of(ResponseStart):
                assert begun.request_id in dict(ends(client))
            text = client.text()
            assert [each for _, each in await history(session)] == ([text] if text else [])
