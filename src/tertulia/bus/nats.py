"""The bus of many processes: each has a bus of its own, and NATS carries events between them."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator, Mapping
from itertools import groupby
from threading import Lock
from typing import Any

import msgspec

from tertulia.bus.base import DRAIN, EVERYONE, SIZE, BusEvent, Filter, Listener
from tertulia.bus.handles import BusEvents, Once, Subscription
from tertulia.bus.local import LocalBus
from tertulia.bus.nats_carrying import MAX_EVENT, Carried, encoded, messages, unpack
from tertulia.bus.nats_connection import NatsConnection
from tertulia.bus.nats_interest import WIDTH, Announcement, Listening, Peers
from tertulia.clock import Clock, SystemClock
from tertulia.errors import InvalidInput, UsageError

BEAT = 2.0
"""Seconds between two signs of life."""
TOGETHER = 0.01
"""Seconds in which what is listened to may change before it is announced."""
FEW = 4
"""Up to how many buses that listen to all clients get copies of their own."""

log = logging.getLogger("tertulia.bus")


_unpack_announcement = msgspec.msgpack.Decoder(Announcement).decode


class NatsBus:
    """A bus whose events reach listeners in other processes; see `Bus`.

    Here it is a `LocalBus`. What is emitted goes out to all buses of the same server and name;
    what is published goes to those where somebody listens to its client. While NATS cannot be
    reached, listeners of this process get their events and no others do. It connects when it is
    first used, and has its connection to itself: it closes it at its own end.
    """

    def __init__(self, connection: NatsConnection, clock: Clock | None = None) -> None:
        self._clock = SystemClock() if clock is None else clock
        self._local = LocalBus(self._clock)
        self._connection = connection
        self._id = os.urandom(WIDTH)
        self._subject = f"tertulia.{connection.name}.bus"
        self._listening = Listening(self._id)
        self._peers = Peers()
        self._lock = Lock()
        self._begun = self._closed = self._announcing = self._told_large = False
        self._lost = self._ignored = 0

    @property
    def connection(self) -> NatsConnection:
        """The connection to NATS, which others may use too."""
        return self._connection

    @property
    def subscriptions(self) -> int:
        return self._local.subscriptions

    @property
    def peers(self) -> int:
        """How many other buses were heard of in the last seconds."""
        return len(self._peers)

    @property
    def lost(self) -> int:
        """How many events were not carried that should have been: NATS was away or too slow, or
        they were larger than 512 KB."""
        return self._lost

    @property
    def ignored(self) -> int:
        """How many messages came that no bus of this version can have sent."""
        return self._ignored

    def listen(
        self, client_id: str, pattern: str, fn: Listener, *, size: int = SIZE
    ) -> Subscription:
        self._begin()
        subscription = self._local.listen(client_id, pattern, fn, size=size)
        self._announce(client_id)
        return subscription

    def once(
        self,
        client_id: str,
        pattern: str,
        filter: Filter | None = None,  # noqa: A002
        fn: Listener | None = None,
    ) -> Once:
        self._begin()
        once = self._local.once(client_id, pattern, filter, fn)
        self._announce(client_id)
        return once

    def events(
        self, client_id: str = EVERYONE, pattern: str = EVERYONE, *, size: int = SIZE
    ) -> BusEvents:
        self._begin()
        events = self._local.events(client_id, pattern, size=size)
        self._announce(client_id)
        return events

    async def emit(self, client_id: str, event: BusEvent | Mapping[str, Any]) -> int:
        parsed = BusEvent.parse(event, client_id)
        self._begin()
        if parsed.time is None:
            parsed = msgspec.structs.replace(parsed, time=self._clock.now())
        data = encoded(parsed)
        if data is None:
            raise InvalidInput(
                f"the event is no UTF-8, or larger than {MAX_EVENT // 1024} KB of JSON; keep the "
                "data elsewhere, and emit where it is"
            )
        self._carry([data], self._targets(parsed), emitted=True)
        return await self._local.emit(client_id, parsed)

    def publish(self, *events: BusEvent) -> int:
        if self._is_on():
            for targets, group in groupby(events, self._targets):
                if targets:
                    self._carry(self._each_encoded(group), targets, emitted=False)
        return self._local.publish(*events)

    def wants(self, client_id: str, topic: str) -> bool:
        if self._local.wants(client_id, topic):
            return True
        return self._is_on() and self._connection.connected and bool(self._peers.of(client_id))

    async def drain(
        self,
        timeout: float = DRAIN,  # noqa: ASYNC109 - after it, it returns
        *,
        client_id: str = EVERYONE,
    ) -> bool:
        return await self._local.drain(timeout, client_id=client_id)

    def close(self) -> None:
        """End all subscriptions and the connection; blocks until what was carried is sent, for
        some seconds at most. Raises UsageError on the connection's own thread."""
        self._end()
        self._local.close()
        self._connection.close_now()

    async def aclose(self) -> None:
        self._end()
        await self._local.aclose()
        await self._connection.close()

    # -- life

    def _begin(self) -> None:
        """Raises UsageError when closed; ForkedRuntimeError in a process that was forked."""
        if self._closed:
            raise UsageError("the bus is closed; use the bus of a runtime that is open")
        self._connection.start()
        if self._begun:
            return
        with self._lock:
            if not self._begun:
                self._begun = True
                self._connection.subscribe(f"{self._subject}.all.*", self._heard)
                self._connection.subscribe(f"{self._subject}.to.{self._id.hex()}.*", self._heard)
                self._connection.call_every(BEAT, self._beat)
                self._connection.on_change(self._changed)

    def _is_on(self) -> bool:
        """Whether events may go out; begins where that was not done yet."""
        if not self._begun:
            try:
                self._begin()
            except UsageError:
                return False
        return not self._closed

    def _end(self) -> None:
        if self._begun and not self._closed:
            self._say("all.listen", self._listening.end())
        self._closed = True

    # -- out

    def _targets(self, event: BusEvent) -> tuple[bytes, ...]:
        return self._peers.of(event.client_id)

    def _each_encoded(self, events: Iterator[BusEvent]) -> list[bytes]:
        """Events that can be carried; the others are counted."""
        every = [encoded(event) for event in events]
        able = [each for each in every if each is not None]
        if len(able) < len(every):
            self._count_lost(len(every) - len(able))
            if not self._told_large:
                self._told_large = True
                log.warning(
                    "an event larger than %d KB was not carried to other processes; neither are "
                    "others like it",
                    MAX_EVENT // 1024,
                )
        return able

    def _carry(self, events: list[bytes], targets: tuple[bytes, ...], *, emitted: bool) -> None:
        """Send events to the buses where somebody listens, and what was emitted to all others.

        All that a bus with a listener gets comes to it in one way, and so in one order.
        """
        if not self._connection.connected:
            self._count_lost(len(events))
            return
        to_all = len(self._peers.everyone) > FEW
        apart = [] if to_all else [each.hex() for each in targets]
        subjects = [f"{self._subject}.to.{each}.event" for each in apart]
        if emitted or to_all:
            subjects.append(f"{self._subject}.all.event")
        for data, count in messages(self._id.hex(), apart, events):
            sent = [self._connection.publish(subject, data) for subject in subjects]
            if not all(sent):
                self._count_lost(count)

    def _count_lost(self, events: int) -> None:
        with self._lock:
            self._lost += events

    # -- what is listened to, on the connection's thread but for _announce

    def _announce(self, client_id: str) -> None:
        """Tell the others soon that somebody listens to a client."""
        if not self._listening.has(client_id) and not self._announcing:
            self._announcing = True
            self._connection.call_soon(
                lambda: asyncio.get_running_loop().call_later(TOGETHER, self._tell)
            )

    def _tell(self) -> None:
        self._announcing = False
        changed = self._listening.change(self._local.clients())
        if changed is not None:
            self._say("all.listen", changed)

    def _beat(self) -> None:
        self._peers.forget_silent(asyncio.get_running_loop().time())
        changed = self._listening.change(self._local.clients())
        self._say("all.listen", changed or self._listening.nothing_new())

    def _changed(self, connected: bool) -> None:
        if connected:
            self._say("all.listen", self._listening.everything())
            self._connection.publish(f"{self._subject}.all.ask", self._id)

    def _say(self, subject: str, said: Announcement) -> None:
        if self._connection.connected:
            self._connection.publish(f"{self._subject}.{subject}", msgspec.msgpack.encode(said))

    # -- in, on the connection's thread

    def _heard(self, subject: str, data: bytes, reply: str) -> None:
        to_all, _, kind = subject.removeprefix(f"{self._subject}.").rpartition(".")
        try:
            if kind == "event":
                self._heard_events(unpack(data), to_all == "all")
            elif kind == "listen":
                self._heard_listening(_unpack_announcement(data))
            elif kind == "ask":
                self._asked(data)
            else:
                self._ignored += 1
        except (msgspec.MsgspecError, UnicodeDecodeError):
            self._ignored += 1

    def _heard_events(self, carried: Carried, to_all: bool) -> None:
        mine = self._id.hex()
        if carried.bus != mine and not (to_all and mine in carried.apart):
            self._local.deliver(*carried.events)

    def _heard_listening(self, said: Announcement) -> None:
        if said.bus == self._id:
            return
        if len(said.bus) != WIDTH or len(said.added) % WIDTH or len(said.removed) % WIDTH:
            self._ignored += 1
        elif not self._peers.hear(said, asyncio.get_running_loop().time()):
            self._connection.publish(f"{self._subject}.to.{said.bus.hex()}.ask", self._id)

    def _asked(self, who: bytes) -> None:
        if len(who) != WIDTH:
            self._ignored += 1
        elif who != self._id:
            self._say(f"to.{who.hex()}.listen", self._listening.everything())
