"""The promise that every store keeps: logs with one writer, and state beside them.

A store applies a `Change` whole or not at all, and only where the session's row is still what
the writer believed it to be (its fence). It decides nothing else: what a turn is, what is
visible and what is due is decided above, by pure rules, from what a store reads.

How a session's events are addressed. A session has a base (0, or the position where it
forked off its parent) and its own events from base + 1 on. Its view is a chain of segments,
newest first: the *branch* it is on, and what that branch stands on. A new session has one
branch at its base; a fork's branch stands on its parent's at the fork's point; a rewind begins a
new branch of the same session that stands on the older one at the position gone back to. So
neither copies or hides anything. `Mark` rows hide stretches within a chain.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, Protocol

import msgspec

from tertulia.events import Record
from tertulia.history import Segment
from tertulia.usage import Usage

__all__ = [
    "Branch",
    "Change",
    "Details",
    "Input",
    "Level",
    "LogStore",
    "Mark",
    "MarkKind",
    "Receipt",
    "Request",
    "Segment",
    "SessionRow",
    "SessionStore",
    "SharedScope",
    "SharedValue",
    "SharedWrite",
    "StoreStats",
]

Level = Literal["log", "memory", "document"]
"""What a store keeps: all promises; all but durability; or one process and whole documents."""

MarkKind = Literal["floor", "cut", "hole"]
SharedScope = Literal["user", "app"]


class Details(msgspec.Struct, frozen=True, omit_defaults=True):
    """What belongs to a session but not to its log's head; rarely written, erasable."""

    metadata: dict[str, Any] = {}
    retention: dict[str, Any] | None = None
    system: str | None = None
    agent: str | None = None
    """The agent that has the floor."""
    hold: str | None = None
    """The reason of a legal hold, while there is one."""


class SessionRow(msgspec.Struct, frozen=True, kw_only=True):
    """Where a session stands. `seq`, `digest`, `holder` and `epoch` are the fence of its writer."""

    key: int
    """The store's own handle (0 before it is created); never shown, never in a digest."""
    uid: bytes
    app: str | None
    id: str
    user: str | None
    base: int = 0
    """The position it forked off at, 0 for a session of its own; its first event is base + 1."""
    parent: int | None = None
    """The key of the session it forked off."""
    branch: int = 0
    """The `low` of the branch it is on."""
    seq: int
    """The position of its newest event, or its base."""
    digest: bytes
    """The digest of that event."""
    epoch: int = 0
    """Raised by one with every hold that is taken."""
    holder: bytes | None = None
    """The worker whose turn is open, None between turns."""
    open_turn: int | None = None
    """The `seq` of the event that opened the running turn."""
    open_calls: tuple[str, ...] = ()
    """Tool calls at the end of the log that have no result yet."""
    visible: int = 0
    """How many messages the current view has; -1 when it must be counted."""
    marks: int = 0
    """1 when floors, 2 when cuts, 4 when holes exist in its chain, added up: what to look for."""
    usage: Usage = Usage()
    """What the model requests of its own events consumed; not those of a parent."""
    status: Literal["open", "ended", "moved", "deleted"] = "open"
    """`moved`: it goes on in another store, and can only be read here."""
    created: int
    active: int
    """Time of the last activity, in microseconds."""
    due_at: int | None = None
    """When retention has something to do here, in microseconds; None for never."""
    details: Details = Details()

    @property
    def suspended(self) -> bool:
        """Whether its turn waits for an approval: it is open, and nobody holds it."""
        return self.open_turn is not None and self.holder is None


class Branch(msgspec.Struct, frozen=True, gc=False):
    """The branch of `session` that begins after `low`, and what it stands on."""

    session: int
    low: int
    parent_session: int | None = None
    parent_low: int | None = None
    parent_high: int | None = None


class Mark(msgspec.Struct, frozen=True, gc=False):
    """The messages with low < seq <= high are not shown by the views that reach `at`.

    A *floor* hides everything up to `high` (prune, clear); the newest one of a chain counts. A
    *cut* is a turn that failed, inside the segment it was made in; cuts never overlap. A *hole*
    is a stretch anywhere below (keep_important).
    """

    kind: MarkKind
    low: int
    high: int
    at: int


class SharedValue(msgspec.Struct, frozen=True, gc=False):
    """A value of user or app scope with the version of its key, 1 for the first; or of an entity.

    `value` is JSON; None means deleted.
    """

    value: bytes | None
    version: int


class SharedWrite(msgspec.Struct, frozen=True, kw_only=True):
    """A write of one key of user or app state; refused if `expect` is not the stored version."""

    scope: SharedScope
    app: str | None
    user: str | None
    """The user whose state it is, None for app scope."""
    key: str
    value: bytes | None
    expect: int | None = None


class Input(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody wants of a session while another holds it: a row of its inbox."""

    id: int = 0
    """Given by the store; the order of the inbox."""
    session: int
    worker: bytes
    """The worker that waits for it."""
    kind: str
    """`input`, `interrupt` or `state`."""
    time: int
    body: bytes


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """The idempotency record of a turn."""

    key: str
    digest: bytes
    """SHA-256 of the request, to tell a repetition from a conflict."""
    turn: int
    status: Literal["running", "done", "failed"]
    result: bytes | None
    time: int


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the store's own audit log: what was erased, deleted or restored, and when."""

    id: int = 0
    time: int
    type: str
    body: bytes


class Change(msgspec.Struct, kw_only=True):
    """What one writer wants to happen to one session, all of it or nothing.

    It applies only if the stored row still has the `seq`, `digest`, `holder` and `epoch` of
    `before`; with `create` only if no session has that app and id yet.
    """

    before: SessionRow
    after: SessionRow
    records: Sequence[Record] = ()
    create: bool = False
    branch: Branch | None = None
    """A branch that begins here; `session` 0 means the session being created."""
    marks: Sequence[Mark] = ()
    extend_cut: tuple[int, int] | None = None
    """(old high, new high): the newest cut grows, because no message lies between."""
    state: Sequence[tuple[str, int]] = ()
    """Keys of session state and the `seq` of the event that set or deleted them."""
    shared: Sequence[SharedWrite] = ()
    take: Sequence[int] = ()
    """Inbox rows that this change moves into the log."""
    request: Request | None = None


class StoreStats(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of what a store has done since it was opened."""

    commits: int
    """Transactions that were committed."""
    changes: int
    """Changes in them."""
    refused: int
    """Changes whose fence did not hold."""
    queue_depth: int
    batch_size_max: int
    commit_seconds_p50: float
    commit_seconds_p99: float
    wal_bytes: int


class LogStore(Protocol):
    """Append-only logs with state beside them.

    Order is total inside a session and undefined between sessions. Reads see what was committed
    before they began; a read that needs more than one call is not a snapshot: check the row
    again where that matters. All methods may be called from any thread and any event loop. Every
    method raises StoreClosed after `close`, and StoreCorrupt where what is read cannot be what
    was written.
    """

    @property
    def level(self) -> Level:
        """What this store keeps."""
        ...

    @property
    def url(self) -> str:
        """How `open_store` finds it again; without secrets."""
        ...

    @property
    def worker(self) -> bytes:
        """The uid under which this incarnation of the process holds sessions."""
        ...

    async def incarnation(self) -> str:
        """Changes when the store is created anew or restored; part of every cursor."""
        ...

    # -- writing

    def commit(self, change: Change) -> Awaitable[SessionRow]:
        """Apply a change durably and return the row after it (with the key of a new session).

        The change is submitted by the call; awaiting only waits. Cancelling the wait does not
        cancel the change. Raises StaleWriter when the fence does not hold and SessionExists
        when what is to be created is there; then nothing was written. Raises VersionConflict
        when a shared write expected another version; then nothing was written. Raises
        StoreReadOnly, StoreUnavailable (nothing was written) and OutcomeUnknown (an I/O error
        at commit).
        """
        ...

    # -- reading sessions

    async def find(self, app: str | None, session_id: str) -> SessionRow | None:
        """The row of a session, or None."""
        ...

    async def row(self, key: int) -> SessionRow | None:
        """The row behind a key, also of a deleted session that others stand on."""
        ...

    async def rows(
        self,
        *,
        app: str | None = None,
        user: str | None = None,
        after: int = 0,
        limit: int = 100,
        due_before: int | None = None,
        any_app: bool = True,
    ) -> list[SessionRow]:
        """Sessions in the order of their creation, with key > `after`; without deleted ones.

        `any_app` False restricts to `app` (None is the default app). `due_before` gives those
        whose `due_at` is at or before it.
        """
        ...

    async def children(self, key: int) -> list[SessionRow]:
        """The sessions that forked off this one, deleted ones too."""
        ...

    async def branch_at(self, key: int, position: int) -> Branch | None:
        """The branch of this session that was current at `position`: the newest with low < it."""
        ...

    async def chain(self, session: int, low: int, high: int, limit: int = 64) -> list[Segment]:
        """The segments of a view, newest first, from the branch (session, low) cut at `high`."""
        ...

    async def marks(
        self, segment: Segment, kind: MarkKind, *, below: int, limit: int = 64
    ) -> list[Mark]:
        """Marks made inside a segment (low < at <= high) with mark.high <= `below`.

        Newest `at` first for floors, greatest `high` first for cuts and holes.
        """
        ...

    # -- reading logs

    async def messages(
        self, segments: Sequence[Segment], limit: int | None = None, *, newest: bool = True
    ) -> list[Record]:
        """The `message.added` records of some segments (given newest first), in log order.

        With `limit`, the newest so many (or the oldest, with `newest=False`).
        """
        ...

    async def records(
        self,
        segments: Sequence[Segment],
        limit: int | None = None,
        *,
        newest: bool = False,
        types: Sequence[str] | None = None,
        since_time: int | None = None,
    ) -> list[Record]:
        """The records of some segments (given newest first), in log order, any type.

        With `limit`, the oldest so many (or the newest). `since_time` gives those at or after a
        time in microseconds.
        """
        ...

    async def count_messages(self, segments: Sequence[Segment]) -> int:
        """How many `message.added` records some segments have."""
        ...

    # -- reading state

    async def state(self, segments: Sequence[Segment], key: str) -> Record | None:
        """The newest `state.set` or `state.deleted` record of a key in a chain."""
        ...

    async def state_keys(self, segments: Sequence[Segment]) -> list[tuple[str, int]]:
        """All keys that were ever set in a chain, with the `seq` of their newest record."""
        ...

    async def shared(
        self, scope: SharedScope, app: str | None, user: str | None, key: str
    ) -> SharedValue | None:
        """A value of user or app scope."""
        ...

    async def shared_keys(
        self, scope: SharedScope, app: str | None, user: str | None
    ) -> list[tuple[str, SharedValue]]:
        """The keys of a scope, deleted ones left out, in alphabetical order."""
        ...

    # -- inbox, requests, entities

    async def put_input(self, entry: Input) -> Input:
        """Write an inbox row durably and return it with its id."""
        ...

    async def inputs(self, session: int) -> list[Input]:
        """The inbox of a session, in order."""
        ...

    async def drop_inputs(self, ids: Sequence[int]) -> int:
        """Withdraw inbox rows; returns how many were there."""
        ...

    async def request(self, session: int, key: str) -> Request | None:
        """The idempotency record under a key."""
        ...

    async def drop_requests(self, before: int) -> int:
        """Forget idempotency records made before a time in microseconds."""
        ...

    async def entity(self, kind: str, key: str) -> SharedValue | None:
        """The state of an entity."""
        ...

    async def put_entity(self, kind: str, key: str, value: bytes | None, expect: int) -> int:
        """Save an entity's state where its version is still `expect` (0: none); the new version.

        None deletes it. Raises VersionConflict, and then nothing was written.
        """
        ...

    # -- erasing

    async def erase(self, segments: Sequence[Segment], types: Sequence[str] | None = None) -> int:
        """Erase bodies and salts (keeping the digest of each body); returns how many were there.

        The type `app.*` stands for all types of the application.
        """
        ...

    async def delete_session(self, row: SessionRow, receipt: Receipt | None, *, stub: bool) -> None:
        """Remove a session with its events, state, inbox and requests, and note the receipt.

        With `stub` the row stays, as deleted, for those that forked off it. Without a receipt
        nothing is left of it: for a session that nobody meant to keep. Raises StaleWriter.
        """
        ...

    async def erase_user(self, user: str, receipt: Receipt) -> int:
        """Remove a user's shared state in every app and note the receipt; how many values.

        The user's sessions are deleted one by one before.
        """
        ...

    async def receipts(self) -> list[Receipt]:
        """The store's own audit log, oldest first."""
        ...

    async def add_receipt(self, receipt: Receipt) -> None:
        """Note something in the store's own audit log."""
        ...

    # -- life

    async def worker_is_alive(self, worker: bytes) -> bool:
        """Whether the process of a worker may still hold sessions."""
        ...

    def watch(self, session: int, bell: Callable[[], None]) -> Callable[[], None]:
        """Ring `bell` after commits to a session, by this process or another; returns the undo.

        A bell carries no data, may ring for nothing, and may come from any thread.
        """
        ...

    def stats(self) -> StoreStats:
        """A snapshot of what the store has done."""
        ...

    async def close(self) -> None:
        """Finish what was submitted, and let go of files and threads. Again is no error."""
        ...


class SessionStore(ABC):
    """A store of whole sessions as documents: four methods, on anything that keeps JSON.

    A session can be saved and loaded by hand (``store.save(id, session.to_dict())``), and live
    sessions can be held on it: ``agent.session(store=RedisStore(...))``.
    """

    @abstractmethod
    def save(self, session_id: str, data: dict[str, Any]) -> None:
        """Keep `data` under `session_id`, replacing what was there."""

    @abstractmethod
    def load(self, session_id: str) -> dict[str, Any] | None:
        """What was saved under `session_id`, or None."""

    @abstractmethod
    def delete(self, session_id: str) -> bool:
        """Forget it; True if it was there."""

    @abstractmethod
    def list_sessions(self) -> list[str]:
        """The ids that are kept."""

    def exists(self, session_id: str) -> bool:
        """Whether something is kept under `session_id`."""
        return self.load(session_id) is not None
