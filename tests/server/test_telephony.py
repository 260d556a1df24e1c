"""Phone calls, from a simulated caller over a real WebSocket to the graph and to the log."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from tertulia import Agent, Runtime, Session, SQLiteStore
from tertulia.errors import ConnectionDenied, ConnectionEnded, ConnectionLost
from tertulia.live import AgentNode, AgentSession, Node, OutputNode, Settings
from tertulia.server.hub import Hub
from tertulia.server.limits import Limits
from tertulia.server.telephony import Telephony
from tertulia.testing import Pause, ScriptedModel, SimulatedCaller
from tertulia.wire.carrier import (
    EndFrame,
    LanguageFrame,
    PlayFrame,
    SendDigitsFrame,
    TextFrame,
)
from tertulia.wire.events import (
    AgentErrorEvent,
    AgentSpeak,
    EndCall,
    LiveEvent,
    PlayAudio,
    SendDigits,
    SetLanguage,
    TranscriptUpdate,
    TransferCall,
    UserJoined,
    UserPressedKey,
)

SECRET = "an-auth-token"
PUBLIC = "wss://calls.example.com/voice/relay"


class Server(uvicorn.Server):
    """One that leaves the signals of the tests alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


class Line:
    """A server that answers calls, and what its sessions saw."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.hub = Hub(self._setup, Settings())
        self.url = ""
        self.make: Any = None
        """Builds the graph of a call."""
        self.seen: dict[str, list[LiveEvent]] = {}
        self.sessions: list[AgentSession] = []
        self.complete = asyncio.Event()

    async def _setup(self, session: AgentSession) -> None:
        self.sessions.append(session)
        seen = self.seen.setdefault(session.session_id, [])

        @session.on_event("*")
        def note(_: AgentSession, event: LiveEvent) -> None:
            seen.append(event)

        for node in self.make():
            session.add_node(node)
        await session.start()
        await session.wait_until_complete()
        self.complete.set()

    def caller(self, **options: Any) -> SimulatedCaller:
        return SimulatedCaller(self.url, **options)

    async def said(self, caller: SimulatedCaller) -> list[tuple[str, str]]:
        """The conversation of a call, once its session has ended."""
        await self.ended()
        kept = await self.runtime.get(caller.session_id)
        return [(message.role, message.text) for message in await kept.history()]

    async def sent(self, caller: SimulatedCaller) -> list[dict[str, Any]]:
        """What the log of a call has of events that are no messages."""
        kept = await self.runtime.get(caller.session_id)
        facts = await kept.events(types=["live.sent"])
        return [(fact.body or {})["event"] for fact in facts if "event" in (fact.body or {})]

    async def ended(self) -> None:
        """Wait until a call is over."""
        async with asyncio.timeout(10):
            await self.complete.wait()


@contextlib.asynccontextmanager
async def answering(line: Line, telephony: Telephony | None = None) -> AsyncGenerator[Line]:
    """A real server with the routes of telephony."""
    routes = (telephony or Telephony()).routes(line.hub, line.runtime, Limits())
    config = uvicorn.Config(
        Starlette(routes=routes),
        lifespan="off",
        ws="websockets-sansio",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=5,
    )
    server = Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    line.url = f"ws://127.0.0.1:{listener.getsockname()[1]}/voice/relay"
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield line
    finally:
        await line.hub.shut_down(0)
        server.should_exit = True
        await task


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    async with Runtime(SQLiteStore(tmp_path / "calls.db")) as made:
        yield made


@pytest.fixture
async def line(runtime: Runtime) -> AsyncIterator[Line]:
    async with answering(Line(runtime)) as made:
        yield made


def answers(line: Line, *steps: Any) -> ScriptedModel:
    """Let calls be answered by an agent that says this."""
    model = ScriptedModel(*steps)
    line.make = lambda: [AgentNode(Agent("clerk", model=model))]
    return model


class Echo(OutputNode):
    """Answers with what was said last."""

    async def generate_response(self, messages: Any) -> AsyncIterator[str]:
        yield "You said: "
        yield messages[-1].text


class Obeys(Node):
    """Sends an event for each key."""

    def __init__(self, **events: LiveEvent) -> None:
        super().__init__()
        self._events = {name.removeprefix("key_"): event for name, event in events.items()}

    async def process_event(self, event: LiveEvent) -> None:
        if isinstance(event, UserPressedKey):
            await self.send_event(self._events[event.digit])


# -- a conversation


async def test_a_call_is_a_conversation_that_is_in_the_log(line: Line) -> None:
    model = answers(line, "Good morning. How can I help?", "We close at six.")
    async with line.caller() as caller:
        await caller.says("Hello")
        assert await caller.hears() == "Good morning. How can I help?"
        await caller.says("When do you close?", parts=["When", "When do you"])
        assert await caller.hears() == "We close at six."
    assert await line.said(caller) == [
        ("user", "Hello"),
        ("assistant", "Good morning. How can I help?"),
        ("user", "When do you close?"),
        ("assistant", "We close at six."),
    ]
    assert [message.text for message in model.last_request.messages][-1] == "When do you close?"
    assert caller.refused == []
    kinds = [event.type for event in line.seen[caller.session_id]]
    assert kinds.count("system.user.started_speaking") == 1
    assert kinds.count("system.user.stopped_speaking") == 1


async def test_the_session_knows_who_calls_and_with_which_variables(line: Line) -> None:
    line.make = lambda: [Echo()]
    async with line.caller(
        setup={"direction": "outbound-api", "customParameters": {"shop": "Lisbon"}}
    ) as caller:
        await caller.says("Hi")
        assert await caller.hears() == "You said: Hi"
    [session] = line.sessions
    assert session.session_id == f"call-{caller.call_id}"
    assert session.initial_variables == {"shop": "Lisbon"}
    assert session.caller is not None
    assert session.caller["user_number"] == "+15550101"
    assert session.session_context is not None
    assert session.session_context.conversation_type == "telephonyOutbound"
    assert session.user_id is None
    assert any(isinstance(event, UserJoined) for event in line.seen[caller.session_id])


async def test_a_node_may_greet_and_the_greeting_is_spoken(line: Line) -> None:
    line.make = lambda: [
        AgentNode(Agent("clerk", model=ScriptedModel()), greeting="You have reached the clerk.")
    ]
    async with line.caller() as caller:
        assert await caller.hears() == "You have reached the clerk."
    assert await line.said(caller) == [("assistant", "You have reached the clerk.")]


async def test_the_carriers_greeting_is_the_first_message_and_is_not_spoken_twice(
    runtime: Runtime,
) -> None:
    telephony = Telephony(welcome_greeting="Welcome to the shop.")
    async with answering(Line(runtime), telephony) as line:
        model = ScriptedModel("We are in Lisbon.")
        line.make = lambda: [AgentNode(Agent("clerk", model=model), greeting="Hello!")]
        async with line.caller() as caller:
            await caller.interrupts("Welcome to")
            await caller.says("Where are you?")
            assert await caller.hears() == "We are in Lisbon."
        assert await line.said(caller) == [
            ("assistant", "Welcome to"),
            ("user", "Where are you?"),
            ("assistant", "We are in Lisbon."),
        ]
    assert [message.text for message in model.last_request.messages][-2:] == [
        "Welcome to",
        "Where are you?",
    ]


# -- interruptions


async def test_an_answer_that_is_interrupted_stops_and_the_history_has_what_was_heard(
    line: Line,
) -> None:
    pause = Pause()
    answers(line, ["Life is a complex set of", pause, " chemical processes."], "As you like.")
    async with line.caller() as caller:
        await caller.says("What is life?")
        heard = ""
        while heard != "Life is a complex set of":
            frame = await caller.frame()
            assert isinstance(frame, TextFrame)
            heard += frame.token
        await pause.reached()
        await caller.interrupts("Life is a")
        await caller.says("Stop!")
        assert await caller.hears() == "As you like."
        pause.release()
    assert await line.said(caller) == [
        ("user", "What is life?"),
        ("assistant", "Life is a"),
        ("user", "Stop!"),
        ("assistant", "As you like."),
    ]


async def test_an_answer_that_was_given_whole_is_kept_as_far_as_it_was_heard(line: Line) -> None:
    model = answers(line, "One two three four five six.", "Fine.")
    async with line.caller() as caller:
        await caller.says("Count")
        assert await caller.hears() == "One two three four five six."
        await caller.interrupts("One two three")
        await caller.says("Enough")
        assert await caller.hears() == "Fine."
    assert await line.said(caller) == [
        ("user", "Count"),
        ("assistant", "One two three"),
        ("user", "Enough"),
        ("assistant", "Fine."),
    ]
    told = [message.text for message in model.last_request.messages]
    assert "One two three" in told
    assert not any("four" in text for text in told)


async def test_an_answer_of_which_nothing_was_heard_is_not_in_the_history(line: Line) -> None:
    answers(line, "One two three.", "Fine.")
    async with line.caller() as caller:
        await caller.says("Count")
        await caller.hears()
        await caller.interrupts("")
        await caller.says("No, wait")
        await caller.hears()
    assert ("assistant", "One two three.") not in await line.said(caller)


async def test_an_interruption_of_a_recording_leaves_the_last_answer_as_it_was(line: Line) -> None:
    line.make = lambda: [Echo(), Obeys(key_1=PlayAudio(source="https://example.com/a.mp3"))]
    async with line.caller() as caller:
        await caller.says("Music, please")
        assert await caller.hears() == "You said: Music, please"
        await caller.presses("1")
        assert isinstance(await caller.frame(), PlayFrame)
        await caller.interrupts("")
        await caller.says("Thanks")
        await caller.hears()
    assert ("assistant", "You said: Music, please") in await line.said(caller)


# -- everything else that a call can do


async def test_keys_are_events_and_events_are_frames(line: Line) -> None:
    line.make = lambda: [
        Obeys(
            key_1=PlayAudio(source="https://example.com/a.mp3", loop=2),
            key_2=SendDigits(digits="9w1"),
            key_3=SetLanguage(tts_language="es-ES", transcription_language="es-ES"),
            key_4=AgentSpeak(text="Hola."),
        )
    ]
    async with line.caller() as caller:
        await caller.presses("1234")
        assert [await caller.frame() for _ in range(4)] == [
            PlayFrame(source="https://example.com/a.mp3", loop=2),
            SendDigitsFrame(digits="9w1"),
            LanguageFrame(tts_language="es-ES", transcription_language="es-ES"),
            TextFrame(token="Hola.", last=True),
        ]
    pressed = [event for event in line.seen[caller.session_id] if isinstance(event, UserPressedKey)]
    assert [event.digit for event in pressed] == ["1", "2", "3", "4"]
    assert caller.refused == []


async def test_what_was_said_in_another_language_says_so(line: Line) -> None:
    line.make = lambda: [Echo()]
    async with line.caller() as caller:
        await caller.says("Olá", lang="pt-PT")
        assert await caller.hears() == "You said: Olá"
    told = [e for e in line.seen[caller.session_id] if isinstance(e, TranscriptUpdate)]
    assert [(event.content, event.metadata) for event in told] == [("Olá", {"lang": "pt-PT"})]


async def test_the_agent_ends_the_call(line: Line) -> None:
    line.make = lambda: [Obeys(key_1=AgentSpeak(text="Goodbye."), key_2=EndCall())]
    async with line.caller() as caller:
        await caller.presses("12")
        assert await caller.gone() == [TextFrame(token="Goodbye.", last=True), EndFrame()]
    await line.ended()
    assert line.sessions[0].complete


async def test_a_transfer_ends_the_relay_and_tells_where_the_call_goes(line: Line) -> None:
    line.make = lambda: [Obeys(key_1=TransferCall(transfer_call_number="+15550199"))]
    async with line.caller() as caller:
        await caller.presses("1")
        [end] = await caller.gone()
    assert isinstance(end, EndFrame)
    assert json.loads(end.handoff_data or "")["transfer_call_number"] == "+15550199"
    await line.ended()
    assert [body["type"] for body in await line.sent(caller)] == ["agent.transfer_call"]


async def test_a_call_that_drops_ends_and_what_was_said_is_kept(line: Line) -> None:
    pause = Pause()
    answers(line, ["One moment", pause, ", please."])
    caller = line.caller()
    async with caller:
        await caller.says("Hello")
        await pause.reached()
        await caller.drops()
        await line.ended()
        pause.release()
    assert line.sessions[0].complete
    assert not line.sessions[0].answers.running
    assert (await line.said(caller))[0] == ("user", "Hello")
    with pytest.raises(ConnectionEnded):
        await caller.says("Are you there?")


async def test_a_call_that_is_connected_again_goes_on_with_its_conversation(line: Line) -> None:
    model = answers(line, "Hello, Ana.", "You are Ana.")
    first = line.caller()
    async with first:
        await first.says("I am Ana")
        await first.hears()
        await first.drops()
    await line.ended()
    async with line.caller(setup={"callSid": first.call_id}) as again:
        await again.says("Who am I?")
        assert await again.hears() == "You are Ana."
    assert "I am Ana" in [message.text for message in model.last_request.messages]
    assert [session.resumed for session in line.sessions] == [False, True]


async def test_a_newer_connection_of_a_call_takes_over_and_the_older_one_ends_nothing(
    line: Line,
) -> None:
    line.make = lambda: [Echo()]
    async with line.caller() as older:
        await older.says("Hello")
        await older.hears()
        async with line.caller(setup={"callSid": older.call_id}) as newer:
            assert await older.gone() == []
            assert older.close_code == 4409
            await newer.says("Still here")
            assert await newer.hears() == "You said: Still here"
    assert len(line.sessions) == 1


async def test_a_call_that_was_handed_on_is_over_even_if_the_carrier_stays(line: Line) -> None:
    line.make = lambda: [Obeys(key_1=TransferCall(transfer_call_number="+15550199"))]
    caller = line.caller()
    async with connect(line.url, proxy=None) as carrier:
        await carrier.send(json.dumps(caller.setup))
        await carrier.send('{"type": "dtmf", "digit": "1"}')
        assert json.loads(await carrier.recv())["type"] == "end"
        await line.ended()
        await carrier.wait_closed()
        assert carrier.close_code == 1000


async def test_two_calls_know_nothing_of_each_other(line: Line) -> None:
    line.make = lambda: [Echo()]
    async with line.caller() as ana, line.caller() as ben:
        await asyncio.gather(ana.says("I am Ana"), ben.says("I am Ben"))
        assert await asyncio.gather(ana.hears(), ben.hears()) == [
            "You said: I am Ana",
            "You said: I am Ben",
        ]
        assert ana.session_id != ben.session_id
        await ana.hangs_up()
        await ben.says("Still here?")
        assert await ben.hears() == "You said: Still here?"
    kept: Session = await line.runtime.get(ben.session_id)
    assert "Ana" not in str([message.text for message in await kept.history()])


async def test_the_session_of_a_call_may_belong_to_its_caller(runtime: Runtime) -> None:
    telephony = Telephony(user=lambda caller: f"tel:{caller['user_number']}")
    async with answering(Line(runtime), telephony) as line:
        line.make = lambda: [Echo()]
        async with line.caller(setup={"from": "+15550123"}) as caller:
            await caller.says("Hi")
            await caller.hears()
        await line.ended()
    assert [session.user_id for session in line.sessions] == ["tel:+15550123"]
    assert [each.id for each in await runtime.sessions(user_id="tel:+15550123")] == [
        caller.session_id
    ]


# -- what goes wrong


async def test_a_broken_frame_is_reported_and_the_call_goes_on(line: Line) -> None:
    line.make = lambda: [Echo()]
    async with line.caller() as caller:
        await caller.sends("{")
        await caller.sends({"type": "media", "payload": "…"})
        await caller.sends({"type": "prompt", "voicePrompt": 7})
        await caller.sends(caller.setup)
        await caller.says("Hello")
        assert await caller.hears() == "You said: Hello"
    await line.ended()
    codes = ["bad_json", "unknown_type", "invalid_field", "second_setup"]
    seen = [e for e in line.seen[caller.session_id] if isinstance(e, AgentErrorEvent)]
    assert [event.payload["code"] for event in seen] == codes
    logged = [body for body in await line.sent(caller) if body["type"] == "agent.error"]
    assert [body["payload"]["code"] for body in logged] == codes
    assert caller.refused == []
    assert all(isinstance(frame, TextFrame) for frame in caller.frames)


async def test_a_call_begins_with_its_setup_whatever_came_before(
    line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    line.make = lambda: [Echo()]
    caller = line.caller()
    await caller.connect()
    await caller.says("Hello?")
    await caller.sends(b"\xff")
    await caller.sends(caller.setup)
    await caller.says("Hello")
    assert await caller.hears() == "You said: Hello"
    await caller.hangs_up()
    assert await line.said(caller) == [("user", "Hello"), ("assistant", "You said: Hello")]
    assert caplog.text.count("a frame of a phone call was ignored") == 2


async def test_an_error_of_the_carrier_is_logged_and_seen_by_hooks(line: Line) -> None:
    line.make = lambda: [Echo()]
    async with line.caller() as caller:
        await caller.sends({"type": "error", "description": "no such voice"})
        await caller.says("Hello")
        await caller.hears()
    await line.ended()
    [seen] = [e for e in line.seen[caller.session_id] if isinstance(e, AgentErrorEvent)]
    assert (seen.severity, seen.payload["code"]) == ("warning", "carrier_error")
    assert seen.seq is not None
    assert "no such voice" in seen.message


async def test_what_the_carrier_would_refuse_is_reported_instead_of_sent(line: Line) -> None:
    line.make = lambda: [Obeys(key_1=SendDigits(digits="call me"), key_2=AgentSpeak(text="So?"))]
    async with line.caller() as caller:
        await caller.presses("12")
        assert await caller.hears() == "So?"
    assert caller.refused == []
    await line.ended()
    seen = [e for e in line.seen[caller.session_id] if isinstance(e, AgentErrorEvent)]
    assert [event.payload["code"] for event in seen] == ["invalid_field"]


async def test_a_setup_handler_that_fails_ends_the_call_instead_of_leaving_it_silent(
    line: Line,
) -> None:
    def broken() -> list[Node]:
        raise RuntimeError("no graph today")

    line.make = broken
    async with line.caller() as caller:
        assert await caller.gone() == [EndFrame()]


async def test_when_the_server_shuts_down_the_carrier_is_told_to_go_on(line: Line) -> None:
    line.make = lambda: [Echo()]
    async with line.caller() as caller:
        await caller.says("Hello")
        await caller.hears()
        await line.hub.shut_down(0)
        assert await caller.gone() == [EndFrame()]
        with pytest.raises(ConnectionEnded):
            async with line.caller() as late:
                await late.frame()


async def test_a_failing_store_ends_the_call(runtime: Runtime, line: Line) -> None:
    line.make = lambda: [Echo()]
    async with line.caller() as caller:
        await caller.says("Hello")
        await caller.hears()
        await runtime.close()
        await caller.says("Still there?")
        assert (await caller.gone())[-1:] == [EndFrame()]


# -- who may call


@pytest.fixture
async def guarded(runtime: Runtime) -> AsyncIterator[Line]:
    async with answering(Line(runtime), Telephony(PUBLIC, auth_token=SECRET)) as made:
        made.make = lambda: [Echo()]
        yield made


async def test_a_signed_call_is_taken(guarded: Line) -> None:
    async with guarded.caller(auth_token=SECRET, signed_url=PUBLIC) as caller:
        await caller.says("Hello")
        assert await caller.hears() == "You said: Hello"


@pytest.mark.parametrize(
    "signing",
    [
        {},
        {"auth_token": "another", "signed_url": PUBLIC},
        {"auth_token": SECRET},
        {"auth_token": SECRET, "signed_url": PUBLIC.replace("wss", "https")},
        {"auth_token": SECRET, "signed_url": f"{PUBLIC}/"},
    ],
)
async def test_a_call_with_a_wrong_signature_is_refused_with_403(
    guarded: Line, signing: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "tertulia.server"), pytest.raises(ConnectionDenied) as no:
        await guarded.caller(**signing).connect()
    assert no.value.code == 403
    assert "wrong signature" in caplog.text
    assert guarded.sessions == []


# -- the caller that is simulated


async def speaking_to(caller: SimulatedCaller, *frames: str) -> list[str]:
    """What a server that sends these frames gets for them, to the end."""
    got: list[str] = []

    async def send(connection: ServerConnection) -> None:
        await connection.recv()
        for frame in frames:
            await connection.send(frame)
        got.extend([str(message) async for message in connection])

    async with serve(send, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        caller.url = f"ws://127.0.0.1:{port}/"
        async with caller:
            await caller.gone()
    return got


async def test_a_simulated_carrier_refuses_what_a_carrier_would_and_hangs_up_at_last() -> None:
    bad = ["{", '{"type": "prompt", "voicePrompt": "no"}', '{"type": "text"}'] * 4
    caller = SimulatedCaller("ws://127.0.0.1:1/")
    got = await speaking_to(caller, *bad, '{"type": "text", "token": "never heard"}')
    assert len(got) == len(caller.refused) == 10
    assert all(json.loads(frame)["type"] == "error" for frame in got)
    assert caller.frames == []


async def test_a_simulated_carrier_that_got_a_good_frame_forgets_the_bad_ones() -> None:
    caller = SimulatedCaller("ws://127.0.0.1:1/")
    good = '{"type": "text", "token": "good"}'
    frames = [*["{"] * 9, good, *["{"] * 9, '{"type": "end", "handoffData": "x"}']
    assert len(await speaking_to(caller, *frames)) == 18
    assert caller.ended == EndFrame(handoff_data="x")
    assert len(caller.frames) == 2


async def test_a_simulated_caller_without_a_call_says_so() -> None:
    with pytest.raises(ConnectionEnded, match="async with"):
        await SimulatedCaller("ws://127.0.0.1:1/").says("Hello")
    with pytest.raises(ConnectionLost):
        await SimulatedCaller("ws://127.0.0.1:1/").connect()
