"""Answers among much else that comes: each question has its own, wherever a connection breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
from tests.client.busy_app import answer_to
from tests.client.frames import counting
from tests.client.serving import EAGER, Reader, said_in, served

from tertulia.client import LiveClient, State
from tertulia.errors import ConnectionLost, LiveError
from tertulia.wire.events import AgentErrorEvent, AgentLog, LiveEvent, UserPressedKey

APP = Path(__file__).parent / "busy_app.py"
PLACES = ("first", "last")
"""Where the notes are made: before the agent, or behind it."""
QUESTIONS = ["q1", "q2", "q3"]
ANSWERS = [answer_to(question) for question in QUESTIONS]


@pytest.mark.parametrize("place", PLACES)
async def test_a_question_asked_while_earlier_answers_are_told_again_has_its_own_answer(
    tmp_path: Path, place: str
) -> None:
    async with served(tmp_path, place, APP) as server:
        async with LiveClient(server.url) as first:
            for question in QUESTIONS:
                await first.say(question)
            with pytest.raises(LiveError):
                await first.say("fail")
            await first.close(code=1001)
        for number in range(20):
            async with LiveClient(server.url, session_id=first.session_id, after=0) as again:
                assert await again.say(f"new {number}") == answer_to(f"new {number}")
                await again.close(code=1001)


async def _until_whole(url: str, talk: Callable[[str], Awaitable[None]]) -> int:
    """Have a talk again and again, which breaks off one frame later each time; how often it did."""
    cut_after = 0
    broken = True
    while broken:
        cut_after += 1
        async with counting(url, cut_after) as (way, frames), asyncio.timeout(15):
            await talk(way)
            broken = frames.cut
    return cut_after - 1


@pytest.mark.parametrize("place", PLACES)
async def test_after_an_abort_at_any_frame_the_client_comes_back_and_has_each_answer_once(
    tmp_path: Path, place: str
) -> None:
    async def talk(way: str) -> None:
        async with LiveClient(way, reconnect=EAGER) as client:
            reader = Reader(client)
            assert [await client.say(each) for each in QUESTIONS] == ANSWERS
            await reader.until(lambda seen: len(seen.notes) == len(seen.answers) == len(ANSWERS))
            await reader.stop()
        assert list(reader.answers.values()) == ANSWERS
        assert reader.notes == QUESTIONS

    async with served(tmp_path, place, APP) as server:
        assert await _until_whole(server.url, talk) > 3 * len(QUESTIONS)


@pytest.mark.parametrize("place", PLACES)
async def test_after_an_abort_at_any_frame_another_client_goes_on_and_has_the_rest(
    tmp_path: Path, place: str
) -> None:
    async with served(tmp_path, place, APP) as server:

        async def talk(way: str) -> None:
            client = LiveClient(way, reconnect=False)
            async with client:
                reader = Reader(client)
                with suppress(ConnectionLost):
                    for each in QUESTIONS:
                        await client.say(each)
                    await client.close(code=1001)
                with suppress(ConnectionLost):
                    await reader.over()
            rest = LiveClient(server.url, session_id=client.session_id, after=client.seq)
            async with rest:
                more = Reader(rest)
                assert await rest.say("end") == answer_to("end")
                await more.until(
                    lambda seen: "end" in seen.notes and answer_to("end") in seen.answers.values()
                )
                await more.stop()
            told = [*reader.answers.values(), *more.answers.values()]
            said = await said_in(server, client.session_id)
            assert told == [text for role, text in said if role == "assistant"]
            assert [*reader.notes, *more.notes] == [text for role, text in said if role == "user"]
            assert told == [*ANSWERS[: len(told) - 1], answer_to("end")]

        assert await _until_whole(server.url, talk) > 3 * len(QUESTIONS)


async def _approved(client: LiveClient, reader: Reader) -> None:
    await client.send(UserPressedKey(digit="1"))
    await reader.until(lambda seen: any(_is_approved(event) for event in seen.events))


def _is_approved(event: LiveEvent) -> bool:
    return isinstance(event, AgentLog) and event.name == "approved"


@pytest.mark.parametrize("place", PLACES)
async def test_an_answer_that_waited_for_an_approval_goes_on_when_it_is_asked_for(
    tmp_path: Path, place: str
) -> None:
    async with served(tmp_path, place, APP) as server, LiveClient(server.url) as client:
        reader = Reader(client, goes_on=True)
        first = await client.say("pay")
        await _approved(client, reader)
        second = await client.say("go on")
        assert [first, second] == ["One moment. ", "Paid."]
        assert first.request_id == second.request_id
        assert not first.interrupted
        assert await client.say("q1") == answer_to("q1")
        await reader.stop()


@pytest.mark.parametrize("place", PLACES)
async def test_after_an_abort_at_any_frame_an_approved_answer_goes_on(
    tmp_path: Path, place: str
) -> None:
    async def talk(way: str) -> None:
        async with LiveClient(way, reconnect=EAGER) as client:
            reader = Reader(client, goes_on=True)
            assert await client.say("pay") == "One moment. "
            await _approved(client, reader)
            assert "Paid." in await client.say("go on")
            assert await client.say("q1") == answer_to("q1")
            await reader.stop()

    async with served(tmp_path, place, APP) as server:
        assert await _until_whole(server.url, talk) > 10


async def test_a_failed_answer_is_raised_with_what_its_error_says(tmp_path: Path) -> None:
    async with served(tmp_path, "first", APP) as server, LiveClient(server.url) as client:
        reader = Reader(client)
        with pytest.raises(LiveError, match="the model is out of order"):
            await client.say("fail")
        assert await client.say("q1") == answer_to("q1")
        await reader.stop()
        assert [event.message for event in reader.events if isinstance(event, AgentErrorEvent)]


async def test_who_asks_is_told_of_each_state_of_the_connection(tmp_path: Path) -> None:
    states: list[tuple[State, str]] = []

    def became(state: State, why: str) -> None:
        states.append((state, why))

    async with served(tmp_path, "first", APP) as server:
        async with LiveClient(server.url, reconnect=EAGER, on_state=became) as client:
            assert client.state == "open"
            await client.say("q1")
            client.abort()
            await client.say("q2")
            assert client.state == "open"
        assert client.state == "closed"
    assert [state for state, _ in states] == ["open", "waiting", "open", "closed"]
    assert "1006" in states[1][1]
