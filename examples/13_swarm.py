"""A swarm: a handoff, a policy that bans, a word unasked, a listener; then a restart."""

import asyncio
import tempfile

from tertulia import Agent, Policy, Runtime, Swarm
from tertulia.testing import ScriptedModel, call


class NoThreats(Policy):
    """Bans whoever threatens us."""

    def validate_input(self, message: str, context: object, /) -> bool:
        """Whether a client may say this."""
        return "or else" not in message


first = ScriptedModel(call("transfer_to_refunds", reason="a refund"), "Hello again.")
triage = Agent("triage", model=first, handoffs=["refunds"])
refunds = Agent("refunds", model=ScriptedModel("It is on its way."), description="Pays back.")
shop = Swarm("shop", agents=[triage, refunds], policies=[NoThreats(auto_ban=True)])


async def main() -> None:
    """Talk to the shop, and to the shop of the next day."""
    url = f"sqlite:///{tempfile.mkdtemp()}/shop.db"
    async with Runtime(url, swarms=[shop]) as live, live.client_session("ann", "shop") as client:
        live.bus.listen("ann", "navigation.*", lambda event: print("bus:", event.output))
        client.connect(lambda outgoing: print("phone:", outgoing.data))
        print(repr(await client.execute("Where is my refund?")))
        await client.emit("We are closing in five minutes.")
        print(repr(await client.execute("Give it to me, or else")))
    async with Runtime(url, swarms=[shop]) as live, live.client_session("ann", "shop") as client:
        print(client.agent, "has the floor;", [ban.policy for ban in await shop.bans("ann")])
        await shop.unban("ann")
        print(await client.change_to_previous(), "-", await client.execute("Hi"))


asyncio.run(main())
