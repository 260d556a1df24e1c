"""Where the system behind pages 000 and 001 breaks, and this one must not: one test a trap."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.compat.serving import Client, Frame, Served, served

from tertulia import Runtime
from tertulia.compat.atoms import (
    AtomsCrewApp,
    BackgroundCrewNode,
    CrewNode,
    CrewSession,
    OutputCrewNode,
    ToolCall,
    ToolRegistry,
    function_tool,
)
from tertulia.compat.atoms.events import (
    SDKAgentEndCallEvent,
    SDKAgentTranscriptUpdateEvent,
    SDKAgentTransferConversationEvent,
    SDKEvent,
    SDKSystemControlInterruptEvent,
)
from tertulia.errors import GraphCycleError, GraphError

PATIENCE = 10.0
Setup = Callable[[CrewSession], Awaitable[None]]


class Talker(OutputCrewNode):
    """Says "Yes.", and to a request after "hold" nothing more until it is interrupted."""

    def __init__(self, name: str = "talker") -> None:
        super().__init__(name)
        self.stopped = asyncio.Event()

    async def generate_response(self) -> AsyncIterator[str]:
        yield "Yes."
        if self.said() == "hold":
            try:
                await asyncio.Event().wait()
            finally:
                self.stopped.set()

    def said(self) -> str:
        return self.context.messages[-1]["content"] if self.context.messages else ""


def graph(*nodes: CrewNode, edges: Sequence[tuple[CrewNode, CrewNode]] = ()) -> Setup:
    """A setup handler for a graph that is used once."""

    async def setup(session: CrewSession) -> None:
        for node in nodes:
            session.add_node(node)
        for parent, child in edges:
            session.add_edge(parent, child)
        await session.start()
        await session.wait_until_complete()

    return setup


@asynccontextmanager
async def serving(setup: Setup, runtime: Runtime) -> AsyncGenerator[Served]:
    async with served(AtomsCrewApp(setup, runtime=runtime)) as server:
        yield server


@asynccontextmanager
async def talking(setup: Setup, runtime: Runtime) -> AsyncGenerator[Client]:
    """A client that has been told `agent.ready`."""
    async with serving(setup, runtime) as server, server.client() as client:
        yield client


async def hold(client: Client) -> None:
    """Make the talker say something that does not end."""
    await client.send("agent.transcript.update", role="user", content="hold")
    await client.send("system.llm.request")
    await client.until("agent.llm.response.chunk")


def types(frames: list[Frame]) -> list[str]:
    return [each["type"] for each in frames]


async def refused(setup: Callable[[CrewSession], None], runtime: Runtime) -> BaseException:
    """What `start` raises for a graph, in a session that a client began."""
    raised: asyncio.Queue[BaseException] = asyncio.Queue()

    async def handler(session: CrewSession) -> None:
        try:
            setup(session)
            await session.start()
        except Exception as error:
            raised.put_nowait(error)
            raise

    async with serving(handler, runtime) as server, server.connection() as client:
        raised.get_nowait()  # of the check at the start of the server
        error = await client.begin()
        assert (error["type"], error["severity"]) == ("agent.error", "fatal")
        assert await client.closed() == 1011
        return raised.get_nowait()


# -- the graph


async def test_two_nodes_that_lead_to_each_other_are_a_value_error(runtime: Runtime) -> None:
    def setup(session: CrewSession) -> None:
        a, b = Talker("A"), Talker("B")
        session.add_node(a)
        session.add_node(b)
        session.add_edge(a, b)
        session.add_edge(b, a)

    error = await refused(setup, runtime)
    assert isinstance(error, GraphCycleError)
    assert isinstance(error, ValueError)
    assert "Graph contains cycles" in str(error)
    assert error.path in (("A", "B", "A"), ("B", "A", "B"))


async def test_a_node_that_leads_to_itself_is_a_value_error(runtime: Runtime) -> None:
    def setup(session: CrewSession) -> None:
        a = Talker("A")
        session.add_node(a)
        session.add_edge(a, a)

    error = await refused(setup, runtime)
    assert isinstance(error, ValueError)
    assert "Graph contains cycles" in str(error)


async def test_a_cycle_behind_the_root_is_a_value_error(runtime: Runtime) -> None:
    def setup(session: CrewSession) -> None:
        nodes = [Talker(name) for name in "rab"]
        for node in nodes:
            session.add_node(node)
        for parent, child in [(0, 1), (1, 2), (2, 1)]:
            session.add_edge(nodes[parent], nodes[child])

    assert isinstance(await refused(setup, runtime), GraphCycleError)


@pytest.mark.parametrize("wrong", ["empty", "twice", "never added"])
async def test_a_graph_that_would_swallow_events_is_an_error(runtime: Runtime, wrong: str) -> None:
    def setup(session: CrewSession) -> None:
        node = Talker()
        if wrong != "empty":
            session.add_node(node)
        if wrong == "twice":
            session.add_node(node)
        if wrong == "never added":
            session.add_edge(node, Talker("stranger"))

    assert isinstance(await refused(setup, runtime), GraphError)


async def test_start_locks_the_graph(runtime: Runtime) -> None:
    """A second `start` or a late change is an error, and the session goes on."""
    errors: list[GraphError] = []

    async def setup(session: CrewSession) -> None:
        node = Talker()
        session.add_node(node)
        await session.start()
        for change in (
            lambda: session.add_node(Talker()),
            lambda: session.add_edge(node, node),
        ):
            with pytest.raises(GraphError) as raised:
                change()
            errors.append(raised.value)
        with pytest.raises(GraphError) as raised:
            await session.start()
        errors.append(raised.value)

    async with talking(setup, runtime) as client:
        assert await client.ask("Well?") == "Yes."
    assert len(errors) == 3


async def test_an_event_that_comes_by_two_paths_is_seen_once(runtime: Runtime) -> None:
    class Pass(CrewNode):
        async def process_event(self, event: SDKEvent) -> None:
            await self.send_event(event)

    top, left, right, end = Pass("top"), Pass("left"), Pass("right"), Talker()
    edges = [(top, left), (top, right), (left, end), (right, end)]
    setup = graph(top, left, right, end, edges=edges)
    async with talking(setup, runtime) as client:
        await client.send("agent.transcript.update", role="user", content="hi")
        await client.send("system.user.joined")
        assert types(await client.until("system.user.joined")) == [
            "agent.transcript.update",
            "system.user.joined",
        ]
    assert [message["content"] for message in end.context.messages] == ["hi"]


async def test_events_fan_out_in_the_order_of_the_edges(runtime: Runtime) -> None:
    seen: list[str] = []

    class Note(BackgroundCrewNode):
        async def process_event(self, event: SDKEvent) -> None:
            seen.append(self.name)

    nodes = [Note(f"{number}") for number in range(20)]
    async with talking(graph(*nodes, Talker()), runtime) as client:
        await client.send("system.user.joined")
        await client.until("system.user.joined")
    assert seen == [node.name for node in nodes]


# -- interruptions


async def test_an_interruption_reaches_everybody_though_one_of_them_raises(
    runtime: Runtime,
) -> None:
    class Broken(CrewNode):
        async def process_event(self, event: SDKEvent) -> None:
            if isinstance(event, SDKSystemControlInterruptEvent):
                raise LookupError("not now")

    nodes = [Broken("first"), Talker(), Broken("last")]
    async with talking(graph(*nodes), runtime) as client:
        await hold(client)
        await client.send("system.control.interrupt")
        got = await client.until("system.control.interrupt")
        errors = [each["payload"]["node_name"] for each in got if each["type"] == "agent.error"]
        while len(errors) < 2:
            errors.append((await client.until("agent.error"))[-1]["payload"]["node_name"])
        assert sorted(errors) == ["first", "last"], "not told of the root"
        assert "agent.llm.response.end" in types(got)


async def test_an_interruption_loses_no_transcript_that_waits(runtime: Runtime) -> None:
    talker = Talker()
    async with talking(graph(talker), runtime) as client:
        await hold(client)
        await client.send("agent.transcript.update", role="user", content="never mind")
        await client.send("system.control.interrupt")
        got = types(await client.until("agent.transcript.update"))
        assert got.index("system.control.interrupt") < got.index("agent.transcript.update")
        assert await client.ask("and now?") == "Yes."
    assert [message["content"] for message in talker.context.messages] == [
        "hold",
        "never mind",
        "and now?",
    ]


async def test_a_tool_that_is_interrupted_is_told_of(runtime: Runtime) -> None:
    class Digger(OutputCrewNode):
        def __init__(self) -> None:
            super().__init__("digger")
            self.tools = ToolRegistry()
            self.tools.discover(self)

        @function_tool
        async def dig(self) -> None:
            await asyncio.Event().wait()

        async def generate_response(self) -> AsyncIterator[str]:
            await self.tools.execute([ToolCall("c1", "dig", "{}")])
            yield "dug"

    async with talking(graph(Digger()), runtime) as client:
        await client.send("system.llm.request")
        assert (await client.until("agent.log"))[-1]["name"] == "tool_call_start"
        await client.send("system.control.interrupt")
        told = await client.until("system.control.interrupt")
        assert [each["name"] for each in told if "name" in each] == ["tool_call_error"]


# -- frames


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b'{"type": "agent.speak"}', "invalid_field"),
        (b'{"type": "agent.transcript.update", "role": "{nobody}", "content": 1}', "invalid_field"),
        (b'{"type": "agent.{unknown}"}', "unknown_type"),
        (b'{"text": "no type"}', "no_type"),
        (b"[1, 2]", "bad_json"),
        (b"{braces} but no JSON", "bad_json"),
        (b"\xff\xfe", "bad_json"),
    ],
)
async def test_a_frame_that_cannot_be_understood_is_answered_and_closes_nothing(
    runtime: Runtime, caplog: pytest.LogCaptureFixture, frame: bytes, code: str
) -> None:
    with caplog.at_level(logging.DEBUG):
        async with talking(graph(Talker()), runtime) as client:
            await client.raw(frame)
            error = await client.next()
            assert (error["type"], error["severity"]) == ("agent.error", "warning")
            assert error["payload"]["code"] == code
            assert await client.ask("Still there?") == "Yes."


async def test_braces_in_an_error_are_told_as_they_are(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    class Brace(Talker):
        async def on_event(self, event: SDKEvent) -> None:
            if isinstance(event, SDKAgentTranscriptUpdateEvent):
                raise ValueError(f"no {{such}} thing as {event.content} %s")

    async with talking(graph(Brace()), runtime) as client:
        await client.send("agent.transcript.update", role="user", content="{x}")
        error = (await client.until("agent.error"))[-1]
    assert error["message"].endswith("no {such} thing as {x} %s")
    assert "no {such} thing as {x} %s" in caplog.text


async def test_text_frames_are_as_good_as_binary_ones(runtime: Runtime) -> None:
    async with serving(graph(Talker()), runtime) as server, server.connection() as client:
        await client.raw('{"type": "system.init"}')
        assert (await client.next())["type"] == "agent.ready"
        await client.raw('{"type": "system.llm.request"}')
        assert types(await client.until("agent.llm.response.end"))[1] == "agent.llm.response.chunk"
        assert client.kinds == {str}, "answered as it was asked"


async def test_a_first_frame_that_is_none_is_told_and_the_session_begins_with_the_right_one(
    runtime: Runtime,
) -> None:
    async with serving(graph(Talker()), runtime) as server, server.connection() as client:
        await client.send("system.user.joined")
        assert "system.init" in (await client.next())["message"]
        assert (await client.begin())["type"] == "agent.ready"
        assert await client.ask("Well?") == "Yes."


# -- setup, and the end


async def test_a_setup_handler_that_returns_early_does_not_end_the_session(
    runtime: Runtime,
) -> None:
    async def setup(session: CrewSession) -> None:
        session.add_node(Talker())
        await session.start()

    async with talking(setup, runtime) as client:
        assert await client.ask("Well?") == "Yes."
        assert await client.ask("And?") == "Yes."


async def test_a_setup_handler_that_raises_is_told_of(runtime: Runtime) -> None:
    calls: list[str] = []

    async def setup(session: CrewSession) -> None:
        calls.append(session.session_id)
        raise RuntimeError("no {key}")

    async with serving(setup, runtime) as server, server.connection() as client:
        error = await client.begin()
        assert "no {key}" in error["message"]
        assert await client.closed() == 1011
        assert server.app.hub.not_ready == "RuntimeError: no {key}"
    assert len(calls) == 2, "once when the server started, once for the client"


async def test_a_client_that_leaves_in_the_middle_of_an_answer_ends_the_session(
    runtime: Runtime,
) -> None:
    over = asyncio.Event()
    talker = Talker()

    async def setup(session: CrewSession) -> None:
        session.add_node(talker)
        await session.start()
        await session.wait_until_complete()
        over.set()

    async with serving(setup, runtime) as server:
        async with server.client() as client:
            await hold(client)
            assert server.app.hub.active == 1, "counted while it is connected"
        async with asyncio.timeout(PATIENCE):
            await over.wait()
        assert talker.stopped.is_set()
        assert server.app.hub.active == 0


async def test_code_after_the_wait_runs_when_the_call_is_ended(runtime: Runtime) -> None:
    over = asyncio.Event()

    async def setup(session: CrewSession) -> None:
        session.add_node(Talker())
        await session.start()
        await session.send_event(SDKAgentEndCallEvent())
        await session.wait_until_complete()
        over.set()

    async with talking(setup, runtime) as client:
        await client.until("agent.end_call")
        assert await client.closed() == 1000
        async with asyncio.timeout(PATIENCE):
            await over.wait()


async def test_sessions_share_nothing(runtime: Runtime) -> None:
    async def setup(session: CrewSession) -> None:
        class Counter(Talker):
            async def generate_response(self) -> AsyncIterator[str]:
                count = session.context["count"] = session.context.get("count", 0) + 1
                yield f"{count}"

        session.add_node(Counter())
        await session.start()
        await session.wait_until_complete()

    async with serving(setup, runtime) as server, server.client() as one, server.client() as two:
        assert [await one.ask("?"), await one.ask("?"), await two.ask("?")] == ["1", "2", "1"]


# -- tools and handoffs


class Clerk(OutputCrewNode):
    """Calls the tool that the user names, and says what it gave."""

    def __init__(self) -> None:
        super().__init__("clerk")
        self.tools = ToolRegistry()
        self.tools.discover(self)

    async def generate_response(self) -> AsyncIterator[str]:
        name, _, arguments = self.context.messages[-1]["content"].partition(" ")
        [result] = await self.tools.execute([ToolCall("c1", name, arguments)])
        yield f"{'error' if result.is_error else 'result'}: {result.content}"

    @function_tool
    async def fail(self) -> None:
        raise LookupError("no {such} row")

    @function_tool
    async def nothing(self) -> None:
        return None


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("fail {}", "error: no {such} row"),
        ("nothing {bad", "error: Expecting property name"),
        ("nobody {}", "error: Unknown tool: nobody"),
        ("nothing {}", "result: null"),
    ],
)
async def test_a_tool_call_never_breaks_the_answer(
    runtime: Runtime, asked: str, answered: str
) -> None:
    async with talking(graph(Clerk()), runtime) as client:
        assert (await client.ask(asked)).startswith(answered)


async def test_a_transferred_call_is_not_answered_again(runtime: Runtime) -> None:
    class Transferring(Talker):
        answers = 0

        async def generate_response(self) -> AsyncIterator[str]:
            self.answers += 1
            await self.send_event(SDKAgentTransferConversationEvent(transfer_call_number="+1555"))
            yield "One moment."

    node = Transferring()
    async with talking(graph(node), runtime) as client:
        await client.send("system.llm.request")
        await client.send("system.llm.request")
        got = types(await client.until("agent.llm.response.end"))
        got += types(await client.until("system.llm.request"))
        got += types(await client.until("system.llm.request"))
    assert node.answers == 1
    assert got.count("agent.llm.response.start") == 1
    assert got.count("system.llm.request") == 2


async def test_an_answer_that_ends_the_call_is_said_to_its_end(runtime: Runtime) -> None:
    class Polite(OutputCrewNode):
        async def generate_response(self) -> AsyncIterator[str]:
            await self.send_event(SDKAgentEndCallEvent())
            for _ in range(50):
                await asyncio.sleep(0)
            yield "Goodbye."

    async with talking(graph(Polite("polite")), runtime) as client:
        await client.send("system.llm.request")
        told = await client.until("agent.llm.response.end")
        assert types(told) == [
            "agent.llm.response.start",
            "agent.end_call",
            "agent.llm.response.chunk",
            "agent.llm.response.end",
        ]
        assert told[-1]["interrupted"] is False
        assert await client.closed() == 1000


async def test_who_leaves_does_not_wait_for_the_end_of_an_answer_that_ended_the_call(
    runtime: Runtime,
) -> None:
    class Endless(Talker):
        async def generate_response(self) -> AsyncIterator[str]:
            await self.send_event(SDKAgentEndCallEvent())
            yield "Good"
            try:
                await asyncio.Event().wait()
            finally:
                self.stopped.set()

    node = Endless()
    async with serving(graph(node), runtime) as server, server.client() as client:
        await client.send("system.llm.request")
        await client.until("agent.llm.response.chunk")
        await client.leave()
        async with asyncio.timeout(PATIENCE):
            await node.stopped.wait()


# -- hooks


async def test_hooks_see_every_type_in_both_directions(runtime: Runtime) -> None:
    seen: list[tuple[str, str, bool]] = []

    def note(name: str) -> Any:
        async def hook(session: CrewSession, event: Any) -> None:
            seen.append((name, event.type, event.session_id == session.session_id))

        return hook

    async def setup(session: CrewSession) -> None:
        session.add_node(Talker())
        session.on_event("system.user_joined")(note("before"))
        await session.start()
        session.add_event_handler("agent.speak", note("after"))
        session.add_event_handler("on_event_received", note("received"))
        await session.speak("Hello.")
        await session.wait_until_complete()

    async with talking(setup, runtime) as client:
        await client.send("system.user.joined")
        await client.until("system.user.joined")
    assert sorted(seen) == [
        ("after", "agent.speak", True),
        ("before", "system.user.joined", True),
        ("received", "system.user.joined", True),
    ]
