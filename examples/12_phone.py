"""A phone call without a phone: the carrier and its caller are simulated, over a real WebSocket."""

import asyncio
import subprocess
import sys

from tertulia import Agent, AgentApp, AgentNode, AgentSession, Telephony
from tertulia.testing import SimulatedCaller
from tertulia.wire.events import EndCall

SERVE = [sys.executable, "-m", "tertulia", "serve", __file__, "--store", "memory:", "--port", "0"]


async def setup(session: AgentSession) -> None:
    """An agent answers; the hash key ends the call."""
    session.add_node(AgentNode(Agent("clerk", model="offline")))
    session.add_event_handler("system.user.dtmf", lambda session, _: session.send_event(EndCall()))
    await session.start()
    await session.wait_until_complete()


app = AgentApp(setup, telephony=Telephony(welcome_greeting="Hello!"))


async def call(port: str) -> None:
    async with SimulatedCaller(f"ws://127.0.0.1:{port}/voice/relay") as caller:
        for text in ("My name is Ada.", "What is my name?"):
            await caller.says(text)
            print(await caller.hears())
        await caller.presses("#")
        await caller.gone()
        print("the app ended the call:", bool(caller.ended))


if __name__ == "__main__":
    with subprocess.Popen(SERVE, stderr=subprocess.PIPE, text=True) as server:
        told = next(line for line in server.stderr or () if "running on" in line)
        asyncio.run(call(told.split(":")[-1].split()[0]))
        server.terminate()
