"""OpenAI Agents SDK: its two SQLite sessions, one session object for each conversation."""

# pyright: basic, reportMissingImports=false
from __future__ import annotations

from pathlib import Path
from typing import Any

from agents.extensions.memory import AsyncSQLiteSession

from agents import SQLiteSession
from benchmarks.messages import Message
from benchmarks.systems import System


class Sessions(System):
    """Session objects by id, kept open as an application would keep them."""

    distributions = ("openai-agents",)
    session_class: Any = SQLiteSession

    async def open(self, folder: Path) -> None:
        self.path = folder / "openai.db"
        self.sessions: dict[str, Any] = {}

    def session(self, name: str) -> Any:
        if name not in self.sessions:
            self.sessions[name] = self.session_class(name, self.path)
        return self.sessions[name]

    async def append(self, session: str, messages: list[Message]) -> None:
        await self.session(session).add_items(messages)

    async def last(self, session: str, limit: int) -> int:
        return len(await self.session(session).get_items(limit=limit))

    async def count(self, session: str) -> int:
        return len(await self.session(session).get_items())

    async def fork(self, session: str, new: str) -> None:
        await self.session(new).add_items(await self.session(session).get_items())

    async def close(self) -> None:
        for session in self.sessions.values():
            session.close()
        self.sessions.clear()


class OneSave(Sessions):
    """The whole turn in one `add_items`: the fastest this session can be."""


class SaveAsRunner(Sessions):
    """As its runner does: the input is saved when the turn starts, the answer when it ends."""

    async def append(self, session: str, messages: list[Message]) -> None:
        for message in messages:
            await self.session(session).add_items([message])

    async def fill(self, session: str, messages: Any) -> None:
        await self.session(session).add_items(list(messages))


class OneSaveAsync(Sessions):
    """The asyncio session: one connection and one thread for each conversation."""

    session_class = AsyncSQLiteSession

    async def close(self) -> None:
        for session in self.sessions.values():
            await session.close()
        self.sessions.clear()
