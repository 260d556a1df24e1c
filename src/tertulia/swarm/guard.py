"""The guard of a client: its policies asked, and their verdicts in the log and on the bus."""

from __future__ import annotations

from typing import Any

from tertulia import events
from tertulia.bus import Bus
from tertulia.conversation import How
from tertulia.drafting import Draft
from tertulia.errors import PolicyError
from tertulia.host import Host
from tertulia.messages import Message
from tertulia.policies import Direction, Policy, PolicyContext, Verdict
from tertulia.session import Session
from tertulia.swarm.checking import Checker, ContextOf, Screen
from tertulia.swarm.feed import Feed
from tertulia.swarm.swarm import Swarm
from tertulia.swarm.verdicts import ban_told, failure_told, told
from tertulia.turns import own_turn

_ALSO_SUSPENDED = How(suspended="keep")
"""What is noted outside of turns may be noted while a turn waits for an approval."""


class Guard:
    """Asks the policies of a swarm about what one client says and is told."""

    def __init__(
        self, swarm: Swarm, client_id: str, session: Session, host: Host, bus: Bus, feed: Feed
    ) -> None:
        self._swarm = swarm
        self._client_id = client_id
        self._session = session
        self._host = host
        self._bus = bus
        self._feed = feed
        self._checker = Checker(swarm.policies, swarm.bans_in(host), swarm.name)

    async def check(self, direction: Direction, text: str, agent: str) -> Verdict:
        """The verdict on a text. Raises PolicyError, and then nothing may be let through."""
        try:
            verdict = await self._checker.check(
                direction,
                text,
                self._contexts(direction, agent),
                self._client_id,
                self._host.clock.now(),
            )
        except PolicyError as error:
            await self._append([(events.POLICY_CHECKED, failure_told(direction, error))])
            raise
        return verdict

    def screen(self, agent: str) -> Screen:
        """What an answer goes through while it is made."""
        return Screen(
            self._checker,
            self._contexts("output", agent),
            self._client_id,
            self._host.clock.now,
        )

    def notes(self, verdict: Verdict, text: str) -> list[tuple[str, dict[str, Any]]]:
        """A verdict as events of the log; one that nobody gave is none."""
        if verdict.allowed and not verdict.passed:
            return []
        noted = [(events.POLICY_CHECKED, told(verdict, text))]
        if verdict.ban is not None:
            noted.append((events.POLICY_BANNED, ban_told(verdict.ban, auto=True)))
        return noted

    async def record(
        self, verdict: Verdict, text: str, message: Message | None = None
    ) -> Message | None:
        """Append a verdict, and a message with it, where no agent's answer carries them."""
        return await self._append(self.notes(verdict, text), message)

    async def _append(
        self, noted: list[tuple[str, dict[str, Any]]], message: Message | None = None
    ) -> Message | None:
        conversation = self._session._conversation  # pyright: ignore[reportPrivateUsage]
        opening = self._session._opening  # pyright: ignore[reportPrivateUsage]
        turn = own_turn(conversation)
        if turn is not None and message is None:
            for kind, body in noted:
                turn.note(kind, body)
            return None

        async def build(draft: Draft) -> Message | None:
            for kind, body in noted:
                draft.add(kind, body)
            return None if message is None else draft.message(message)

        if turn is not None:
            return await turn.append(build)
        return await conversation.append(opening, build, _ALSO_SUSPENDED)

    def _contexts(self, direction: Direction, agent: str) -> ContextOf:
        session, state = self._session, self._session.state

        def context(policy: Policy) -> PolicyContext:
            return PolicyContext(
                client_id=self._client_id,
                swarm=self._swarm.name,
                agent=agent,
                policy=policy.name,
                session=session,
                state=state,
                direction=direction,
            )

        return context
