"""Servers of the plain protocol, and servers that do not do what a server does."""

from __future__ import annotations

import asyncio

import pytest
from tests.client.plain_server import Guest, answer_all, serving

from tertulia.client import LiveClient, Reconnect, UnknownEvent
from tertulia.errors import (
    ConnectionDenied,
    ConnectionEnded,
    ConnectionLost,
    ConnectionTaken,
    InvalidInput,
    LiveError,
    UsageError,
)
from tertulia.wire.events import AgentLog, AgentSpeak, ResponseStart


async def test_the_chat_sequence_works_with_a_server_without_positions() -> None:
    async with serving(answer_all) as url, LiveClient(url) as client:
        await client.join()
        reply = await client.say("hello")
        assert reply == "you said hello"
        assert (reply.interrupted, reply.seq, client.session_id, client.seq) == (False,) + (
            None,
        ) * 3
        stream = client.ask("again")
        assert "".join([piece async for piece in stream]) == "you said again"
        assert stream.reply == "you said again"


async def test_without_a_session_to_come_back_to_a_loss_is_for_good() -> None:
    async with serving(answer_all) as url, LiveClient(url) as client:
        await client.say("hello")
        client.abort()
        with pytest.raises(ConnectionLost, match="1006"):
            _ = [event async for event in client.events()]
        with pytest.raises(ConnectionLost):
            await client.say("hello")


async def test_an_event_of_an_unknown_type_comes_with_all_its_fields() -> None:
    async def handler(guest: Guest) -> None:
        await guest.hear()
        await guest.tell("agent.ready", session_id="s", seq=3)
        await guest.tell("shop.card", id="e1", session_id=7, title="Tea", seq=4)
        await guest.hear()

    async with serving(handler) as url, LiveClient(url) as client:
        event = await anext(client.events())
        assert isinstance(event, UnknownEvent)
        assert (event.type, event.fields) == ("shop.card", {"title": "Tea"})
        assert (event.timestamp, event.seq, client.seq) == ("t", 4, 4)
        assert (event.id, event.session_id) == ("e1", None)


async def test_what_comes_before_ready_is_not_lost() -> None:
    async def handler(guest: Guest) -> None:
        await guest.hear()
        await guest.tell("agent.speak", text="one moment")
        await guest.tell("agent.ready")
        await guest.hear()

    async with serving(handler) as url, LiveClient(url) as client:
        event = await anext(client.events())
        assert isinstance(event, AgentSpeak)
        assert event.text == "one moment"


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (1000, ConnectionEnded),
        (4401, ConnectionDenied),
        (4403, ConnectionDenied),
        (4409, ConnectionTaken),
        (1009, LiveError),
        (4400, LiveError),
        (1012, ConnectionLost),
        (1013, ConnectionLost),
    ],
)
async def test_a_close_before_ready_is_an_error_with_its_code_and_reason(
    code: int, error: type[LiveError]
) -> None:
    async def handler(guest: Guest) -> None:
        await guest.hear()
        await guest.socket.close(code, "this is why")

    async with serving(handler) as url:
        with pytest.raises(error, match="this is why") as raised:
            await LiveClient(url).__aenter__()
        assert raised.value.code == code


@pytest.mark.parametrize(
    ("code", "error"), [(4401, ConnectionDenied), (4409, ConnectionTaken), (1009, LiveError)]
)
async def test_a_close_that_is_for_good_is_raised_and_not_tried_again(
    code: int, error: type[LiveError]
) -> None:
    guests: list[Guest] = []

    async def handler(guest: Guest) -> None:
        guests.append(guest)
        await guest.hear()
        await guest.tell("agent.ready", session_id="s", seq=0)
        await guest.hear()
        await guest.socket.close(code, "no")

    async with serving(handler) as url, LiveClient(url) as client:
        with pytest.raises(error):
            await client.say("hello")
        with pytest.raises(error):
            await anext(client.events())
    assert len(guests) == 1


async def test_the_end_of_the_conversation_ends_the_events_without_an_error() -> None:
    async def handler(guest: Guest) -> None:
        await guest.hear()
        await guest.tell("agent.ready", session_id="s", seq=0)
        await guest.tell("agent.end_call", seq=1)
        await guest.socket.close(1000)

    async with serving(handler) as url, LiveClient(url) as client:
        assert [event.type async for event in client.events()] == ["agent.end_call"]
        with pytest.raises(ConnectionEnded):
            await client.join()


async def test_attempts_to_come_back_are_bounded() -> None:
    guests: list[Guest] = []

    async def handler(guest: Guest) -> None:
        guests.append(guest)
        await guest.hear()
        if len(guests) == 1:
            await guest.tell("agent.ready", session_id="s", seq=0)
        guest.socket.transport.abort()

    policy = Reconnect(attempts=3, first=0.001)
    async with serving(handler) as url, LiveClient(url, reconnect=policy) as client:
        with pytest.raises(ConnectionLost, match="3 attempts"):
            _ = [event async for event in client.events()]
    assert len(guests) == 4


async def test_coming_back_is_bounded_in_time_by_the_clock() -> None:
    class Clock:
        def now(self) -> int:
            return 0

        def monotonic(self) -> float:
            self.seconds = getattr(self, "seconds", 0.0) + 10.0
            return self.seconds

    guests: list[Guest] = []

    async def handler(guest: Guest) -> None:
        guests.append(guest)
        await guest.hear()
        if len(guests) == 1:
            await guest.tell("agent.ready", session_id="s", seq=0)
        guest.socket.transport.abort()

    policy = Reconnect(attempts=1_000, within=55, first=0.001)
    async with serving(handler) as url, LiveClient(url, reconnect=policy, clock=Clock()) as client:
        with pytest.raises(ConnectionLost):
            _ = [event async for event in client.events()]
    assert len(guests) == 6


async def test_a_server_that_fails_each_session_is_given_up() -> None:
    guests: list[Guest] = []

    async def handler(guest: Guest) -> None:
        guests.append(guest)
        await guest.hear()
        await guest.tell("agent.ready", session_id="s", seq=0, resumed=len(guests) > 1)
        await guest.tell("agent.error", message="setup failed", seq=len(guests))
        await guest.socket.close(1011, "setup failed")

    policy = Reconnect(attempts=4, first=0.001)
    async with serving(handler) as url, LiveClient(url, reconnect=policy) as client:
        with pytest.raises(ConnectionLost, match="4 attempts"):
            _ = [event async for event in client.events()]
    assert len(guests) == 5


async def test_without_reconnect_the_first_loss_is_the_last() -> None:
    async def handler(guest: Guest) -> None:
        await guest.hear()
        await guest.tell("agent.ready", session_id="s", seq=0)
        await guest.hear()

    async with serving(handler) as url, LiveClient(url, reconnect=False) as client:
        client.abort()
        with pytest.raises(ConnectionLost):
            await anext(client.events())


@pytest.mark.parametrize("order", ["error end", "end error", "error"])
async def test_a_failure_is_raised_for_whoever_waits_and_the_next_question_is_answered(
    order: str,
) -> None:
    async def handler(guest: Guest) -> None:
        await guest.hear()
        await guest.tell("agent.ready", session_id="s", seq=0)
        await guest.hear_request()
        if "end" in order:
            await guest.tell("agent.llm.response.start", request_id="turn-0")
            await guest.tell("agent.llm.response.chunk", request_id="turn-0", text="turn")
        for word in order.split():
            if word == "error":
                await guest.tell("agent.error", message="no model", severity="fatal")
            else:
                await guest.tell("agent.llm.response.end", request_id="turn-0", discarded=True)
        await guest.hear_request()
        await guest.tell("agent.llm.response.start", request_id="turn-1")
        await guest.tell("agent.llm.response.chunk", request_id="turn-1", text="turn-1")
        await guest.tell("agent.llm.response.end", request_id="turn-1")
        await guest.hear()

    why = "no part of the history" if order == "end error" else "no model"
    async with serving(handler) as url, LiveClient(url) as client:
        with pytest.raises(LiveError, match=why):
            await client.say("hello")
        assert await client.say("hello") == "turn-1"


async def test_frames_that_are_no_json_end_the_client_with_an_error() -> None:
    async def handler(guest: Guest) -> None:
        await guest.hear()
        await guest.tell("agent.ready", session_id="s", seq=0)
        await guest.socket.send(b"<html>")
        await guest.hear()

    async with serving(handler) as url, LiveClient(url) as client:
        with pytest.raises(LiveError, match="does not speak this protocol"):
            await anext(client.events())


async def test_a_token_goes_into_the_header_and_not_into_errors() -> None:
    headers: list[str | None] = []

    async def handler(guest: Guest) -> None:
        request = guest.socket.request
        headers.append(request.headers.get("Authorization") if request else None)
        init = await guest.hear()
        assert "s3cret" not in str(init)
        await guest.socket.close(4401, "not authenticated")

    async with serving(handler) as url:
        with pytest.raises(ConnectionDenied) as raised:
            await LiveClient(url, token="s3cret").__aenter__()
        assert "s3cret" not in str(raised.value)
    assert headers == ["Bearer s3cret"]


async def test_what_is_not_heard_by_ask_comes_as_events_in_order() -> None:
    async with serving(answer_all) as url, LiveClient(url) as client:
        stream = client.ask("hello")
        async for _ in stream:
            break
        await stream.aclose()
        types: list[str] = []
        async for event in client.events():
            types.append(event.type)
            if event.type == "system.llm.request":
                break
        answer = ["agent.llm.response.start"] + ["agent.llm.response.chunk"] * 3
        assert types == [
            "agent.transcript.update",
            *answer,
            "agent.llm.response.end",
            "system.llm.request",
        ]


async def test_closing_ends_what_waits() -> None:
    async def handler(guest: Guest) -> None:
        await guest.hear()
        await guest.tell("agent.ready", session_id="s", seq=0)
        await guest.tell("agent.llm.response.start", request_id="x")
        await guest.socket.wait_closed()

    async with serving(handler) as url:
        async with LiveClient(url) as client:
            asking = asyncio.ensure_future(client.say("hello"))
            assert isinstance(await anext(client.events()), ResponseStart)
        with pytest.raises(ConnectionEnded, match="closed"):
            await asking
        with pytest.raises(UsageError, match="once"):
            await client.__aenter__()


async def test_nothing_is_left_of_clients_that_left_or_were_lost() -> None:
    async with serving(answer_all) as url:
        for number in range(20):
            async with LiveClient(url) as client:
                await client.say("hello")
                if number % 2:
                    client.abort()
    assert [task for task in asyncio.all_tasks() if "live client" in task.get_name()] == []


async def test_an_event_that_is_too_large_is_refused_before_it_is_sent() -> None:
    async with serving(answer_all) as url, LiveClient(url) as client:
        with pytest.raises(InvalidInput, match="bytes"):
            await client.send(AgentLog(name="n", payload={"text": "x" * 300_000}))
        assert await client.say("hello") == "you said hello"


@pytest.mark.parametrize("url", ["http://127.0.0.1/ws", "ws:///ws", "127.0.0.1:8080", "wss://"])
def test_a_url_that_is_no_websocket_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="ws://"):
        LiveClient(f"{url}?token=s3cret")


def test_a_position_without_a_session_is_refused() -> None:
    with pytest.raises(InvalidInput, match="session_id"):
        LiveClient("ws://127.0.0.1/ws", after=3)


def test_a_policy_that_cannot_be_is_refused() -> None:
    with pytest.raises(InvalidInput, match="attempts"):
        Reconnect(attempts=0)


async def test_before_it_is_entered_a_client_says_what_to_write() -> None:
    with pytest.raises(UsageError, match="async with"):
        await LiveClient("ws://127.0.0.1/ws").join()
