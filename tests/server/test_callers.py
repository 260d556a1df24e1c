"""The simulated caller says what it waited for."""

from __future__ import annotations

import pytest
from tests.server.test_telephony_app import serving

from tertulia import AgentApp, AgentSession, Node, Telephony
from tertulia.testing import SimulatedCaller
from tertulia.wire.events import LiveEvent, LLMRequest, ResponseChunk


class Unfinished(Node):
    """Begins to answer, and never ends."""

    async def process_event(self, event: LiveEvent) -> None:
        if isinstance(event, LLMRequest):
            await self.send_event(ResponseChunk(text="We open", request_id="r"))


async def setup(session: AgentSession) -> None:
    session.add_node(Unfinished())
    await session.start()
    await session.wait_until_complete()


async def test_a_caller_who_waits_in_vain_says_for_what() -> None:
    app = AgentApp(setup, store="memory:", telephony=Telephony())
    async with (
        serving(app) as port,
        SimulatedCaller(f"ws://127.0.0.1:{port}/voice/relay") as caller,
    ):
        with pytest.raises(TimeoutError, match=r"said nothing: waited 0\.05 s .* none came"):
            await caller.hears(within=0.05)
        await caller.says("When do you open?")
        first = await caller.frame()
        assert caller.frames == [first]
        await caller.says("And on Sundays?")
        with pytest.raises(TimeoutError, match="'We open', and no end of it came"):
            await caller.hears(within=1)
