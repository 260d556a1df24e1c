"""Duties: work that exactly one worker of a store does at a time.

Who has a duty stands in an entity row, which is changed only where its version is still what was
read. It is free when the worker in it is dead, or gave it back.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from tertulia.errors import StoreCorrupt, VersionConflict
from tertulia.host import Host
from tertulia.stores.base import LogStore
from tertulia.stores.clustering import Clustered

KIND = "tertulia.duty"
CHECK_SECONDS = 1.0
"""For how long it is believed without reading that a duty is still ours."""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Who has a duty."""

    worker: str | None = None
    """In hexadecimal; None where it was given back."""
    holder: str = ""
    """Which object of that worker."""
    term: int = 0
    """Counts those who had it."""
    since: int = 0
    """When it was taken or given back, in microseconds."""


async def standing(store: LogStore, name: str) -> tuple[Standing, int]:
    """Who has a duty, and the version of its row, 0 before anybody had it. Raises StoreCorrupt."""
    found = await store.entity(KIND, name)
    if found is None:
        return Standing(), 0
    if found.value is None:
        return Standing(), found.version
    try:
        return msgspec.json.decode(found.value, type=Standing), found.version
    except msgspec.DecodeError as error:
        raise StoreCorrupt(
            f"the row of the duty {name!r} cannot be read ({error}); delete the entity {KIND!r}"
        ) from error


class Duty:
    """One side of a duty: takes it where it is free, and knows whether it still has it."""

    def __init__(self, host: Host, name: str) -> None:
        self._host = host
        self._name = name
        self._holder = host.ids.uid().hex()
        self._term = 0
        self._version: int | None = None
        """Of the row that says it is ours; None while it is not."""
        self._checked = 0.0
        self._lapsed = False
        self._forget: Callable[[], None] | None = None
        host.registry["duty", self._holder] = self

    @property
    def term(self) -> int:
        """The term in which it was taken last, 0 before."""
        return self._term

    def watch_lease(self) -> None:
        """From now on give way when the lease of this worker is about to run out."""
        store = self._host.store
        if self._forget is None and isinstance(store, Clustered):
            self._forget = store.on_lapse(self._on_lapse)

    def _on_lapse(self, lapsed: bool) -> None:
        """From a thread of the store."""
        self._lapsed = lapsed
        self._checked = float("-inf")

    async def take(self) -> bool:
        """Whether it is ours, if need be from now on. Raises StoreError."""
        if self._lapsed:
            return False
        store, asked = self._host.store, self._host.clock.monotonic()
        found, version = await standing(store, self._name)
        self._version = None
        if (found.worker, found.holder) != (store.worker.hex(), self._holder):
            if found.worker is not None and await self._is_kept(found):
                return False
            self._term = found.term + 1
            mine = self._standing(store.worker.hex())
            try:
                version = await store.put_entity(KIND, self._name, mine, version)
            except VersionConflict:
                return False
        self._version, self._checked = version, asked
        return True

    async def _is_kept(self, found: Standing) -> bool:
        """Whether who has it lives: its worker, and in this one its object."""
        worker = bytes.fromhex(found.worker or "")
        if worker == self._host.store.worker:
            return ("duty", found.holder) in self._host.registry
        return await self._host.store.worker_is_alive(worker)

    async def mine(self) -> bool:
        """Whether it is still ours, as it stood a second ago or later. Raises StoreError."""
        if self._version is None or self._lapsed:
            return False
        now = self._host.clock.monotonic()
        if now - self._checked >= CHECK_SECONDS:
            found = await self._host.store.entity(KIND, self._name)
            if found is None or found.version != self._version:
                self._version = None
                return False
            self._checked = now
        return not self._lapsed

    async def leave(self) -> None:
        """Give it back, and take it no more. Raises StoreError."""
        if self._forget is not None:
            self._forget()
            self._forget = None
        self._host.registry.pop(("duty", self._holder), None)
        version, self._version = self._version, None
        if version is not None:
            try:
                await self._host.store.put_entity(KIND, self._name, self._standing(None), version)
            except VersionConflict:
                return  # somebody else has it already

    def _standing(self, worker: str | None) -> bytes:
        return msgspec.json.encode(
            Standing(
                worker=worker,
                holder=self._holder if worker else "",
                term=self._term,
                since=self._host.clock.now(),
            )
        )
