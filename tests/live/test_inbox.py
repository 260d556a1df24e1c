"""Inboxes: bounded, in order, and nobody who waits for a place loses it to another."""

from __future__ import annotations

import asyncio

import pytest

from tertulia.live.inbox import Inbox


async def turns(count: int = 10) -> None:
    """Let others run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_giver_that_waits_for_a_place_does_not_lose_its_item_to_another_giver() -> None:
    inbox = Inbox[int](1)
    assert inbox.offer(1)
    waiting = asyncio.create_task(inbox.put(2))
    await turns()
    assert await inbox.take() == 1
    inbox.offer(3)
    await turns()
    taken = [await inbox.take() for _ in range(len(inbox))]
    await turns()
    taken += [await inbox.take() for _ in range(len(inbox))]
    assert await waiting
    assert sorted(taken) == [2, 3]
    assert inbox.dropped == 0


async def test_givers_that_wait_are_let_in_in_their_order() -> None:
    inbox = Inbox[int](1)
    inbox.offer(0)
    waiting = [asyncio.create_task(inbox.put(number)) for number in range(1, 20)]
    await turns(30)
    taken: list[int] = []
    for _ in range(20):
        taken.append(await inbox.take())
        await turns()
    assert taken == list(range(20))
    assert all([await each for each in waiting])


async def test_a_giver_that_is_cancelled_leaves_its_place_to_the_next() -> None:
    inbox = Inbox[int](1)
    inbox.offer(0)
    first, second = (asyncio.create_task(inbox.put(number)) for number in (1, 2))
    await turns()
    first.cancel()
    await turns()
    assert await inbox.take() == 0
    await turns()
    assert await inbox.take() == 2
    assert await second


async def test_after_one_wait_in_vain_nobody_waits_until_there_is_a_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tertulia.live.inbox.PATIENCE", 0.01)
    inbox = Inbox[int](1)
    inbox.offer(0)
    assert not await inbox.put(1)
    monkeypatch.setattr("tertulia.live.inbox.PATIENCE", 3_600)
    assert not await inbox.put(2)
    assert inbox.dropped == 2
    assert await inbox.take() == 0
    assert await inbox.put(3)
    assert await inbox.take() == 3


@pytest.mark.parametrize(
    ("overflow", "kept"), [("drop_oldest", [3, 4, 5]), ("drop_newest", [0, 1, 2])]
)
async def test_a_full_inbox_drops_as_its_rule_says_and_says_so(
    overflow: str, kept: list[int]
) -> None:
    inbox = Inbox[int](3, overflow)  # pyright: ignore[reportArgumentType]
    said = [await inbox.put(number) for number in range(6)]
    assert said == [True] * 3 + [False] * 3
    assert [await inbox.take() for _ in range(3)] == kept
