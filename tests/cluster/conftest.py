"""Switchboards that reach each other, in one process or in two, over each pipe."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from typing import NamedTuple

import pytest
from tests.cluster.boards import Found, Peer, http_board, nats_board
from tests.cluster.peer import handlers

from tertulia.cluster import Switchboard


class Two(NamedTuple):
    """Two workers that know of each other; both serve the handlers of `tests.cluster.peer`."""

    here: Switchboard
    there: Switchboard


@pytest.fixture(params=["nats", "http"])
def pipe(request: pytest.FixtureRequest) -> str:
    """How workers reach each other."""
    return str(request.param)


@pytest.fixture
def found() -> Found:
    """The addresses of workers, by their uid."""
    return {}


@pytest.fixture
async def here(pipe: str, nats: str, found: Found) -> AsyncIterator[Switchboard]:
    """A worker of this process."""
    worker = os.urandom(16)
    made = nats_board(worker, nats, handlers)
    async with made if pipe == "nats" else http_board(worker, found, handlers) as board:
        yield board


@pytest.fixture
async def two(pipe: str, nats: str, found: Found, here: Switchboard) -> AsyncIterator[Two]:
    """Two workers of this process."""
    worker = os.urandom(16)
    made = nats_board(worker, nats, handlers)
    async with made if pipe == "nats" else http_board(worker, found, handlers) as board:
        yield Two(here, board)


@pytest.fixture
def new_peer(pipe: str, nats: str, found: Found) -> Iterator[Callable[[], Peer]]:
    """Starts workers in processes of their own, which end with the test."""
    with contextlib.ExitStack() as stack:

        def start() -> Peer:
            peer = Peer(pipe, nats, found)
            stack.callback(peer.clean_up)
            return peer

        yield start
