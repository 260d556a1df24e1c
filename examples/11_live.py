"""A live session whose server is killed in the middle of an answer; its client hardly notices."""

import asyncio
import subprocess
import sys

from tertulia import Agent, AgentApp
from tertulia.agents.offline import OfflineModel
from tertulia.client import LiveClient

app = AgentApp(agent=Agent("guide", model=OfflineModel(pause=0.03)))
SERVE = [sys.executable, "-m", "tertulia", "serve", __file__, "--store", "sqlite:///live.db"]


def serve(port: str) -> tuple["subprocess.Popen[str]", str]:
    """Start a server, and wait until it says where it runs."""
    server = subprocess.Popen([*SERVE, "--port", port], stderr=subprocess.PIPE, text=True)
    told = next(line for line in server.stderr or () if "running on" in line)
    return server, told.split(":")[-1].split()[0]


async def main() -> None:
    """Talk, while the server dies and comes back."""
    dies, port = serve("0")
    async with LiveClient(f"ws://127.0.0.1:{port}/ws") as client:
        print(await client.say("My name is Ada."))
        answer = client.ask("Who are you?")
        print(await anext(answer), "...")
        with dies:
            dies.kill()
        with serve(port)[0] as again:
            print("".join([piece async for piece in answer]))
            print(await client.say("What is my name?"))
            again.terminate()


if __name__ == "__main__":
    asyncio.run(main())
