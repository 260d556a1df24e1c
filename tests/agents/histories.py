"""What tests ask of the history and the audit of a session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tertulia import Session
from tertulia.agents import AsyncStream, StreamEvent
from tertulia.messages import Message


def said(messages: Sequence[Message]) -> list[tuple[str, str]]:
    """Who said what."""
    return [(message.role, message.text) for message in messages]


async def kinds(session: Session) -> list[str]:
    """The types of all events."""
    return [event.type for event in await session.events()]


async def bodies(session: Session, kind: str) -> list[dict[str, Any]]:
    """The bodies of all events of a type."""
    return [event.body or {} for event in await session.events(types=kind)]


def check_valid(messages: Sequence[Message]) -> None:
    """A provider takes it: each call has one result, before anybody speaks again."""
    due: set[str] = set()
    known: set[str] = set()
    for message in messages:
        if message.role == "tool":
            assert message.tool_call_id in due, f"a result of nothing that is open: {message}"
            due.remove(message.tool_call_id)
            continue
        assert not due, f"{due} have no result before {message}"
        ids = [call.id for call in message.tool_calls or ()]
        assert len(set(ids)) == len(ids)
        assert not known & set(ids), f"ids are used twice: {known & set(ids)}"
        due, known = set(ids), known | set(ids)
    assert not due, f"{due} have no result"


async def check_whole(session: Session) -> list[Message]:
    """The history, which a provider takes and whose chain holds."""
    history = await session.history()
    check_valid(history)
    verified = await session.verify()
    assert verified, (verified.first_bad, verified.reason)
    return history


async def drain(stream: AsyncStream, into: list[StreamEvent]) -> None:
    """Take the rest of a stream, also what comes before it raises."""
    async for event in stream:
        into.append(event)  # noqa: PERF401
