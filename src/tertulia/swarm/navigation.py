"""Navigation: where a client is among the agents of a swarm. The log's handoffs say so.

The stack of a client is a fold of its handoffs: going to an agent puts it on top, going back takes
the top off. Nothing of it is kept elsewhere, so forks, rewinds and failed turns have it right.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

import msgspec

from tertulia import events
from tertulia.codec import body_of
from tertulia.drafting import Draft
from tertulia.floor import floor_of, set_floor
from tertulia.session import Session
from tertulia.stores.base import LogStore
from tertulia.swarm.oversight import inside
from tertulia.swarm.swarm import Swarm
from tertulia.turns import own_turn
from tertulia.view import View

NEWEST = 512
"""How many handoffs are looked at for the way back."""
_HIDING = (events.TURN_FAILED, events.TURN_ABANDONED)
_CHANGES = (events.HANDOFF, *_HIDING)


class Move(msgspec.Struct, frozen=True):
    """One change of agent; `back` is a return to the agent before."""

    source: str | None
    target: str
    back: bool = False


def previous_of(newest_first: Iterable[Move]) -> str | None:
    """The agent under the top of the stack; None where there is none.

    Each return takes off the newest move that was not taken off before.
    """
    returns = 0
    for move in newest_first:
        if move.back:
            returns += 1
        elif returns:
            returns -= 1
        else:
            return move.source
    return None


async def moves(store: LogStore, view: View) -> list[Move]:
    """The handoffs that a view shows, newest first; those of turns that failed are not."""
    left, hidden = NEWEST, set[int]()
    found: list[Move] = []
    for segment in await view.chain():
        records = await store.records([segment], left, newest=True, types=_CHANGES)
        for record in reversed(records):
            if record.body is None:
                continue
            body = body_of(record)
            if record.type in _HIDING:
                if body.get("outcome", "hidden") == "hidden":
                    hidden.add(record.turn)
            elif record.turn not in hidden:
                found.append(Move(body.get("from"), str(body["to"]), bool(body.get("back"))))
        left -= len(records)
        if left <= 0:
            break
    return found


class Navigator:
    """Moves one client among the agents of its swarm."""

    def __init__(self, swarm: Swarm, session: Session) -> None:
        self._swarm = swarm
        self._session = session
        self._conversation = session._conversation  # pyright: ignore[reportPrivateUsage]

    @property
    def agent(self) -> str:
        """Who has the floor; the default agent where that one is not of the swarm."""
        turn = own_turn(self._conversation)
        row = turn.row if turn is not None else self._conversation.known
        floor = row.details.agent if row is not None else self._session.floor
        return floor if floor in self._swarm.agents else self._swarm.default

    async def go(self, name: str, reason: str) -> str:
        """Give the floor to an agent. Raises NavigationError where that is refused."""

        async def target(draft: Draft) -> str:
            return name

        return await self._move(target, reason, back=False)

    async def back(self, reason: str) -> str:
        """Give the floor to the agent before. Raises NavigationError where that is refused."""
        return await self._move(self._previous, reason, back=True)

    async def _previous(self, draft: Draft) -> str:
        current = self._floor(draft)
        if not draft.row.key:
            return current
        view = await self._conversation.view(draft.row, draft.row.seq)
        found = previous_of(await moves(self._conversation.host.store, view))
        return found if found in self._swarm.agents else current

    async def _move(
        self, target: Callable[[Draft], Awaitable[str]], reason: str, *, back: bool
    ) -> str:
        turn = own_turn(self._conversation)
        own = inside.get()
        if own is not None and own.desk.navigator is not self:
            own = None  # a tool of another client moves this one

        async def build(draft: Draft) -> str:
            source, to = self._floor(draft), await target(draft)
            if source == to:
                return to
            if turn is not None and own is not None:
                own.root.check_move(to)
            body = {"from": source, "to": to, "reason": reason}
            draft.add(events.HANDOFF, {**body, "back": True} if back else body, actor="app")
            set_floor(draft, to)
            return to

        if turn is not None:
            made = await turn.append(build)
            if own is not None:
                own.root.speaks(made, first=False)
            return made
        opening = self._session._opening  # pyright: ignore[reportPrivateUsage]
        return await self._conversation.append(opening, build)

    def _floor(self, draft: Draft) -> str:
        floor = floor_of(draft)
        return floor if floor in self._swarm.agents else self._swarm.default
