"""The pipe over NATS: each worker hears what is said to it on a subject of its own.

NATS core may lose messages and tells nobody when a worker is gone, so everything rests on the
links. What was said to nobody at all comes back at once, as an empty message to the reply subject.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from typing import Protocol

from tertulia.cluster.frames import Word, decode
from tertulia.cluster.lines import NotDelivered
from tertulia.cluster.links import IDLE, Link, reset
from tertulia.cluster.pipes import Ground
from tertulia.doors import Outcome

_SUBSCRIBING = 2.0
"""Seconds that NATS has to take in what we want to hear."""


class Connection(Protocol):
    """What is used of a connection to NATS."""

    @property
    def name(self) -> str:
        """What all subjects begin with, after ``tertulia.``."""
        ...

    @property
    def connected(self) -> bool:
        """Whether it is."""
        ...

    def publish(self, subject: str, data: bytes, reply: str = "") -> bool:
        """Send without waiting; False where it is not connected, or too much waits."""
        ...

    def subscribe(
        self, subject: str, heard: Callable[[str, bytes, str], None]
    ) -> Callable[[], None]:
        """Hear what comes, on the connection's thread: subject, data, reply; returns the undo."""
        ...


class NatsPipe:
    """Carries links over NATS.

    Whoever may publish there can speak as any worker: let nobody else use these subjects. The
    connection is neither started nor closed with the pipe.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._prefix = f"tertulia.{connection.name}.to."
        self._lock = threading.Lock()
        self._links: dict[tuple[bytes, int], Link] = {}
        self._began: dict[bytes, Link] = {}
        self._ground: Ground | None = None
        self._heard_myself: Outcome[None] = Outcome()
        self._undo: list[Callable[[], None]] = []

    async def start(self, ground: Ground) -> None:
        """Begin to listen; where NATS is connected, wait until it knows of that."""
        self._ground = ground
        mine = f"{self._prefix}{ground.worker.hex()}"
        self._undo = [
            self._connection.subscribe(mine, self._heard),
            self._connection.subscribe(f"{mine}.*.*.*", self._nobody),
        ]
        if self._connection.publish(mine, reset(ground.worker, 0)):
            await self._heard_myself.within(_SUBSCRIBING)

    async def reach(self, worker: bytes, until: float) -> Link:
        """A link to a worker, at once; whether it is there shows when a channel is opened.

        Raises NotDelivered.
        """
        if not self._connection.connected:
            raise NotDelivered("NATS is not connected")
        link = self._began.get(worker)
        if link is None or not link.usable:
            link = self._new(worker, secrets.randbits(63), began=True)
            if link is None:
                raise NotDelivered("this worker has too many links, or is closing")
            self._began[worker] = link
        return link

    async def close(self) -> None:
        """Stop listening."""
        for undo in self._undo:
            undo()
        self._undo = []

    # -- inside

    def _new(self, peer: bytes, number: int, *, began: bool) -> Link | None:
        ground = self._ground
        if ground is None:
            return None
        subject = f"{self._prefix}{peer.hex()}"
        back = f"{self._prefix}{ground.worker.hex()}.{peer.hex()}.{number:x}."

        def transmit(data: bytes, frame: int) -> bool:
            return self._connection.publish(subject, data, f"{back}{frame}" if frame else "")

        idle = IDLE if began else 2 * IDLE
        link = Link(
            ground.worker, peer, number, ground, transmit, self._gone, began=began, idle=idle
        )
        if not ground.watch(link):
            return None
        with self._lock:
            self._links[peer, number] = link
        return link

    def _gone(self, link: Link) -> None:
        """A link is lost."""
        with self._lock:
            self._links.pop((link.peer, link.number), None)
            if self._began.get(link.peer) is link:
                del self._began[link.peer]
        if self._ground is not None:
            self._ground.unwatch(link)

    def _heard(self, subject: str, data: bytes, reply: str) -> None:
        """A message to this worker, on the connection's thread."""
        ground = self._ground
        frame = decode(data)
        if ground is None:
            return
        if frame is None:
            ground.malformed()
            return
        if frame.sender == ground.worker:
            self._heard_myself.set_result(None)
            return
        with self._lock:
            link = self._links.get((frame.sender, frame.link))
        if link is None and frame.number == 1 and frame.word is Word.OPEN:
            link = self._new(frame.sender, frame.link, began=False)
        if link is not None:
            link.heard(frame)
        elif frame.word is not Word.RESET:
            subject = f"{self._prefix}{frame.sender.hex()}"
            self._connection.publish(subject, reset(ground.worker, frame.link))

    def _nobody(self, subject: str, data: bytes, reply: str) -> None:
        """Nobody heard what was said to a worker: the subject says to whom, and which frame."""
        if data:
            return
        try:
            worker, link, number = subject.removeprefix(self._prefix).split(".")[1:]
            key, frame = (bytes.fromhex(worker), int(link, 16)), int(number)
        except ValueError:
            return
        with self._lock:
            found = self._links.get(key)
        if found is not None:
            found.lose(f"NATS has nobody who is worker {worker}", tell=False, undelivered=frame)
