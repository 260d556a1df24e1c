"""Which clients the other processes listen to, so that only what is heard there goes there.

Each bus numbers what it listens to. It announces all of it to who asks, what has changed to
everybody, and its number every few seconds; who has missed a change sees so by the number, and
asks. Clients are named by a hash of their id. Nothing here waits.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b

import msgspec

from tertulia.bus.base import EVERYONE

MAX_CLIENTS = 10_000
"""How many clients a bus announces; one that listens to more gets the events of all."""
MAX_PEERS = 1_000
"""How many other buses are remembered."""
SILENT = 7.0
"""Seconds after which a bus that says nothing is forgotten."""
WIDTH = 8
"""Bytes of a hash, and of the id of a bus."""


def hashed(client_id: str) -> bytes:
    """The short name of a client."""
    return blake2b(client_id.encode("utf-8", "surrogatepass"), digest_size=WIDTH).digest()


class Announcement(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a bus says of what it listens to."""

    bus: bytes
    number: int
    """How often that has changed; 0 when it ends."""
    since: int
    """What this is the change of; 0 for everything."""
    everyone: bool
    added: bytes = b""
    removed: bytes = b""


class Listening:
    """What this bus listens to, as it was announced last."""

    def __init__(self, bus: bytes) -> None:
        self._bus = bus
        self._number = 1
        self._everyone = False
        self._hashes: dict[str, bytes] = {}

    def has(self, client_id: str) -> bool:
        """Whether the others know that somebody listens to this client."""
        return self._everyone or client_id in self._hashes

    def change(self, clients: set[str]) -> Announcement | None:
        """What is to be said now that these are listened to; None for nothing new."""
        everyone = EVERYONE in clients or len(clients) > MAX_CLIENTS
        wanted: set[str] = set() if everyone else clients
        added = {client: hashed(client) for client in wanted - self._hashes.keys()}
        gone = [self._hashes.pop(client) for client in self._hashes.keys() - wanted]
        if not added and not gone and everyone == self._everyone:
            return None
        self._hashes |= added
        self._everyone = everyone
        self._number += 1
        since = self._number - 1
        news = b"".join(added.values())
        return Announcement(self._bus, self._number, since, everyone, news, b"".join(gone))

    def everything(self) -> Announcement:
        """All of it."""
        every = b"".join(self._hashes.values())
        return Announcement(self._bus, self._number, 0, self._everyone, every)

    def nothing_new(self) -> Announcement:
        """A sign of life."""
        return Announcement(self._bus, self._number, self._number, self._everyone)

    def end(self) -> Announcement:
        """The last one."""
        return Announcement(self._bus, 0, 0, False)


class _Peer:
    def __init__(self) -> None:
        self.number = 0
        self.heard = 0.0
        self.everyone = False
        self.hashes: set[bytes] = set()


class Peers:
    """What the other buses listen to. Changed by one thread, read by any."""

    def __init__(self) -> None:
        self._peers: dict[bytes, _Peer] = {}
        self._everyone: tuple[bytes, ...] = ()
        self._wanted: dict[bytes, tuple[bytes, ...]] = {}

    def __len__(self) -> int:
        return len(self._peers)

    @property
    def everyone(self) -> tuple[bytes, ...]:
        """The buses that get the events of all clients."""
        return self._everyone

    def of(self, client_id: str) -> tuple[bytes, ...]:
        """The buses where somebody listens to this client."""
        if not self._wanted:
            return self._everyone
        return self._everyone + self._wanted.get(hashed(client_id), ())

    def hear(self, said: Announcement, now: float) -> bool:
        """Take an announcement in; False where one before it was missed."""
        peer = self._peers.get(said.bus)
        if said.number == 0:
            self._forget(said.bus)
            return True
        if peer is None:
            if len(self._peers) >= MAX_PEERS:
                return True
            peer = self._peers[said.bus] = _Peer()
        peer.heard = now
        if said.since not in {0, peer.number}:
            return False
        if said.since == said.number:
            return True
        before = peer.hashes
        kept = before - set(_split(said.removed)) if said.since else set[bytes]()
        peer.number = said.number
        self._set(said.bus, peer, kept.union(_split(said.added)), said.everyone)
        return True

    def forget_silent(self, now: float) -> None:
        """Forget the buses of which nothing was heard for long."""
        for bus in [bus for bus, peer in self._peers.items() if now - peer.heard > SILENT]:
            self._forget(bus)

    def _forget(self, bus: bytes) -> None:
        if (peer := self._peers.pop(bus, None)) is not None:
            self._set(bus, peer, set(), everyone=False)

    def _set(self, bus: bytes, peer: _Peer, hashes: set[bytes], everyone: bool) -> None:
        """Change what a bus listens to; one of all clients is not looked up by client."""
        hashes = set() if everyone else set(list(hashes)[:MAX_CLIENTS])
        for each in peer.hashes - hashes:
            left = tuple(other for other in self._wanted.get(each, ()) if other != bus)
            if left:
                self._wanted[each] = left
            else:
                self._wanted.pop(each, None)
        for each in hashes - peer.hashes:
            self._wanted[each] = (*self._wanted.get(each, ()), bus)
        peer.hashes = hashes
        if everyone != peer.everyone:
            peer.everyone = everyone
            others = tuple(other for other in self._everyone if other != bus)
            self._everyone = (*others, bus) if everyone else others


def _split(packed: bytes) -> Iterator[bytes]:
    return (packed[at : at + WIDTH] for at in range(0, len(packed), WIDTH))
