"""Strands Agents: `FileSessionManager`, one JSON file a message, written and renamed, never synced.

Driven as the hooks of its agent drive it: store the message, synchronise the agent, and after
the turn keep the default window of 40 messages in memory.
"""

# pyright: basic, reportMissingImports=false
from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from strands import Agent
from strands.models.model import Model
from strands.session.file_session_manager import FileSessionManager

from benchmarks.messages import Message
from benchmarks.systems import System

AGENT = "agent"


class NoModel(Model):
    """An agent needs a model object; this one is never called."""

    def update_config(self, **model_config: Any) -> None:
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        return {}

    def structured_output(self, *arguments: Any, **named: Any) -> Any:
        raise NotImplementedError

    def stream(self, *arguments: Any, **named: Any) -> Any:
        raise NotImplementedError


class Strands(System):
    """One agent and one session manager for each conversation."""

    distributions = ("strands-agents",)

    async def open(self, folder: Path) -> None:
        self.folder = folder / "strands"
        self.agents: dict[str, tuple[Agent, FileSessionManager]] = {}
        self.heads: dict[str, int] = {}

    def manager(self, session: str) -> FileSessionManager:
        return FileSessionManager(session, storage_dir=str(self.folder))

    def agent(self, session: str) -> tuple[Agent, FileSessionManager]:
        if session not in self.agents:
            manager = self.manager(session)
            agent = Agent(
                model=NoModel(), agent_id=AGENT, session_manager=manager, callback_handler=None
            )
            self.agents[session] = agent, manager
            self.heads[session] = 0
        return self.agents[session]

    async def append(self, session: str, messages: list[Message]) -> None:
        agent, manager = self.agent(session)
        for message in messages:
            body: Any = {"role": message["role"], "content": [{"text": message["content"]}]}
            agent.messages.append(body)
            manager.append_message(body, agent)
            manager.sync_agent(agent)
        agent.conversation_manager.apply_management(agent)
        manager.sync_agent(agent)
        self.heads[session] += len(messages)

    async def last(self, session: str, limit: int) -> int:
        _, manager = self.agent(session)
        offset = self.heads[session] - limit
        return len(manager.list_messages(session, AGENT, limit=limit, offset=offset))

    async def count(self, session: str) -> int:
        return len(self.manager(session).list_messages(session, AGENT))

    async def fork(self, session: str, new: str) -> None:
        self.manager(new)
        source = self.folder / f"session_{session}" / "agents"
        target = self.folder / f"session_{new}" / "agents"
        shutil.copytree(source, target, dirs_exist_ok=True)

    async def close(self) -> None:
        self.agents.clear()
