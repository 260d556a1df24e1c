"""A caller that is cancelled again while its turn still ends: the turn stays known until it has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.agents.histories import check_whole
from tests.swarm.stage import SWARM, Stage, soon, swarm_of

from tertulia.agents.protocol import ModelEvent, ModelRequest, TextDelta
from tertulia.testing import ScriptedModel


class Stubborn:
    """A step of a model that ends only when it is let go."""

    def __init__(self) -> None:
        self.began, self.cancelled, self.let_go = (asyncio.Event() for _ in range(3))

    async def __call__(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        self.began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            await self.let_go.wait()
        yield TextDelta("late")


async def test_a_turn_whose_caller_was_cancelled_twice_can_still_be_stopped(
    stage: Stage,
) -> None:
    stubborn = Stubborn()
    model = ScriptedModel(stubborn.__call__, "Next.")
    client = stage.runtime(swarm_of(model)).client_session("ann", SWARM)
    caller = asyncio.create_task(client.execute("Hello"))
    await soon(stubborn.began.wait())
    caller.cancel()
    await soon(stubborn.cancelled.wait())
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(caller)
    stopping = asyncio.create_task(client.cancel())
    stubborn.let_go.set()
    assert await soon(stopping) is True
    assert await client.cancel() is False
    assert await soon(client.execute("More")) == "Next."
    await check_whole(client.session)
