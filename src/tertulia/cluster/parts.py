"""Messages over a channel that may be larger than one of it: they go in parts."""

from __future__ import annotations

import threading

from tertulia.cluster.channels import Channel
from tertulia.cluster.lines import Turnstile
from tertulia.errors import InvalidInput, WorkerLost

PART = 1024 * 1024
"""Bytes of a message that go at once."""
MOST = 128 * 1024 * 1024
"""Bytes of a message at most, in all its parts."""
_LAST, _MORE = b"\0", b"\1"


class Whole:
    """A channel for messages of at most 128 MB; both sides of it use one."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._senders = Turnstile(threading.Lock())

    async def send(self, data: bytes) -> None:
        """Send a message, from any thread or loop; those of two senders are never mixed.

        Who is cancelled between two parts has closed the channel. Raises InvalidInput, WorkerLost.
        """
        if len(data) > MOST:
            raise InvalidInput(
                f"{len(data)} bytes are too many for another worker; say at most {MOST} at once"
            )
        if len(data) < PART:
            parts = [_LAST + data]
        else:
            parts = [_MORE + data[at : at + PART] for at in range(0, len(data), PART)]
            parts[-1] = _LAST + parts[-1][1:]
        await self._senders.enter()
        sent = False
        try:
            for part in parts:
                await self.channel.send(part)
                sent = True
        except BaseException:
            if sent:
                self.channel.shut("the sender was cancelled", refused=True)
            raise
        finally:
            self._senders.leave()

    async def receive(self) -> bytes | None:
        """The next message; None where the other side has ended it.

        One task at a time, which is not cancelled if another goes on. Raises WorkerLost.
        """
        parts: list[bytes] = []
        size = 0
        while (part := await self.channel.receive()) is not None:
            parts.append(part[1:])
            size += len(part) - 1
            if part[:1] == _LAST:
                return b"".join(parts)
            if size > MOST:
                self.channel.shut("it sent more than it may", refused=True)
                raise WorkerLost("the other worker sent more than it may")
        return None
