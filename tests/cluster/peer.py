"""A worker in a process of its own: says who it is as JSON, and ends when it is told a line."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import sys
import threading

from tests.cluster.boards import Found, http_board, nats_board

from tertulia.cluster.channels import Channel
from tertulia.cluster.switchboard import Switchboard

cancelled: list[str] = []


async def echo(head: bytes, channel: Channel) -> None:
    """Say all back."""
    await channel.send(head)
    while (data := await channel.receive()) is not None:
        await channel.send(data)


async def answer(head: bytes, channel: Channel) -> None:
    """Say one thing."""
    await channel.send(b"answer to " + head)


async def fails(head: bytes, channel: Channel) -> None:
    """Raise what must not be told."""
    raise KeyError("a secret")


async def waits(head: bytes, channel: Channel) -> None:
    """Wait for ever, and read nothing."""
    await channel.send(b"waits")
    try:
        await asyncio.Event().wait()
    finally:
        cancelled.append(channel.peer.hex())


async def digest(head: bytes, channel: Channel) -> None:
    """Read all, and say how many bytes it was, and their digest."""
    read, count, size = hashlib.sha256(head), 0, 0
    while (data := await channel.receive()) is not None:
        read.update(data)
        count, size = count + 1, size + len(data)
    await channel.send(json.dumps([count, size, read.hexdigest()]).encode())


async def pour(head: bytes, channel: Channel) -> None:
    """Send so many messages of such a size."""
    count, size = json.loads(head)
    for _ in range(count):
        await channel.send(bytes(size))


def handlers(board: Switchboard) -> None:
    """Serve all of these."""

    async def stats(head: bytes, channel: Channel) -> None:
        told = board.stats()
        seen = {"channels": told.channels, "handlers": told.handlers, "links": told.links}
        await channel.send(json.dumps({**seen, "cancelled": len(cancelled)}).encode())

    for handler in (echo, answer, fails, waits, digest, pour, stats):
        board.serve(handler.__name__, handler)


async def main(pipe: str, address: str) -> None:
    """Serve until a line comes."""
    found: Found = {}
    worker = os.urandom(16)
    async with contextlib.AsyncExitStack() as stack:
        if pipe == "nats":
            board = await stack.enter_async_context(nats_board(worker, address, handlers))
        else:
            board = await stack.enter_async_context(http_board(worker, found, handlers))
        row = found.get(worker)
        told = {"worker": worker.hex()}
        if row is not None:
            told |= {"url": row.url, "secret": row.secret}
        print(json.dumps(told), flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await board.close()
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    names = [thread.name for thread in threading.enumerate() if "tertulia" in thread.name]
    print(json.dumps({"tasks": len(left), "threads": names}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
