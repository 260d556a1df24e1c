"""The guard of a client: its policies asked, and their verdicts in the log and on the bus."""

from __future__ import annotations

from typing import Any

from tertulia import events
from tertulia.bus import Bus
from tertulia.conversation import Conversation, How
from tertulia.drafting import Draft
from tertulia.errors import PolicyError, StaleWriter, TurnTimeout, UsageError
from tertulia.host import Host
from tertulia.messages import Message
from tertulia.opening import Opening
from tertulia.policies import Direction, Policy, PolicyContext, Verdict
from tertulia.session import Session
from tertulia.swarm.checking import Checker, ContextOf, Screen
from tertulia.swarm.feed import Feed
from tertulia.swarm.swarm import Swarm
from tertulia.swarm.verdicts import ban_told, failure_told, told
from tertulia.turns import Turn, own_turn

Noted = list[tuple[str, dict[str, Any]]]
"""Events of the log: their types and bodies."""
LOOK = 0.1
"""Seconds after which what waits to be logged looks for a turn that has begun meanwhile."""
LOOKS = 6_000
"""How often it looks."""
_ALSO_SUSPENDED = How(suspended="keep")
_ALSO_ENDED = How(suspended="keep", ended=True)
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
        self._checker = Checker(
            swarm.policies,
            swarm.bans_in(host),
            swarm.name,
            self._tell_ban,
            swarm.limits.policy_timeout,
        )

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

    async def banned(self, agent: str) -> Verdict | None:
        """The verdict on a client that is banned; None on others. Raises PolicyError."""
        contexts, now = self._contexts("input", agent), self._host.clock.now()
        return await self._checker.banned("input", contexts, self._client_id, now)

    def screen(self, agent: str) -> Screen:
        """What an answer goes through while it is made."""
        return Screen(
            self._checker,
            self._contexts("output", agent),
            self._client_id,
            self._host.clock.now,
        )

    def notes(self, verdict: Verdict, text: str) -> Noted:
        """A verdict as events of the log; one that nobody gave is none.

        Nor is one that has set a ban: it was logged together with the ban.
        """
        if verdict.ban is not None or (verdict.allowed and not verdict.passed):
            return []
        return [(events.POLICY_CHECKED, told(verdict, text))]

    async def _tell_ban(self, verdict: Verdict, text: str) -> None:
        if verdict.ban is None:
            return
        banned = ban_told(verdict.ban, auto=True)
        await self._append(
            [(events.POLICY_CHECKED, told(verdict, text)), (events.POLICY_BANNED, banned)]
        )

    async def record(
        self, verdict: Verdict, text: str, message: Message | None = None
    ) -> Message | None:
        """Append a verdict, and a message with it, where no agent's answer carries them."""
        return await self._append(self.notes(verdict, text), message)

    async def _append(self, noted: Noted, message: Message | None = None) -> Message | None:
        conversation = self._session._conversation  # pyright: ignore[reportPrivateUsage]
        opening = self._session._opening  # pyright: ignore[reportPrivateUsage]
        turn = own_turn(conversation)
        if message is None:
            if turn is not None:
                _note(turn, noted)
            else:
                await note_beside(conversation, opening, noted)
            return None

        async def build(draft: Draft) -> Message | None:
            _add(draft, noted)
            if draft.turn is not None and draft.open_calls:
                # Their turn waits: it says this when they have results, which nothing may part
                # from them.
                draft.add(events.MESSAGE_STAGED, {"message": message.to_dict()}, actor="app")
                return message
            return draft.message(message)

        if turn is not None:
            _note(turn, noted)
            return (await turn.add_messages([message]))[0]
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


def _note(turn: Turn, noted: Noted) -> None:
    for kind, body in noted:
        turn.note(kind, body)


def _add(draft: Draft, noted: Noted) -> None:
    for kind, body in noted:
        draft.add(kind, body)


async def note_beside(
    conversation: Conversation, opening: Opening, noted: Noted, how: How = _ALSO_ENDED
) -> None:
    """Log what is a part of no turn, without waiting for the end of one that runs here.

    Raises TurnTimeout, SessionBusy, StoreError.
    """
    if not noted:
        return

    async def build(draft: Draft) -> None:
        draft.quiet = draft.row.status == "ended"
        for kind, body in noted:
            beside = draft.turn is not None and kind == events.POLICY_CHECKED
            draft.add(kind, {**body, "beside": True} if beside else body)

    for _ in range(LOOKS):
        turn = conversation.turn
        if turn is not None and not turn.closed:
            try:
                await turn.append(build)
                return
            except (UsageError, StaleWriter):
                if not turn.closed:
                    raise
        try:
            await conversation.enter(LOOK)
        except TurnTimeout:
            continue
        try:
            await conversation.commit(opening, build, how)
            return
        finally:
            conversation.gate.leave()
    raise TurnTimeout(
        f"session {conversation.id!r} did not become free in time", session_id=conversation.id
    )
