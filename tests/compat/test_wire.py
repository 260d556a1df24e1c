"""What goes over the WebSocket, frame by frame, as the other SDK has it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.compat.serving import Frame, served

from tertulia import Runtime
from tertulia.compat.atoms import AtomsApp, CrewSession, OutputCrewNode
from tertulia.compat.atoms.events import (
    SDKAgentTransferConversationEvent,
    SDKEvent,
    SDKSystemUserJoinedEvent,
    TransferOption,
)
from tertulia.errors import InvalidInput

OURS = {"id", "timestamp", "session_id", "seq", "direction", "metadata", "offset", "resumed",
        "resume_for", "received", "interrupted", "discarded", "heard"}  # fmt: skip
"""Fields that the SDK does not have and that its clients ignore."""


class Counting(OutputCrewNode):
    """Counts until it is told to stop, one step each time somebody listens."""

    def __init__(self, steps: int) -> None:
        super().__init__("counting")
        self._steps = steps

    async def generate_response(self) -> AsyncIterator[str]:
        for number in range(self._steps):
            yield f"c{number} "
        if self._steps == 2:
            await asyncio.Event().wait()


def app(steps: int) -> AtomsApp:
    async def setup(session: CrewSession) -> None:
        session.add_node(Counting(steps))
        await session.start()
        await session.wait_until_complete()

    return AtomsApp(setup, store="memory:")


def plain(frames: list[Frame]) -> list[Frame]:
    """Frames as the SDK would have written them."""
    kept = [{key: each[key] for key in each if key not in OURS} for each in frames]
    return [{**each, "request_id": None} if "request_id" in each and "text" not in each
            else {key: each[key] for key in each if key != "request_id"} for each in kept
            ]  # fmt: skip


START: Frame = {"type": "agent.llm.response.start", "request_id": None}
JOINED: Frame = {"type": "system.user.joined"}
SAID: Frame = {"type": "agent.transcript.update", "role": "user", "content": "hi"}
REQUEST: Frame = {"type": "system.llm.request", "messages": None, "extra_params": {}}
INTERRUPT: Frame = {"type": "system.control.interrupt"}


def chunk(number: int) -> Frame:
    return {"type": "agent.llm.response.chunk", "text": f"c{number} "}


async def test_the_transcript_of_an_interrupted_answer() -> None:
    async with served(app(2)) as server, server.connection() as client:
        assert plain([await client.begin()]) == [{"type": "agent.ready"}]
        await client.send("system.user.joined")
        assert plain([await client.next()]) == [JOINED]
        await client.send("agent.transcript.update", role="user", content="hi")
        assert plain([await client.next()]) == [SAID]
        await client.send("system.llm.request")
        got = [await client.next() for _ in range(3)]
        assert plain(got) == [START, chunk(0), chunk(1)]
        await client.send("system.control.interrupt")
        [end, echo] = [await client.next() for _ in range(2)]
        assert plain([echo]) == [INTERRUPT]
        assert (end["type"], end["interrupted"]) == ("agent.llm.response.end", True)
        assert end["request_id"] == got[0]["request_id"] is not None
        assert client.kinds == {bytes}


async def test_the_transcript_of_a_whole_answer() -> None:
    async with served(app(3)) as server, server.client() as client:
        await client.send("system.llm.request")
        got = await client.until("system.llm.request")
        assert [each["type"] for each in got[-2:]] == [
            "agent.llm.response.end",
            "system.llm.request",
        ]
        assert plain([*got[:-2], got[-1]]) == [START, chunk(0), chunk(1), chunk(2), REQUEST]
        assert [each["offset"] for each in got[1:4]] == [0, 3, 6]


async def test_every_event_says_what_it_is_part_of() -> None:
    async with served(app(1)) as server, server.connection() as client:
        ready = await client.begin()
        await client.send("system.user.joined", id="mine")
        echo = await client.next()
        assert (echo["id"], echo["direction"]) == ("mine", "in")
        assert echo["session_id"] == ready["session_id"]
        assert ready["direction"] == "out"
        assert ready["id"] != echo["id"]


async def test_the_sequence_of_the_chat_client_of_the_sdk() -> None:
    histories: asyncio.Queue[list[Any]] = asyncio.Queue()

    async def setup(session: CrewSession) -> None:
        node = Parrot()
        session.add_node(node)
        await session.start()

        @session.on_event("on_event_received")
        async def greet(session: CrewSession, event: SDKEvent) -> None:  # pyright: ignore[reportUnusedFunction]
            if isinstance(event, SDKSystemUserJoinedEvent):
                await node.speak("Welcome.")

        await session.wait_until_complete()
        history = await session.conversation.history()
        histories.put_nowait([(message.role, message.text) for message in history])

    async with served(AtomsApp(setup, store="memory:")) as server:
        async with server.client() as client:
            await client.send("system.user.joined")
            greeting = (await client.until("agent.speak"))[-1]
            assert greeting["text"] == "Welcome."
            for line in ("one", "two"):
                assert await client.ask(line) == f"You said {line}."
                said = {"role": "assistant", "content": f"You said {line}."}
                await client.send("agent.transcript.update", **said)
        async with asyncio.timeout(10):
            assert await histories.get() == [
                ("assistant", "Welcome."),
                ("user", "one"),
                ("assistant", "You said one."),
                ("user", "two"),
                ("assistant", "You said two."),
            ]


class Parrot(OutputCrewNode):
    """Repeats the user."""

    def __init__(self) -> None:
        super().__init__("parrot")

    async def generate_response(self) -> AsyncIterator[str]:
        for word in ("You said ", self.context.messages[-1]["content"], "."):
            yield word


class Ping(SDKEvent, type="wire.ping"):
    """An event of an application, in both directions."""

    number: int
    note: str | None = None


async def test_events_of_the_application_go_both_ways() -> None:
    class Answering(Parrot):
        async def on_event(self, event: SDKEvent) -> None:
            if isinstance(event, Ping) and event.number < 2:
                await self.send_event(Ping(number=event.number + 1))

    async def setup(session: CrewSession) -> None:
        session.add_node(Answering())
        await session.start()

    async with served(AtomsApp(setup, store="memory:")) as server, server.client() as client:
        await client.send("wire.ping", number=1, unknown="ignored")
        assert plain([await client.next(), await client.next()]) == [
            {"type": "wire.ping", "number": 2, "note": None},
            {"type": "wire.ping", "number": 1, "note": None},
        ]


async def test_a_transfer_is_written_as_the_sdk_writes_it() -> None:
    async def setup(session: CrewSession) -> None:
        session.add_node(Parrot())
        await session.start()
        options: Any = TransferOption(type="cold_transfer")
        await session.send_to_websocket(
            SDKAgentTransferConversationEvent(
                transfer_call_number="+1555", transfer_options=options
            )
        )

    async with served(AtomsApp(setup, store="memory:")) as server, server.client() as client:
        assert plain(await client.until("agent.transfer_call"))[-1] == {
            "type": "agent.transfer_call",
            "transfer_call_number": "+1555",
            "transfer_options": {
                "type": "cold_transfer",
                "private_handoff_option": None,
                "public_handoff_option": None,
            },
            "on_hold_music": None,
        }


async def test_a_conversation_that_goes_on_is_known_to_its_nodes() -> None:
    nodes: list[Parrot] = []

    async def setup(session: CrewSession) -> None:
        nodes.append(Parrot())
        nodes[-1].context.add_message({"role": "system", "content": "Repeat."})
        session.add_node(nodes[-1])
        await session.start()

    runtime = Runtime("memory:")
    for line in ("one", "two"):  # the second time the server is another one
        app = AtomsApp(setup, runtime=runtime)
        async with served(app) as server, server.client(session_id="s") as client:
            assert await client.ask(line) == f"You said {line}."
    await runtime.close()
    assert [message["content"] for message in nodes[-1].context.messages] == [
        "Repeat.",
        "one",
        "You said one.",
        "two",
    ]


async def test_a_setup_handler_that_is_not_async_is_told_so() -> None:
    def setup(session: CrewSession) -> None:
        session.add_node(Parrot())

    async with served(AtomsApp(setup, store="memory:")) as server:  # pyright: ignore[reportArgumentType]
        assert "async def" in (server.app.hub.not_ready or "")
    with pytest.raises(InvalidInput, match="the setup handler is an async function"):
        AtomsApp(None)  # pyright: ignore[reportArgumentType]
