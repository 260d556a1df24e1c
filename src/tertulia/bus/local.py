"""The bus of one process."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from threading import RLock
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
from tertulia.bus.delivery import InTask, assign, running_loop
from tertulia.bus.handles import BusEvents, Once, Subscription
from tertulia.bus.mailbox import Loop, Mailbox
from tertulia.clock import Clock, SystemClock
from tertulia.errors import InvalidInput, UsageError

MAX_SIZE = 1_000_000
CLOSING = 1.0
"""Seconds that `aclose` waits for the tasks of listeners."""
MAX_CLIENTS = 4_096
MAX_TOPICS = 256
"""For how many clients, and topics of each, it is kept who listens."""
_FIRST_LOOKS = 5
_CLOSED = "the bus is closed; use the bus of a runtime that is open"

Mailboxes = tuple[Mailbox, ...]


class LocalBus:
    """Carries events between the threads and loops of one process; see `Bus`.

    A sync listener is called on the loop where `listen` was called, as soon as that loop gets to
    it; in a thread of its own if no loop ran there, or once it has blocked its loop for 50 ms. An
    async listener is awaited on the loop where `listen` was called; if none ran there, on the
    first loop from which something is published for it, and until then its events wait.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.lock = RLock()
        self.overflowed: list[Mailbox] = []
        self._clock = SystemClock() if clock is None else clock
        self._listening: dict[str, dict[int, Mailbox]] = {}
        self._who: dict[str, dict[str, Mailboxes]] = {}
        self._number = 0
        self._closed = False

    @property
    def subscriptions(self) -> int:
        with self.lock:
            return sum(len(each) for each in self._listening.values())

    def listen(
        self, client_id: str, pattern: str, fn: Listener, *, size: int = SIZE
    ) -> Subscription:
        if not callable(fn):
            raise InvalidInput(f"a listener is a function of one event, not {fn!r}")
        mailbox = self._mailbox(client_id, pattern, size)
        assign(mailbox, fn, self._clock.monotonic)
        self._add(mailbox)
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
        self._add(mailbox)
        return once

    def events(
        self, client_id: str = EVERYONE, pattern: str = EVERYONE, *, size: int = SIZE
    ) -> BusEvents:
        mailbox = self._mailbox(client_id, pattern, size)
        events = BusEvents(mailbox)
        self._add(mailbox)
        return events

    async def emit(self, client_id: str, event: BusEvent | Mapping[str, Any]) -> int:
        parsed = BusEvent.parse(event, client_id)
        if self._closed:
            raise UsageError(_CLOSED)
        if parsed.time is None:
            parsed = msgspec.structs.replace(parsed, time=self._clock.now())
        given = self._publish(parsed)
        running = asyncio.get_running_loop()
        pauses = [pause for each in given if (pause := each.pause(running)) is not None]
        if pauses:
            await asyncio.sleep(max(pauses))
        return len(given)

    def publish(self, event: BusEvent) -> int:
        return len(self._publish(event))

    def wants(self, client_id: str, topic: str) -> bool:
        return bool(self._listening) and bool(self._find(client_id, topic))

    async def drain(
        self,
        timeout: float = DRAIN,  # noqa: ASYNC109 - after it, it returns
        *,
        client_id: str = EVERYONE,
    ) -> bool:
        of = None if check_listened(client_id) == EVERYONE else {client_id, EVERYONE}
        with self.lock:
            asked = [
                mailbox
                for client, each in self._listening.items()
                if of is None or client in of
                for mailbox in each.values()
            ]
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
        self._end()

    async def aclose(self) -> None:
        loop, mine = asyncio.get_running_loop(), asyncio.current_task()
        tasks = {task for each in self._end() if (task := _task(each, loop)) is not None}
        if tasks := tasks - {mine}:
            await asyncio.wait(tasks, timeout=CLOSING)

    def remove(self, mailbox: Mailbox) -> None:
        """Forget a mailbox that has ended; under the lock."""
        of_client = self._listening.get(mailbox.client_id, {})
        of_client.pop(mailbox.number, None)
        if not of_client:
            self._listening.pop(mailbox.client_id, None)
        self._forget(mailbox.client_id)

    def _end(self) -> list[Mailbox]:
        """Close every mailbox; those that were open."""
        with self.lock:
            self._closed = True
            every = [mailbox for each in self._listening.values() for mailbox in each.values()]
        for mailbox in every:
            mailbox.close()
        return every

    def _mailbox(self, client_id: str, pattern: str, size: int) -> Mailbox:
        """A mailbox that is not on the bus yet. Raises InvalidInput."""
        if type(size) is not int or not 1 <= size <= MAX_SIZE:
            raise InvalidInput(f"size is a whole number from 1 to {MAX_SIZE}, not {size!r}")
        return Mailbox(self, check_listened(client_id), pattern, size)

    def _add(self, mailbox: Mailbox) -> None:
        with self.lock:
            if self._closed:
                raise UsageError(_CLOSED)
            self._number += 1
            mailbox.number = self._number
            self._listening.setdefault(mailbox.client_id, {})[mailbox.number] = mailbox
            self._forget(mailbox.client_id)

    def _forget(self, client_id: str) -> None:
        """Who listens to a client has changed; under the lock."""
        if client_id == EVERYONE:
            self._who.clear()
        else:
            self._who.pop(client_id, None)

    def _publish(self, event: BusEvent) -> Mailboxes:
        """Put an event into the mailboxes that want it, and wake those who are not at it."""
        if not self._listening:
            return ()
        with self.lock:
            found = self._find(event.client_id, event.topic)
            asleep = [mailbox for mailbox in found if mailbox.put(event)]
        if asleep:
            running = running_loop()
            for mailbox in asleep:
                mailbox.runner.wake(running)
        if self.overflowed:
            self._attend()
        return found

    def _find(self, client_id: str, topic: str) -> Mailboxes:
        """Who listens to this topic of a client, in the order of registration."""
        try:
            return self._who[client_id][topic]
        except KeyError:
            return self._look(client_id, topic)

    def _look(self, client_id: str, topic: str) -> Mailboxes:
        with self.lock:
            of_client = self._listening.get(client_id, {})
            for_all = self._listening.get(EVERYONE, {})
            if not of_client and not for_all:
                return ()
            asked = sorted((of_client | for_all).items())
            found = tuple(mailbox for _, mailbox in asked if mailbox.matches(topic))
            if client_id not in self._who and len(self._who) >= MAX_CLIENTS:
                self._who.clear()
            topics = self._who.setdefault(client_id, {})
            if len(topics) >= MAX_TOPICS:
                topics.clear()
            topics[topic] = found
            return found

    def _attend(self) -> None:
        """See to the mailboxes that overflow."""
        with self.lock:
            overflowed, self.overflowed = self.overflowed, []
        for mailbox in overflowed:
            mailbox.attend()


def _task(mailbox: Mailbox, loop: Loop) -> asyncio.Task[None] | None:
    """The task that an ended mailbox still has on this loop."""
    runner = mailbox.runner
    task = runner.task if isinstance(runner, InTask) else None
    return task if task is not None and task.get_loop() is loop else None
