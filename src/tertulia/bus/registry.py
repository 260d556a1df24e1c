"""Who listens to what: the mailboxes of a bus, by client, and who wants which topic."""

from __future__ import annotations

from threading import RLock

from tertulia.bus.base import EVERYONE
from tertulia.bus.mailbox import Mailbox
from tertulia.errors import UsageError

MAX_CLIENTS = 4_096
MAX_TOPICS = 256
"""For how many clients, and topics of each, it is remembered who listens."""

Mailboxes = tuple[Mailbox, ...]


class Registry:
    """The mailboxes that are open. Its lock is the one under which events are put into them."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.closed = False
        self._open: dict[str, dict[int, Mailbox]] = {}
        self._wanted: dict[str, dict[str, Mailboxes]] = {}
        self._overflowed: list[Mailbox] = []
        self._number = 0

    def __len__(self) -> int:
        with self.lock:
            return sum(len(each) for each in self._open.values())

    def clients(self) -> set[str]:
        """The clients that the mailboxes are for, or "*"."""
        with self.lock:
            return set(self._open)

    def add(self, mailbox: Mailbox) -> None:
        """Let a mailbox take part. Raises UsageError when the bus is closed."""
        with self.lock:
            self.check_open()
            self._number += 1
            mailbox.number = self._number
            self._open.setdefault(mailbox.client_id, {})[mailbox.number] = mailbox
            self._forget(mailbox.client_id)

    def remove(self, mailbox: Mailbox) -> None:
        """Forget a mailbox that has ended; under the lock."""
        of_client = self._open.get(mailbox.client_id, {})
        of_client.pop(mailbox.number, None)
        if not of_client:
            self._open.pop(mailbox.client_id, None)
        self._forget(mailbox.client_id)

    def check_open(self) -> None:
        """Raise UsageError when the bus is closed."""
        if self.closed:
            raise UsageError("the bus is closed; use the bus of a runtime that is open")

    def close(self) -> list[Mailbox]:
        """Close every mailbox, and take no other; those that were open."""
        with self.lock:
            self.closed = True
            every = self.every(EVERYONE)
        for mailbox in every:
            mailbox.close()
        return every

    def every(self, client_id: str) -> list[Mailbox]:
        """The mailboxes to which events of this client can go; of any client for "*"."""
        with self.lock:
            clients = self._open if client_id == EVERYONE else (client_id, EVERYONE)
            return [
                mailbox for client in clients for mailbox in self._open.get(client, {}).values()
            ]

    def find(self, client_id: str, topic: str) -> Mailboxes:
        """Who wants this topic of a client, in the order of registration."""
        if not self._open:
            return ()
        try:
            return self._wanted[client_id][topic]
        except KeyError:
            return self._look(client_id, topic)

    def overflows(self, mailbox: Mailbox) -> None:
        """Note a mailbox to be seen to; under the lock."""
        self._overflowed.append(mailbox)

    def attend(self) -> None:
        """See to the mailboxes that overflow; not under the lock."""
        if not self._overflowed:
            return
        with self.lock:
            overflowed, self._overflowed = self._overflowed, []
        for mailbox in overflowed:
            mailbox.attend()

    def _look(self, client_id: str, topic: str) -> Mailboxes:
        with self.lock:
            asked = self._open.get(client_id, {}) | self._open.get(EVERYONE, {})
            if not asked:
                return ()
            found = tuple(asked[number] for number in sorted(asked) if asked[number].matches(topic))
            if client_id not in self._wanted and len(self._wanted) >= MAX_CLIENTS:
                self._wanted.clear()
            topics = self._wanted.setdefault(client_id, {})
            if len(topics) >= MAX_TOPICS:
                topics.clear()
            topics[topic] = found
            return found

    def _forget(self, client_id: str) -> None:
        """Who listens to a client has changed; under the lock."""
        if client_id == EVERYONE:
            self._wanted.clear()
        else:
            self._wanted.pop(client_id, None)
