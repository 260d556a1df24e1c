"""A request with an idempotency key runs once, also where two processes have it at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tertulia import Agent, Runtime
from tertulia.agents.protocol import Finished, ModelEvent, ModelRequest, TextDelta
from tertulia.errors import IdempotencyConflict
from tertulia.testing.models import ScriptedModel


async def test_the_same_key_at_the_same_moment_in_two_workers_runs_once(tmp_path: Path) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(request: ModelRequest) -> AsyncIterator[ModelEvent]:
        asked.set()
        await go_on.wait()
        yield TextDelta("paid")
        yield Finished("stop")

    address = f"sqlite:///{tmp_path / 'x.db'}"
    unused = ScriptedModel("paid again", "other")
    async with Runtime(store=address) as here, Runtime(store=address) as there:
        mine = Agent(model=ScriptedModel(slowly)).session("s", runtime=here)
        other = Agent(model=unused).session("s", runtime=there)
        first = asyncio.create_task(mine.run_async("pay", idempotency_key="k"))
        await asked.wait()
        second = asyncio.create_task(other.run_async("pay", idempotency_key="k"))
        conflicting = asyncio.create_task(other.run_async("pay more", idempotency_key="j"))
        await asyncio.sleep(0)
        go_on.set()
        assert (await first).text == (await second).text == "paid"
        assert (await conflicting).text == "paid again"
        assert len(unused.requests) == 1
        texts = [message.text for message in await mine.history()]
        assert texts == ["pay", "paid", "pay more", "paid again"]
        assert other.pending_inputs == []
        with pytest.raises(IdempotencyConflict):
            await other.run_async("something else", idempotency_key="k")
        assert await mine.verify()
