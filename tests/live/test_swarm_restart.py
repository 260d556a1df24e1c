"""A process that dies in the middle of a live turn of a swarm, and what comes after it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.live.talking import eventually, history, live

from tertulia import Agent, Policy, Runtime, Swarm, SwarmNode
from tertulia.policies import PolicyContext
from tertulia.testing import ScriptedModel
from tertulia.wire.events import ResponseEnd


class NoAcme(Policy):
    """Nobody talks about Acme."""

    async def validate_input(self, message: str, context: PolicyContext, /) -> bool:
        return "Acme" not in message


async def test_a_turn_that_was_handed_on_goes_on_with_whom_it_was_handed_to(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    died = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", HANDED_ON],
        env={**os.environ, "STORE": url},
        capture_output=True,
        timeout=50,
    )
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    sales = ScriptedModel("It is seven.")
    never = Agent("triage", model=ScriptedModel(), handoffs=["sales"])
    shop = Swarm("shop", [never, Agent("sales", model=sales)], policies=[NoAcme()])
    node = SwarmNode(shop)
    async with Runtime(url) as runtime, live(node, runtime=runtime) as (session, client):
        await client.until(ResponseEnd)
        await eventually(lambda: client.text() == "It is seven.")
        assert node.client.agent == "sales"
        said = [each.text for each in sales.requests[0].messages if each.role == "user"]
        assert said == ["hi"]
        assert (await history(session))[-1] == ("assistant", "It is seven.")
        assert "Acme" not in str(await history(session))
        assert await session.conversation.verify()


HANDED_ON = """
import asyncio, os, signal
from tertulia import Agent, Policy, Runtime, Swarm, SwarmNode
from tertulia.live import AgentSession
from tertulia.testing import Pause, ScriptedModel, call
from tertulia.wire.events import LLMRequest, ResponseEnd, TranscriptUpdate

class NoAcme(Policy):
    async def validate_input(self, message, context):
        return "Acme" not in message

async def main():
    session = AgentSession(Runtime(os.environ["STORE"]).session("s"))
    await session.open()
    pause = Pause()
    shop = Swarm(
        "shop",
        [
            Agent("triage", model=ScriptedModel(call("transfer_to_sales")), handoffs=["sales"]),
            Agent("sales", model=ScriptedModel(["It ", pause])),
        ],
        policies=[NoAcme()],
    )
    session.add_node(SwarmNode(shop))
    ended = asyncio.Event()
    session.add_event_handler("agent.llm.response.end", lambda *_: ended.set())
    await session.start()
    await session.receive(TranscriptUpdate(role="user", content="what of Acme"))
    await session.receive(LLMRequest())
    await ended.wait()
    await session.receive(TranscriptUpdate(role="user", content="hi"))
    await session.receive(LLMRequest())
    await pause.reached()
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""
