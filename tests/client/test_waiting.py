"""The events that wait to be read are bounded, and nothing is lost for whoever reads."""

from __future__ import annotations

import asyncio

import pytest

from tertulia.client.waiting import WaitingEvents
from tertulia.errors import ConnectionLost, UsageError
from tertulia.wire.events import AgentLog, ResponseChunk


def note(number: int) -> AgentLog:
    return AgentLog(name=f"n{number}")


async def test_pieces_of_text_are_put_together_before_anything_is_forgotten() -> None:
    waiting = WaitingEvents(4)
    await waiting.put(note(0))
    for piece in "abcdefgh":
        await waiting.put(ResponseChunk(text=piece, request_id="x", offset="abcdefgh".index(piece)))
    await waiting.put(note(1))
    waiting.finish(None)
    told = [event async for event in waiting.reader()]
    chunks = [event for event in told if isinstance(event, ResponseChunk)]
    assert "".join(chunk.text for chunk in chunks) == "abcdefgh"
    assert [chunk.offset for chunk in chunks] == sorted(chunk.offset or 0 for chunk in chunks)
    assert isinstance(told[0], AgentLog)
    assert isinstance(told[-1], AgentLog)
    assert waiting.dropped == 0


async def test_while_nobody_reads_the_oldest_is_forgotten_and_counted() -> None:
    waiting = WaitingEvents(2)
    for number in range(5):
        await waiting.put(note(number))
    waiting.finish(None)
    assert [getattr(event, "name", "") async for event in waiting.reader()] == ["n3", "n4"]
    assert waiting.dropped == 3


async def test_while_somebody_reads_whoever_brings_an_event_waits_for_a_place() -> None:
    waiting = WaitingEvents(2)
    reader = waiting.reader()

    async def bring() -> None:
        for number in range(50):
            await waiting.put(note(number))
        waiting.finish(None)

    async with asyncio.TaskGroup() as tasks:
        bringing = tasks.create_task(bring())
        names = [getattr(await anext(reader), "name", "")]
        assert not bringing.done()
        names += [getattr(event, "name", "") async for event in reader]
    assert names == [f"n{number}" for number in range(50)]
    assert waiting.dropped == 0


async def test_when_the_reader_goes_away_whoever_waited_for_a_place_goes_on() -> None:
    waiting = WaitingEvents(1)
    reader = waiting.reader()
    await waiting.put(note(0))
    async with asyncio.TaskGroup() as tasks:
        bringing = tasks.create_task(waiting.put(note(1)))
        await asyncio.sleep(0)
        del reader
        await bringing
    assert waiting.dropped == 1


async def test_two_readers_at_once_are_refused_and_one_after_the_other_is_not() -> None:
    waiting = WaitingEvents(9)
    first = waiting.reader()
    pending = asyncio.ensure_future(anext(first))
    await asyncio.sleep(0)
    with pytest.raises(UsageError, match="has a reader"):
        waiting.reader()
    await waiting.put(note(0))
    assert await pending
    await waiting.put(note(1))
    assert await anext(waiting.reader())
    with pytest.raises(UsageError, match="only the newest"):
        await anext(first)


async def test_a_loss_for_good_is_raised_after_what_had_come() -> None:
    waiting = WaitingEvents(9)
    await waiting.put(note(0))
    waiting.finish(ConnectionLost("gone"))
    reader = waiting.reader()
    assert await anext(reader)
    with pytest.raises(ConnectionLost):
        await anext(reader)
