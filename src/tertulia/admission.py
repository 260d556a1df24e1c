"""Admission: who may begin on a session, and who waits.

Waiting is durable: what has to wait is in the inbox of the session before the wait begins, and
enters the log in the commit that starts its turn. What is left behind by a waiter that died
enters with the next turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from tertulia import events
from tertulia.clock import DAY, to_iso
from tertulia.codec import encode
from tertulia.conversation import MAX_RACES, TURN_TIMEOUT, Conversation, How
from tertulia.drafting import Draft
from tertulia.errors import (
    IdempotencyConflict,
    InvalidInput,
    SessionBusy,
    UsageError,
)
from tertulia.messages import Message
from tertulia.opening import Opening
from tertulia.stores.base import Input, Request, SessionRow
from tertulia.turns import Asked, Turn, own_turn

BUSY: tuple[str, ...] = ("queue", "reject", "interrupt")
INTERRUPT_SECONDS = 5.0
"""How long a turn has to answer a request to stop, before the session is taken away from it."""
REQUEST_TTL = 7 * DAY
"""How long an idempotency key is remembered, in microseconds."""


async def begin(conversation: Conversation, opening: Opening, asked: Asked) -> Turn:
    """Take hold of a session and start a turn on it.

    Raises SessionBusy (with ``busy="reject"``, or when too many wait), TurnTimeout,
    SessionEnded, AccessDenied and IdempotencyConflict.
    """
    if asked.busy not in BUSY:
        raise InvalidInput(f"busy={asked.busy!r} does not exist; use one of {', '.join(BUSY)}")
    outer = own_turn(conversation)
    if outer is not None:
        raise UsageError(
            f"session {conversation.id!r} is in a turn of the calling code already; "
            "use that turn instead of beginning another"
        )
    waited = await take_gate(conversation, asked)
    try:
        row, messages = await _start(conversation, opening, asked, waited)
    except BaseException:
        conversation.gate.leave()
        await withdraw(conversation, waited)
        raise
    turn = Turn(conversation, row, asked, messages)
    conversation.turn = turn
    return turn


async def take_gate(conversation: Conversation, asked: Asked) -> Input | None:
    """Enter the gate as `busy` says; the inbox row of the input if it had to wait."""
    if conversation.gate.try_enter():
        return await _held_elsewhere(conversation, asked)
    if asked.busy == "reject" and not conversation.approach():
        raise SessionBusy(
            f"session {conversation.id!r} is in a turn already", session_id=conversation.id
        )
    entry = await _receive(conversation, asked.messages)
    try:
        if asked.busy == "interrupt" and conversation.turn is not None:
            await _interrupt(conversation, conversation.turn)
        await conversation.enter(asked.timeout)
    except BaseException:
        await withdraw(conversation, entry)
        raise
    return entry


async def _interrupt(conversation: Conversation, turn: Turn) -> None:
    """Ask a turn of this process to stop; close it for its driver if that does not answer."""
    turn.request_stop("another turn was asked for")
    if not await turn.ended.within(INTERRUPT_SECONDS):
        await turn.interrupt("it did not stop in time")


async def _held_elsewhere(conversation: Conversation, asked: Asked) -> Input | None:
    """The gate is ours: what if another process holds the session?"""
    row = conversation.known
    store = conversation.host.store
    if row is not None and row.holder is None:
        return None
    row = await conversation.row()
    if row is None or row.holder in (None, store.worker):
        return None
    if not store.worker_is_alive(row.holder or b""):
        return None
    if asked.busy == "reject":
        conversation.gate.leave()
        raise SessionBusy(
            f"session {conversation.id!r} is in a turn of another process",
            session_id=conversation.id,
        )
    if asked.busy == "interrupt":
        await store.put_input(
            Input(
                session=row.key,
                worker=store.worker,
                kind="interrupt",
                time=conversation.host.clock.now(),
                body=b"{}",
            )
        )
    return await _receive(conversation, asked.messages)


async def _receive(conversation: Conversation, messages: Sequence[Message]) -> Input | None:
    if not messages:
        return None
    entry = await conversation.receive(messages)
    if entry is not None:
        conversation.waiting.add(entry.id)
    return entry


async def withdraw(conversation: Conversation, entry: Input | None) -> None:
    """Take an inbox row back whose waiter gave up."""
    if entry is not None:
        conversation.waiting.discard(entry.id)
        await conversation.host.store.drop_inputs([entry.id])


async def _start(
    conversation: Conversation, opening: Opening, asked: Asked, waited: Input | None
) -> tuple[SessionRow, int]:
    store = conversation.host.store
    for _ in range(MAX_RACES):
        draft = await conversation.draft(opening, _how(asked))
        await conversation.draft_writes(draft)
        draft.close_calls()
        for entry in await left_behind(conversation, draft.row):
            take(draft, entry)
            for message in messages_in(entry):
                draft.message(message)
        draft.turn, before = draft.seq + 1, draft.added
        _fill(conversation, draft, asked, waited)
        draft.after["holder"] = store.worker
        draft.after["epoch"] = draft.row.epoch + 1
        draft.after["open_turn"] = draft.turn
        if not await conversation.made(draft) or conversation.known is None:
            continue
        if waited is not None:
            conversation.waiting.discard(waited.id)
        row, conversation.known = conversation.known, None
        return row, draft.added - before
    raise conversation.outrun()


def _fill(conversation: Conversation, draft: Draft, asked: Asked, waited: Input | None) -> None:
    """The first events of a turn: its start, and its own messages."""
    body: dict[str, Any] = {"agent": asked.agent, "metadata": asked.metadata}
    draft.add(events.TURN_STARTED, {name: item for name, item in body.items() if item})
    if waited is not None:
        take(draft, waited)
    for message in asked.messages:
        draft.message(message)


def _how(asked: Asked) -> How:
    seize_after = INTERRUPT_SECONDS if asked.busy == "interrupt" else None
    return How(timeout=asked.timeout or TURN_TIMEOUT, seize_after=seize_after)


def take(draft: Draft, entry: Input) -> None:
    """Move an inbox row into the log."""
    draft.take.append(entry.id)
    draft.add(events.INPUT_RECEIVED, {"input": entry.id, "time": to_iso(entry.time)})


def messages_in(entry: Input) -> list[Message]:
    """The messages of an inbox row."""
    return msgspec.json.decode(entry.body, type=list[Message])


async def left_behind(conversation: Conversation, row: SessionRow) -> list[Input]:
    """The inputs in the inbox that nobody waits for any more."""
    if row.key == 0:
        return []
    store = conversation.host.store
    return [
        entry
        for entry in await store.inputs(row.key)
        if entry.kind == "input"
        and entry.id not in conversation.waiting
        and (entry.worker == store.worker or not store.worker_is_alive(entry.worker))
    ]


async def earlier(
    conversation: Conversation, row: SessionRow, key: str | None, digest: bytes
) -> Request | None:
    """What became of an earlier request with this idempotency key.

    Raises IdempotencyConflict when it was another request.
    """
    if row.key == 0 or key is None:
        return None
    found = await conversation.host.store.request(row.key, key)
    if found is None or found.time < conversation.host.clock.now() - REQUEST_TTL:
        return None
    if found.digest != digest:
        raise IdempotencyConflict(
            f"idempotency key {key!r} was used in session {conversation.id!r} for another request",
            session_id=conversation.id,
        )
    return found


def request_done(
    conversation: Conversation, key: str, digest: bytes, sent: list[Message]
) -> Request:
    """The record of a request whose result is the messages that were sent."""
    return Request(
        key=key,
        digest=digest,
        turn=sent[0].seq or 0,
        status="done",
        result=encode(sent, "the result"),
        time=conversation.host.clock.now(),
    )
