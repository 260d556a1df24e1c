"""What belongs to an event loop: one for each, closed with it, and nothing that stays behind."""

from __future__ import annotations

import asyncio
import gc
import threading
from weakref import WeakSet

import pytest

from tertulia.agents.kept import MOST, Named, PerLoop


class Client:
    """Notes on which loop it was closed."""

    def __init__(self) -> None:
        self.closed_on: list[asyncio.AbstractEventLoop] = []

    async def close(self) -> None:
        self.closed_on.append(asyncio.get_running_loop())


@pytest.fixture
def clients() -> PerLoop[Client]:
    return PerLoop()


async def test_a_loop_has_one_client_also_when_many_ask_at_once(clients: PerLoop[Client]) -> None:
    found = await asyncio.gather(*(clients.get(Client) for _ in range(10)))
    assert len({id(each) for each in found}) == 1


def test_every_loop_closes_its_own_client_at_its_end(clients: PerLoop[Client]) -> None:
    made: list[Client] = []
    loops: list[asyncio.AbstractEventLoop] = []

    async def use() -> None:
        loops.append(asyncio.get_running_loop())
        made.append(await clients.get(Client))

    for _ in range(3):
        asyncio.run(use())
    assert [client.closed_on for client in made] == [[loop] for loop in loops]


def test_loops_that_were_closed_by_hand_do_not_stay(clients: PerLoop[Client]) -> None:
    loops: WeakSet[asyncio.AbstractEventLoop] = WeakSet()

    def use() -> None:
        loop = asyncio.new_event_loop()
        loops.add(loop)
        loop.run_until_complete(clients.get(Client))
        loop.close()

    for _ in range(5):
        use()
    gc.collect()
    assert len(loops) == 1
    asyncio.run(clients.get(Client))  # another one lets go of those that are closed
    gc.collect()
    assert len(loops) == 0


def test_loops_that_begin_and_end_at_the_same_time_do_not_disturb_each_other(
    clients: PerLoop[Client],
) -> None:
    problems: list[BaseException] = []

    def use() -> None:
        try:
            for _ in range(20):
                asyncio.run(clients.get(Client))
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert problems == []


async def test_a_client_that_nobody_has_any_more_is_closed() -> None:
    clients: PerLoop[Client] = PerLoop()
    client = await clients.get(Client)
    del clients
    gc.collect()
    async with asyncio.timeout(10):
        while not client.closed_on:
            await asyncio.sleep(0)
    assert client.closed_on == [asyncio.get_running_loop()]


def test_the_newest_names_are_held_and_the_oldest_let_go() -> None:
    class Model:
        def __init__(self, name: str) -> None:
            self.name = name

    models = Named(Model)
    first, second = models.get("a:1"), models.get("a:2")
    assert models.get("a:1") is first
    for number in range(MOST - 1):
        models.get(f"b:{number}")
    assert models.get("a:1") is first
    assert models.get("a:2") is not second
