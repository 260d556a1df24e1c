"""The gate: one at a time, in order, for loops and threads."""

from __future__ import annotations

import asyncio
import threading

import anyio
import pytest

from tertulia import doors
from tertulia.gate import Gate, GateDeadlock, GateFull, GateTimeout


async def test_those_who_wait_enter_in_the_order_in_which_they_came() -> None:
    gate = Gate(10)
    entered: list[int] = []

    async def enter(number: int) -> None:
        async with gate:
            entered.append(number)
            await asyncio.sleep(0)

    await gate.enter()
    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(enter, number)
            while gate.waiting <= number:
                await asyncio.sleep(0)
        gate.leave()
    assert entered == [0, 1, 2, 3, 4]
    assert not gate.busy


async def test_nobody_overtakes_those_who_wait() -> None:
    gate = Gate(10)
    assert gate.try_enter()
    waiting = asyncio.create_task(gate.enter())
    while not gate.waiting:
        await asyncio.sleep(0)
    gate.leave()
    assert not gate.try_enter()
    await waiting
    assert gate.busy
    gate.leave()
    assert gate.try_enter()


async def test_a_full_gate_refuses_at_once() -> None:
    gate = Gate(1)
    await gate.enter()
    waiting = asyncio.create_task(gate.enter())
    while not gate.waiting:
        await asyncio.sleep(0)
    with pytest.raises(GateFull):
        await gate.enter()
    gate.leave()
    await waiting


async def test_a_deadline_ends_the_wait_and_the_place_in_the_queue() -> None:
    gate = Gate(10)
    await gate.enter()
    with pytest.raises(GateTimeout):
        await gate.enter(0)
    assert gate.waiting == 0
    gate.leave()
    assert not gate.busy


async def test_whoever_is_cancelled_leaves_the_queue() -> None:
    gate = Gate(10)
    await gate.enter()
    waiting = asyncio.create_task(gate.enter())
    while not gate.waiting:
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert gate.waiting == 0


async def test_whoever_is_cancelled_when_the_gate_opened_for_it_passes_it_on() -> None:
    gate = Gate(10)
    await gate.enter()
    first, second = asyncio.create_task(gate.enter()), asyncio.create_task(gate.enter())
    while gate.waiting < 2:
        await asyncio.sleep(0)
    gate.leave()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    with anyio.fail_after(5):
        await second
    assert gate.busy


def test_threads_enter_one_at_a_time() -> None:
    gate = Gate(100)
    inside = 0
    most = 0

    async def once() -> None:
        nonlocal inside, most
        async with gate:
            inside += 1
            most = max(most, inside)
            inside -= 1

    def many() -> None:
        for _ in range(200):
            doors.call(once())

    threads = [threading.Thread(target=many) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert not gate.busy


async def test_a_synchronous_wait_for_a_task_of_the_same_loop_is_refused() -> None:
    gate = Gate(10)
    await gate.enter()
    with pytest.raises(GateDeadlock):
        doors.call(gate.enter())
    gate.leave()
    doors.call(gate.enter())
    assert gate.busy


async def test_a_thread_waits_for_a_task_of_a_loop() -> None:
    gate = Gate(10)
    await gate.enter()

    def enter() -> None:
        doors.call(gate.enter())

    waiting = asyncio.create_task(asyncio.to_thread(enter))
    while not gate.waiting:
        await asyncio.sleep(0)
    gate.leave()
    with anyio.fail_after(5):
        await waiting
