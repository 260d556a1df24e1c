"""Agno: `SqliteDb`, one run of two messages a turn.

Only the run is saved; its agent also saves the session row at the end of a run, which would
be a second commit.
"""

# pyright: basic, reportMissingImports=false
from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from agno.db.base import SessionType
from agno.db.sqlite import SqliteDb
from agno.models.message import Message as AgnoMessage
from agno.run.agent import RunOutput
from agno.run.base import RunStatus
from agno.session.agent import AgentSession

from benchmarks.messages import Message
from benchmarks.systems import System

AGENT = "agent"


def run(session: str, messages: list[Message]) -> RunOutput:
    """One finished run with these messages."""
    return RunOutput(
        run_id=str(uuid.uuid4()),
        agent_id=AGENT,
        session_id=session,
        content=messages[-1]["content"],
        messages=[AgnoMessage(**message) for message in messages],
        status=RunStatus.completed,
    )


class Agno(System):
    """One database object; its calls block, as they do inside its own agent."""

    distributions = ("agno", "SQLAlchemy")

    async def open(self, folder: Path) -> None:
        self.database = SqliteDb(db_file=str(folder / "agno.db"))
        self.runs: dict[str, int] = {}

    def create(self, session: str) -> None:
        now = int(time.time())
        new = AgentSession(session_id=session, agent_id=AGENT, created_at=now, updated_at=now)
        self.database.upsert_session(new)
        self.runs[session] = 0

    async def append(self, session: str, messages: list[Message]) -> None:
        if session not in self.runs:
            self.create(session)
        index = self.runs[session]
        self.runs[session] = index + 1
        self.database.upsert_run(run(session, messages), session_id=session, run_index=index)

    async def fill(self, session: str, messages: Sequence[Message]) -> None:
        for start in range(0, len(messages), 2):
            await self.append(session, list(messages[start : start + 2]))

    def load(self, session: str, runs: int | None = None) -> AgentSession | None:
        found = self.database.get_session(session, SessionType.AGENT, runs_limit=runs)
        return found if isinstance(found, AgentSession) else None

    async def last(self, session: str, limit: int) -> int:
        found = self.load(session, runs=limit // 2)
        return len(found.get_messages()) if found else 0

    async def count(self, session: str) -> int:
        found = self.load(session)
        return sum(len(run.messages or []) for run in found.runs or []) if found else 0

    async def fork(self, session: str, new: str) -> None:
        found = self.load(session)
        self.create(new)
        for index, old in enumerate((found.runs if found else None) or []):
            copied = RunOutput.from_dict(old.to_dict())
            copied.run_id, copied.session_id = str(uuid.uuid4()), new
            self.database.upsert_run(copied, session_id=new, run_index=index)

    async def close(self) -> None:
        self.database.close()
