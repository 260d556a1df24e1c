"""Hooks: functions that look at the events of a live session, beside the flow."""

from __future__ import annotations

import asyncio
import difflib
import inspect
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tertulia.errors import InvalidInput
from tertulia.live.inbox import Inbox
from tertulia.live.nodes import being_cancelled, current_session
from tertulia.wire.events import AgentErrorEvent, LiveEvent, canonical, event_types

if TYPE_CHECKING:
    from tertulia.live.session import AgentSession

Handler = Callable[[Any, Any], Any]

EVERY = ("*", "on_event_received")
CLOSING = 5.0
"""Seconds that hooks have, when the session ends, to finish with what they were given."""

_log = logging.getLogger("tertulia.live")


class Hook:
    """One function, its inbox and its task: it gets its events one at a time, in their order."""

    def __init__(self, name: str, fn: Handler) -> None:
        self.name = name
        self._fn = fn
        self._kind = name if name in EVERY else canonical(name)
        self._prefix = name[:-1] if name.endswith(".*") else None
        self._inbox: Inbox[LiveEvent] = Inbox()
        self._task: asyncio.Task[None] | None = None
        self._busy = False

    def wants(self, event: LiveEvent) -> bool:
        """Whether the event is one of those that the hook was registered for."""
        if self._prefix is not None:
            return event.type.startswith(self._prefix)
        if self._kind in (event.type, "*"):
            return True
        return self._kind == "on_event_received" and event.direction == "in"

    def give(self, session: AgentSession, event: LiveEvent) -> bool:
        """Hand it an event; False where its inbox is full, and the event is dropped."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work(session))
        if self._inbox.offer(event):
            return True
        self._inbox.dropped += 1
        return self._inbox.dropped > 1

    async def close(self) -> None:
        """Let it finish what it was given, for a while."""
        task, self._task = self._task, None
        if task is None or task is asyncio.current_task():
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + CLOSING
        while (self._busy or len(self._inbox)) and not task.done() and loop.time() < deadline:
            await asyncio.wait([task], timeout=0.01)
        task.cancel()
        await asyncio.wait([task], timeout=1.0)

    async def _work(self, session: AgentSession) -> None:
        current_session.set(session)
        while True:
            event = await self._inbox.take()
            self._busy = True
            try:
                result: Any = self._fn(session, event)
                if inspect.isawaitable(result):
                    await result
            except (Exception, asyncio.CancelledError) as error:
                if being_cancelled():
                    raise
                await self._failed(session, event, error)
            finally:
                self._busy = False

    async def _failed(self, session: AgentSession, event: LiveEvent, error: BaseException) -> None:
        """Tell of an exception; not where it came of being told of one."""
        _log.error("the hook %s failed", self.name, exc_info=error)
        if isinstance(event, AgentErrorEvent):
            return
        kind = type(error).__name__
        payload = {"hook": self.name, "error_class": kind}
        said = f"{kind} in the hook {self.name!r}{session.told(error)}"
        await session.report(said, "warning", payload)


class Hooks:
    """All hooks of a session. Each event goes to each hook that wants it, in the order in which
    they were registered, and once."""

    def __init__(self, session: AgentSession) -> None:
        self._session = session
        self._hooks: list[Hook] = []
        self.none = True
        """Whether there is no hook at all."""
        self._by_type: dict[str, list[Hook]] = {}
        self._closed = False

    def on(self, name: str) -> Callable[[Handler], Handler]:
        """Register the decorated function for a name. Raises InvalidInput."""

        def register(fn: Handler) -> Handler:
            self.add(name, fn)
            return fn

        return register

    def add(self, name: str, fn: Handler) -> None:
        """Register a function for a name. Raises InvalidInput."""
        if not isinstance(name, str) or not name:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidInput(f"on_event takes the name of an event, not {name!r}: on_event(name)")
        if not callable(fn):
            raise InvalidInput(f"a hook is a function of (session, event), not {fn!r}")
        _warn_of_unknown(name)
        self._hooks.append(Hook(name, fn))
        self.none = False
        self._by_type.clear()

    def notify(self, event: LiveEvent) -> list[str]:
        """Hand an event to who wants it; the names of hooks that have just begun to miss events."""
        if self._closed:
            return []
        wanted = self._by_type.get(event.type)
        if wanted is None:
            wanted = [hook for hook in self._hooks if hook.wants(event) or hook.name in EVERY]
            self._by_type[event.type] = wanted
        return [
            hook.name
            for hook in wanted
            if hook.wants(event) and not hook.give(self._session, event)
        ]

    async def close(self) -> None:
        """Let them finish, for a while; nothing more comes."""
        self._closed = True
        await asyncio.gather(*(hook.close() for hook in self._hooks))


_warned: set[str] = set()


def _warn_of_unknown(name: str) -> None:
    """Say once that no event of this name is known yet; it may be one that comes."""
    known = event_types()
    if name in EVERY or name.endswith(".*") or canonical(name) in known or name in _warned:
        return
    if len(_warned) < 1_000:
        _warned.add(name)
    near = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    _log.warning("on_event(%r): no event of this type is known yet%s", name, hint)
