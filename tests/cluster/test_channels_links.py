"""Two links that talk to each other through a queue with little room, in every order."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from time import monotonic

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from tertulia.cluster import Channel, ChannelClosed
from tertulia.cluster.frames import Frame, Word, decode, encode
from tertulia.cluster.links import IDLE, Link
from tertulia.errors import WorkerLost

A, B = b"a" * 16, b"b" * 16


class Desk:
    """Keeps the channels that the other side opens."""

    def __init__(self) -> None:
        self.opened: asyncio.Queue[tuple[Channel, str, bytes]] = asyncio.Queue()

    def refusal(self, kind: str) -> str | None:
        """Refuses one kind."""
        return "not this one" if kind == "refused" else None

    def begin(self, channel: Channel, kind: str, head: bytes) -> None:
        """A channel was opened."""
        self.opened.put_nowait((channel, kind, head))


class Way:
    """What one side has said and the other has not heard; refuses frames now and then."""

    def __init__(self, luck: random.Random) -> None:
        self._luck = luck
        self.waiting: deque[bytes] = deque()
        self.lost: list[Link] = []

    def transmit(self, data: bytes, number: int) -> bool:
        """Take a frame in."""
        if len(self.waiting) >= 5 or self._luck.random() < 0.02:
            return False
        self.waiting.append(data)
        return True


class Both:
    """Two links and the ways between them."""

    def __init__(self, luck: random.Random) -> None:
        self.luck = luck
        self.desk = Desk()
        self.there, self.back = Way(luck), Way(luck)
        self.a = Link(A, B, 7, Desk(), self.there.transmit, self.there.lost.append, began=True)
        self.b = Link(B, A, 7, self.desk, self.back.transmit, self.back.lost.append, began=False)

    async def carry(self) -> None:
        """Hand over what was said, for as long as it is not cancelled."""
        while True:
            for way, link in ((self.there, self.b), (self.back, self.a)):
                for _ in range(self.luck.randrange(4)):
                    if way.waiting:
                        link.heard(found(way.waiting.popleft()))
            if self.luck.random() < 0.2:
                self.a.beat(monotonic(), late=False)
                self.b.beat(monotonic(), late=False)
            await asyncio.sleep(0)


def found(data: bytes) -> Frame:
    """The frame in some bytes."""
    frame = decode(data)
    assert frame is not None
    return frame


MESSAGES = st.lists(st.one_of(st.integers(0, 3_000), st.integers(60_000, 300_000)), max_size=30)


async def say(channel: Channel, sizes: list[int]) -> None:
    """Send messages of these sizes, then end."""
    for number, size in enumerate(sizes):
        await channel.send(bytes([number]) * size)
    await channel.end()


async def hear(channel: Channel) -> list[bytes]:
    """All that comes."""
    came: list[bytes] = []
    while (data := await channel.receive()) is not None:
        came.append(data)
    return came


async def exchange(
    to_b: list[int], to_a: list[int], luck: random.Random
) -> tuple[list[bytes], list[bytes]]:
    """What both sides heard when they talked at once."""
    both = Both(luck)
    carrying = asyncio.create_task(both.carry())
    try:
        mine = await both.a.open("talk", b"head" * 50_000, monotonic() + 10)
        theirs, kind, head = await both.desk.opened.get()
        assert (kind, head) == ("talk", b"head" * 50_000)
        heard = await asyncio.gather(hear(theirs), hear(mine), say(mine, to_b), say(theirs, to_a))
        while both.a.channels or both.b.channels:
            await asyncio.sleep(0)
        assert not both.there.lost + both.back.lost
        return heard[0], heard[1]
    finally:
        carrying.cancel()


@settings(max_examples=30, deadline=None)
@given(MESSAGES, MESSAGES, st.integers(0, 2**32))
def test_what_both_sides_send_at_once_comes_whole_and_in_order(
    to_b: list[int], to_a: list[int], seed: int
) -> None:
    heard = asyncio.run(exchange(to_b, to_a, random.Random(seed)))
    for came, sizes in zip(heard, (to_b, to_a), strict=True):
        assert came == [bytes([number]) * size for number, size in enumerate(sizes)]


async def test_a_link_that_nobody_uses_is_let_go() -> None:
    way = Way(random.Random(1))
    link = Link(A, B, 7, Desk(), way.transmit, way.lost.append, began=True, idle=IDLE)
    assert link.usable
    link.beat(monotonic(), late=False)
    assert not way.lost
    link.beat(monotonic() + IDLE, late=False)
    assert way.lost == [link]
    assert not link.usable
    assert found(way.waiting.pop()).word is Word.RESET


async def test_a_process_that_stood_still_itself_does_not_blame_the_other_side() -> None:
    both = Both(random.Random(3))
    carrying = asyncio.create_task(both.carry())
    channel = await both.a.open("talk", b"", monotonic() + 10)
    carrying.cancel()
    later = monotonic() + 60
    both.a.beat(later, late=True)
    assert not both.there.lost
    both.a.beat(later, late=False)
    assert both.there.lost == [both.a]
    with pytest.raises(WorkerLost, match="silent"):
        await channel.receive()


async def test_a_peer_that_sends_more_than_it_may_is_refused() -> None:
    both = Both(random.Random(2))
    head = Frame(Word.OPEN, 1, b"", text="talk", sender=A, link=7, number=1)
    both.b.heard(found(encode(head)))
    channel, _, _ = both.desk.opened.get_nowait()
    for number in range(100):
        data = Frame(Word.DATA, 1, b"x", sender=A, link=7, number=number + 2)
        both.b.heard(found(encode(data)))
    assert not both.b.channels
    for _ in range(63):
        assert await channel.receive() == b"x"
    with pytest.raises(ChannelClosed, match="more than it may"):
        await channel.receive()
    assert any(found(data).word is Word.CLOSE for data in both.back.waiting)


async def test_a_number_that_is_not_a_new_one_opens_no_channel() -> None:
    both = Both(random.Random(2))
    for number, channel in enumerate((3, 3, 1, 2, 5), start=1):
        head = Frame(Word.OPEN, channel, b"", text="talk", sender=A, link=7, number=number)
        both.b.heard(found(encode(head)))
    assert sorted(both.b.channels) == [3, 5]
