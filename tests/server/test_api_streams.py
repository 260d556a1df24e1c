"""Server-sent events over real connections: turns as they happen, and the log as it grows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.server.web import Client, Told, serving

from tertulia import Agent, Event, Runtime, Session
from tertulia.agents.protocol import ModelRequest, TextDelta
from tertulia.doors import Outcome
from tertulia.errors import ModelError
from tertulia.server import sse
from tertulia.server.api import routes
from tertulia.testing import Pause, ScriptedModel, call

RUN = "/v1/sessions/s/run"
FOLLOW = "/v1/sessions/s/follow"


async def happens(session: Session, kind: str) -> Event:
    """The first event of a type, as soon as it is in the log."""
    async for event in session.follow(0):
        if event.type == kind:
            return event
    raise AssertionError("the session was deleted")


async def say(session: Session, *lines: str) -> None:
    """Append messages of the user."""
    await session.send_messages([{"role": "user", "content": line} for line in lines])


@pytest.mark.parametrize(
    ("body", "headers"),
    [({"stream": True}, {}), ({}, {"accept": "text/event-stream"})],
    ids=["by the body", "by the header"],
)
async def test_a_turn_is_streamed_as_it_happens(
    web: Client, model: ScriptedModel, body: dict[str, bool], headers: dict[str, str]
) -> None:
    pause = Pause()
    model.add(["Once", pause, " upon"])
    await web.post("/v1/sessions", {"id": "s"})
    stream = await web.listen("POST", RUN, {"input": "hi", **body}, headers)
    assert stream.status == 200
    assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert (await stream.skip_to("text_delta")).data == {"type": "text_delta", "text": "Once"}
    pause.release()
    told = await stream.rest()
    assert [each.type for each in told] == [each.data["type"] for each in told]
    done = told[-1]
    assert (done.type, done.data["response"]["text"]) == ("turn_completed", "Once upon")
    stored = (await web.get("/v1/sessions/s/messages"))["messages"][-1]
    message = next(each for each in told if each.type == "message")
    assert (message.data["message"], message.id) == (stored, str(stored["seq"]))


async def test_a_body_that_wants_no_stream_gets_none(web: Client, model: ScriptedModel) -> None:
    model.add("fine")
    await web.post("/v1/sessions", {"id": "s"})
    body = {"input": "hi", "stream": False}
    answered = await web.ask("POST", RUN, body, {"accept": "text/event-stream"})
    assert answered.data["text"] == "fine"


async def test_a_client_that_goes_away_interrupts_the_turn_and_keeps_what_it_got(
    web: Client, model: ScriptedModel, runtime: Runtime
) -> None:
    model.add(["Once upon", Pause(), " a time"], "I am here.")
    await web.post("/v1/sessions", {"id": "s"})
    stream = await web.listen("POST", RUN, {"input": "tell me", "stream": True})
    await stream.skip_to("text_delta")
    stream.hang_up()
    session = runtime.session("s")
    await happens(session, "turn.interrupted")
    assert [message.text for message in await session.history()] == ["tell me", "Once upon"]
    assert (await web.post(RUN, {"input": "still there?"}))["text"] == "I am here."


async def test_a_turn_that_is_not_streamed_goes_on_without_its_client_which_can_ask_again(
    web: Client, model: ScriptedModel, runtime: Runtime
) -> None:
    pause = Pause()
    model.add([pause, "done"])
    await web.post("/v1/sessions", {"id": "s"})
    body = {"input": "hi", "idempotency_key": "k"}
    connection = await web.send("POST", RUN, body)
    await pause.reached()
    connection.close()
    pause.release()
    await happens(runtime.session("s"), "turn.completed")
    assert (await web.post(RUN, body))["text"] == "done"
    assert len((await web.get("/v1/sessions/s/messages"))["messages"]) == 2


async def test_a_client_that_does_not_read_loses_its_turn(
    web: Client, model: ScriptedModel, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "STALLED", 0.2)
    monkeypatch.setattr(sse, "KEEP_ALIVE", 0.2)

    async def endless(request: ModelRequest) -> AsyncIterator[TextDelta]:
        for _ in range(10_000):
            yield TextDelta("x" * 10_000)

    model.add(endless)
    await web.post("/v1/sessions", {"id": "s"})
    stream = await web.listen("POST", RUN, {"input": "hi", "stream": True})
    await happens(runtime.session("s"), "turn.interrupted")
    stream.hang_up()


async def test_what_fails_before_a_stream_begins_has_a_status(
    web: Client, runtime: Runtime
) -> None:
    await web.post("/v1/sessions", {"id": "s"})
    body = {"input": "hi", "stream": True, "busy": "reject"}
    async with runtime.session("s").turn("mine"):
        refused = await web.ask("POST", RUN, body)
    assert (refused.status, refused.data["error"]["type"]) == (409, "SessionBusy")


async def test_what_fails_later_is_the_last_event(web: Client, model: ScriptedModel) -> None:
    model.add(ModelError("the key sk-123 is wrong"))
    await web.post("/v1/sessions", {"id": "s"})
    stream = await web.listen("POST", RUN, {"input": "hi", "stream": True})
    last = (await stream.rest())[-1]
    assert last.data == {
        "type": "error",
        "error": {"type": "ModelError", "message": "The model provider failed."},
    }
    plain = ModelError("again sk-123")
    model.add(plain)
    whole = await web.ask("POST", RUN, {"input": "hi"})
    assert (whole.status, whole.data["error"]) == (502, last.data["error"])


async def test_a_stream_ends_where_a_call_waits_for_a_person(
    web: Client, model: ScriptedModel
) -> None:
    model.add(call("refund", amount=7))
    await web.post("/v1/sessions", {"id": "s"})
    stream = await web.listen("POST", RUN, {"input": "hi", "stream": True})
    last = (await stream.rest())[-1]
    assert last.type == "turn_suspended"
    assert last.data["response"]["pending"][0]["name"] == "refund"


async def test_a_follower_that_comes_back_loses_nothing_and_gets_nothing_twice(
    web: Client, runtime: Runtime
) -> None:
    await web.post("/v1/sessions", {"id": "s"})
    session = runtime.session("s")
    seen: list[Told] = []
    last = "0"
    for round_ in range(4):
        stream = await web.listen("GET", f"{FOLLOW}?after=0", headers={"last-event-id": last})
        writing = asyncio.create_task(say(session, *(f"{round_} {n}" for n in range(5))))
        for _ in range(3):
            told = await stream.next()
            assert told is not None
            seen.append(told)
        stream.hang_up()
        await writing
        last = seen[-1].id or ""
    stream = await web.listen("GET", f"{FOLLOW}?after={last}")
    log = await session.events()
    while len(seen) < len(log):
        told = await stream.next()
        assert told is not None
        seen.append(told)
    stream.hang_up()
    assert [each.id for each in seen] == [str(event.seq) for event in log]
    assert [each.type for each in seen] == [event.type for event in log]
    assert [each.data for each in seen] == (await web.get("/v1/sessions/s/events"))["events"]


async def test_a_follower_without_a_place_gets_what_comes(web: Client, runtime: Runtime) -> None:
    await web.post("/v1/sessions", {"id": "s", "messages": [{"role": "user", "content": "old"}]})
    stream = await web.listen("GET", FOLLOW)
    await say(runtime.session("s"), "new")
    told = await stream.next()
    assert told is not None
    assert told.data["body"]["content"] == "new"
    stream.hang_up()


async def test_a_follower_is_told_the_end_of_a_session_that_is_deleted(web: Client) -> None:
    await web.post("/v1/sessions", {"id": "s"})
    stream = await web.listen("GET", f"{FOLLOW}?after=0")
    assert (await stream.skip_to("session.created")).id == "1"
    await web.ask("DELETE", "/v1/sessions/s")
    assert await stream.next() is None
    assert (await web.ask("GET", FOLLOW)).status == 404


async def test_a_place_beyond_the_end_is_refused(web: Client) -> None:
    await web.post("/v1/sessions", {"id": "s"})
    gone = await web.ask("GET", f"{FOLLOW}?after=7")
    assert (gone.status, gone.data["error"]["type"]) == (410, "CursorExpired")
    wrong = await web.ask("GET", FOLLOW, headers={"last-event-id": "x"})
    assert wrong.status == 422


async def test_a_silent_stream_says_that_it_is_there(
    web: Client, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "KEEP_ALIVE", 0.05)
    await web.post("/v1/sessions", {"id": "s"})
    stream = await web.listen("GET", FOLLOW)
    told = await stream.next()
    assert told is not None
    assert told.comment == "keep-alive"
    stream.hang_up()


async def test_a_turn_that_has_to_wait_begins_its_stream_with_a_comment(
    web: Client, runtime: Runtime, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "KEEP_ALIVE", 0.05)
    model.add("fine")
    await web.post("/v1/sessions", {"id": "s"})
    async with runtime.session("s").turn("mine"):
        stream = await web.listen("POST", RUN, {"input": "hi", "stream": True})
        told = await stream.next()
    assert told is not None
    assert told.comment == "keep-alive"
    assert (await stream.rest())[-1].data["response"]["text"] == "fine"


async def test_followers_are_let_go_when_the_server_closes(runtime: Runtime, clerk: Agent) -> None:
    closing: Outcome[None] = Outcome()
    async with serving(routes(runtime, agent=clerk, closing=closing)) as web:
        await web.post("/v1/sessions", {"id": "s"})
        streams = [await web.listen("GET", f"{FOLLOW}?after=0") for _ in range(3)]
        for stream in streams:
            await stream.skip_to("session.created")
        closing.set_result(None)
        assert [await stream.next() for stream in streams] == [None, None, None]


async def test_a_follower_that_goes_away_leaves_nothing_behind(
    web: Client, runtime: Runtime
) -> None:
    await web.post("/v1/sessions", {"id": "s"})
    before = len(asyncio.all_tasks())
    for _ in range(20):
        stream = await web.listen("GET", f"{FOLLOW}?after=0")
        await stream.skip_to("session.created")
        stream.hang_up()
    async with asyncio.timeout(20):
        while len(asyncio.all_tasks()) > before:
            await asyncio.sleep(0.01)
