"""A client that does not read: text is joined first, then the connection is closed."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.live.talking import Card, Client, Recorder, eventually, live, settled

from tertulia.live import OutputNode
from tertulia.live import link as links
from tertulia.live.link import Link
from tertulia.server import limits
from tertulia.wire.events import (
    AgentErrorEvent,
    AgentLog,
    AgentSpeak,
    LLMRequest,
    ResponseChunk,
    ResponseEnd,
    ResponseStart,
)


class Long(OutputNode):
    """Answers with many pieces."""

    def __init__(self, pieces: int, piece: str = "word ") -> None:
        super().__init__("long")
        self.pieces = pieces
        self.piece = piece

    async def generate_response(self) -> AsyncIterator[str]:
        for _ in range(self.pieces):
            yield self.piece


async def test_pieces_for_a_client_that_does_not_read_are_joined_and_none_is_lost() -> None:
    async with live(Long(20_000), reading=False) as (session, client):
        await client.says("go on")
        await settled(session)
        assert client.link.closed is None
        assert len(client.link) <= links.COALESCE + 2
        client.take()
        assert client.text() == "word " * 20_000
        assert client.types[-1] == ResponseEnd.type


async def test_a_client_too_far_behind_is_closed_and_can_come_back_for_all_of_it() -> None:
    async with live(Recorder(), reading=False) as (session, client):
        for number in range(links.MOST_EVENTS + 50):
            await session.send_event(AgentLog(name=str(number)))
            await settled(session) if number % 200 == 0 else None
        await settled(session)
        assert client.link.closed == (
            links.TOO_SLOW,
            "too slow: come back with session_id and after",
        )
        client.lose()
        assert not session.ending
        back = Client(session).read()
        await back.attach(0, again=True)
        await back.until(AgentLog, links.MOST_EVENTS + 50)
        names = [event.name for event in back.of(AgentLog)]
        assert names == [str(number) for number in range(links.MOST_EVENTS + 50)]


async def test_too_much_text_for_a_client_that_does_not_read_closes_the_connection() -> None:
    async with live(Long(12, "x" * 90_000), reading=False) as (session, client):
        await session.receive(LLMRequest())
        await eventually(lambda: client.link.closed is not None)
        assert client.link.closed is not None
        assert client.link.closed[0] == links.TOO_SLOW
        assert len(client.link) == 0
        assert not session.ending


async def test_an_answer_too_large_for_the_log_ends_for_the_client_all_the_same() -> None:
    async with live(Long(12, "x" * 90_000)) as (session, client):
        await session.receive(LLMRequest())
        await settled(session)
        assert [event.payload["code"] for event in client.of(AgentErrorEvent)] == ["not_kept"]
        assert client.of(ResponseEnd)


async def test_events_between_the_pieces_keep_their_place() -> None:
    link = Link()
    for number in range(100):
        link.push(ResponseChunk(text=f"{number} ", request_id="a", offset=0))
    link.push(Card(title="between"))
    for number in range(100):
        link.push(ResponseChunk(text=f"{number} ", request_id="b", offset=0))
    taken = [link.next() for _ in range(len(link))]
    texts = {"a": "", "b": ""}
    order: list[str] = []
    for event in taken:
        if isinstance(event, ResponseChunk):
            texts[event.request_id or ""] += event.text
            order.append(event.request_id or "")
        else:
            order.append("card")
    assert texts["a"] == texts["b"] == "".join(f"{number} " for number in range(100))
    assert order == sorted(order, key=["a", "card", "b"].index)


async def test_a_link_that_is_closed_gives_what_waits_and_takes_nothing_more() -> None:
    link = Link()
    link.push(Card(title="waits"))
    link.close(links.NORMAL, "over")
    link.close(links.FAILED, "again")
    link.push(Card(title="late"))
    link.offer(Card(title="late"))
    assert await link.wait()
    assert isinstance(link.next(), Card)
    assert not await link.wait()
    assert link.closed == (links.NORMAL, "over")


async def test_cut_drops_the_text_of_an_answer_and_nothing_else() -> None:
    link = Link()
    link.push(ResponseStart(request_id="a"))
    for name in "abab":
        link.push(ResponseChunk(text=name, request_id=name))
    link.push(AgentSpeak(text="speak"))
    link.push(ResponseEnd(request_id="a"))
    link.cut({"a"})
    taken = [link.next() for _ in range(len(link))]
    assert [event.type.rsplit(".", 1)[-1] for event in taken if event is not None] == [
        "start",
        "chunk",
        "chunk",
        "speak",
        "end",
    ]


async def test_a_connection_gets_no_more_frames_a_second_than_its_rate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1_000.0]

    async def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(limits, "monotonic", lambda: now[0])
    monkeypatch.setattr(limits.asyncio, "sleep", sleep)
    pace = limits.Pace(10)
    for _ in range(20 + 1_000):
        await pace.keep()
    assert now[0] - 1_000 == pytest.approx(100, abs=1)
