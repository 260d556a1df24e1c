"""Whatever a provider does, the turn ends, and the next one on that session works.

Both servers refuse, as the real ones do, a history that is not valid, and note why.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable
from types import ModuleType
from typing import Any

import pytest
from tests.agents import anthropic_server, openai_server
from tests.agents.http_server import Reply, Server, body, hang_up, never, status, stream

from tertulia import Agent, Runtime, Session
from tertulia.agents import AsyncStream
from tertulia.agents.models import LanguageModel
from tertulia.agents.providers import ProviderModel
from tertulia.errors import ConfigurationError, ModelError, TurnInterrupted

SECRET = "sk-a-key-that-nobody-may-see"
ran: list[str] = []


def look(city: str) -> str:
    """Look outside."""
    ran.append(city)
    return f"sun in {city}"


WAYS = pytest.mark.parametrize(
    ("runtime", "streamed"),
    [
        pytest.param("memory", False, id="memory-run"),
        pytest.param("sqlite", True, id="sqlite-stream"),
        pytest.param("memory", True, id="memory-stream", marks=pytest.mark.soak),
        pytest.param("sqlite", False, id="sqlite-run", marks=pytest.mark.soak),
    ],
    indirect=["runtime"],
)


@pytest.fixture(params=[openai_server, anthropic_server], ids=["openai", "anthropic"])
def wire(request: pytest.FixtureRequest) -> ModuleType:
    return request.param


@pytest.fixture
async def server(wire: ModuleType, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    ran.clear()
    async with wire.server() as made:
        monkeypatch.setenv(wire.KEY, SECRET)
        monkeypatch.setenv(wire.ADDRESS, made.url)
        yield made


@pytest.fixture
def session(wire: ModuleType, server: Server, runtime: Runtime) -> Session:
    agent = Agent(model=wire.MODEL, tools=[look], runtime=runtime)
    return agent.session(system="Be brief.")


async def works(wire: ModuleType, server: Server, session: Session) -> None:
    """The next turns work, one with two tools at once among them, and the log can be proved."""
    server.replies[:] = [
        wire.calls(("c1", "look", '{"city": "Lima"}'), ("c2", "look", '{"city": "Oslo"}')),
        wire.text("Well", "."),
        wire.text("Yes."),
    ]
    assert (await session.run_async("Look there")).text == "Well."
    assert (await session.run_async("Sure?")).text == "Yes."
    assert server.problems == []
    assert await session.verify()


async def outcome(session: Session, *, streamed: bool) -> str:
    """The answer to a request, awaited or streamed."""
    if not streamed:
        return (await session.run_async("Weather in Paris?")).text
    events = [event async for event in session.stream_async("Weather in Paris?")]
    return "".join(event.text for event in events if event.type == "text_delta")


FAILING: dict[str, Callable[[Any], list[Reply]]] = {
    "429 for ever": lambda _: [status(429, "slow down")] * 3,
    "429 with an hour to wait": lambda _: [status(429, headers={"retry-after": "3600"})],
    "429 until next year": lambda _: [
        status(429, headers={"retry-after": "Fri, 31 Dec 2100 23:59:59 GMT"})
    ],
    "500 for ever": lambda _: [status(500)] * 3,
    "529 for ever": lambda _: [status(529, "overloaded")] * 3,
    "400": lambda _: [status(400, "bad")],
    "401": lambda _: [status(401, "wrong key")],
    "403": lambda _: [status(403, "not for you")],
    "404": lambda _: [status(404, "no such model")],
    "cut before the first event": lambda _: [stream(whole=False)],
    "cut in a text": lambda wire: [wire.unended(*wire.said("half"), whole=False)],
    "a text that has no end": lambda wire: [wire.unended(*wire.said("half"), whole=True)],
    "cut in arguments": lambda wire: [
        wire.unended(*wire.called(("c", "look", '{"city": "Par'))[:-1], whole=False)
    ],
    "arguments that have no end": lambda wire: [
        wire.unended(*wire.called(("c", "look", '{"city": "Par'))[:-1], whole=True)
    ],
    "cut after the last call, before the end": lambda wire: [
        wire.unended(*wire.called(("c", "look", '{"city": "Paris"}')), whole=False)
    ],
    "malformed JSON at first": lambda wire: [wire.unended(wire.MALFORMED, whole=True)],
    "malformed JSON in a text": lambda wire: [
        wire.unended(*wire.said("half"), wire.MALFORMED, *wire.ended("stop"), whole=True)
    ],
    "another content type": lambda _: [body(b"<html>Hello.</html>", 200, "text/html")],
    "an empty body": lambda _: [body(b"", 200, "text/event-stream")],
    "an error page": lambda _: [body(b"<html>" + b"x" * 9_000, 403, "text/html")],
}


@WAYS
@pytest.mark.parametrize("failing", FAILING)
async def test_a_turn_fails_whole_and_the_next_works(
    wire: ModuleType, server: Server, session: Session, failing: str, streamed: bool
) -> None:
    server.replies += FAILING[failing](wire)
    with pytest.raises(ModelError, match=wire.MODEL) as raised:
        await outcome(session, streamed=streamed)
    assert server.replies == []
    assert len(str(raised.value)) < 1_000
    assert ran == []
    assert await session.history() == []
    await works(wire, server, session)


PASSING: dict[str, Callable[[], list[Reply]]] = {
    "429": lambda: [status(429, headers={"retry-after": "0.01"})],
    "429 twice": lambda: [status(429), status(429)],
    "500": lambda: [status(500)],
    "503, then 500": lambda: [status(503), status(500)],
}


@WAYS
@pytest.mark.parametrize("passing", PASSING)
async def test_what_passes_is_tried_again_before_the_first_event_and_runs_no_tool_twice(
    wire: ModuleType, server: Server, session: Session, passing: str, streamed: bool
) -> None:
    call = wire.calls(("c", "look", '{"city": "Paris"}'))
    server.replies += [*PASSING[passing](), call, *PASSING[passing](), wire.text("Sunny", ".")]
    assert await outcome(session, streamed=streamed) == "Sunny."
    assert ran == ["Paris"]
    assert server.replies == []
    await works(wire, server, session)


async def test_a_dropped_connection_is_tried_again(
    wire: ModuleType, server: Server, session: Session
) -> None:
    server.replies += [hang_up(), wire.text("Sunny.")]
    assert await outcome(session, streamed=False) == "Sunny."
    await works(wire, server, session)


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (401, r"{}_API_KEY"),
        (403, "access"),
        (404, "no such model"),
        (429, "wait 3600 s"),
        (500, "try again later"),
    ],
)
async def test_an_error_says_its_status_and_what_to_do(
    wire: ModuleType, server: Server, session: Session, code: int, advice: str
) -> None:
    server.replies.append(status(code, "said the server", headers={"retry-after": "3600"}))
    provider = wire.MODEL.partition(":")[0].upper()
    with pytest.raises(ModelError, match=advice.format(provider)) as raised:
        await session.run_async("Hi")
    assert "said the server" in str(raised.value)
    assert (raised.value.status, raised.value.retry_after) == (code, 3600.0)


async def test_an_error_without_an_answer_has_no_status(wire: ModuleType, runtime: Runtime) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        model = LanguageModel(wire.MODEL, base_url=address, api_key=SECRET)
        session = Agent(model=model, runtime=runtime).session()
        with pytest.raises(ModelError, match="connection failed") as raised:
            await session.run_async("Hi")
    assert (raised.value.status, raised.value.retry_after) == (None, None)
    assert await session.history() == []


@pytest.mark.parametrize("reason", ["length", "content_filter"])
async def test_an_answer_that_was_stopped_says_so(
    wire: ModuleType, server: Server, session: Session, reason: str
) -> None:
    server.replies.append(wire.text("Up to", " here", reason=reason))
    response = await session.run_async("Hi")
    assert response.text == "Up to here"
    assert (response.messages[-1].metadata or {})["finish_reason"] == reason
    await works(wire, server, session)


async def test_an_empty_answer_leaves_a_valid_history(
    wire: ModuleType, server: Server, session: Session
) -> None:
    server.replies.append(wire.text())
    assert (await session.run_async("Hi")).text == ""
    await works(wire, server, session)


async def test_malformed_arguments_are_told_to_the_model(
    wire: ModuleType, server: Server, session: Session
) -> None:
    server.replies += [
        wire.calls(("c1", "look", '{"city": '), ("c2", "look", '["Lima"]')),
        wire.text("Sorry."),
    ]
    response = await session.run_async("Weather?")
    assert response.text == "Sorry."
    assert all("Error" in message.text for message in response.messages[2:4])
    assert ran == []
    await works(wire, server, session)


async def test_calls_of_tools_that_do_not_exist_leave_a_valid_history(
    wire: ModuleType, server: Server, session: Session
) -> None:
    server.replies += [
        wire.calls(("bad id: 1", "functions.look it up!", "{}"), ("c" * 90, "n" * 200, "{}")),
        wire.calls(("bad id: 1", "", "{}")),
        wire.text("Sorry."),
    ]
    assert (await session.run_async("Weather?")).text == "Sorry."
    await works(wire, server, session)
    await works(wire, server, session)


async def test_the_calls_count_when_only_the_last_word_is_missing(
    wire: ModuleType, server: Server, session: Session
) -> None:
    called = [*wire.called(("c", "look", '{"city": "Paris"}')), *wire.ended("tool_calls")]
    server.replies += [wire.unended(*called, whole=True), wire.text("Sunny.")]
    assert await outcome(session, streamed=False) == "Sunny."
    assert ran == ["Paris"]
    await works(wire, server, session)


async def test_a_connection_that_breaks_before_the_last_word_runs_no_tool(
    wire: ModuleType, server: Server, session: Session
) -> None:
    called = [*wire.called(("c", "look", '{"city": "Paris"}')), *wire.ended("tool_calls")]
    server.replies.append(wire.unended(*called, whole=False))
    with pytest.raises(ModelError):
        await outcome(session, streamed=False)
    assert ran == []
    await works(wire, server, session)


async def test_a_failure_after_a_tool_keeps_what_it_did(
    wire: ModuleType, server: Server, session: Session
) -> None:
    call = wire.calls(("c", "look", '{"city": "Paris"}'))
    server.replies += [call, wire.unended(*wire.said("It is"), whole=False)]
    with pytest.raises(ModelError):
        await outcome(session, streamed=True)
    roles = [message.role for message in await session.history()]
    assert roles == ["user", "assistant", "tool"]
    await works(wire, server, session)
    assert ran == ["Paris", "Lima", "Oslo"]


WAITING: dict[str, Reply] = {
    "for the first byte": never,
    "for the second event": stream(after=never),
    "to try again": status(429, headers={"retry-after": "59"}),
}


@WAYS
@pytest.mark.parametrize("waiting", WAITING)
async def test_a_turn_that_waits_is_cancelled_at_once(
    wire: ModuleType, server: Server, session: Session, waiting: str, streamed: bool
) -> None:
    asked = asyncio.Event()

    async def reply(writer: asyncio.StreamWriter) -> None:
        asked.set()
        await WAITING[waiting](writer)

    server.replies.append(reply)
    task = asyncio.ensure_future(outcome(session, streamed=streamed))
    await asyncio.wait_for(asked.wait(), 10)
    if waiting == "to try again":
        await asyncio.sleep(0.05)  # the answer is on its way; whether it has come does not matter
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 10)
    if waiting != "to try again":
        await asyncio.wait_for(server.hung_up.wait(), 10)
    await works(wire, server, session)


SILENT: dict[str, Callable[[Any], Reply]] = {
    "at first": lambda _: never,
    "before the first event": lambda _: stream(after=never),
    "in the middle": lambda wire: stream(*wire.said("half"), after=never),
}


@pytest.mark.parametrize("silent", SILENT)
async def test_a_provider_that_stays_silent_is_given_up(
    wire: ModuleType, server: Server, runtime: Runtime, silent: str
) -> None:
    agent = Agent(model=LanguageModel(wire.MODEL, timeout=0.2), tools=[look], runtime=runtime)
    session = agent.session()
    server.replies += [SILENT[silent](wire)] * 3
    with pytest.raises(ModelError, match="silent for too long"):
        await session.run_async("Hi")
    assert await session.history() == []
    again = Agent(model=wire.MODEL, tools=[look], runtime=runtime).session(session.id)
    await works(wire, server, again)


async def test_a_stream_that_fails_gives_the_error_then_raises_it(
    wire: ModuleType, server: Server, session: Session
) -> None:
    server.replies.append(wire.unended(*wire.said("half"), whole=False))
    stream = session.stream_async("Hi")
    assert isinstance(stream, AsyncStream)
    kinds = [(await anext(stream)).type for _ in range(3)]
    assert kinds == ["turn_started", "text_delta", "error"]
    with pytest.raises(ModelError):
        await anext(stream)
    await works(wire, server, session)


async def test_what_was_handed_out_when_a_stream_is_left_is_kept(
    wire: ModuleType, server: Server, session: Session
) -> None:
    server.replies.append(stream(*wire.said("One", " two"), after=never))
    async with session.stream_async("Count") as events:
        async for event in events:
            if event.text == " two":
                break
    with pytest.raises(TurnInterrupted):
        _ = events.response
    assert [m.text for m in await session.history()] == ["Count", "One two"]
    await asyncio.wait_for(server.hung_up.wait(), 10)
    await works(wire, server, session)


# -- keys


async def test_a_key_is_never_shown(
    wire: ModuleType, server: Server, runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    other = "another-key-given-in-the-code"
    for key, model in [
        (SECRET, LanguageModel(wire.MODEL)),
        (other, LanguageModel(wire.MODEL, base_url=server.url, api_key=other)),
    ]:
        server.replies += [status(401, f"the key {key} is wrong"), wire.text("Well.")]
        session = Agent(model=model, runtime=runtime).session()
        with pytest.raises(ModelError) as raised:
            await session.run_async("Hi")
        await session.run_async("Hi")
        assert key in server.headers[-1]
        logging.getLogger("test").error("it failed", exc_info=raised.value)
        events = await session.events()
        shown = [caplog.text, repr(model), repr(model.chosen()), repr(raised.value), repr(events)]
        assert [text for text in shown if key in text] == []
        assert raised.value.__cause__ is None
        assert raised.value.__context__ is None


async def test_a_long_error_that_ends_within_a_key_shows_nothing_of_it(
    wire: ModuleType, server: Server, session: Session
) -> None:
    server.replies.append(status(401, "x" * 490 + SECRET))
    with pytest.raises(ModelError) as raised:
        await session.run_async("Hi")
    assert SECRET[:8] not in str(raised.value)


async def test_an_error_without_a_key_in_it_keeps_its_cause(
    wire: ModuleType, server: Server, session: Session
) -> None:
    server.replies.append(status(400, "bad"))
    with pytest.raises(ModelError) as raised:
        await session.run_async("Hi")
    assert raised.value.__cause__ is not None


async def test_an_address_and_a_key_can_be_given(
    wire: ModuleType, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in (wire.KEY, wire.ADDRESS):
        monkeypatch.delenv(variable, raising=False)
    async with wire.server() as one, wire.server() as other:
        one.replies.append(wire.text("One."))
        other.replies.append(wire.text("Other."))
        for made, answer in [(one, "One."), (other, "Other.")]:
            model = LanguageModel(wire.MODEL, base_url=made.url, api_key=f"key of {answer}")
            session = Agent(model=model, runtime=runtime).session()
            assert (await session.run_async("Hi")).text == answer
            assert f"key of {answer}" in made.headers[0]


async def test_a_missing_key_names_its_variable(
    wire: ModuleType, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in (wire.KEY, wire.ADDRESS):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ConfigurationError, match=wire.KEY):
        await Agent(model=wire.MODEL, runtime=runtime).session().run_async("Hi")


@pytest.mark.parametrize(
    "options",
    [
        {"base_url": "localhost:11434"},
        {"base_url": "https://user:word@host/v1"},
        {"base_url": "file:///etc"},
        {"timeout": 0},
        {"timeout": float("inf")},
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as raised:
        LanguageModel("openai:gpt-4o", **options)
    assert "word" not in str(raised.value).replace("password", "")


@pytest.mark.parametrize("name", [None, "offline"])
def test_options_need_the_model_of_a_provider(name: str | None) -> None:
    with pytest.raises(ConfigurationError, match="name it"):
        LanguageModel(name, api_key=SECRET)


async def test_an_option_that_a_provider_does_not_take_is_named(runtime: Runtime) -> None:
    model = LanguageModel("deepseek:chat", base_url="http://127.0.0.1:1", api_key=SECRET)
    with pytest.raises(ConfigurationError, match="takes no base_url"):
        await Agent(model=model, runtime=runtime).session().run_async("Hi")


def test_a_process_holds_on_to_a_number_of_models_only(monkeypatch: pytest.MonkeyPatch) -> None:
    first = ProviderModel.named("openai:gpt-4o")
    assert ProviderModel.named("openai:gpt-4o") is first
    for number in range(100):
        monkeypatch.setenv("OPENAI_API_KEY", f"key {number}")
        ProviderModel.named("openai:gpt-4o")
    monkeypatch.delenv("OPENAI_API_KEY")
    assert ProviderModel.named("openai:gpt-4o") is not first
