"""The switchboard of a worker is made when it is needed, and made again where that failed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import pytest

from tertulia.cluster import Channel
from tertulia.cluster.links import Link
from tertulia.cluster.pipes import Ground, Pipe
from tertulia.cluster.station import Station
from tertulia.errors import NotAStore, StoreClosed


class Nowhere:
    """A pipe that reaches nobody."""

    def __init__(self, begin: Callable[[], None] = lambda: None) -> None:
        self._begin = begin

    async def start(self, ground: Ground) -> None:
        self._begin()

    async def reach(self, worker: bytes, until: float) -> Link:
        raise AssertionError("nobody is asked for here")

    async def close(self) -> None:
        return


async def answers(head: bytes, channel: Channel) -> None:
    raise AssertionError("nobody asks here")


def station(*begins: Callable[[], None]) -> Station:
    left = list(begins)

    def pipes() -> list[Pipe]:
        return [Nowhere(left.pop(0))] if left else [Nowhere()]

    return Station(os.urandom(16), pipes)


async def test_a_start_that_failed_is_tried_again() -> None:
    def fails() -> None:
        raise NotAStore("not yet")

    made = station(fails)
    with pytest.raises(NotAStore):
        await made.switchboard()
    assert await made.switchboard() is await made.switchboard()
    await made.close()


async def test_those_who_ask_at_once_get_the_same_one() -> None:
    made = station()
    first, *others = await asyncio.gather(*(made.switchboard() for _ in range(5)))
    assert all(each is first for each in others)
    await made.close()


async def test_what_is_served_while_it_starts_is_answered() -> None:
    made = station(lambda: made.serve("late", answers))
    board = await made.switchboard()
    assert board.refusal("late") is None
    assert board.refusal("unknown") is not None
    await made.close()


async def test_a_closed_one_starts_no_more() -> None:
    made = station()
    await made.close()
    with pytest.raises(StoreClosed):
        await made.switchboard()
