"""Nodes under the names of the other SDK: what reaches whom, and in which order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.compat.talking import Setup, talk, told

from tertulia.compat.atoms import (
    BackgroundCrewNode,
    CrewNode,
    OutputCrewNode,
    ToolCall,
    ToolRegistry,
    function_tool,
)
from tertulia.compat.atoms.events import (
    SDKAgentEndCallEvent,
    SDKAgentErrorEvent,
    SDKAgentTranscriptUpdateEvent,
    SDKEvent,
    SDKSystemControlInterruptEvent,
    SDKSystemInitEvent,
    SDKSystemLLMRequestEvent,
    SDKSystemUpdateOutputAgentSettingsEvent,
    SDKSystemUserJoinedEvent,
)
from tertulia.compat.atoms.session import CrewSession
from tertulia.errors import InvalidInput
from tertulia.wire.events import SessionContext


class Card(SDKEvent, type="compat.card"):
    """An event of an application."""

    title: str


class Parrot(OutputCrewNode):
    """Says what was said last."""

    def __init__(self, name: str = "parrot", **options: Any) -> None:
        super().__init__(name, **options)
        self.seen: list[str] = []

    async def generate_response(self) -> AsyncIterator[str]:
        yield self.context.messages[-1]["content"]
        yield "!"

    async def on_event(self, event: SDKEvent) -> None:
        self.seen.append(event.type)


class Endless(OutputCrewNode):
    """Says one word, and then nothing until it is interrupted."""

    def __init__(self, **options: Any) -> None:
        super().__init__("endless", **options)
        self.go_on = asyncio.Event()
        self.interrupted = 0

    async def generate_response(self) -> AsyncIterator[str]:
        yield "well"
        await self.go_on.wait()
        yield "done"

    async def _handle_interrupt(self) -> None:
        self.interrupted += 1


def alone(node: CrewNode) -> Setup:
    """A session of one node."""

    def setup(session: CrewSession) -> None:
        session.add_node(node)

    return setup


# -- what is sent on


async def test_a_node_sends_on_what_its_code_sends_on() -> None:
    class Gate(CrewNode):
        async def process_event(self, event: SDKEvent) -> None:
            if not isinstance(event, SDKAgentTranscriptUpdateEvent):
                await self.send_event(event)

    parrot = Parrot()

    def setup(session: CrewSession) -> None:
        gate = Gate()
        assert gate.name == "Gate"
        session.add_node(gate)
        session.add_node(parrot)
        session.add_edge(gate, parrot)

    async with talk(setup) as client:
        await client.send(
            SDKAgentTranscriptUpdateEvent(role="user", content="hi"), SDKSystemUserJoinedEvent()
        )
        assert told(await client.until("system.user.joined")) == ["system.user.joined"]
    assert parrot.seen == ["system.user.joined"]


async def test_a_node_that_looks_on_does_not_cut_the_flow() -> None:
    class Forwarding(BackgroundCrewNode):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[str] = []

        async def process_event(self, event: SDKEvent) -> None:
            self.seen.append(event.type)
            await self.send_event(event)

    parrot, looking = Parrot(), Forwarding()

    def setup(session: CrewSession) -> None:
        session.add_node(looking)
        session.add_node(parrot)
        session.add_edge(looking, parrot)

    async with talk(setup) as client:
        await client.send(SDKSystemUserJoinedEvent(), Card(title="one"))
        await client.until("compat.card")
    assert parrot.seen == looking.seen == ["system.user.joined", "compat.card"]


async def test_a_node_that_looks_on_from_the_side_sends_nothing_back() -> None:
    class Counter(BackgroundCrewNode):
        count = 0

        async def process_event(self, event: SDKEvent) -> None:
            self.count += 1

    counter, parrot = Counter(), Parrot()

    def setup(session: CrewSession) -> None:
        session.add_node(counter)
        session.add_node(parrot)

    async with talk(setup) as client:
        assert await client.ask("hi") == "hi!"
        await client.send(SDKSystemUserJoinedEvent())
        assert told(await client.until("system.user.joined")) == ["system.user.joined"]
        assert counter.count == 3


async def test_what_is_sent_before_there_is_a_session_is_told_to_be_lost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        await Parrot().speak("Is anybody there?")
    assert "parrot is in no session yet: its agent.speak was dropped" in caplog.text


# -- a node that answers


async def test_events_come_back_after_they_were_worked_on() -> None:
    parrot = Parrot()
    async with talk(alone(parrot)) as client:
        await client.send(
            SDKAgentTranscriptUpdateEvent(role="user", content="hi"), SDKSystemLLMRequestEvent()
        )
        assert told(await client.until("system.llm.request")) == [
            "agent.transcript.update",
            "agent.llm.response.start",
            "hi",
            "!",
            "agent.llm.response.end",
            "system.llm.request",
        ]
    assert parrot.seen == ["agent.transcript.update", "system.llm.request"]


async def test_a_request_with_the_conversation_replaces_the_context() -> None:
    parrot = Parrot()
    parrot.context.add_message({"role": "system", "content": "Repeat."})
    told_by_client = [
        {"role": "system", "content": "Sing."},
        {"role": "user", "content": "first"},
        {"role": "user", "content": "second"},
    ]
    async with talk(alone(parrot)) as client:
        await client.ask("lost")
        await client.send(SDKSystemLLMRequestEvent(messages=told_by_client))
        assert "second" in told(await client.until("system.llm.request"))
    assert [each["content"] for each in parrot.context.messages] == ["Repeat.", "first", "second"]


async def test_generate_response_may_take_the_messages() -> None:
    class Counting(OutputCrewNode):
        async def generate_response(self, messages: Any) -> AsyncIterator[str]:  # pyright: ignore[reportIncompatibleMethodOverride]
            yield f"{len(messages)} so far"

    async with talk(alone(Counting("counting"))) as client:
        assert await client.ask("hi") == "1 so far"


async def test_process_event_may_be_overridden_around_that_of_the_sdk() -> None:
    class Noisy(Parrot):
        async def process_event(self, event: SDKEvent) -> None:
            if isinstance(event, Card):
                await self.speak(event.title)
            await super().process_event(event)

    async with talk(alone(Noisy())) as client:
        await client.send(Card(title="a card"))
        assert told(await client.until("compat.card")) == ["a card", "compat.card"]


@pytest.mark.parametrize("handoff", [SDKAgentEndCallEvent])
async def test_after_a_handoff_nothing_more_is_answered(handoff: type[SDKEvent]) -> None:
    class Leaving(OutputCrewNode):
        answers = 0

        async def generate_response(self) -> AsyncIterator[str]:
            self.answers += 1
            await self.send_event(handoff())
            yield "Bye."

    node = Leaving("leaving")
    async with talk(alone(node)) as client:
        await client.send(SDKSystemLLMRequestEvent(), SDKSystemLLMRequestEvent())
        await client.session.wait_until_complete()
    assert node.answers == 1


async def test_a_client_that_tells_of_a_handoff_does_not_silence_the_node() -> None:
    async with talk(alone(Parrot())) as client:
        await client.send(SDKAgentEndCallEvent())
        assert await client.ask("hi") == "hi!"


# -- interruptions


async def test_an_interruption_ends_the_answer_and_comes_back() -> None:
    node = Endless()
    async with talk(alone(node)) as client:
        await client.send(SDKSystemLLMRequestEvent())
        assert told(await client.until("agent.llm.response.chunk"))[-1] == "well"
        await client.send(SDKSystemControlInterruptEvent())
        assert told(await client.until("system.control.interrupt")) == [
            "agent.llm.response.end",
            "system.control.interrupt",
        ]
    assert node.interrupted == 1


async def test_a_node_that_cannot_be_interrupted_goes_on() -> None:
    node = Endless(is_interruptible=False)
    async with talk(alone(node)) as client:
        await client.send(SDKSystemLLMRequestEvent())
        await client.until("agent.llm.response.chunk")
        await client.send(SDKSystemControlInterruptEvent())
        node.go_on.set()
        assert "done" in told(await client.until("agent.llm.response.end"))


@pytest.mark.parametrize("when", ["init", "later"])
async def test_the_client_can_say_that_the_node_is_not_to_be_interrupted(when: str) -> None:
    node = Endless()
    settings = {"interruptible": False, "voice": "low"}
    init = SDKSystemInitEvent(output_agent_settings=settings if when == "init" else None)
    async with talk(alone(node), init) as client:
        if when == "later":
            await client.send(SDKSystemUpdateOutputAgentSettingsEvent(settings=settings))
        await client.send(SDKSystemLLMRequestEvent())
        await client.until("agent.llm.response.chunk")
        await client.send(SDKSystemControlInterruptEvent())
        node.go_on.set()
        assert "done" in told(await client.until("agent.llm.response.end"))
    assert vars(node.settings) == settings


async def test_a_tool_that_is_interrupted_is_told_before_the_end() -> None:
    class Working(OutputCrewNode):
        def __init__(self) -> None:
            super().__init__("working")
            self.tools = ToolRegistry()
            self.tools.discover(self)

        @function_tool
        async def dig(self) -> None:
            await asyncio.Event().wait()

        async def generate_response(self) -> AsyncIterator[str]:
            yield "Digging."
            await self.tools.execute([ToolCall("c1", "dig", "{}")])

    async with talk(alone(Working())) as client:
        await client.send(SDKSystemLLMRequestEvent())
        await client.until("agent.log")
        await client.send(SDKSystemControlInterruptEvent())
        assert told(await client.until("system.control.interrupt")) == [
            "tool_call_error",
            "agent.llm.response.end",
            "system.control.interrupt",
        ]


# -- errors


@pytest.mark.parametrize(
    ("kind", "severity"), [(CrewNode, "fatal"), (BackgroundCrewNode, "warning")]
)
async def test_an_exception_is_told_and_the_node_goes_on(
    kind: type[CrewNode], severity: str
) -> None:
    class Fragile(kind):
        async def process_event(self, event: SDKEvent) -> None:
            if isinstance(event, SDKSystemUserJoinedEvent):
                raise LookupError("no {braces} harm")
            await self.send_event(event)

    async with talk(alone(Fragile())) as client:
        await client.send(SDKSystemUserJoinedEvent(), Card(title="still here"))
        [error, _] = await client.until("compat.card")
    assert isinstance(error, SDKAgentErrorEvent)
    assert error.message == "LookupError in Fragile.process_event: no {braces} harm"
    assert error.severity == severity
    assert error.payload == {"node_name": "Fragile", "error_class": "LookupError"}


async def test_a_node_says_how_bad_its_exceptions_are() -> None:
    class Careless(CrewNode):
        async def process_event(self, event: SDKEvent) -> None:
            raise LookupError

        def _error_severity(self) -> str:
            return "warning"

    async with talk(alone(Careless())) as client:
        await client.send(SDKSystemUserJoinedEvent())
        [error] = await client.until("agent.error")
    assert isinstance(error, SDKAgentErrorEvent)
    assert error.severity == "warning"


async def test_an_answer_that_fails_ends_and_the_next_is_given() -> None:
    class Moody(Parrot):
        async def generate_response(self) -> AsyncIterator[str]:
            if self.context.messages[-1]["content"] == "bad":
                raise LookupError("no")
            yield "good"

    async with talk(alone(Moody())) as client:
        await client.send(
            SDKAgentTranscriptUpdateEvent(role="user", content="bad"), SDKSystemLLMRequestEvent()
        )
        events = await client.until("system.llm.request")
        assert told(events) == [
            "agent.transcript.update",
            "agent.llm.response.start",
            "agent.error",
            "agent.llm.response.end",
            "system.llm.request",
        ]
        assert await client.ask("well?") == "good"


# -- how a node starts, and what it knows


async def test_start_gets_what_the_client_began_with() -> None:
    class Knowing(Parrot):
        async def start(self, init_event: Any, task_manager: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
            await super().start(init_event, task_manager)
            context = init_event.session_context
            self.initial_variables = dict(context.initial_variables)
            self.number = context.caller.user_number
            self.kind = context.conversation_type.value
            self.task = task_manager.create_task(asyncio.Event().wait(), name="waiting")
            await self.speak(f"Hello, {self.initial_variables['name']}.")

    class Heir(Knowing):
        pass

    begun = SessionContext(
        initial_variables={"name": "Ana"},
        conversation_type="telephonyInbound",
        caller={"user_number": "+1555", "plan": "gold"},
    )
    node = Heir()
    async with talk(alone(node), SDKSystemInitEvent(session_context=begun)) as client:
        assert told([await client.next()]) == ["Hello, Ana."]
        session = client.session
        assert (node.number, node.kind) == ("+1555", "telephonyInbound")
        caller: Any = session.caller
        assert (caller.plan, caller.agent_number) == ("gold", None)
        with pytest.raises(AttributeError, match="'age'"):
            _ = caller.age
        session.initial_variables["name"] = "Eve"
        assert session.initial_variables == {"name": "Ana"}
        assert not node.task.done()
    assert node.task.cancelled()


async def test_start_may_be_written_without_parameters() -> None:
    class Plain(Parrot):
        async def start(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
            await super().start()
            await self.speak("Ready.")

    async with talk(alone(Plain())) as client:
        assert told([await client.next()]) == ["Ready."]


async def test_a_program_may_give_its_session_to_its_nodes() -> None:
    class Told(Parrot):
        def __init__(self, session: CrewSession) -> None:
            super().__init__()
            self.session = session

        async def generate_response(self) -> AsyncIterator[str]:
            yield self.session.name

    def setup(session: CrewSession) -> None:
        session.add_node(Told(session))

    async with talk(setup) as client:
        assert await client.ask("hi") == "Session-s"


def test_a_method_that_would_take_the_place_of_ours_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"Seller\.offer .* rename it"):

        class Seller(OutputCrewNode):  # pyright: ignore[reportUnusedClass]
            def offer(self) -> None: ...  # pyright: ignore[reportIncompatibleMethodOverride]


async def test_a_node_can_be_tested_without_a_session() -> None:
    class Failing(Parrot):
        async def generate_response(self) -> AsyncIterator[str]:
            yield "Well"
            raise LookupError("no")

    node, sent = Failing(), list[SDKEvent]()

    async def record(event: SDKEvent) -> None:
        sent.append(event)

    node.send_event = record
    await node.start(SDKSystemInitEvent(), None)
    await node.process_event(SDKSystemLLMRequestEvent())
    assert told(sent) == [
        "agent.llm.response.start",
        "Well",
        "agent.error",
        "agent.llm.response.end",
        "system.llm.request",
    ]
