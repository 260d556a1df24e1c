"""What the tests of faults do with workers: speak to all sessions, and look who holds one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from tests.cluster.workers import Client

from tertulia import Runtime

SESSIONS = [f"s{number}" for number in range(6)]
More = Callable[[int], Awaitable[None]]
"""Waits until so many more things were answered."""


def long(*values: object) -> object:
    """A size for `make soak` only."""
    return pytest.param(*values, marks=[pytest.mark.soak, pytest.mark.timeout(900)])


@asynccontextmanager
async def load(client: Client, seconds: float = 0.02) -> AsyncGenerator[More]:
    """Every session is spoken to, without an end, while the block runs."""
    ending = asyncio.Event()
    answered = asyncio.Condition()
    done = 0

    async def speak(session: str) -> None:
        nonlocal done
        await client.create(session)
        number = 0
        while not ending.is_set():
            number += 1
            verb = "count" if number % 3 == 0 else f"slow {seconds}"
            await client.say(session, f"{verb} {number} of {session}", first=number)
            async with answered:
                done += 1
                answered.notify_all()

    async def more(turns: int) -> None:
        wanted = done + turns
        async with answered:
            await answered.wait_for(lambda: done >= wanted)

    async with asyncio.TaskGroup() as tasks:
        for session in SESSIONS:
            tasks.create_task(speak(session))
        try:
            yield more
        finally:
            ending.set()


async def held(address: str, *sessions: str) -> bytes:
    """Wait until somebody holds each of these sessions; who holds the last one."""
    async with Runtime(address) as runtime:
        holder = None
        for session in sessions:
            while (holder := await _holder(runtime, session)) is None:
                await asyncio.sleep(0.02)
        assert holder is not None
        return holder


async def _holder(runtime: Runtime, session: str) -> bytes | None:
    row = await runtime.store.find(None, session)
    return None if row is None else row.holder


async def gone(address: str, worker: bytes) -> None:
    """Wait until everybody can know that a worker is gone."""
    async with Runtime(address) as runtime:
        while await runtime.store.worker_is_alive(worker):
            await asyncio.sleep(0.02)


async def said_in(address: str, session: str) -> list[str]:
    """The texts of its history."""
    async with Runtime(address) as runtime:
        return [message.text for message in await runtime.session(session).history()]
