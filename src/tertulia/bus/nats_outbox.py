"""What waits to be sent over a connection: bounded, and only while there is a connection."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Lock

MAX_MESSAGES = 50_000
MAX_BYTES = 8 * 1024 * 1024
"""How much may wait; what comes then is refused."""

BATCH = 256
BATCH_BYTES = 64 * 1024
"""How much is taken at once: a batch that is larger ends with what made it so."""

Message = tuple[str, bytes, str]
Item = Message | int


class Outbox:
    """A queue into which any thread puts, and from which one thread takes.

    Between the messages stand numbers of subscriptions to be seen to, so that what is published
    after `subscribe` comes after it.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._lock = Lock()
        self._items: deque[Item] = deque()
        self._messages = 0
        self._bytes = 0
        self._serving = False
        self._connected = False
        self._awake = False
        self._refused = 0
        self._lost = 0

    @property
    def refused(self) -> int:
        """How many messages were not taken."""
        return self._refused

    @property
    def lost(self) -> int:
        """How many were taken and never sent."""
        return self._lost

    def put(self, message: Message) -> bool:
        """Take a message in, if there is a connection and room for it."""
        size = len(message[1])
        with self._lock:
            room = self._messages < MAX_MESSAGES and self._bytes + size <= MAX_BYTES
            if not self._connected or not room:
                self._refused += 1
                return False
            self._messages += 1
            self._bytes += size
            return self._append(message)

    def refuse(self) -> bool:
        """Count a message that cannot be taken: False."""
        with self._lock:
            self._refused += 1
        return False

    def see_to(self, number: int) -> None:
        """Note a subscription that has begun or ended."""
        with self._lock:
            if self._serving:
                self._append(number)

    def take(self) -> list[Item]:
        """What is to be sent next; after an empty list, whatever comes wakes the taker."""
        taken: list[Item] = []
        size = 0
        with self._lock:
            while self._items and len(taken) < BATCH and size < BATCH_BYTES:
                item = self._items.popleft()
                taken.append(item)
                if not isinstance(item, int):
                    size += len(item[1])
                    self._messages -= 1
            self._bytes -= size
            self._awake = bool(taken)
            return taken

    def serve(self) -> None:
        """A connection begins: see to subscriptions."""
        with self._lock:
            self._serving = True

    def open(self) -> None:
        """It is ready: take messages in."""
        with self._lock:
            self._connected = True

    def shut(self) -> None:
        """It is lost, and what waits for it with it."""
        with self._lock:
            self._serving = self._connected = self._awake = False
            self._lost += self._messages
            self._messages = self._bytes = 0
            self._items.clear()

    def drop(self) -> None:
        """Count a message that was taken and could not be sent."""
        with self._lock:
            self._lost += 1

    def _append(self, item: Item) -> bool:
        self._items.append(item)
        if not self._awake:
            self._awake = True
            self._wake()
        return True
