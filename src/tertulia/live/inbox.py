"""A bounded queue in front of something that takes one event at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, Literal, TypeVar

from tertulia.errors import InvalidInput

T = TypeVar("T")

Overflow = Literal["wait", "drop_oldest", "drop_newest"]
"""What happens to an event for a full inbox: its sender waits (up to `PATIENCE`, then the event is
dropped), the oldest that waits is dropped, or this one is."""

SIZE = 1_000
URGENT = 10
"""Items that may overtake the others."""
PATIENCE = 5.0
"""Seconds that a sender waits for a place in a full inbox."""

_OVERFLOWS = ("wait", "drop_oldest", "drop_newest")


class Inbox(Generic[T]):
    """Holds `size` items at most; one taker, any number of givers, all on one event loop."""

    __slots__ = (
        "_freed",
        "_items",
        "_overflow",
        "_patient",
        "_size",
        "_taker",
        "_urgent",
        "dropped",
    )

    def __init__(self, size: int = SIZE, overflow: Overflow = "wait") -> None:
        if not isinstance(size, int) or size < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidInput(f"an inbox of {size!r} items cannot be; give it 1 or more")
        if overflow not in _OVERFLOWS:
            raise InvalidInput(f"overflow is {overflow!r}; there are {', '.join(_OVERFLOWS)}")
        self._items: deque[T] = deque()
        self._urgent: deque[T] = deque()
        self._size = size
        self._overflow = overflow
        self._patient = True
        self._taker: asyncio.Future[None] | None = None
        self._freed: deque[asyncio.Future[bool]] = deque()
        self.dropped = 0
        """How many items were dropped since the inbox was last empty."""

    def __len__(self) -> int:
        return len(self._items) + len(self._urgent)

    @property
    def size(self) -> int:
        """How many items may wait."""
        return self._size

    def offer(self, item: T) -> bool:
        """Put an item in, if there is a place for it or none that has to wait."""
        if len(self._items) >= self._size:
            return False
        self._items.append(item)
        taker = self._taker
        if taker is not None:
            self._taker = None
            if not taker.done():
                taker.set_result(None)
        return True

    async def put(self, item: T) -> bool:
        """Put an item in as the overflow rule says; False where an item was dropped for it."""
        if self.offer(item):
            return True
        if self._overflow == "wait":
            while self._patient and await self.place():
                if self.offer(item):
                    return True
        elif self._overflow == "drop_oldest":
            self._items.popleft()
            self.offer(item)
        return self._drop()

    async def place(self) -> bool:
        """Wait for a place, `PATIENCE` at most; after one wait in vain no `put` waits any more,
        until there is a place again."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        self._freed.append(waiter)
        timer = loop.call_later(PATIENCE, _give, waiter, False)
        try:
            self._patient = await waiter
        finally:
            timer.cancel()
        return self._patient

    def push(self, item: T) -> None:
        """Put an item before all others, also into a full inbox; of many only the newest stay."""
        self._urgent.append(item)
        if len(self._urgent) > URGENT:
            self._urgent.popleft()
        taker, self._taker = self._taker, None
        if taker is not None and not taker.done():
            taker.set_result(None)

    def peek(self) -> T:
        """The next item, which stays."""
        return self._urgent[0] if self._urgent else self._items[0]

    def pull(self, wanted: Callable[[T], bool]) -> list[T]:
        """Take out all items that are wanted."""
        pulled = [item for item in self._items if wanted(item)]
        if pulled:
            self._items = deque(item for item in self._items if not wanted(item))
        return pulled

    def pop(self) -> T | None:
        """The next item, if there is one."""
        if self._urgent:
            return self._urgent.popleft()
        if not self._items:
            return None
        item = self._items.popleft()
        if self._freed or not self._patient:
            self._free()
        return item

    async def wait(self) -> None:
        """Wait until there is an item."""
        while not self._items and not self._urgent:
            self.dropped = 0
            taker = self._taker = asyncio.get_running_loop().create_future()
            await taker

    async def take(self) -> T:
        """The next item; waits for one."""
        while (item := self.pop()) is None:
            await self.wait()
        return item

    def release(self) -> None:
        """Let everybody go who waits for a place."""
        while self._freed:
            _give(self._freed.popleft(), found=False)

    def _drop(self) -> bool:
        self.dropped += 1
        return False

    def _free(self) -> None:
        self._patient = True
        while self._freed:
            waiter = self._freed.popleft()
            if not waiter.done():
                waiter.set_result(True)
                return


def _give(waiter: asyncio.Future[bool], found: bool) -> None:
    if not waiter.done():
        waiter.set_result(found)
