"""Google ADK: `SqliteSessionService`, two events a turn, the session object kept by the caller."""

# pyright: basic, reportMissingImports=false
from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from google.adk.events import Event
from google.adk.sessions.base_session_service import GetSessionConfig
from google.adk.sessions.sqlite_session_service import SqliteSessionService
from google.genai import types

from benchmarks.messages import Message
from benchmarks.systems import System

OWNER = {"app_name": "benchmark", "user_id": "somebody"}


def event(message: Message) -> Event:
    """One message as the runner would make it."""
    user = message["role"] == "user"
    part = types.Part(text=message["content"])
    content = types.Content(role="user" if user else "model", parts=[part])
    author = "user" if user else "agent"
    return Event(author=author, content=content, invocation_id="turn", timestamp=time.time())


class Adk(System):
    """One service on one file; a session is created at its first message."""

    distributions = ("google-adk",)

    async def open(self, folder: Path) -> None:
        self.service = SqliteSessionService(str(folder / "adk.db"))
        self.sessions: dict[str, Any] = {}

    async def session(self, name: str) -> Any:
        if name not in self.sessions:
            created = await self.service.create_session(session_id=name, **OWNER)
            self.sessions[name] = created
        return self.sessions[name]

    async def append(self, session: str, messages: list[Message]) -> None:
        held = await self.session(session)
        for message in messages:
            await self.service.append_event(held, event(message))

    async def last(self, session: str, limit: int) -> int:
        config = GetSessionConfig(num_recent_events=limit)
        found = await self.service.get_session(session_id=session, config=config, **OWNER)
        return len(found.events) if found else 0

    async def count(self, session: str) -> int:
        found = await self.service.get_session(session_id=session, **OWNER)
        return len(found.events) if found else 0

    async def fork(self, session: str, new: str) -> None:
        found = await self.service.get_session(session_id=session, **OWNER)
        held = await self.session(new)
        for old in found.events if found else []:
            copied = old.model_copy(update={"id": Event.new_id(), "timestamp": time.time()})
            await self.service.append_event(held, copied)

    async def close(self) -> None:
        await self.service.close()
