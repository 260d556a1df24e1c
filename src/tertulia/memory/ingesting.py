"""Taking what is worth remembering from a session, with a model or without."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from tertulia.errors import AccessDenied, InvalidInput, SessionNotFound
from tertulia.memory import facts
from tertulia.memory.entries import new_row
from tertulia.memory.facts import Fact
from tertulia.messages import Message
from tertulia.stores.base import LogStore, SessionRow
from tertulia.stores.memories import MemoryRow, MemoryScope
from tertulia.view import owner_of

if TYPE_CHECKING:
    from tertulia.agents import Agent
    from tertulia.session import Session

STRATEGIES = ("smart", "messages")


def check_strategy(strategy: str) -> None:
    """Raises InvalidInput."""
    if strategy not in STRATEGIES:
        raise InvalidInput(f"there is no strategy {strategy!r}; there are {', '.join(STRATEGIES)}")


def check_owner(session: Session, scope: MemoryScope) -> None:
    """A session becomes memory of its own user or app only. Raises AccessDenied."""
    if session.app_name != scope.app or (
        scope.user is not None and session.user_id not in (None, scope.user)
    ):
        raise AccessDenied(
            f"session {session.id!r} belongs to another user or app than this memory; use "
            "session.memory, or a Memory of its user and app",
            session_id=session.id,
        )


async def remembered(
    session: Session, store: LogStore, strategy: str, model: Any, time: int
) -> list[MemoryRow]:
    """The rows of what is worth remembering of a session.

    Raises SessionNotFound, SchemaValidationError and ModelError.
    """
    messages = await session.history()
    row = await store.find(session.app_name, session.id)
    if row is None:
        raise SessionNotFound(f"there is no session {session.id!r}", session_id=session.id)
    if row.open_turn is not None:
        closed = row.open_turn
        messages = [message for message in messages if (message.seq or 0) < closed]
    if strategy == "messages":
        found = facts.said(messages)
    else:
        found = await _extracted(messages, note_taker(session, model))
    return [await _row(fact, session.id, row, store, strategy, time) for fact in _once(found)]


def note_taker(session: Session, model: Any) -> Agent:
    """An agent with the model given, that of the session's agent, or the configured default.

    Raises ConfigurationError where there is none.
    """
    from tertulia.agents import Agent, AgentRouter
    from tertulia.agents.models import model_for

    driver: Any = session._agent  # pyright: ignore[reportPrivateUsage]
    agent = driver.agents[0] if isinstance(driver, AgentRouter) else driver
    asked = getattr(agent, "model", None) if model is None else model
    return Agent(model=model_for(asked), instructions=facts.INSTRUCTIONS)


async def _extracted(messages: Sequence[Message], agent: Agent) -> list[Fact]:
    found: list[Fact] = []
    for chunk in facts.chunks(facts.lines(messages)):
        answer = await agent.run(facts.shown(chunk))
        found += facts.parse(answer.text, chunk)
    return found


def _once(found: Sequence[Fact]) -> list[Fact]:
    """Each fact once, with the sources of all that say it."""
    merged: dict[str, Fact] = {}
    for fact in found:
        plain = facts.key_of(b"", fact.fact)
        known = merged.setdefault(plain, fact)
        sources = sorted({*known.sources, *fact.sources})
        merged[plain] = msgspec.structs.replace(known, sources=sources)
    return list(merged.values())


async def _row(
    fact: Fact, session_id: str, row: SessionRow, store: LogStore, strategy: str, time: int
) -> MemoryRow:
    metadata = {"source_session": session_id, "source_seqs": fact.sources, "strategy": strategy}
    made = new_row(facts.key_of(row.uid, fact.fact), fact.fact, metadata, time)
    sources = [((await owner_of(store, row, seq)).uid, seq) for seq in fact.sources]
    return msgspec.structs.replace(made, session=row.uid, sources=tuple(sources))
