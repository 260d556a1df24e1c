"""Admission: who may begin on a session, and who waits.

Waiting is durable: what has to wait is in the inbox of the session before the wait begins, and
enters the log in the commit that starts its turn. What is left behind by a waiter that died
enters with the next turn.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import msgspec

from tertulia import doors, events, slots
from tertulia.afterwards import Hold, Taking
from tertulia.asked import Asked, Busy
from tertulia.clock import DAY, to_iso
from tertulia.closing import Trace
from tertulia.codec import encode
from tertulia.conversation import MAX_RACES, TURN_TIMEOUT, Conversation, How
from tertulia.drafting import Draft
from tertulia.errors import (
    IdempotencyConflict,
    InvalidInput,
    SessionBusy,
    StoreError,
    UsageError,
)
from tertulia.floor import floor_of, give_floor
from tertulia.gate import Slots
from tertulia.messages import Message
from tertulia.opening import Opening
from tertulia.stores.base import Input, Request, SessionRow
from tertulia.turns import Turn, own_turn

BUSY: tuple[str, ...] = ("queue", "reject", "interrupt")
INTERRUPT_SECONDS = 5.0
"""How long a turn has to answer a request to stop, before the session is taken away from it."""
MAX_TIMEOUT = 10_000_000
"""Seconds; some four months."""
REQUEST_TTL = 7 * DAY
"""How long an idempotency key is remembered, in microseconds."""


class AlreadyDone(Exception):
    """The request was carried out by another worker while this one waited."""

    def __init__(self, request: Request) -> None:
        super().__init__(request.key)
        self.request = request


class Place:
    """One call's place before a session: it waits durably, and may give up."""

    def __init__(self, conversation: Conversation, asked: Asked) -> None:
        self._conversation = conversation
        self.asked = asked
        self.taking = Taking(conversation)
        self._entry: Input | None = None

    async def enter(self) -> None:
        """Enter the gate as `busy` says. Raises SessionBusy and TurnTimeout."""
        conversation, asked = self._conversation, self.asked
        if conversation.gate.try_enter():
            return
        if asked.busy == "reject" and not conversation.approach():
            raise SessionBusy(
                f"session {conversation.id!r} is in a turn already", session_id=conversation.id
            )
        await self._receive()
        try:
            if asked.busy == "interrupt" and conversation.turn is not None:
                await _interrupt(conversation.turn)
            await conversation.enter(asked.timeout)
        except BaseException:
            await self.withdraw()
            raise

    def how(self) -> How:
        """How far the change goes to be made, while another process holds the session."""
        asked = self.asked
        return How(
            timeout=TURN_TIMEOUT if asked.timeout is None else asked.timeout,
            seize_after=INTERRUPT_SECONDS if asked.busy == "interrupt" else None,
            held=self._held,
            suspended="close" if asked.busy == "interrupt" else "refuse",
        )

    async def slot(self) -> Slots | None:
        """A place among the turns of this process. Raises as `enter`."""
        return await slots.take(self._conversation, self.asked.timeout, self._receive)

    async def _held(self, row: SessionRow) -> None:
        """Another process holds the session."""
        conversation, busy = self._conversation, self.asked.busy
        if busy == "reject":
            raise SessionBusy(
                f"session {conversation.id!r} is in a turn of another process",
                session_id=conversation.id,
            )
        if busy == "interrupt":
            await conversation.ask_to_stop(row)
        await self._receive()

    async def _receive(self) -> None:
        conversation = self._conversation
        if self._entry is None and self.asked.messages:
            conversation.arriving += 1
            try:
                self._entry = await conversation.receive(self.asked.messages)
                if self._entry is not None:
                    conversation.waiting.add(self._entry.id)
            finally:
                conversation.arriving -= 1

    def take(self, draft: Draft) -> None:
        """Move the inbox row, if there is one, into the log."""
        if self._entry is not None:
            take(draft, self._entry)

    def admitted(self) -> None:
        """The inbox row, if there was one, is in the log."""
        if self._entry is not None:
            self._conversation.waiting.discard(self._entry.id)

    async def leave(self) -> None:
        """Give up a turn that did not begin, or of which nobody knows whether it did."""
        try:
            await self.taking.undo()
        finally:
            self._conversation.gate.leave()
            await self.withdraw()

    async def withdraw(self) -> None:
        """Take back the inbox row, if there is one."""
        entry, self._entry = self._entry, None
        if entry is not None:
            self._conversation.waiting.discard(entry.id)
            await self._conversation.host.store.drop_inputs([entry.id])


Floor = Callable[[str | None], str | None]
"""Says which agent speaks, from the one that has the floor in the session."""


async def begin(
    conversation: Conversation, opening: Opening, asked: Asked, floor: Floor | None = None
) -> Turn:
    """Take hold of a session and start a turn on it, which gives its agent the floor.

    Where no agent was asked for, `floor` says which one speaks. Raises SessionBusy (with
    ``busy="reject"``, or when too many wait), TurnTimeout, ApprovalPending, SessionEnded,
    AccessDenied and IdempotencyConflict. Raises AlreadyDone where a turn with the key of the
    request has completed by the time that this one may begin.
    """
    check_busy(asked.busy)
    if own_turn(conversation) is not None:
        raise UsageError(
            f"session {conversation.id!r} is in a turn of the calling code already; "
            "use that turn instead of beginning another"
        )
    place = Place(conversation, asked)
    await place.enter()
    slot: Slots | None = None
    try:
        slot = await place.slot()
        turn = await _start(conversation, opening, place, floor)
    except BaseException as error:
        if slot is not None:
            slot.leave()
        with _noting(error):
            await doors.protected(place.leave)
        raise
    turn.slot, conversation.turn = slot, turn
    return turn


@contextmanager
def _noting(error: BaseException) -> Generator[None]:
    """Where the store fails once more, what it failed with first is what the caller has to know."""
    try:
        yield
    except StoreError as second:
        error.add_note(f"what it left could not be put in order: {second!r}")


def check_timeout(seconds: Any) -> float | None:
    """Seconds to wait; None is the default. Raises InvalidInput."""
    if seconds is None:
        return None
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not number or not 0 <= seconds <= MAX_TIMEOUT:
        raise InvalidInput(f"a timeout of {seconds!r} cannot be; give seconds, 0 to {MAX_TIMEOUT}")
    return seconds


def check_busy(busy: Any) -> Busy:
    """A way of being busy. Raises InvalidInput."""
    if busy not in BUSY:
        raise InvalidInput(f"busy={busy!r} does not exist; use one of {', '.join(BUSY)}")
    return busy


async def _interrupt(turn: Turn) -> None:
    """Ask a turn of this process to stop; close it for its driver if that does not answer."""
    turn.request_stop("another turn was asked for")
    if not await turn.ended.within(INTERRUPT_SECONDS):
        await turn.interrupt("it did not stop in time")


async def _start(
    conversation: Conversation,
    opening: Opening,
    place: Place,
    floor: Floor | None,
) -> Turn:
    store, asked = conversation.host.store, place.asked
    for _ in range(MAX_RACES):
        draft = await conversation.draft(opening, place.how())
        if asked.key is not None:
            done = await earlier(conversation, draft.row, asked.key, asked.digest())
            if done is not None and done.status == "done":
                raise AlreadyDone(done)
        await conversation.draft_writes(draft)
        draft.close_calls()
        for entry in await left_behind(conversation, draft.row):
            take(draft, entry)
            for message in messages_in(entry):
                draft.message(message)
        draft.turn, added = draft.seq + 1, draft.added
        before = floor_of(draft)
        agent = asked.agent if floor is None else floor(before)
        _fill(draft, asked, agent, place)
        draft.after["holder"] = store.worker
        draft.after["epoch"] = draft.row.epoch + 1
        draft.after["open_turn"] = draft.turn
        if draft.row.due_at is None:
            await conversation.trim(draft)
        hold = Hold(draft.turn, draft.row.epoch + 1)
        if not await place.taking.made(draft, hold) or conversation.known is None:
            continue
        place.admitted()
        row, conversation.known = conversation.known, None
        trace = Trace(draft.turn, before)
        trace.messages = draft.added - added
        turn = Turn(conversation, row, asked, trace)
        turn.agent = agent
        return turn
    raise conversation.outrun()


def _fill(draft: Draft, asked: Asked, agent: str | None, place: Place) -> None:
    """The first events of a turn: its start, and its own messages."""
    body: dict[str, Any] = {
        "agent": agent,
        "metadata": asked.metadata,
        "key": asked.key,
        "floor": asked.agent is None and agent is not None,
        "before": floor_of(draft),
        "options": asked.options,
    }
    draft.add(events.TURN_STARTED, {name: item for name, item in body.items() if item})
    give_floor(draft, agent)
    place.take(draft)
    for kind, noted in asked.notes:
        draft.add(kind, noted)
    for message in asked.messages:
        draft.message(message)


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
    arriving = conversation.arriving > 0
    unclaimed = [
        entry
        for entry in await store.inputs(row.key)
        if entry.kind == "input"
        and entry.id not in conversation.waiting
        and not (arriving and entry.worker == store.worker)
    ]
    return [
        entry
        for entry in unclaimed
        if entry.worker == store.worker or not await store.worker_is_alive(entry.worker)
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
