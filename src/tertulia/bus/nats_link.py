"""One connection to one NATS server, by nats-py, used for as long as it is whole.

What nats-py does about lost connections is not used: it would deliver late what was published
meanwhile, it gives up for good when a server refuses it, and its `close` waits for a server that
does not read. So each connection is a client of its own, and is thrown away.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

from tertulia.bus.nats_address import Address, tls_context
from tertulia.bus.nats_keys import read_key
from tertulia.errors import ConfigurationError

CONNECTING = 5.0
"""Seconds that it may take until a server has let us in."""
STEP = 2.0
"""Seconds that each step of that may take."""
PING = 1.0
"""Seconds between two signs of life."""
SILENT = 2
"""How many of them may stay without an answer."""
CLOSING = 1.0
"""Seconds that a server has for reading what we have sent when we leave."""
FLUSH = 64 * 1024
"""Bytes that may wait inside of nats-py; the rest waits with us, where it is counted."""
MAX_UNHEARD = 50_000
MAX_UNHEARD_BYTES = 32 * 1024 * 1024
"""How much of what came may wait to be heard, for each subscription."""

Heard = Callable[[str, bytes, str], None]

log = logging.getLogger("tertulia.nats")


class Link:
    """A connection to one server. Everything here is for one loop, which runs nothing else."""

    def __init__(self, address: Address, server: str, wake: Callable[[], None]) -> None:
        from nats.aio.client import Client  # slow to import, and not for all

        self._address = address
        self._server = server
        self._wake = wake
        self._client: Any = Client()
        self._error: BaseException | None = None
        self._ended = False
        self.unheard = 0
        """How many messages were dropped because nobody heard them in time."""

    @property
    def over(self) -> bool:
        """Whether the connection is lost."""
        return self._ended or self._client.is_closed

    @property
    def reason(self) -> str:
        """Why it is lost."""
        error = self._error or self._client.last_error
        return "it was closed" if error is None else str(error) or type(error).__name__

    @property
    def largest(self) -> int:
        """Bytes that one message may have."""
        return int(self._client.max_payload)

    async def connect(self) -> bool:
        """Be let in. False, with a `reason`, where that fails."""
        try:
            await asyncio.wait_for(self._connect(), CONNECTING)
            self._check_tls()
        except AttributeError:  # asyncio gives nats-py no transport where TLS ended as it began
            self._error = ConnectionResetError("the server closed the connection at once")
            return False
        except Exception as error:
            if self._error is None or not _is_vague(error):
                self._error = error
            return False
        return True

    async def publish(self, subject: str, data: bytes, reply: str) -> None:
        """Hand on a message; waits while the server does not read. Raises errors of nats-py.

        What nats-py waits for here cannot be cancelled, but `abort` ends it.
        """
        await self._client.publish(subject, data, reply)

    async def subscribe(self, subject: str, heard: Heard) -> Any:
        """Have each message of a subject heard, in the order in which they come."""

        async def hear(message: Any) -> None:
            try:
                heard(message.subject, message.data, message.reply)
            except Exception:
                log.exception("what hears %s raised; it goes on with the next message", subject)

        return await self._client.subscribe(
            subject,
            cb=hear,
            pending_msgs_limit=MAX_UNHEARD,
            pending_bytes_limit=MAX_UNHEARD_BYTES,
        )

    async def settle(self) -> None:
        """Wait until the server has done what was asked so far.

        `flush` of nats-py may overtake what it still holds itself, so that has to be gone first.
        """
        while self._client.pending_data_size and not self.over:  # noqa: ASYNC110 - no event says so
            await asyncio.sleep(0.001)
        await self._client.flush(STEP)

    async def close(self, *, at_once: bool) -> None:
        """Let go of the connection and of every task of it; what waits is sent if it can be."""
        if at_once:
            self.abort()
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self._client.close(), CLOSING)
        self.abort()

    def abort(self) -> None:
        """Close the socket, also where the server does not read; nats-py has no way to say so."""
        self._ended = True
        transport = getattr(self._client, "_transport", None)
        writer = getattr(transport, "_io_writer", None)
        if writer is not None and writer.transport is not None:
            writer.transport.abort()

    async def _connect(self) -> None:
        await self._client.connect(
            servers=[self._server],
            name="tertulia",
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=STEP,
            ping_interval=PING,
            max_outstanding_pings=SILENT,
            pending_size=FLUSH,
            flush_timeout=STEP,
            error_cb=self._failed,
            closed_cb=self._closed,
            tls=tls_context(self._address),
            **self._credentials(),
        )

    def _credentials(self) -> dict[str, Any]:
        """What lets us in. Secrets are given when they are sent, and not where TLS is missing."""
        address = self._address
        if (found := read_key(address.options)) is not None:
            key, token = found
            self._client._auth_configured = True
            if token is not None:
                return {"signature_cb": key.sign, "user_jwt_cb": lambda: token}
            self._client._public_nkey = key.public
            return {"signature_cb": key.sign}
        if address.token is not None:
            return {"token": lambda: self._secret(address.token)}
        if address.user is not None:
            return {"user": address.user, "password": lambda: self._secret(address.password)}
        return {}

    def _secret(self, secret: str | None) -> str:
        self._check_tls()
        return secret or ""

    def _check_tls(self) -> None:
        """Refuse a server that does not ask for TLS where we want it: nats-py would go without."""
        said: dict[str, Any] = getattr(self._client, "_server_info", {})
        if self._address.tls and not said.get("tls_required"):
            raise ConfigurationError("the server does not speak TLS, and the address asks for it")

    async def _failed(self, error: Exception) -> None:
        """Told by nats-py of every error."""
        from nats.errors import SlowConsumerError

        if not isinstance(error, SlowConsumerError):
            self._error = error
            log.debug("an error of the connection to %s: %s", self._server, error)
            return
        self.unheard += 1
        if self.unheard & (self.unheard - 1) == 0:
            log.warning("%d messages came faster than they were heard, and are lost", self.unheard)

    async def _closed(self) -> None:
        """Told by nats-py of the end."""
        self._ended = True
        self._wake()


def _is_vague(error: Exception) -> bool:
    """Whether nats-py said before what is behind this."""
    from nats.errors import NoServersError

    return isinstance(error, NoServersError)
