"""The graph of a session at work: order, failures, full inboxes, nodes that never return."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.live.talking import (
    Card,
    Gate,
    Recorder,
    Says,
    Tick,
    chained,
    eventually,
    live,
    settled,
)

from tertulia import Runtime
from tertulia.errors import GraphCycleError, GraphError, InvalidInput, UsageError
from tertulia.live import AgentSession, BackgroundNode, Node, inbox
from tertulia.wire.events import (
    AgentErrorEvent,
    AgentLog,
    LiveEvent,
    LLMRequest,
    ResponseChunk,
    ResponseEnd,
    ResponseStart,
    TranscriptUpdate,
    UserInterrupt,
)


class Raising(Recorder):
    """Raises at every event, after it noted it."""

    def __init__(self, said: str = "wrong", **options: Any) -> None:
        super().__init__(**options)
        self._said = said

    async def process_event(self, event: LiveEvent) -> None:
        await super().process_event(event)
        raise ValueError(self._said)


async def new(runtime: Runtime) -> AgentSession:
    session = AgentSession(runtime.session())
    await session.open()
    return session


# -- start


@pytest.mark.parametrize("edges", ["aa", "ab ba", "ab bc ca", "ab cd dc", "ab bc cb", "ba cb ac"])
async def test_every_cycle_is_refused_at_start_with_its_path(edges: str) -> None:
    async with Runtime("memory:") as runtime:
        session = await new(runtime)
        nodes = {name: Recorder(name) for name in "abcd"}
        for node in nodes.values():
            session.add_node(node)
        for edge in edges.split():
            session.add_edge(nodes[edge[0]], nodes[edge[1]])
        with pytest.raises(ValueError, match=r"(\w) ->.* \1") as refused:
            await session.start()
        assert isinstance(refused.value, GraphCycleError)
        assert not session.started


async def test_a_graph_that_cannot_be_is_refused_and_nothing_changes_after_start() -> None:
    async with Runtime("memory:") as runtime:
        session = await new(runtime)
        with pytest.raises(GraphError, match="empty"):
            await session.start()
        first, second = Recorder("first"), Recorder("second")
        session.add_node(first)
        with pytest.raises(GraphError, match="added already"):
            session.add_node(first)
        session.add_edge(first, second)
        with pytest.raises(GraphError, match="'second'"):
            await session.start()
        session.add_node(second)
        await session.start()
        for change in (
            lambda: session.add_node(Recorder()),
            lambda: session.add_edge(second, first),
        ):
            with pytest.raises(GraphError, match="locked"):
                change()
        with pytest.raises(GraphError, match="start again"):
            await session.start()
        assert "n0 --> n1" in session.graph.to_mermaid()
        await session.stop()


async def test_a_node_of_another_session_is_refused() -> None:
    node = Recorder("mine")
    with pytest.raises(UsageError, match="is in no session yet"):
        _ = node.session
    async with live(node), Runtime("memory:") as runtime:
        other = await new(runtime)
        other.add_node(node)
        with pytest.raises(UsageError, match="another session"):
            await other.start()


@pytest.mark.parametrize("options", [{"inbox": 0}, {"inbox": "9"}, {"overflow": "explode"}])
def test_an_inbox_that_cannot_be_is_refused(options: Any) -> None:
    with pytest.raises(InvalidInput):
        Recorder(**options)


async def test_nodes_start_and_stop_once_in_the_order_of_the_graph() -> None:
    order: list[str] = []

    class Noting(Node):
        async def start(self) -> None:
            order.append(f"start {self.name}")

        async def stop(self) -> None:
            order.append(f"stop {self.name}")

    async with live(Noting("a"), Noting("b"), Noting("c")) as (session, _):
        await session.stop()
        await session.stop()
    assert order == [f"{what} {name}" for what in ("start", "stop") for name in "abc"]


async def test_a_node_takes_no_event_before_its_start_has_returned() -> None:
    order: list[str] = []

    class First(Node):
        async def start(self) -> None:
            await self.send_event(Tick())

    class Second(Node):
        async def start(self) -> None:
            await asyncio.sleep(0.01)
            order.append("started")

        async def process_event(self, event: LiveEvent) -> None:
            order.append(event.type)

    async with live(First(), Second()) as (session, _):
        await settled(session)
        assert order == ["started", "test.tick"]


async def test_what_a_node_says_in_its_start_comes_to_the_client() -> None:
    class Early(Node):
        async def start(self) -> None:
            await self.session.speak("I am here")
            await self.send_event(Card(title="early"))

    async with live(Early()) as (_, client):
        await client.until(Card)
        assert client.types == ["agent.ready", "agent.speak", "test.card"]


async def test_a_start_that_raises_raises_from_the_sessions_start_and_the_rest_still_stops() -> (
    None
):
    stopped: list[str] = []

    class Wrong(Node):
        async def start(self) -> None:
            if self.name == "b":
                raise ConnectionError("no line")

        async def stop(self) -> None:
            stopped.append(self.name)

    async with live(Wrong("a"), Wrong("b"), start=False) as (session, _):
        with pytest.raises(ConnectionError, match="no line"):
            await session.start()
    assert "a" in stopped


async def test_a_stop_that_cancels_its_own_task_and_awaits_it_ends_the_session() -> None:
    stopped: list[str] = []

    class Working(Node):
        async def start(self) -> None:
            self.task = asyncio.create_task(asyncio.Event().wait())

        async def stop(self) -> None:
            self.task.cancel()
            await self.task

    class Last(Node):
        async def stop(self) -> None:
            stopped.append(self.name)

    async with live(Working(), Last("last"), ends_in=1):
        pass
    assert stopped == ["last"]


async def test_a_stop_that_raises_keeps_no_other_node_from_its_stop() -> None:
    stopped: list[str] = []

    class Wrong(Node):
        async def stop(self) -> None:
            stopped.append(self.name)
            raise ValueError(self.name)

    async with live(Wrong("a"), Wrong("b")):
        pass
    assert stopped == ["a", "b"]


# -- the flow


async def test_a_plain_node_sends_on_the_same_object() -> None:
    last = Recorder()
    async with live(Node(), Node(), last) as (session, _):
        sent = Tick(number=1)
        await session.receive(sent)
        await settled(session)
        assert last.got == [sent]
        assert last.got[0] is sent
        assert (sent.direction, sent.session_id, sent.seq) == ("in", "s", None)
        assert sent.id
        assert sent.timestamp


async def test_thousands_of_events_keep_their_order_through_small_inboxes() -> None:
    class Slow(Recorder):
        async def process_event(self, event: LiveEvent) -> None:
            if isinstance(event, Tick) and event.number % 7 == 0:
                await asyncio.sleep(0)
            await super().process_event(event)

    slow, last = Slow(inbox=3), Recorder(inbox=2)
    async with live(Node(inbox=1), slow, last) as (session, client):
        for number in range(3_000):
            await session.receive(Tick(number=number))
            if number % 100 == 0:
                await session.receive(TranscriptUpdate(role="user", content=str(number)))
        await settled(session)
        for node in (slow, last):
            assert [event.number for event in node.of(Tick)] == list(range(3_000))
        assert len(last.of(TranscriptUpdate)) == 30
        assert not client.of(AgentErrorEvent)


async def test_children_get_an_event_in_the_order_their_edges_were_added() -> None:
    order: list[str] = []

    class Noting(Node):
        async def process_event(self, event: LiveEvent) -> None:
            order.append(self.name)

    parent, children = Node("parent"), [Noting(name) for name in "abc"]

    def build(session: AgentSession) -> None:
        for node in (*children, parent):
            session.add_node(node)
        for place in (2, 0, 1):
            session.add_edge(parent, children[place])

    async with live(build=build) as (session, _):
        await settled(session)
        await session.receive(Tick())
        await settled(session)
        assert order == ["c", "a", "b"]
        assert [child.name for child in parent.children] == ["c", "a", "b"]


async def test_an_event_by_two_paths_is_delivered_once_and_a_transformed_one_anew() -> None:
    class Changing(Node):
        async def process_event(self, event: LiveEvent) -> None:
            await self.send_event(event)
            if isinstance(event, Tick):
                await self.send_event(Card(title=self.name))

    top, join = Node("top"), Recorder("join")
    middle = [Changing("left"), Changing("right"), Changing("straight")]

    def build(session: AgentSession) -> None:
        chained(session, top)
        for node in (*middle, join):
            session.add_node(node)
        for node in middle:
            session.add_edge(top, node)
            session.add_edge(node, join)
        session.add_edge(top, join)

    async with live(build=build) as (session, client):
        for number in range(50):
            await session.receive(Tick(number=number))
        await settled(session)
        assert [event.number for event in join.of(Tick)] == list(range(50))
        assert len(join.of(Card)) == 150
        assert len(client.of(Card)) == 150
        seqs = [event.seq or 0 for event in client.of(Card)]
        assert seqs == sorted(set(seqs))


async def test_an_event_that_two_leaves_send_goes_out_once() -> None:
    top, leaves = Node("top"), [Recorder("left"), Recorder("right")]

    def build(session: AgentSession) -> None:
        session.add_node(top)
        for leaf in leaves:
            session.add_node(leaf)
            session.add_edge(top, leaf)

    async with live(build=build) as (session, client):
        await top.queue_event(Card(title="one"))
        await top.queue_event(AgentLog(name="n"))
        await settled(session)
        assert client.types == ["agent.ready", "test.card", "agent.log"]


async def test_an_event_is_frozen_so_that_siblings_cannot_disturb_each_other() -> None:
    class Disturbing(Node):
        async def process_event(self, event: LiveEvent) -> None:
            event.number = 99  # pyright: ignore[reportAttributeAccessIssue]

    sibling = Recorder()

    def build(session: AgentSession) -> None:
        session.add_node(Disturbing())
        session.add_node(sibling)

    async with live(build=build) as (session, client):
        await session.receive(Tick(number=1))
        told = await client.until(AgentErrorEvent)
        await settled(session)
        assert [event.number for event in sibling.of(Tick)] == [1]
        assert told.payload["error_class"] == "AttributeError"


async def test_queue_event_goes_into_the_nodes_own_inbox_and_send_event_past_it() -> None:
    node, last = Recorder("node"), Recorder("last")
    async with live(node, last) as (session, _):
        await node.queue_event(Tick(number=1))
        await node.send_event(Tick(number=2))
        await settled(session)
        assert [event.number for event in node.of(Tick)] == [1]
        assert sorted(event.number for event in last.of(Tick)) == [1, 2]


# -- failures


@pytest.mark.parametrize(
    ("kind", "severity"), [(Recorder, "fatal"), (BackgroundNode, "warning"), (Says, "fatal")]
)
async def test_an_exception_is_told_with_the_severity_of_its_node(
    kind: type[Node], severity: str
) -> None:
    class Wrong(kind):
        async def process_event(self, event: LiveEvent) -> None:
            raise KeyError("no {such} %s key")

    async with live(Wrong(name="wrong")) as (session, client):
        await session.receive(Tick())
        told = await client.until(AgentErrorEvent)
        assert told.severity == severity
        assert told.message == "KeyError in wrong.process_event: 'no {such} %s key'"
        assert told.payload == {"node_name": "wrong", "error_class": "KeyError"}
        assert told.seq is not None
        assert not session.complete


async def test_a_node_that_raises_goes_on_and_so_do_its_siblings() -> None:
    raising, sibling = Raising(name="raising"), Recorder("sibling")

    def build(session: AgentSession) -> None:
        session.add_node(raising)
        session.add_node(sibling)

    async with live(build=build) as (session, client):
        for number in range(20):
            await session.receive(Tick(number=number))
        await settled(session)
        assert len(raising.got) == len(sibling.got) == len(client.of(AgentErrorEvent)) == 20
        assert not session.complete


@pytest.mark.parametrize("text", ["{", "}{0}%s%(x)d", "x" * 100_000, "\x00\x1b[31m\n", "😀" * 500])
async def test_any_text_of_an_exception_comes_to_the_client(text: str) -> None:
    async with live(Raising(text)) as (session, client):
        await session.receive(Tick())
        told = await client.until(AgentErrorEvent)
        assert told.message.startswith("ValueError in Raising.process_event: ")
        assert len(told.message) <= 1_000


async def test_an_exception_whose_text_is_no_utf8_comes_to_the_client(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL, "tertulia.live")  # no such text in the report of the tests
    async with live(Raising("bad \udc80 name")) as (session, client), asyncio.timeout(2):
        await session.receive(Tick())
        await client.until(AgentErrorEvent)


async def test_a_node_whose_own_task_was_cancelled_goes_on() -> None:
    class Cancelled(Recorder):
        async def process_event(self, event: LiveEvent) -> None:
            await super().process_event(event)
            task = asyncio.create_task(asyncio.Event().wait())
            task.cancel()
            await task

    node = Cancelled()
    async with live(node) as (session, _), asyncio.timeout(2):
        await session.receive(Tick(number=1))
        await session.receive(Tick(number=2))
        await eventually(lambda: len(node.got) == 2)


async def test_an_answer_that_fails_ends_for_the_client_and_the_next_one_is_given() -> None:
    class Failing(Says):
        async def generate_response(self) -> AsyncIterator[Any]:
            self.requests += 1
            yield "half "
            if self.requests == 1:
                raise OSError("gone")
            yield "whole"

    async with live(Failing()) as (session, client):
        await session.receive(LLMRequest())
        assert (await client.until(ResponseEnd)).interrupted
        assert (await client.until(AgentErrorEvent)).payload["error_class"] == "OSError"
        await session.receive(LLMRequest())
        assert not (await client.until(ResponseEnd, 2)).interrupted
        assert client.text() == "half whole"


@pytest.mark.parametrize("piece", [b"bytes", None, 7, {"a": 1}])
async def test_a_piece_that_is_no_text_is_an_error_that_says_so(piece: Any) -> None:
    class Wrong(Says):
        async def generate_response(self) -> AsyncIterator[Any]:
            yield "a"
            yield piece

    async with live(Wrong(name="says")) as (session, client):
        await session.receive(LLMRequest())
        told = await client.until(AgentErrorEvent)
        assert told.message.startswith("InvalidInput in says.generate_response")
        assert repr(piece) in told.message
        assert (await client.until(ResponseEnd)).interrupted


# -- nodes that never return


@pytest.mark.parametrize("overflow", ["wait", "drop_oldest", "drop_newest"])
async def test_a_node_that_never_returns_stops_nobody_and_is_told_once(
    overflow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "PATIENCE", 0.05)
    stuck, sibling = Gate("stuck", inbox=3, overflow=overflow), Recorder("sibling")

    def build(session: AgentSession) -> None:
        session.add_node(stuck)
        session.add_node(sibling)

    async with live(build=build) as (session, client):
        await session.receive(Tick(number=0))
        await stuck.reached.wait()
        for number in range(1, 50):
            await session.receive(Tick(number=number))
        await session.receive(UserInterrupt())
        await eventually(lambda: len(sibling.of(Tick)) == 50)
        assert [event.number for event in sibling.of(Tick)] == list(range(50))
        assert len(sibling.of(UserInterrupt)) == 1
        await client.until(AgentErrorEvent)
        told = client.of(AgentErrorEvent)
        assert [event.payload["code"] for event in told] == ["inbox_full"]
        assert told[0].severity == "warning"
        stuck.opened.set()
        await settled(session)
        kept = [event.number for event in stuck.of(Tick)]
        assert kept == ([0, 47, 48, 49] if overflow == "drop_oldest" else [0, 1, 2, 3])
        await session.receive(Tick(number=100))
        await settled(session)
        assert stuck.of(Tick)[-1].number == 100


async def test_an_interrupt_gets_a_node_going_that_never_returns() -> None:
    class Stuck(Recorder):
        async def process_event(self, event: LiveEvent) -> None:
            await super().process_event(event)
            if isinstance(event, Tick) and event.number == 0:
                await asyncio.Event().wait()

    stuck = Stuck(is_interruptible=True)
    async with live(stuck) as (session, _):
        for number in range(5):
            await session.receive(Tick(number=number))
        await eventually(lambda: stuck.got)
        await session.receive(UserInterrupt())
        await settled(session)
        assert [event.number for event in stuck.of(Tick)] == list(range(5))


async def test_many_senders_lose_nothing_in_an_inbox_where_they_wait() -> None:
    class Making(Node):
        async def process_event(self, event: LiveEvent) -> None:
            for number in range(40):
                await self.send_event(Tick(number=number))

    class Slow(Recorder):
        async def process_event(self, event: LiveEvent) -> None:
            await asyncio.sleep(0)
            await super().process_event(event)

    slow, senders = Slow(inbox=1), [Making(f"p{number}") for number in range(5)]

    def build(session: AgentSession) -> None:
        for node in (*senders, slow):
            session.add_node(node)
        for sender in senders:
            session.add_edge(sender, slow)

    async with live(build=build) as (session, client):
        await session.receive(Tick())
        await settled(session)
        assert len(slow.got) == 200
        assert not client.of(AgentErrorEvent)


async def test_a_background_node_delays_nobody_and_sees_everything() -> None:
    class Watching(BackgroundNode):
        def __init__(self) -> None:
            super().__init__("watching")
            self.go = asyncio.Event()
            self.seen: list[LiveEvent] = []

        async def process_event(self, event: LiveEvent) -> None:
            await self.go.wait()
            self.seen.append(event)

    watching, last = Watching(), Recorder("last")
    async with live(watching, last) as (session, _):
        for number in range(10):
            await session.receive(Tick(number=number))
        await eventually(lambda: len(last.of(Tick)) == 10)
        assert not watching.seen
        watching.go.set()
        await settled(session)
        assert watching.seen == last.got


async def test_a_node_that_sends_what_cannot_be_kept_is_told_and_the_flow_goes_on() -> None:
    async with live(Recorder()) as (session, client):
        await session.send_event(AgentLog(name="bad", payload={"a": object()}))
        await session.send_event(AgentLog(name="good"))
        await client.until(AgentLog)
        told = client.of(AgentErrorEvent)
        assert [event.payload["code"] for event in told] == ["not_kept"]
        with pytest.raises(UsageError, match="is no event"):
            await session.send_event("hello")  # pyright: ignore[reportArgumentType]


async def test_chunks_of_a_node_without_ids_belong_to_its_answer() -> None:
    class Plain(Node):
        async def process_event(self, event: LiveEvent) -> None:
            if isinstance(event, LLMRequest):
                await self.send_event(ResponseStart())
                await self.send_event(ResponseChunk(text="a"))
                await self.send_event(ResponseChunk(text="b"))
                await self.send_event(ResponseEnd())

    async with live(Plain()) as (session, client):
        await session.receive(LLMRequest())
        ended = await client.until(ResponseEnd)
        assert client.text() == "ab"
        assert ended.seq is not None
        assert [message.text for message in await session.conversation.history()] == ["ab"]
