"""What can be measured: one small interface, and the list of all who keep it.

A measurement always runs in a process of its own, in the environment of the whole run, which
`make bench` sets up; `where` names the class, so that no process imports more than it measures.
"""

from __future__ import annotations

import importlib
import platform
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from benchmarks.messages import Message, chunks


class Measured(ABC):
    """Anything that a workload drives, in a process of its own."""

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """What ran."""


class System(Measured):
    """A store of conversations, driven through the calls that its own documentation shows."""

    distributions: tuple[str, ...] = ()

    @abstractmethod
    async def open(self, folder: Path) -> None:
        """Open the store in this folder, new or with what an earlier process left there."""

    @abstractmethod
    async def append(self, session: str, messages: list[Message]) -> None:
        """Store one turn; it is as durable as this system makes it when the call returns."""

    @abstractmethod
    async def count(self, session: str) -> int:
        """How many messages of this session can be read back."""

    @abstractmethod
    async def close(self) -> None:
        """Release everything."""

    async def last(self, session: str, limit: int) -> int:
        """Read the newest messages as a next turn would need them; return how many came."""
        raise NotImplementedError

    async def fork(self, session: str, new: str) -> None:
        """Continue the conversation under another id, and leave the first one as it is."""
        raise NotImplementedError

    async def fill(self, session: str, messages: Sequence[Message]) -> None:
        """Store many messages, quickly: this is preparation and is never timed."""
        for chunk in chunks(messages):
            await self.append(session, chunk)

    def versions(self) -> dict[str, str]:
        return distribution_versions(*self.distributions) | {"sqlite": sqlite3.sqlite_version}


def distribution_versions(*names: str) -> dict[str, str]:
    """The Python and these distributions."""
    found = {name: metadata.version(name) for name in names}
    return {"python": platform.python_version()} | found


def load_name(where: str) -> Any:
    """The thing that `module:name` stands for."""
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(module), name)


@dataclass(frozen=True, kw_only=True)
class Named:
    """A system, by name: nothing is imported until its own process runs."""

    name: str
    where: str
    kind: Literal["ours", "limit", "peer"]
    syncs: bool = True
    note: str = ""
    turn_limit: int | None = None
    concurrent_turn_limit: int | None = None

    def load(self) -> Any:
        """Import it and make one."""
        return load_name(self.where)()


OURS = Named(name="tertulia", where="benchmarks.ours:Tertulia", kind="ours")
BARE_WRITER = Named(
    name="limit: bare writer thread",
    where="benchmarks.limits:BareWriter",
    kind="limit",
    note="sqlite3, WAL and FULL, group commit, awaited",
)
RAW_SQLITE = Named(
    name="limit: raw blocking sqlite3",
    where="benchmarks.limits:RawSqlite",
    kind="limit",
    note="WAL and FULL, no thread, no await",
)
PEERS = (
    Named(
        name="openai SQLiteSession",
        where="benchmarks.peers.openai_agents:OneSave",
        kind="peer",
        note="one add_items a turn",
    ),
    Named(
        name="openai SQLiteSession, as its runner saves",
        where="benchmarks.peers.openai_agents:SaveAsRunner",
        kind="peer",
        note="two add_items a turn",
    ),
    Named(
        name="openai AsyncSQLiteSession",
        where="benchmarks.peers.openai_agents:OneSaveAsync",
        kind="peer",
        note="one add_items a turn",
    ),
    Named(
        name="adk SqliteSessionService",
        where="benchmarks.peers.adk:Adk",
        kind="peer",
        note="two append_event a turn, rollback journal",
    ),
    Named(
        name="agno SqliteDb",
        where="benchmarks.peers.agno_db:Agno",
        kind="peer",
        note="one upsert_run a turn",
    ),
    Named(
        name="strands FileSessionManager",
        where="benchmarks.peers.strands_files:Strands",
        kind="peer",
        syncs=False,
        note="one file a message, never synced",
    ),
    Named(
        name="langgraph AsyncSqliteSaver",
        where="benchmarks.peers.langgraph_saver:LangGraph",
        kind="peer",
        turn_limit=300,
        concurrent_turn_limit=10,
        note="cost grows with the length: at most 300 turns a session, 10 at 200 sessions",
    ),
)
