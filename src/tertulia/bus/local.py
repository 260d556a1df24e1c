"""The bus of one process."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from tertulia.bus.base import (
    DRAIN,
    EVERYONE,
    SIZE,
    BusEvent,
    Filter,
    Listener,
    check_listened,
)
from tertulia.bus.delivery import InTask, assign
from tertulia.bus.handles import BusEvents, Once, Subscription
from tertulia.bus.mailbox import Loop, Mailbox, running_loop
from tertulia.bus.registry import Registry
from tertulia.clock import Clock, SystemClock
from tertulia.errors import InvalidInput

MAX_SIZE = 1_000_000
CLOSING = 1.0
"""Seconds that `aclose` waits for the tasks of listeners."""
_FIRST_LOOKS = 5


class LocalBus:
    """Carries events between the threads and loops of one process; see `Bus`.

    A sync listener is called on the loop where `listen` was called, as soon as that loop gets to
    it; in a thread of its own if no loop ran there, or once it has blocked its loop for 50 ms. An
    async listener is awaited on the loop where `listen` was called; if none ran there, on the
    first loop from which something is published for it, and until then its events wait.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = SystemClock() if clock is None else clock
        self._registry = Registry()

    @property
    def subscriptions(self) -> int:
        return len(self._registry)

    def listen(
        self, client_id: str, pattern: str, fn: Listener, *, size: int = SIZE
    ) -> Subscription:
        if not callable(fn):
            raise InvalidInput(f"a listener is a function of one event, not {fn!r}")
        mailbox = self._mailbox(client_id, pattern, size)
        assign(mailbox, fn, self._clock.monotonic)
        self._registry.add(mailbox)
        return Subscription(mailbox)

    def once(
        self,
        client_id: str,
        pattern: str,
        filter: Filter | None = None,  # noqa: A002
        fn: Listener | None = None,
    ) -> Once:
        for given, what in ((filter, "filter"), (fn, "fn")):
            if given is not None and not callable(given):
                raise InvalidInput(f"{what} is a function of one event, not {given!r}")
        mailbox = self._mailbox(client_id, pattern, SIZE)
        once = Once(mailbox, filter, fn)
        assign(mailbox, once.look, self._clock.monotonic, fn)
        self._registry.add(mailbox)
        return once

    def events(
        self, client_id: str = EVERYONE, pattern: str = EVERYONE, *, size: int = SIZE
    ) -> BusEvents:
        mailbox = self._mailbox(client_id, pattern, size)
        events = BusEvents(mailbox)
        self._registry.add(mailbox)
        return events

    async def emit(self, client_id: str, event: BusEvent | Mapping[str, Any]) -> int:
        parsed = BusEvent.parse(event, client_id)
        self._registry.check_open()
        if parsed.time is None:
            parsed = msgspec.structs.replace(parsed, time=self._clock.now())
        given = self._publish(parsed)
        running = asyncio.get_running_loop()
        pauses = [pause for each in given if (pause := each.pause(running)) is not None]
        if pauses:
            await asyncio.sleep(max(pauses))
        return len(given)

    def publish(self, *events: BusEvent) -> int:
        return len(self._publish(*events))

    def deliver(self, *events: BusEvent) -> None:
        """Publish what came from another process, on a thread whose loop is no listener's."""
        self._publish(*events, here=False)

    def clients(self) -> set[str]:
        """The clients to whose events somebody listens; "*" may be among them."""
        return self._registry.clients()

    def wants(self, client_id: str, topic: str) -> bool:
        return bool(self._registry.find(client_id, topic))

    async def drain(
        self,
        timeout: float = DRAIN,  # noqa: ASYNC109 - after it, it returns
        *,
        client_id: str = EVERYONE,
    ) -> bool:
        asked = self._registry.every(check_listened(client_id))
        waited = [found for each in asked if (found := each.outstanding()) is not None]
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        looks = 0
        while left := [each for each in waited if not each.over()]:
            if loop.time() >= deadline:
                for each in left:
                    each.give_up()
                return False
            looks += 1
            await asyncio.sleep(0 if looks <= _FIRST_LOOKS else min(0.01, 0.0005 * looks))
        return True

    def close(self) -> None:
        self._registry.close()

    async def aclose(self) -> None:
        loop, mine = asyncio.get_running_loop(), asyncio.current_task()
        tasks = {task for each in self._registry.close() if (task := _task(each, loop)) is not None}
        if tasks := tasks - {mine}:
            await asyncio.wait(tasks, timeout=CLOSING)

    def _mailbox(self, client_id: str, pattern: str, size: int) -> Mailbox:
        """A mailbox that is not on the bus yet. Raises InvalidInput."""
        if type(size) is not int or not 1 <= size <= MAX_SIZE:
            raise InvalidInput(f"size is a whole number from 1 to {MAX_SIZE}, not {size!r}")
        return Mailbox(self._registry, check_listened(client_id), pattern, size)

    def _publish(self, *events: BusEvent, here: bool = True) -> list[Mailbox]:
        """Put events into the mailboxes that want them, and wake the runners that rest."""
        registry = self._registry
        given: list[Mailbox] = []
        resting: list[Mailbox] = []
        with registry.lock:
            for event in events:
                found = registry.find(event.client_id, event.topic)
                given += found
                resting += [mailbox for mailbox in found if mailbox.put(event)]
        if resting:
            running = running_loop() if here else None
            for mailbox in resting:
                mailbox.runner.wake(running)
        registry.attend()
        return given


def _task(mailbox: Mailbox, loop: Loop) -> asyncio.Task[None] | None:
    """The task that an ended mailbox still has on this loop."""
    runner = mailbox.runner
    task = runner.task if isinstance(runner, InTask) else None
    return task if task is not None and task.get_loop() is loop else None
