"""Who may connect to a worker over HTTP, and what becomes of its secret."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import MutableMapping
from typing import Any

import pytest
from tests.cluster.boards import Found, Row, http_board, served
from tests.cluster.peer import handlers
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tertulia.cluster import HttpPipe, NotDelivered, Switchboard
from tertulia.cluster.http import FROM, PATH, TO, endpoint
from tertulia.server.peers import Peers

ME = bytes(range(16))


async def dialled(row: Row | None, worker: bytes, **changed: str) -> ClientConnection:
    """A connection as a worker makes it, with other headers."""
    assert row is not None
    headers = {"Authorization": f"Bearer {row.secret}", FROM: ME.hex(), TO: worker.hex()}
    headers |= {name.replace("_", "-"): value for name, value in changed.items()}
    return await connect(
        endpoint(row.url or ""), additional_headers=headers, proxy=None, max_size=None
    )


async def said_until_closed(socket: ClientConnection) -> None:
    """Read a connection to its end. Raises ConnectionClosed."""
    while True:
        await socket.recv()


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"Authorization": "Bearer guessed"}, 401),
        ({"Authorization": "Bearer "}, 401),
        ({"Authorization": "Basic eA=="}, 401),
        ({"Tertulia_To": os.urandom(16).hex()}, 403),
        ({"Tertulia_From": "no worker"}, 403),
    ],
)
async def test_who_has_not_the_secret_or_wants_another_worker_is_refused(
    found: Found, changed: dict[str, str], status: int
) -> None:
    worker = os.urandom(16)
    async with http_board(worker, found, handlers) as board:
        with pytest.raises(InvalidStatus) as refused:
            await dialled(found[worker], worker, **changed)
        assert refused.value.response.status_code == status
        assert board.stats().links == 0


async def test_the_secret_is_not_taken_from_the_query(found: Found) -> None:
    worker = os.urandom(16)
    async with http_board(worker, found, handlers):
        row = found[worker]
        url = f"{endpoint(row.url or '')}?token={row.secret}"
        with pytest.raises(InvalidStatus) as refused:
            await connect(url, additional_headers={FROM: ME.hex(), TO: worker.hex()}, proxy=None)
        assert refused.value.response.status_code == 401


async def test_a_new_worker_at_the_address_of_one_that_is_gone_is_not_taken_for_it(
    found: Found,
) -> None:
    gone, new = os.urandom(16), os.urandom(16)
    async with (
        http_board(os.urandom(16), found, handlers) as here,
        http_board(new, found, handlers) as board,
    ):
        found[gone] = found[new]
        with pytest.raises(NotDelivered, match="403"):
            await here.open(gone, "echo", b"")
        found[gone] = Row(found[new].url, "the secret of the one before")
        with pytest.raises(NotDelivered, match="401"):
            await here.open(gone, "echo", b"")
        assert board.stats().links == 0


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1", "http://", "nonsense", "http://127.0.0.1:1", None]
)
async def test_an_address_that_leads_nowhere_is_told_at_once(found: Found, url: str | None) -> None:
    worker = os.urandom(16)
    async with http_board(os.urandom(16), found, handlers) as here:
        found[worker] = Row(url, "x")
        with pytest.raises(NotDelivered):
            await here.open(worker, "echo", b"")


async def test_the_secret_is_in_no_log_and_no_text(
    found: Found, caplog: pytest.LogCaptureFixture
) -> None:
    worker = os.urandom(16)
    with caplog.at_level(logging.DEBUG):
        async with (
            http_board(os.urandom(16), found, handlers) as here,
            http_board(worker, found, handlers) as there,
        ):
            secret = found[worker].secret
            assert secret is not None
            caplog.clear()
            with caplog.at_level(logging.INFO, "uvicorn.error"):  # its server logs what it gets
                channel = await here.open(worker, "answer", b"")
                await channel.receive()
                found[worker] = Row("http://127.0.0.1:1", secret)
                await there.close()
                while here.stats().links:
                    await asyncio.sleep(0.005)
                with pytest.raises(NotDelivered) as lost:
                    await here.open(worker, "answer", b"")
    assert secret not in caplog.text
    assert secret not in str(lost.value)
    assert secret not in repr(HttpPipe(lambda worker: asyncio.sleep(0)))


async def test_both_directions_share_one_connection(found: Found) -> None:
    async with (
        http_board(os.urandom(16), found, handlers) as here,
        http_board(os.urandom(16), found, handlers) as there,
    ):
        for frm, to in ((here, there), (there, here), (here, there)):
            channel = await frm.open(to.worker, "echo", b"hello")
            assert await channel.receive() == b"hello"
            await channel.close()
        assert (here.stats().links, there.stats().links) == (1, 1)


async def test_many_who_ask_at_once_make_one_connection(found: Found) -> None:
    async with (
        http_board(os.urandom(16), found, handlers) as here,
        http_board(os.urandom(16), found, handlers) as there,
    ):

        async def ask() -> bytes | None:
            channel = await here.open(there.worker, "echo", b"hello")
            try:
                return await channel.receive()
            finally:
                await channel.close()

        assert await asyncio.gather(*[ask() for _ in range(30)]) == [b"hello"] * 30
        assert (here.stats().links, there.stats().links) == (1, 1)


async def test_a_frame_that_is_too_large_closes_the_connection(found: Found) -> None:
    worker = os.urandom(16)
    async with http_board(worker, found, handlers) as board:
        socket = await dialled(found[worker], worker)
        await socket.send(os.urandom(100))
        await socket.send("text")
        await socket.send(bytes(70_000))
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(said_until_closed(socket), 5)
        assert socket.close_code == 1009
        assert board.stats().malformed == 2
        assert board.stats().links == 0


async def test_the_route_is_no_page(found: Found) -> None:
    pipe = HttpPipe(lambda worker: asyncio.sleep(0))
    board = Switchboard(os.urandom(16), pipe)
    await board.start()
    sent: list[int | None] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message.get("status"))

    async def receive() -> dict[str, str]:
        return {"type": "http.request"}

    await Peers(pipe)({"type": "http", "path": PATH}, receive, send)
    assert sent == [404, None]
    await board.close()
    async with served(Peers(pipe)) as url:
        with pytest.raises(InvalidStatus) as refused:
            await dialled(Row(url, pipe.secret), board.worker)
        assert refused.value.response.status_code == 401
