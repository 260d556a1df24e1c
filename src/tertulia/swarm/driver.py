"""The runner of a client's turns: whoever of its swarm has the floor answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tertulia.agents.oversight import Oversight
from tertulia.agents.runner import Runner
from tertulia.agents.speakers import Cast, Options
from tertulia.messages import Message
from tertulia.session import Session
from tertulia.swarm.oversight import SwarmOversight

if TYPE_CHECKING:
    from tertulia.swarm.desk import Desk


class SwarmDriver(Runner):
    """Drives the turns of one client."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._runtime = desk.host

    @property
    def name(self) -> str | None:
        """None: the floor stays with whoever has it."""
        return None

    def __repr__(self) -> str:
        return f"SwarmDriver({self._desk.client!r})"

    def _cast(self, session: Session, request: Message | None, options: Options) -> Cast:
        swarm = self._desk.swarm
        agents = swarm.agents
        cast = Cast(agents[swarm.default], options, agents, closed=True)
        cast.check()
        return cast

    def _oversight(self, session: Session, request: Message | None) -> Oversight | None:
        return SwarmOversight(self._desk, request)  # the desk admits its requests before this
