"""Turns: one request and all that it causes, until its answer.

A turn takes hold of the session in the commit that starts it, before any model or tool is
called; what it does is in the log as it happens, and becomes visible to others, together, in the
commit that closes it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from tertulia import events
from tertulia.afterwards import Hold, let_go_later
from tertulia.asked import Asked
from tertulia.closing import Effect, Trace
from tertulia.codec import body_of
from tertulia.conversation import MAX_RACES
from tertulia.doors import Outcome
from tertulia.drafting import Draft, commit
from tertulia.errors import (
    InvalidInput,
    SessionBusy,
    StaleWriter,
    StoreError,
    UsageError,
    VersionConflict,
)
from tertulia.gate import Gate, GateFull, Slots
from tertulia.messages import Message, parse
from tertulia.scoped import refuse_inside_update
from tertulia.stores.base import SessionRow
from tertulia.turn_ends import End, draft_end, failed, interrupted, stopped

if TYPE_CHECKING:
    from tertulia.conversation import Conversation
    from tertulia.scoped import StateWrite

T = TypeVar("T")
LISTEN_SECONDS = 0.25

_TRACED = frozenset((events.MESSAGE_ADDED, events.TOOL_CALLED, events.APPROVAL_REQUESTED))

_running: ContextVar[tuple[Turn, ...]] = ContextVar("tertulia_turns", default=())


def own_turn(conversation: Conversation) -> Turn | None:
    """The turn of this conversation that the calling code is part of, if it is."""
    for turn in reversed(_running.get()):
        if turn.conversation is conversation and not turn.closed:
            return turn
    return None


def in_turn() -> bool:
    """Whether the calling code is part of a turn, of whatever session."""
    return any(not turn.closed for turn in _running.get())


def _nobody() -> bool:
    return False


class _Sent(msgspec.Struct, frozen=True):
    """A commit of a turn that is on its way, and what the turn has to note once it is made."""

    draft: Draft
    staged: Sequence[StateWrite] = ()
    noted: int = 0


class Turn:
    """A turn that holds its session. ``async with session.turn("hello") as turn: …``"""

    def __init__(
        self, conversation: Conversation, row: SessionRow, asked: Asked, trace: Trace
    ) -> None:
        if row.open_turn is None:
            raise UsageError("a turn needs a row that is held")
        self.conversation = conversation
        self.number = row.open_turn
        self.started = row.active
        """In microseconds."""
        self.row = row
        self.asked = asked
        self.agent = asked.agent
        """The agent that speaks now."""
        self.closed = False
        self.trace = trace
        self._notes: list[tuple[str, dict[str, Any]]] = []
        self._sent: _Sent | None = None
        """The last commit, where it is not known what became of it."""
        self.staging = False
        """Whether tools of an agent run now."""
        self.staged: list[Message] = []
        """Messages of tools that wait for the results of the running calls."""
        self.call_ids = {*trace.calls, *trace.unstarted}
        """Ids of tool calls of this turn: no two have the same, or they would share a key."""
        self.writes: list[StateWrite] = []
        """State that is set when the turn closes."""
        self.temp: dict[str, Any] = conversation.temp
        conversation.temp = {}
        self.stop: Outcome[str] = Outcome()
        """Given, with a reason, when somebody asks the turn to stop."""
        self.lost = False
        """Whether it stops because this worker may not be relied on any more."""
        self.ended: Outcome[None] = Outcome()
        """Given when the turn has ended, whoever closed it."""
        self.result: Any = None
        """What a repetition of the request with the same key gets: JSON-able data."""
        self.approached: Callable[[], bool] = _nobody
        """Asked when a call has to wait for this turn: whether it is the consumer of the turn's
        own stream, which it broke off; then the turn is stopping."""
        self.slot: Slots | None = None
        """Of which it has a place, where the turns of this process are limited."""
        self.joining = Gate(1_000)
        """Held by an agent whose run is a part of the turn, while it adds messages to it."""
        self._gate = Gate(1_000)
        self._listened = conversation.host.clock.monotonic()

    # -- what it does

    async def add_message(self, message: Message | Mapping[str, Any]) -> Message:
        """Append a message to the turn; raises InvalidMessage."""
        return (await self.add_messages([message]))[0]

    async def add_messages(self, messages: Iterable[Message | Mapping[str, Any]]) -> list[Message]:
        """Append several messages in one commit; raises InvalidMessage.

        While the tools of an agent run, messages are staged: they are durable, and enter the
        history after the results of the running calls, which nothing may part from their calls.
        What is returned has no position then.
        """
        checked = [parse(message) for message in messages]
        staging = self.staging and all(message.role != "tool" for message in checked)

        async def build(draft: Draft) -> list[Message]:
            if not (staging and draft.open_calls):
                return [draft.message(message) for message in checked]
            for message in checked:
                draft.add(events.MESSAGE_STAGED, {"message": message.to_dict()}, actor="tool")
            return []

        stored = await self.append(build)
        if not stored:
            self.staged.extend(checked)
        return stored or checked

    async def tool_called(self, call_id: str, name: str, *, effect: Effect = "unknown") -> None:
        """Note that a tool is about to run, and what it may do in the world."""
        await self.record(events.TOOL_CALLED, {"call": call_id, "name": name, "effect": effect})

    async def tool_returned(
        self, call_id: str, result: Message | Mapping[str, Any], *, error: str | None = None
    ) -> Message:
        """Append the result of a call, which is a tool message; `error` if it failed."""
        checked = parse(result)
        kind = events.TOOL_RETURNED if error is None else events.TOOL_FAILED
        body = {"call": call_id} if error is None else {"call": call_id, "error": error}

        async def build(draft: Draft) -> Message:
            draft.add(kind, body, actor="tool")
            return draft.message(checked)

        return await self.append(build)

    async def record(self, kind: str, body: Mapping[str, Any], actor: str = "app") -> int:
        """Append an event and return its position; your own types are named ``app.*``."""
        events.check_type(kind)

        async def build(draft: Draft) -> int:
            return draft.add(kind, body, actor=actor)

        return await self.append(build)

    def note(self, kind: str, body: Mapping[str, Any]) -> None:
        """Log an event with the next commit of the turn, which may be the one that closes it."""
        self._notes.append((events.check_type(kind), dict(body)))

    async def append(self, build: Callable[[Draft], Awaitable[T]]) -> T:
        """Commit what `build` drafts, under the hold. Raises StaleWriter when the hold is lost.

        Raises UsageError inside of an update of state, which has to end first, and SessionBusy
        where 1,000 changes of the turn wait already.
        """
        refuse_inside_update(self.conversation)
        try:
            await self._gate.enter()
        except GateFull:
            raise SessionBusy(
                f"{self._gate.waiting} changes of turn {self.number} wait already; make fewer at "
                "once",
                session_id=self.conversation.id,
            ) from None
        try:
            await self._settle()
            self._check_open()
            result = await self._apply(build)
        finally:
            self._gate.leave()
        await self.listen()
        return result

    async def _apply(self, build: Callable[[Draft], Awaitable[T]]) -> T:
        for _ in range(MAX_RACES):
            draft = self._draft()
            staged = [write for write in self.writes if not write.staged]
            for write in staged:
                write.stage(draft)
            noted = self._draft_notes(draft)
            result = await build(draft)
            if not draft.records:
                return result
            sent = self._sent = _Sent(draft, staged, noted)
            try:
                row = await self._commit(draft)
            except VersionConflict:
                continue
            self._made(sent, row)
            return result
        raise self.conversation.outrun()

    def _made(self, sent: _Sent, row: SessionRow) -> None:
        self._sent, self.row = None, row
        self._note(sent.draft)
        for write in sent.staged:
            write.staged = True
        del self._notes[: sent.noted]

    async def _settle(self) -> None:
        """Find out what became of a commit whose caller was stopped while it was on its way.

        The row that the turn knows would be an old one otherwise, and nothing could be written
        any more, not even the end of the turn.
        """
        sent = self._sent
        if sent is None:
            return
        row = await self.conversation.settled_row()
        if row is None or row.epoch != self.row.epoch or row.seq < sent.draft.seq:
            self._sent = None  # it was not made; whether the hold is lost, the next commit says
            return
        self.conversation.observe(sent.draft)
        if row.holder is None:
            self._release(row)
        else:
            self._made(sent, row)

    # -- how it ends

    async def complete(
        self,
        body: Mapping[str, Any] | None = None,
        *,
        first: Callable[[Draft], Awaitable[None]] | None = None,
    ) -> None:
        """Close the turn with its answer; what it did is visible from here on.

        `first` drafts what goes into the same commit before the end: the last message. It may be
        called again when somebody else changed shared state first.
        """
        await self._close(End(events.TURN_COMPLETED, body or {}, True, first))

    async def fail(self, error: BaseException) -> None:
        """Close the turn as failed. What it did in the world is kept, all else is hidden."""
        await self._close(failed(error))

    async def interrupt(self, reason: str, partial: str | None = None) -> None:
        """Close the turn on request, keeping exactly what was handed out by then."""
        await self._close(interrupted(self, reason, partial))

    async def suspend(self) -> None:
        """Let go of the session until every call that waits for an approval has its decision.

        The turn stays open, and its number too; `resume` goes on with it.
        """

        async def build(draft: Draft) -> None:
            draft.add(events.TURN_SUSPENDED, {"calls": list(draft.open_calls)})
            draft.after["holder"] = None
            await self.conversation.trim(draft)

        async with self._gate:
            await self._settle()
            self._check_open()
            await self._apply(build)
            self._release(self.row)

    async def give_back(self) -> None:
        """Suspend a turn that was resumed and cannot go on, later where the store is away."""
        try:
            await self.suspend()
        except StoreError:
            let_go_later(self.conversation, Hold(self.number, self.row.epoch, resumed=True))
            self._release(None)

    async def abandon(self) -> None:
        """Close the turn without its driver, as if its process had died."""
        await self._close(End(events.TURN_ABANDONED))

    async def listen(self) -> None:
        """Look for a request to stop from another process, four times a second at most."""
        if self.conversation.host.clock.monotonic() - self._listened >= LISTEN_SECONDS:
            await self.look()

    async def look(self) -> None:
        """Look for a request to stop from another process."""
        host = self.conversation.host
        self._listened = host.clock.monotonic()
        for entry in await host.store.inputs(self.row.key):
            if entry.kind == "interrupt":
                await host.store.drop_inputs([entry.id])
                if entry.time >= self.started:
                    self.stop.set_result("another process asked for the session")

    def request_stop(self, reason: str, *, lost: bool = False) -> None:
        """Ask the turn to stop; whoever drives it looks at `stop`. From any thread.

        `lost` says that its end cannot be written now, and that another worker may close it.
        """
        self.lost |= lost
        self.stop.set_result(reason)

    def check(self) -> None:
        """Raise TurnInterrupted when somebody asked the turn to stop; WorkerLost if it is lost."""
        if self.stop.done:
            raise stopped(self, self.stop.result())

    def enter_context(self) -> None:
        """Calls that follow in this task, and in what it starts, are part of the turn."""
        _running.set((*_running.get(), self))

    def leave_context(self) -> None:
        """Calls that follow in this task are no longer part of the turn."""
        _running.set(tuple(turn for turn in _running.get() if turn is not self))

    # -- inside

    def _draft(self) -> Draft:
        host = self.conversation.host
        return Draft(self.row, now=host.clock.now(), salt=host.ids.salt, turn=self.number)

    def draft_staged(self, draft: Draft) -> None:
        """Draft the messages that tools wrote, once every running call has its result."""
        if not draft.open_calls:
            for message in self.staged:
                draft.message(message)

    def _draft_notes(self, draft: Draft) -> int:
        for kind, body in self._notes:
            draft.add(kind, body)
        return len(self._notes)

    def _check_open(self) -> None:
        if self.closed:
            raise UsageError(
                f"turn {self.number} of session {self.conversation.id!r} has ended; begin a new one"
            )

    async def _commit(self, draft: Draft) -> SessionRow:
        try:
            row = await commit(self.conversation.host.store, draft)
        except StaleWriter:
            self._release(None)
            raise
        self.conversation.observe(draft)
        return row

    def _note(self, draft: Draft) -> None:
        for record in draft.records:
            if record.type in _TRACED:
                self.trace.feed(record.type, body_of(record))

    async def _close(self, end: End) -> None:
        async with self._gate:
            if self.closed:
                return
            row: SessionRow | None = None
            open_still = False
            try:
                await self._settle()
                if not self.closed:
                    row = await self._closed_row(end)
            except BaseException as error:
                # Of a completion that was refused nothing was written, and one that was stopped
                # may not be: whoever drives the turn closes it.
                refused = isinstance(error, InvalidInput) or not isinstance(error, Exception)
                open_still = refused and end.completes
                if not (open_still or isinstance(error, StaleWriter)):
                    let_go_later(self.conversation, Hold(self.number, self.row.epoch))
                raise
            finally:
                if not open_still:
                    self._release(row)
            for write in self.writes:
                write.outcome.set_result(None)

    async def _closed_row(self, end: End) -> SessionRow:
        """Close the turn; one that did not complete also where what it would say cannot be said."""
        try:
            return await self._closing_commit(end)
        except InvalidInput:
            if end.completes:
                raise
            self._notes.clear()
            return await self._closing_commit(end.bare())

    async def _closing_commit(self, end: End) -> SessionRow:
        while True:
            draft = self._draft()
            self._draft_notes(draft)
            await draft_end(self, end, draft)
            self._sent = _Sent(draft)
            try:
                row = await commit(self.conversation.host.store, draft)
            except VersionConflict:
                continue
            self.conversation.observe(draft)
            return row

    def _release(self, row: SessionRow | None) -> None:
        if self.closed:
            return
        self.closed, self._sent = True, None
        self.conversation.known = row
        self.conversation.turn = None
        self.conversation.gate.leave()
        if self.slot is not None:
            self.slot.leave()
        self.ended.set_result(None)
