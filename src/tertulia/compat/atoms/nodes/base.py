"""A node that sends nothing on by itself."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, cast

from tertulia.compat.atoms.handoffs import note
from tertulia.compat.atoms.task_manager import TaskManager
from tertulia.errors import InvalidInput
from tertulia.live.nodes import Node
from tertulia.live.session import AgentSession
from tertulia.wire.events import (
    AgentErrorEvent,
    LiveEvent,
    Severity,
    SystemInit,
    UserInterrupt,
)

if TYPE_CHECKING:
    from tertulia.compat.atoms.session import CrewSession

log = logging.getLogger(__name__)
_OURS = ("before_cut", "finish", "interrupt", "link", "offer", "run")
"""Methods of our nodes that the SDK's do not have."""


class CrewNode(Node):
    """Takes events one at a time; what it does not send on in `process_event` ends here.

    `start` may be written with the SDK's parameters ``init_event`` and ``task_manager`` or
    without. In a session, `init_event` and `initial_variables` are what the client began with.
    Raises InvalidInput for a subclass that takes a name that live sessions use.
    """

    init_event: SystemInit
    initial_variables: dict[str, Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = vars(cls)
        if not cls.__module__.startswith("tertulia."):
            for name in _OURS:
                if name in own:
                    raise InvalidInput(
                        f"{cls.__name__}.{name} takes the place of a method that live sessions "
                        "call; rename it"
                    )
        if inspect.isfunction(own.get("start")):
            cls.start = _with_defaults(own["start"])

    def __init__(self, name: str | None = None, is_interruptible: bool = False) -> None:
        super().__init__(name, is_interruptible)
        self._own_session: Any = None

    @property
    def session(self) -> Any:
        """The session, or what the program itself put here. Raises UsageError before there is
        one."""
        return super().session if self._own_session is None else self._own_session

    @session.setter
    def session(self, value: Any) -> None:
        self._own_session = value

    @property
    def task_manager(self) -> TaskManager:
        """Runs tasks that end with the session. Raises UsageError before there is one."""
        return self._crew_session.task_manager

    @property
    def has_children(self) -> bool:
        """Whether its events go anywhere."""
        return bool(self.children)

    @property
    def has_parents(self) -> bool:
        """Whether it gets the events of other nodes."""
        return bool(self.parents)

    async def start(
        self, init_event: SystemInit | None = None, task_manager: TaskManager | None = None
    ) -> None:
        """Called when the session starts, after `agent.ready`: `speak` and `send_event` work."""

    async def process_event(self, event: LiveEvent) -> None:
        """Do something with an event. Only `send_event` sends it on."""
        if isinstance(event, UserInterrupt):
            await self._handle_interrupt()

    async def send_event(self, event: LiveEvent) -> None:
        """Send an event to the children, in the order their edges were added."""
        note(event)
        if not self.attached:
            log.warning("%s is in no session yet: its %s was dropped", self.name, event.type)
        await super().send_event(event)

    def link(
        self,
        session: AgentSession,
        children: tuple[Any, ...],
        parents: tuple[Any, ...],
        *,
        joins: bool,
    ) -> None:
        """Give the node its place in a graph that is locked."""
        super().link(session, children, parents, joins=joins)
        self.init_event = self._crew_session.init_event
        self.initial_variables = self._crew_session.initial_variables

    @property
    def _crew_session(self) -> CrewSession:
        return cast("CrewSession", super().session)

    async def _handle_interrupt(self) -> None:
        """Called when the user interrupted, after what the node did was cancelled."""

    def _error_severity(self) -> str:
        """Of the exceptions of `process_event`."""
        return "fatal"

    async def _failed(self, error: BaseException, where: str, **more: Any) -> None:
        log.error("%s.%s failed", self.name, where, exc_info=error)
        kind = type(error).__name__
        severity: Severity = "warning" if self._error_severity() == "warning" else "fatal"
        payload = {"node_name": self.name, "error_class": kind}
        said = f"{kind} in {self.name}.{where}: {error}"
        if not self.attached:
            told = AgentErrorEvent(message=said, severity=severity, payload=payload)
            await self.send_event(told)
        else:
            await self.session.report(said, severity, payload)


def _with_defaults(start: Callable[..., Awaitable[None]]) -> Any:
    """A `start` that the session can call without arguments, whichever of them it takes."""
    takes = len(inspect.signature(start).parameters) - 1

    @wraps(start)
    async def wrapped(self: CrewNode, init_event: Any = None, task_manager: Any = None) -> None:
        given = (init_event or self.init_event, task_manager or self.task_manager)
        await start(self, *given[:takes])

    return wrapped
