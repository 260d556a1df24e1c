"""Who answers in the swarms' benchmark: a swarm's client, and the bare session beside it.

The same agent answers both, with a scripted model, on one runtime: one store, one writer.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable

import apsw

import tertulia
from benchmarks.agent_models import OneWord
from benchmarks.systems import Measured, distribution_versions
from tertulia import Agent, BusEvent, ClientSession, Policy, Runtime, Session, Swarm
from tertulia.policies import PolicyContext

SWARM = "shop"
TRIAGE = "triage"
KEEP_LAST = 10
"""Messages that the model is shown, of either."""

Ask = Callable[[str], Awaitable[str]]


class Looking(Policy):
    """Looks for a word in what is said, and in what is answered."""

    word: str

    async def validate_input(self, message: str, context: PolicyContext) -> bool:
        return self.word not in message

    async def validate_output(self, message: str, context: PolicyContext) -> bool:
        return self.word not in message


class NoCompetitors(Looking):
    word = "acme"


class NoSecrets(Looking):
    word = "password"


class NoInsults(Looking):
    word = "idiot"


def shop() -> Swarm:
    """Three agents, one of which may hand over to the others, and three policies."""
    model = OneWord()
    others = [Agent(name=name, model=model) for name in ("sales", "refunds")]
    triage = Agent(
        name=TRIAGE,
        model=model,
        instructions="Answer the customers of a shop.",
        handoffs=others,
        keep_last=KEEP_LAST,
    )
    policies = [NoCompetitors(), NoSecrets(), NoInsults()]
    return Swarm(SWARM, agents=[triage, *others], policies=policies)


class Answering(Measured):
    """Answers in any number of conversations at once."""

    def open(self, runtime: Runtime, swarm: Swarm) -> None:
        self.runtime = runtime
        self.agent = swarm.agent(TRIAGE)

    @abstractmethod
    async def begin(self, name: str) -> Ask:
        """A new conversation; what to ask in it."""

    async def end(self, turns: int) -> None:
        """So many turns were taken in all of them: let go of them."""

    def versions(self) -> dict[str, str]:
        found = distribution_versions("apsw", "msgspec")
        return found | {"sqlite": apsw.sqlite_lib_version(), "tertulia": tertulia.__version__}


class Bare(Answering):
    """A session of the agent alone."""

    async def begin(self, name: str) -> Ask:
        session: Session = self.agent.session(f"session-{name}", runtime=self.runtime)

        async def ask(text: str) -> str:
            return (await session.run_async(text)).text

        return ask


class InSwarm(Answering):
    """A client of the swarm, to whose session events somebody listens."""

    watched = False
    """Whether somebody listens to everything that happens to the client, too."""

    def open(self, runtime: Runtime, swarm: Swarm) -> None:
        super().open(runtime, swarm)
        self.told: Counter[str] = Counter()
        self.clients: list[ClientSession] = []

    async def begin(self, name: str) -> Ask:
        client = self.runtime.client_session(f"{type(self).__name__}-{name}", SWARM)
        client.listen("session.*", self.note)
        if self.watched:
            client.listen("*", self.note)
        self.clients.append(await client)
        return client.execute

    async def end(self, turns: int) -> None:
        await self.runtime.bus.drain(10)
        told, self.told = self.told, Counter()
        if told["session.execute"] != (2 if self.watched else 1) * turns:
            raise RuntimeError(f"of {turns} turns the listeners were told {dict(told)}")
        for client in self.clients:
            await client.dispose()
        self.clients.clear()

    def note(self, event: BusEvent) -> None:
        self.told[event.topic] += 1


class Watched(InSwarm):
    """The same, and somebody listens to everything."""

    watched = True


class Coming(Answering):
    """Clients that come, say something or not, and go."""

    async def begin(self, name: str) -> Ask:
        raise NotImplementedError

    async def visit(self, name: str, turns: int) -> None:
        """One client, from its first use to its disposal."""
        async with self.runtime.client_session(name, SWARM) as client:
            for _ in range(turns):
                await client.execute("Where is my order?")
