"""One conversation within this process, whatever objects speak for it.

It knows the row of the session, lets one writer in at a time, and carries out changes: it
takes hold, drafts, commits, and begins again where somebody else was faster. A turn that a dead
process left open is closed by the first new change, in the same commit.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from weakref import WeakValueDictionary

import msgspec

from tertulia import doors, retention
from tertulia.codec import encode
from tertulia.doors import Outcome
from tertulia.drafting import Draft
from tertulia.errors import (
    AccessDenied,
    AgentError,
    ApprovalPending,
    SessionBusy,
    SessionEnded,
    SessionExists,
    SessionNotFound,
    StaleWriter,
    TurnTimeout,
    VersionConflict,
)
from tertulia.gate import Gate, GateDeadlock, GateFull, GateTimeout
from tertulia.host import Host
from tertulia.messages import Message
from tertulia.opening import Opening, creation, merge, unborn
from tertulia.recovery import close_abandoned
from tertulia.scoped import StateWrite, refuse_inside_update
from tertulia.stores.base import Details, Input, Segment, SessionRow
from tertulia.stores.moving import moved_away
from tertulia.trimming import trim
from tertulia.view import FLOORS, HIDDEN_GRACE, HOLES, UNSUMMARIZED, View

if TYPE_CHECKING:
    from tertulia.turns import Turn

T = TypeVar("T")
Build = Callable[[Draft], Awaitable[T]]

_NEVER = 2**62
MAX_WAITERS = 1_000
MAX_RACES = 1_000
"""How often a change is drafted anew because somebody else was faster."""
TURN_TIMEOUT = 600.0
STOPPING = 5.0
"""Seconds that a read waits for a turn that was told to stop."""
_POLL = 0.25
"""Seconds after which a waiter looks again even if no bell rang."""


class How(msgspec.Struct, frozen=True, kw_only=True):
    """How far a change goes to be made."""

    timeout: float = TURN_TIMEOUT
    """Seconds to wait while another process holds the session."""
    seize_after: float | None = None
    """Seconds after which it is taken away from a holder that lives."""
    ended: bool = False
    """Also when the conversation was ended."""
    moved: bool = False
    """Also when it was moved to another store: what is left here can be removed."""
    suspended: Literal["refuse", "keep", "close"] = "refuse"
    """What becomes of a turn that waits for an approval: it forbids the change, goes on waiting
    with the change as a part of it (so does one that was left behind), or is closed."""
    held: Callable[[SessionRow], Awaitable[None]] | None = None
    """Called once when it has to wait for another process."""


USUAL = How()


class Conversation:
    """The state that all `Session` objects of one id in one runtime share."""

    def __init__(self, host: Host, app: str | None, session_id: str) -> None:
        self.host = host
        self.app = app
        self.id = session_id
        self.gate = Gate(MAX_WAITERS)
        self.known: SessionRow | None = None
        """The row after our last commit; None when it must be read again."""
        self.turn: Turn | None = None
        self.pending: deque[StateWrite] = deque()
        self.temp: dict[str, Any] = {}
        self.opening = Opening()
        """What the object said that queued the newest state write."""
        self.waiting: set[int] = set()
        """Inbox rows that a call of this process waits for."""
        self.arriving = 0
        """Calls of this process that are writing their input into the inbox."""
        self.requests: dict[str, tuple[bytes, Outcome[Any]]] = {}
        self.agents: WeakValueDictionary[str, Any] = WeakValueDictionary()
        """Agents of this process that have spoken here, or may, by name."""
        self.observers: tuple[Callable[[Draft], None], ...] = ()
        """Told of every change that this process has committed, in the order of the log. They
        must neither wait nor raise."""

    # -- reading

    async def row(self) -> SessionRow | None:
        """The row as it is now."""
        return await self.host.store.find(self.app, self.id)

    async def existing(self, opening: Opening) -> SessionRow:
        """The row as it is now, if the caller may see it; raises SessionNotFound, AccessDenied."""
        row = await self.row()
        if row is None:
            raise SessionNotFound(f"there is no session {self.id!r}", session_id=self.id)
        self.check_access(row, opening)
        return row

    def check_access(self, row: SessionRow, opening: Opening) -> None:
        """Raise AccessDenied when another user's session is asked for."""
        if opening.user is not None and row.user is not None and opening.user != row.user:
            raise self.denied()

    def denied(self) -> AccessDenied:
        """What another user is told."""
        return AccessDenied(f"session {self.id!r} belongs to another user", session_id=self.id)

    async def view(self, row: SessionRow, position: int | None = None) -> View:
        """What `row` shows at a position, by default to whoever is outside its running turn."""
        if position is None:
            position = row.seq if row.open_turn is None else row.open_turn - 1
        return await View.at(self.host.store, row, position)

    # -- writing

    async def enter(self, seconds: float | None = None) -> None:
        """Wait for the gate; raises SessionBusy, TurnTimeout, UsageError inside of an update."""
        refuse_inside_update(self)
        self.approach()
        try:
            await self.gate.enter(TURN_TIMEOUT if seconds is None else seconds)
        except GateFull:
            raise SessionBusy(
                f"{self.gate.waiting} calls wait for session {self.id!r} already",
                session_id=self.id,
            ) from None
        except GateDeadlock:
            raise SessionBusy(
                f"session {self.id!r} is in use by a task of this event loop, which a synchronous "
                "call here would block; await the asynchronous method instead",
                session_id=self.id,
            ) from None
        except GateTimeout:
            raise TurnTimeout(
                f"session {self.id!r} did not become free in time", session_id=self.id
            ) from None

    def approach(self) -> bool:
        """Whether the caller broke off the stream of the running turn, which then stops."""
        turn = self.turn
        return turn is not None and turn.approached()

    async def stopped(self) -> None:
        """Wait shortly for a turn of this process that was told to stop, so that reads see it.

        Not where that would keep the loop of the turn from running.
        """
        turn = self.turn
        if turn is not None and turn.stop.done and doors.blocked_loop() is None:
            await turn.ended.within(STOPPING)

    async def append(self, opening: Opening, build: Build[T], how: How = USUAL) -> T:
        """One change outside of a turn: hold, append and release in one commit."""
        await self.enter()
        try:
            return await self.commit(opening, build, how)
        finally:
            self.gate.leave()

    async def commit(self, opening: Opening, build: Build[T], how: How = USUAL) -> T:
        """Draft and commit until nobody was faster; the gate is ours."""
        for _ in range(MAX_RACES):
            writes = tuple(self.pending)
            try:
                draft = await self.draft(opening, how)
            except ApprovalPending as error:
                self.refuse_writes(writes, error)
                raise
            except SessionBusy:
                raise
            except AgentError as error:
                self.refuse_writes(writes, error)
                raise
            if draft.row.open_turn is not None and draft.turn is None:
                await self._recover(draft)
                continue
            if draft.turn is None:
                await self.draft_writes(draft)
            result = await build(draft)
            await self.trim(draft)
            if not draft.records or await self.made(draft):
                return result
        raise self.outrun()

    def outrun(self) -> SessionBusy:
        """What is told to whom others were always faster."""
        return SessionBusy(
            f"others were faster {MAX_RACES} times in writing to session {self.id!r}",
            session_id=self.id,
        )

    async def made(self, draft: Draft) -> bool:
        """Commit a draft; False when somebody was faster. What went wrong is raised."""
        writes = tuple(draft.writes)
        try:
            self.known = await self.host.store.commit(draft.change())
        except (StaleWriter, SessionExists, VersionConflict):
            self.known = None
            return False
        except BaseException as error:
            self.known = None
            if isinstance(error, Exception):
                self.refuse_writes(writes, error)
            raise
        self.settle_writes(writes)
        self.observe(draft)
        return True

    def observe(self, draft: Draft) -> None:
        """Tell the observers of a change that was committed."""
        for observer in self.observers:
            observer(draft)

    async def _recover(self, draft: Draft) -> None:
        """Close what a dead process left open, in a commit of its own."""
        await self.trim(draft)
        await self.made(draft)

    async def draft_writes(self, draft: Draft) -> None:
        """Draft the state that is queued; what another user queued is refused."""
        for write in tuple(self.pending):
            if write.said_by is not None and draft.row.user not in (None, write.said_by):
                self.refuse_writes((write,), self.denied())
                continue
            await write.draft(draft, self.host.store)
            draft.writes.append(write)

    def enqueue(self, write: StateWrite, user: str | None, opening: Opening) -> None:
        """Queue a state write; everybody in this process sees it from here on."""
        self.pending.append(write)
        self.opening = opening
        self.host.dirty.add(self)
        if write.scope != "session":
            self.host.unwritten[write.scope, self.app, user, write.key] = write
        write.user = user
        write.said_by = opening.user

    def pending_everywhere(self, scope: str, user: str | None) -> list[StateWrite]:
        """The newest write of each key of a shared scope that this process is yet to make."""
        owner = user if scope == "user" else None
        return [
            write
            for (of, app, whose, _), write in list(self.host.unwritten.items())
            if (of, app, whose) == (scope, self.app, owner)
        ]

    async def flush(self) -> None:
        """Write the state that is queued."""
        if not self.pending:
            return

        await self.append(self.opening, nothing)

    def settle_writes(self, writes: Iterable[StateWrite]) -> None:
        """These state writes are durable: take them out of the queue and tell who waits."""
        for write in writes:
            self._dequeue(write)
            write.outcome.set_result(None)

    def refuse_writes(self, writes: Iterable[StateWrite], error: Exception) -> None:
        """These state writes cannot be: take them out of the queue and tell who waits."""
        for write in writes:
            self._dequeue(write)
            write.outcome.set_error(error)

    def _dequeue(self, write: StateWrite) -> None:
        with contextlib.suppress(ValueError):
            self.pending.remove(write)
        place = (write.scope, self.app, write.user, write.key)
        if self.host.unwritten.get(place) is write:
            del self.host.unwritten[place]
        if not self.pending:
            self.host.dirty.discard(self)

    async def draft(self, opening: Opening, how: How = USUAL) -> Draft:
        """A draft on the row as it is, with what must happen first: creation, recovery."""
        host = self.host
        row = self.known
        if row is None or row.open_turn is not None:
            row = await self.free_row(how)
        if row is None:
            return creation(host, self.unborn(opening), opening)
        self.check_access(row, opening)
        if row.status == "moved" and not how.moved:
            raise await moved_away(host.store, row)
        if row.status == "ended" and not how.ended:
            raise SessionEnded(
                f"session {self.id!r} was ended; await session.reopen() to go on",
                session_id=self.id,
            )
        if row.suspended and how.suspended == "refuse":
            raise self.suspended(row)
        if row.open_turn is not None and how.suspended == "keep":
            return self.draft_on(row, row.open_turn)
        group = await self._group(row) if row.open_calls and row.open_turn is None else None
        draft = Draft(row, now=host.clock.now(), salt=host.ids.salt, group=group)
        if row.open_turn is not None:
            await close_abandoned(host.store, draft)
        merge(draft, opening)
        return draft

    def draft_on(self, row: SessionRow, turn: int | None = None) -> Draft:
        """A draft on a row as it is, with nothing in it yet."""
        return Draft(row, now=self.host.clock.now(), salt=self.host.ids.salt, turn=turn)

    async def settled_row(self) -> SessionRow | None:
        """The row after all that this process had submitted when it was asked for."""
        self.known = None
        await self.host.store.drop_inputs(())
        return await self.row()

    def suspended(self, row: SessionRow) -> ApprovalPending:
        """What is told to whom wants to go on while a turn waits for an approval."""
        calls = ", ".join(row.open_calls)
        return ApprovalPending(
            f"turn {row.open_turn} of session {self.id!r} waits for a person ({calls}): approve(…) "
            "or reject(…) what session.pending lists, then resume(); or run with busy='interrupt'",
            session_id=self.id,
        )

    async def free_row(self, how: How) -> SessionRow | None:
        """The row, once no living worker holds it, or once it may be seized. Raises TurnTimeout."""
        store, now = self.host.store, self.host.clock.monotonic
        start, told = now(), False
        while True:
            row = await self.row()
            if row is None or row.holder is None or row.holder == store.worker:
                return row
            if not await store.worker_is_alive(row.holder):
                return row
            if how.held is not None and not told:
                await how.held(row)
            told = True
            waited = now() - start
            if how.seize_after is not None and waited >= how.seize_after:
                return row
            left = (how.timeout if how.seize_after is None else how.seize_after) - waited
            if left <= 0:
                raise TurnTimeout(
                    f"session {self.id!r} is held by another process that lives; "
                    f"`tertulia unlock {self.id}` takes it away from it",
                    session_id=self.id,
                )
            await self._bell(row.key, min(left, _POLL))

    async def _bell(self, key: int, seconds: float) -> None:
        rung: Outcome[None] = Outcome()
        forget = self.host.store.watch(key, lambda: rung.set_result(None))
        try:
            await rung.within(seconds)
        finally:
            forget()

    def unborn(self, opening: Opening) -> SessionRow:
        """The row that would be created for a caller."""
        return unborn(self.host, self.app, self.id, opening)

    async def _group(self, row: SessionRow) -> int | None:
        newest = await self.host.store.messages([Segment(row.key, row.base, row.seq)], 1)
        return newest[-1].turn if newest else None

    # -- retention

    async def trim(self, draft: Draft) -> None:
        """Keep what retention says while appending: when it is due, and `max_messages`."""
        details: Details = draft.after.get("details", draft.row.details)
        if details.retention is None:
            return
        policy = retention.parse(details.retention)
        if policy is None:
            return
        running = draft.after.get("open_turn", draft.row.open_turn) is not None
        held = policy.legal_hold or details.hold is not None
        if policy.auto_prune and policy.max_messages is not None and not running and not held:
            await trim(self.host.store, draft, policy)
        ended = draft.after.get("status", draft.row.status) == "ended"
        active = draft.row.active if draft.quiet else draft.now
        due = retention.due_at(policy, active, ended=ended, visible=draft.visible)
        marks = draft.after.get("marks", draft.row.marks)
        if policy.auto_prune and marks & (FLOORS | HOLES):
            due = min(due or _NEVER, _hidden_due(draft))
        if policy.auto_prune and policy.summarizes and marks & UNSUMMARIZED:
            due = draft.now
        draft.after["due_at"] = due

    # -- the inbox

    async def receive(self, messages: Sequence[Message]) -> Input | None:
        """Write an input that has to wait into the inbox, if the session exists already."""
        row = self.known or await self.row()
        if row is None:
            return None
        store = self.host.store
        entry = Input(
            session=row.key,
            worker=store.worker,
            kind="input",
            time=self.host.clock.now(),
            body=encode(messages, "the input"),
        )
        try:
            return await store.put_input(entry)
        except BaseException:
            await self._take_back(entry)
            raise

    async def ask_to_stop(self, row: SessionRow) -> None:
        """Ask the process that holds the session to let go of it."""
        store = self.host.store
        now = self.host.clock.now()
        await store.put_input(
            Input(session=row.key, worker=store.worker, kind="interrupt", time=now, body=b"{}")
        )

    async def _take_back(self, entry: Input) -> None:
        """Withdraw an input whose waiter was cancelled while it was being written."""
        store = self.host.store
        await store.drop_inputs(())  # whatever was submitted before is carried out then
        mine = [
            found.id
            for found in await store.inputs(entry.session)
            if (found.worker, found.time, found.body) == (entry.worker, entry.time, entry.body)
            and found.id not in self.waiting
        ]
        await store.drop_inputs(mine)


async def nothing(draft: Draft) -> None:
    """Draft nothing but what is queued."""


def _hidden_due(draft: Draft) -> int:
    """When a sweep should look for bodies that have been hidden for long enough to be erased."""
    known = draft.row.due_at
    if known is not None and draft.now < known <= draft.now + HIDDEN_GRACE:
        return known
    return draft.now + HIDDEN_GRACE
