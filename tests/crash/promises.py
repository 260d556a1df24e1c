"""What must be true after a crash, of everything that was acknowledged before it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import anyio
from tests.crash.workload import USER, Fact

from tertulia import Message, Runtime, Session

AT_ONCE = 5.0
"""Seconds in which whoever comes next has done its work: far from any wait for somebody dead."""


async def losses(runtime: Runtime, facts: Iterable[Fact]) -> list[str]:
    """What of the facts is not there any more, or does not fit; nothing, if promises are kept."""
    facts = list(facts)
    leaving = {name for kind, name, *_ in facts if kind == "going"}
    lost = [
        f"{name} was deleted and is there"
        for kind, name, *_ in facts
        if kind == "gone" and await runtime.store.find(None, name) is not None
    ]
    for name in dict.fromkeys(str(name) for kind, name, *_ in facts if kind == "head"):
        if await runtime.store.find(None, name) is not None:
            lost += await _lost_of(runtime.session(name), facts)
        elif name not in leaving:
            lost.append(f"{name} is not there")
    for info in await runtime.sessions(limit=None):
        verified = await runtime.session(info.id).verify()
        if not verified:
            lost.append(f"{info.id} does not verify at {verified.first_bad}: {verified.reason}")
    return lost


async def _lost_of(session: Session, facts: list[Fact]) -> list[str]:
    there = {event.seq: event.digest for event in await session.events()}
    of: dict[str, list[Any]] = {"head": [], "count": [], "visits": []}
    for kind, name, *values in facts:
        if name == session.id and kind in of:
            of[kind].append(values)
    lost = [
        f"{session.id}: event {seq} is {there.get(seq)}, not {digest}"
        for seq, digest in of["head"]
        if there.get(seq) != digest
    ]
    for kind, key, scope in (("count", "count", "session"), ("visits", "visits", "user")):
        newest = max([value for (value,) in of[kind]], default=0)
        known = session.get_state(key, 0, scope=scope)
        if known < newest:
            lost.append(f"{session.id}: {key} is {known}, not {newest}")
    return lost


async def check_next_turn(runtime: Runtime, name: str) -> None:
    """Whatever a dead process left on a session, the next turn begins at once and works."""
    row = await runtime.store.find(None, name)
    session = runtime.session(name, user_id=USER)
    with anyio.fail_after(AT_ONCE):
        async with session.turn("next") as turn:
            await turn.add_message(Message.assistant("works"))
    said = await session.history()
    assert [message.text for message in said][-2:] == ["next", "works"]
    check_valid_for_a_provider(said)
    if row is not None and row.open_turn is not None:
        left = await session.events(since=row.seq + 1)
        abandoned = [event.turn for event in left if event.type == "turn.abandoned"]
        assert abandoned == [row.open_turn]
    await check_state_of_closed_turns(session)
    assert await session.verify()


async def check_state_of_closed_turns(session: Session) -> None:
    """State and answer of a turn are there together, or neither is."""
    events = await session.events()
    closed = {event.turn for event in events if event.type == "turn.completed"}
    said = [
        str((event.body or {}).get("content"))
        for event in events
        if event.type == "message.added" and event.turn in closed
    ]
    answers = [int(text.split()[1]) for text in said if text.startswith("answer ")]
    if answers:
        assert session.get_state("count") == answers[-1]


def check_valid_for_a_provider(messages: Sequence[Message]) -> None:
    """Every call is answered once, right after the message that made it, in its order."""
    due: list[str] = []
    for message in messages:
        if message.role == "tool":
            assert due
            assert message.tool_call_id == due.pop(0)
        else:
            assert not due
            due = [call.id for call in message.tool_calls or ()]
    assert not due
