"""Two agents share one session: the one that has the floor answers, and may give it away.

Here a script stands in for the models, so that it runs without a key.
"""

import asyncio
import tempfile

from tertulia import Agent, Runtime
from tertulia.testing import ScriptedModel, call


def desk() -> Agent:
    """The agent that is asked first, and the one that it hands over to."""
    billing = Agent(
        "billing",
        model=ScriptedModel("The invoice of May is on its way.", "You are welcome."),
        description="Knows invoices and payments.",
    )
    script = ScriptedModel(call("transfer_to_billing", reason="asks for an invoice"))
    return Agent("desk", model=script, handoffs=[billing])


async def main() -> None:
    """Hand over, and see that the floor stays where it is after a restart."""
    url = f"sqlite:///{tempfile.mkdtemp()}/desk.db"
    async with Runtime(url):
        stream = desk().session("ann").stream_async("I need my invoice of May")
        async for event in stream:
            if event.type == "handoff":
                print(f"{event.handoff.source} -> {event.handoff.target}: {event.handoff.reason}")
        print(f"{stream.response.agent}: {stream.response.text}")
    async with Runtime(url):  # as another process would
        session = desk().session("ann")
        print("the floor is with", session.floor)
        print([(m.agent, m.text) for m in await session.history() if m.role == "assistant"])


asyncio.run(main())
