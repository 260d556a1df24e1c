"""The pipe over HTTP: one WebSocket to each worker that is talked to, for both directions.

A worker is reached at the address in its row of the store, and shown the secret that lies there:
one of each incarnation of a worker, kept nowhere else, and never logged. Whoever has it speaks as
any worker. Over an address that is not wss:// it is sent as it is: keep that within the machine or
a network of yours.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import secrets
import threading
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit, urlunsplit

from tertulia.cluster.frames import FRAME_LIMIT, decode
from tertulia.cluster.lines import NotDelivered
from tertulia.cluster.links import Link
from tertulia.cluster.outbox import Outbox
from tertulia.cluster.pipes import Ground
from tertulia.doors import Outcome
from tertulia.errors import AgentError, MissingExtra

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

PATH = "/v1/peers"
"""Where a worker accepts others, below its address."""
FROM, TO = "Tertulia-From", "Tertulia-To"
"""Headers: the worker that connects, and the one it wants, in hex."""
_FLUSHING = 1.0
"""Seconds that the last frames have to be written when a link is over."""
_KEEPALIVE = 20.0
"""Seconds between WebSocket pings, for connections without channels."""

_wire_log = logging.getLogger("tertulia.cluster.wire")
_wire_log.setLevel(logging.INFO)  # at DEBUG the headers would be logged, and the secret with them
_log = logging.getLogger("tertulia.cluster")


class Address(Protocol):
    """Where a worker is reached; a `WorkerRow` is one."""

    @property
    def url(self) -> str | None:
        """Its address: ws://, wss://, http:// or https://."""
        ...

    @property
    def secret(self) -> str | None:
        """What it wants to be shown."""
        ...


Find = Callable[[bytes], Awaitable[Address | None]]


class HttpPipe:
    """Carries links over WebSockets; `find` gives the row of a worker, as `find_worker` does.

    It connects by itself; to be connected to, serve `server.peers.Peers` at the address that is
    told to others, with `secret`: `await store.advertise(url, pipe.secret)`.
    """

    def __init__(self, find: Find) -> None:
        self.secret = secrets.token_urlsafe(32)
        """What others have to show: made anew for each pipe, so for each incarnation."""
        self._find = find
        self._lock = threading.Lock()
        self._links: dict[Link, Outbox] = {}
        self._connecting: dict[bytes, Outcome[Link]] = {}
        self._conversing: set[Outcome[None]] = set()
        """Connections made from here, each given when it is closed."""
        self._ground: Ground | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<HttpPipe with {len(self._links)} connections>"

    async def start(self, ground: Ground) -> None:
        """From now on others are let in."""
        self._ground = ground

    async def reach(self, worker: bytes, until: float) -> Link:
        """A connection to a worker, which is made if there is none. Raises NotDelivered."""
        ground = self._ground
        if ground is None or self._closed:
            raise NotDelivered("the connections to others are closed")
        with self._lock:
            for link in self._links:
                if link.peer == worker and link.usable:
                    return link
            outcome = self._connecting.get(worker)
            if outcome is None:
                outcome = self._connecting[worker] = self._connect_soon(ground, worker, until)
        if not await outcome.within(until - monotonic()):
            raise NotDelivered("no connection in time")
        return outcome.result()

    async def close(self) -> None:
        """Let nobody in any more, and wait until the connections made from here are closed."""
        self._closed = True
        until = monotonic() + 3 * _FLUSHING
        with self._lock:
            connecting = tuple(self._connecting.values())
        for outcome in connecting:
            await outcome.within(until - monotonic())
        for ended in tuple(self._conversing):
            await ended.within(until - monotonic())

    # -- those who connect to us

    def admits(self, shown: str | None) -> bool:
        """Whether what somebody shows is the secret of this worker."""
        if shown is None or self._ground is None or self._closed:
            return False
        return hmac.compare_digest(_digest(shown), _digest(self.secret))

    def is_for(self, worker: str | None) -> bool:
        """Whether this is the worker that somebody wants, in hex."""
        return self._ground is not None and worker == self._ground.worker.hex()

    async def accept(
        self,
        peer: bytes,
        receive: Callable[[], Awaitable[bytes | None]],
        send: Callable[[bytes], Awaitable[None]],
    ) -> None:
        """Carry a link over the connection of a worker that was let in, until it is over."""
        if self._ground is not None:
            link, outbox = self._new(self._ground, peer, began=False)
            await self._carry(link, outbox, receive, send)

    # -- inside

    def _new(self, ground: Ground, peer: bytes, *, began: bool) -> tuple[Link, Outbox]:
        outbox = Outbox(asyncio.get_running_loop())

        def transmit(frame: bytes, number: int) -> bool:
            return outbox.put(frame)

        link = Link(ground.worker, peer, 0, ground, transmit, self._gone, began=began)
        with self._lock:
            self._links[link] = outbox
        if not ground.watch(link):
            link.lose("this worker has too many links, or is closing")
        return link, outbox

    def _gone(self, link: Link) -> None:
        """A link is lost."""
        with self._lock:
            outbox = self._links.pop(link, None)
        if outbox is not None:
            outbox.close()
        if self._ground is not None:
            self._ground.unwatch(link)

    async def _carry(
        self,
        link: Link,
        outbox: Outbox,
        receive: Callable[[], Awaitable[bytes | None]],
        send: Callable[[bytes], Awaitable[None]],
    ) -> None:
        """Bring frames both ways, until the connection or the link is over."""
        loop = asyncio.get_running_loop()
        reader = loop.create_task(self._read(link, receive))
        writer = loop.create_task(outbox.write(send))
        tasks = {reader, writer, loop.create_task(outbox.ended())}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            link.lose(f"the connection to worker {link.peer.hex()} was lost")
            await asyncio.wait({writer}, timeout=_FLUSHING)
        finally:
            link.lose("the connection was cancelled")
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, link: Link, receive: Callable[[], Awaitable[bytes | None]]) -> None:
        while (data := await receive()) is not None:
            frame = decode(data)
            if frame is not None and frame.sender == link.peer:
                link.heard(frame)
            elif self._ground is not None:
                self._ground.malformed()

    def _connect_soon(self, ground: Ground, worker: bytes, until: float) -> Outcome[Link]:
        """Connect to a worker, on the thread of the switchboard."""
        outcome: Outcome[Link] = Outcome()

        def begin() -> None:
            ground.thread.start(self._connect(ground, worker, until, outcome))

        ground.thread.loop.call_soon_threadsafe(begin)
        return outcome

    async def _connect(
        self, ground: Ground, worker: bytes, until: float, outcome: Outcome[Link]
    ) -> None:
        link: Link | None = None
        error: AgentError = NotDelivered("the connections to others are closed")
        try:
            socket = await self._socket(ground, worker, until)
            link, outbox = self._new(ground, worker, began=True)
            ended: Outcome[None] = Outcome()
            self._conversing.add(ended)
            ground.thread.start(self._converse(link, outbox, socket, ended))
        except AgentError as raised:
            error = raised
        finally:
            with self._lock:  # first: who is told may ask again at once
                self._connecting.pop(worker, None)
            outcome.set_error(error) if link is None else outcome.set_result(link)

    async def _socket(self, ground: Ground, worker: bytes, until: float) -> ClientConnection:
        try:
            async with asyncio.timeout(max(0.0, until - monotonic())):
                row = await self._find(worker)
                if row is None or row.url is None or row.secret is None:
                    raise NotDelivered("it has no address for others")
                who = {FROM: ground.worker.hex(), TO: worker.hex()}
                return await _opened(endpoint(row.url), row.secret, who)
        except TimeoutError:
            raise NotDelivered("its address gave no answer in time") from None
        except AgentError:
            raise
        except Exception as error:  # whatever the client raises: nothing was said yet
            _log.debug("a worker could not be reached", exc_info=error)
            raise NotDelivered(f"its address cannot be connected to: {error}") from None

    async def _converse(
        self, link: Link, outbox: Outbox, socket: ClientConnection, ended: Outcome[None]
    ) -> None:
        """Carry a link over a connection of ours, and close that at the end."""
        from websockets.exceptions import ConnectionClosed

        async def receive() -> bytes | None:
            try:
                data = await socket.recv()
            except ConnectionClosed:
                return None
            return data.encode() if isinstance(data, str) else data

        try:
            await self._carry(link, outbox, receive, socket.send)
        finally:
            try:
                await socket.close()
            except asyncio.CancelledError:
                socket.transport.abort()  # the thread ends, and would leave it open
                raise
            self._conversing.discard(ended)
            ended.set_result(None)


def endpoint(url: str) -> str:
    """Where the WebSocket of an address is. Raises NotDelivered for what is no such address."""
    parts = urlsplit(url)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    if scheme not in ("ws", "wss") or not parts.hostname:
        raise NotDelivered("its address is none of ws://, wss://, http:// and https://")
    return urlunsplit((scheme, parts.netloc, parts.path.rstrip("/") + PATH, "", ""))


async def _opened(url: str, secret: str, who: dict[str, str]) -> ClientConnection:
    """Connect, straight: neither by a proxy nor to where a server redirects."""
    try:
        from websockets.asyncio.client import connect
    except ImportError:
        raise MissingExtra("server", "websockets") from None

    class Straight(connect):
        def process_redirect(self, exc: Exception) -> Exception:
            return exc

    return await Straight(
        url,
        additional_headers={"Authorization": f"Bearer {secret}", **who},
        compression=None,
        proxy=None,
        open_timeout=None,
        ping_interval=_KEEPALIVE,
        ping_timeout=_KEEPALIVE,
        close_timeout=_FLUSHING,
        max_size=FRAME_LIMIT,
        max_queue=64,
        user_agent_header=None,
        logger=_wire_log,
    )


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
