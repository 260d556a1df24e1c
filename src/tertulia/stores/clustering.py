"""What a store of many machines also offers: who else is there, and who has what."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any, Protocol, runtime_checkable

import msgspec

from tertulia.stores.base import SessionRow

__all__ = ["Clustered", "WorkerRow"]


class WorkerRow(msgspec.Struct, frozen=True, kw_only=True):
    """A worker as the store knows it. Its `secret` is never shown."""

    worker: bytes
    """Its uid: one incarnation of a process."""
    host: str
    process: int
    alive: bool
    """Whether it may still hold sessions, as `worker_is_alive` says."""
    silent: float
    """Seconds since its heartbeat, by the clock of the store."""
    since: int
    """When it came, in microseconds."""
    lease: float
    """Seconds it may be silent before it counts as dead."""
    url: str | None = None
    """Where other workers reach it."""
    secret: str | None = None
    """What others show it to be let in; for no eyes and no log."""
    load: dict[str, Any] = {}
    """What it says of itself with each heartbeat."""
    held: int = 0
    """Sessions whose open turn it holds; counted by `workers` only."""
    seats: int = 0
    """Seats it has; counted by `workers` only."""

    def __repr__(self) -> str:
        life = "alive" if self.alive else "dead"
        return f"<worker {self.worker.hex()[:8]} on {self.host}, process {self.process}, {life}>"


@runtime_checkable
class Clustered(Protocol):
    """A store that several workers on several machines use at once.

    A *seat* says at which worker something lives, such as a connection. It is for finding the
    way: nothing is decided by it, and who writes to a session is decided by its fence alone.
    """

    @property
    def lease(self) -> float:
        """Seconds this worker may be silent before others may take over what it holds."""
        ...

    async def workers(self) -> list[WorkerRow]:
        """All that are known, dead ones too until they are forgotten, in order of their coming."""
        ...

    async def find_worker(self, worker: bytes) -> WorkerRow | None:
        """One of them, by its uid; one read by a key."""
        ...

    async def advertise(self, url: str | None, secret: str | None) -> None:
        """Tell others where this worker is reached, and with what; None takes it back.

        It stays told when the connection to the store is lost and found again.
        """
        ...

    def report_load(self, asked: Callable[[], dict[str, Any]] | None) -> None:
        """Ask for a JSON object with each heartbeat, and show it to others as `WorkerRow.load`.

        It is asked on the thread of the store and must not wait. What it raises is logged, and
        the heartbeat goes on.
        """
        ...

    async def take_seat(self, place: str, *, over: bytes | None = None) -> bytes:
        """Have the seat of a place, if it may be had; gives the worker that has it now.

        It may be had where it is free, or of a worker that is dead, or of the worker `over`.
        Raises InvalidInput.
        """
        ...

    async def leave_seat(self, place: str) -> None:
        """Give a seat up; one that is not this worker's stays as it is."""
        ...

    def on_lapse(self, tell: Callable[[bool], None]) -> Callable[[], None]:
        """Tell True when the lease is about to run out, and False when it was renewed after that.

        True comes at 0.8 of the lease after the last renewal that succeeded was sent, by the
        clock of this machine: time enough to stop what others may soon begin. `tell` is called
        on the thread of the store and must not wait. Returns the undo.
        """
        ...

    def carry_bells(self, carrier: Callable[[Collection[int]], bool] | None) -> None:
        """Let `carrier` tell other workers which sessions were written, instead of the store.

        It is called on the thread of the store and must not wait. Where it gives False or
        raises, the store tells them itself.
        """
        ...

    def ring_here(self, sessions: Iterable[int] | None) -> None:
        """Ring the bells of those who watch these sessions here; None means all sessions."""
        ...

    async def durability(self) -> dict[str, str]:
        """What an acknowledged commit survives: settings of the server, by name, to be shown."""
        ...

    async def abandoned(self, limit: int = 100, *, after: int = 0) -> list[SessionRow]:
        """Sessions with an open turn whose holder is dead, by their keys, those after `after`.

        There are `limit` of them at most.
        """
        ...
