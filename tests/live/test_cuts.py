"""What an interruption must not take away, and what it must not leave behind."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.live.talking import (
    Card,
    Client,
    Gate,
    Recorder,
    Says,
    Tick,
    ends,
    eventually,
    history,
    live,
    settled,
)

from tertulia import Agent, Runtime, tool
from tertulia.live import AgentNode, OutputNode
from tertulia.live.inbox import URGENT
from tertulia.testing import Pause, ScriptedModel, call
from tertulia.wire.events import (
    AgentSpeak,
    LiveEvent,
    LLMRequest,
    ResponseChunk,
    ResponseEnd,
    ResponseStart,
    TranscriptUpdate,
    TransferCall,
    UserInterrupt,
)


@tool(requires_approval=True)
async def refund() -> str:
    """Give the money back."""
    return "done"


@pytest.mark.parametrize("cut", [False, True])
async def test_an_interrupt_while_a_tool_waits_for_approval_does_not_swallow_the_answer(
    cut: bool,
) -> None:
    model = ScriptedModel(call("refund"), "It was refunded.")
    async with live(AgentNode(Agent("a", model=model, tools=[refund]))) as (session, client):
        await client.says("refund me")
        await client.until(ResponseEnd)
        await settled(session)
        if cut:
            await session.receive(UserInterrupt())
            await settled(session)
        [waiting] = session.conversation.pending
        await session.conversation.approve(waiting.id)
        await session.receive(LLMRequest())
        end = await client.until(ResponseEnd, 2)
        assert not end.interrupted
        assert client.text(end.request_id) == "It was refunded."
        assert (await history(session))[-1] == ("assistant", "It was refunded.")


class Thinks(Says):
    """Takes its time over what is no request for an answer."""

    def __init__(self) -> None:
        super().__init__("x")
        self.thinking = asyncio.Event()
        self.thought = asyncio.Event()

    async def on_event(self, event: LiveEvent) -> None:
        if isinstance(event, Card | TranscriptUpdate):
            self.thinking.set()
            await self.thought.wait()


@pytest.mark.parametrize("kind", [Card, TranscriptUpdate])
async def test_an_event_that_an_answering_node_looks_at_survives_an_interrupt(
    kind: type[LiveEvent],
) -> None:
    node, after = Thinks(), Recorder()
    async with live(node, after) as (session, _):
        event = Card(title="one") if kind is Card else TranscriptUpdate(role="user", content="one")
        await session.receive(event)
        await node.thinking.wait()
        await session.receive(UserInterrupt())
        node.thought.set()
        await settled(session)
        assert len(after.of(kind)) == 1
        assert len(after.of(UserInterrupt)) == 1


async def test_an_interrupt_that_is_sent_again_cuts_once() -> None:
    first, second = asyncio.Event(), asyncio.Event()

    class Two(OutputNode):
        async def generate_response(self) -> AsyncIterator[str]:
            yield "one "
            await (second if first.is_set() else first).wait()
            yield "two"

    async with live(Two()) as (session, client):
        await session.receive(LLMRequest(id="q1"))
        await client.until(ResponseChunk)
        await session.receive(UserInterrupt(id="i1"))
        await client.until(ResponseEnd)
        first.set()
        await session.receive(LLMRequest(id="q2"))
        await client.until(ResponseChunk, 2)
        await session.receive(UserInterrupt(id="i1"))
        second.set()
        await client.until(ResponseEnd, 2)
        assert ends(client) == [("q1", True), ("q2", False)]


async def test_an_interrupt_before_the_turn_began_gives_the_request_a_start_and_an_end() -> None:
    agent = Agent("a", model=ScriptedModel("hello"))
    node = AgentNode(agent)
    async with Runtime("memory:") as runtime, live(node, runtime=runtime) as (session, client):
        async with session.conversation.turn():
            await session.receive(LLMRequest(id="q1"))
            await eventually(node._is_working)
            await settled_but_for(session.inlet)
            await session.receive(UserInterrupt())
            await client.until(ResponseEnd)
        assert [event.request_id for event in client.of(ResponseStart)] == ["q1"]
        assert ends(client) == [("q1", True)]
        await session.receive(LLMRequest(id="q2"))
        await client.until(ResponseEnd, 2)
        assert client.text() == "hello"
        assert ends(client)[1][1] is False


async def settled_but_for(inlet: object) -> None:
    """Let all go as far as it can."""
    for _ in range(50):
        await asyncio.sleep(0)
    assert not getattr(inlet, "_busy", False)


@pytest.mark.parametrize("given", ["q-1", "turn-1", "turn-2", "turn-99999999999999999999"])
async def test_any_id_of_a_request_is_good_for_the_answer_of_an_output_node(given: str) -> None:
    class Asides(OutputNode):
        async def generate_response(self) -> AsyncIterator[str]:
            yield "one "
            await self.speak("aside")
            yield "two"

    async with live(Asides()) as (session, client):
        await session.receive(LLMRequest(id=given))
        end = await client.until(ResponseEnd)
        assert end.metadata == {"request": given}
        assert client.text(end.request_id) == "one two"
        assert [event.text for event in client.of(AgentSpeak)] == ["aside"]
        assert await history(session) == [("assistant", "aside"), ("assistant", "one two")]
        client.lose()
        back = (await Client(session).attach(0, again=True)).read()
        await back.until(ResponseEnd)
        assert back.text(end.request_id) == "one two"


TAKEN = "a request that is not answered ends under its own id, which may be that of a turn"


async def test_a_request_named_as_a_turn_that_is_not_answered_does_not_repeat_that_turn() -> None:
    node = AgentNode(Agent("a", model=ScriptedModel("the answer")))
    async with live(node) as (session, client):
        await session.receive(LLMRequest(id="q1"))
        answered = (await client.until(ResponseEnd)).request_id
        await session.send_event(TransferCall(transfer_call_number="+15550100"))
        await session.receive(LLMRequest(id=answered))
        await client.until(ResponseEnd, 2)
        client.lose()
        back = (await Client(session).attach(0, again=True)).read()
        await back.until(ResponseEnd, 2)
        assert [event.text for event in back.of(ResponseChunk)] == ["the answer"]
        assert len({event.request_id for event in back.of(ResponseEnd)}) == 2


async def test_a_second_interrupt_that_says_nothing_keeps_what_the_first_said_was_heard() -> None:
    hold = asyncio.Event()
    async with live(Says("one two three four", hold)) as (session, client):
        await session.receive(LLMRequest(id="q"))
        await client.until(ResponseChunk)
        await session.receive(UserInterrupt(heard="one"))
        await session.receive(UserInterrupt())
        await client.until(ResponseEnd)
        await settled(session)
        assert await history(session) == [("assistant", "one")]


async def test_the_same_holds_for_the_turn_of_an_agent() -> None:
    pause = Pause()
    agent = Agent("a", model=ScriptedModel(["one two three four", pause]))
    async with live(AgentNode(agent)) as (session, client):
        await client.says("go")
        await client.until(ResponseChunk)
        await session.receive(UserInterrupt(heard="one"))
        await session.receive(UserInterrupt())
        await client.until(ResponseEnd)
        await settled(session)
        assert await history(session) == [("user", "go"), ("assistant", "one")]


# -- bounds


async def test_of_many_interrupts_for_a_node_that_hangs_only_the_newest_wait() -> None:
    gate = Gate(inbox=10)
    async with live(gate) as (session, _):
        await session.receive(Tick())
        await gate.reached.wait()
        for number in range(2_000):
            await session.receive(UserInterrupt(id=f"i{number}"))
        assert len(gate._inbox) <= URGENT
        gate.opened.set()
        await settled(session)
        assert gate.of(UserInterrupt)[-1].id == "i1999"


async def test_many_interrupts_in_answers_leave_no_more_than_a_bound_behind() -> None:
    async with live(Says("a ", asyncio.Event())) as (session, client):
        for number in range(1_100):
            await session.receive(LLMRequest(id=f"q{number}"))
            await session.receive(UserInterrupt(id=f"i{number}"))
        await client.until(ResponseEnd, 1_100)
        assert len(session.sink._cut) <= 1_000
        assert len(session.answers._ended) <= 100
        assert not session.answers.running


async def test_many_changes_of_the_context_write_one_at_a_time_and_few() -> None:
    async with live(Recorder()) as (session, _):
        before = set(asyncio.all_tasks())
        async with session.scribe._one_at_a_time:  # the log is slow
            for number in range(2_000):
                session.context["n"] = number
                if number % 10 == 0:
                    await asyncio.sleep(0)
            assert len(set(asyncio.all_tasks()) - before) <= 2
        await session.flush()
        facts = [each.type for each in await session.conversation.events()]
        assert facts.count("state.set") <= 4
        assert session.conversation.get_state("live.context") == {"n": 1_999}


async def test_many_changes_of_the_context_in_a_turn_owe_one_write() -> None:
    async with live(Recorder()) as (session, _):
        async with session.conversation.turn():
            for number in range(50):
                session.context["n"] = number
                await session.flush()
            assert len(session.scribe._owed) == 1
        await eventually(lambda: not session.scribe._owed)
        assert session.conversation.get_state("live.context") == {"n": 49}
