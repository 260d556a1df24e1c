"""The swarm of ``make demo-swarm``: the demo's agents, with policies on the way in."""

from __future__ import annotations

from tertulia import settings
from tertulia.agents import Agent
from tertulia.agents.demo import demo_agent
from tertulia.policies import Policy, PolicyContext, Refusal
from tertulia.swarm import Swarm

ELSEWHERE = ("pizza", "burger")
RUDE = ("stupid", "or else")
PAUSE = 30


class OnlyCoffee(Policy):
    """The demo's order desk has coffee, tea and cake."""

    ban_message = "We have coffee, tea and cake, and talk of nothing else to eat."

    def validate_input(self, message: str, context: PolicyContext, /) -> bool | Refusal:
        """Refuses what others sell."""
        found = next((word for word in ELSEWHERE if word in message.lower()), None)
        return found is None or self.refuse(f"it names {found}")


class Polite(Policy):
    """Whoever is rude is banned for half a minute."""

    ban_message = "I am not going to discuss it!"
    auto_ban = True
    ban_for = PAUSE

    def validate_input(self, message: str, context: PolicyContext, /) -> bool | Refusal:
        """Refuses rude words."""
        found = next((word for word in RUDE if word in message.lower()), None)
        return found is None or self.refuse(f"it says {found!r}")


def _agents() -> list[Agent]:
    demo = demo_agent(settings.model())
    return [demo, *(each for each in demo.handoffs if isinstance(each, Agent))]


swarm = Swarm("tearoom", _agents(), policies=[OnlyCoffee(), Polite()])
