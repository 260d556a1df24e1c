"""What a pipe is: the way in which all links between this worker and others are carried."""

from __future__ import annotations

from typing import Protocol

from tertulia.cluster.links import Desk, Link
from tertulia.loop_thread import LoopThread


class Ground(Desk, Protocol):
    """What a pipe gets of the switchboard that it belongs to."""

    @property
    def worker(self) -> bytes:
        """The worker that this is."""
        ...

    @property
    def thread(self) -> LoopThread:
        """Where a pipe may run tasks; no handler runs there."""
        ...

    def watch(self, link: Link) -> bool:
        """Keep the beat of a link until it is lost; False where there are too many."""
        ...

    def unwatch(self, link: Link) -> None:
        """The link is lost."""
        ...

    def malformed(self) -> None:
        """Count what came and is no frame."""
        ...


class Pipe(Protocol):
    """Carries links."""

    async def start(self, ground: Ground) -> None:
        """Begin to listen; when it returns others can reach this worker, if the pipe works."""
        ...

    async def reach(self, worker: bytes, until: float) -> Link:
        """A link to a worker, on which a channel may be opened; any thread or loop may ask.

        Raises NotDelivered where the worker cannot be reached this way, no later than at the time
        `until` of `monotonic`.
        """
        ...

    async def close(self) -> None:
        """Stop listening; all its links are lost before."""
        ...
