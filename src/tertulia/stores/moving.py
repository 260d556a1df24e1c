"""The promise of a store whose rows can be carried to another store as they are.

What is carried is the same in every store: tuples of numbers, texts and bytes, in which sessions
are named by their uid, because each store numbers them anew. What a move has to remember, so that
it goes on after it was killed, are rows of entities of its own kinds, in both stores.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any, NamedTuple, Protocol, runtime_checkable

import msgspec

from tertulia.errors import SessionExists, SessionMoved, StoreCorrupt
from tertulia.stores.base import LogStore, Receipt, SessionRow
from tertulia.stores.memories import MemoryRow, MemoryScope

MOVED = "tertulia.moved"
"""In the store that is moved from: what became of each session and value."""
MOVING = "tertulia.moving"
"""In the store that is moved from: who moves it. In the other one: which receipts it has."""
ARRIVING = "tertulia.arriving"
"""In the store that is moved to: sessions that are not whole yet, which nobody sees."""
ARRIVED = "tertulia.arrived"
"""In the store that is moved to: what arrived since the other store was told."""
OWN_KINDS = (MOVED, MOVING, ARRIVING, ARRIVED)
DUTIES = "tertulia.duty"
"""How kinds of entities begin that are of the workers of one store, and stay there."""

OF_SESSION = ("branches", "marks", "session_state", "requests", "inbox", "events")
"""The tables of a session, in the order in which they are carried."""
OF_STORE = ("shared_state", "entities", "documents", "memory_owners", "memories")
"""The tables of a store beside its sessions."""
KEYS = {"shared_state": 4, "entities": 2, "documents": 1, "memory_owners": 2, "memories": 3}
"""How many values at the beginning of a row of these say which one it is."""
PAGE_ROWS = 1_000
PAGE_BYTES = 4 << 20

Values = tuple[Any, ...]


class Row(NamedTuple):
    """A row of a table, and its place in the order in which the table is read."""

    place: Values
    values: Values


class SessionValues(NamedTuple):
    """The row of a session as it is carried; `parent` is a uid, empty where that is unknown."""

    uid: bytes
    app: str | None
    id: str
    user: str | None
    base: int
    parent: bytes | None
    branch: int
    seq: int
    digest: bytes
    epoch: int
    holder: bytes | None
    open_turn: int | None
    open_calls: str | None
    visible: int
    marks: int
    requests: int
    input_tokens: int
    output_tokens: int
    status: str
    created: int
    active: int
    due_at: int | None
    details: str | None

    @property
    def fence(self) -> Values:
        """What must still hold when it is fenced."""
        return (self.seq, self.digest, self.epoch, self.holder)

    @property
    def reservation(self) -> Values:
        """What is written of it before it is seen, in the order of `reserve`."""
        born = (self.uid, self.app, self.base, self.parent, self.branch, self.seq, self.digest)
        return (*born, self.epoch, self.marks, self.created, self.active)

    @property
    def seen(self) -> Values:
        """What is written when it is to be seen, in the order of `finish`."""
        head = self[self._fields.index("branch") : self._fields.index("created")]
        return (self.id, self.user, *head, self.active, self.due_at)


class Arrival(NamedTuple):
    """Names of the notes of a session in the store that it is moved to."""

    source: str
    """The incarnation of the store that it comes from."""
    uid: bytes

    @property
    def name(self) -> str:
        """The key of its note."""
        return f"{self.source}:session:{self.uid.hex()}"


class Reserved(NamedTuple):
    """A session that is arriving: its key here, and the newest of its events that is here."""

    key: int
    seq: int


class Swap(NamedTuple):
    """A row to be written where the stored one is still `old` (None: there is none)."""

    old: Values | None
    new: Values


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """Where a session was moved to, and what its row said before it was fenced."""

    to: str
    """The address of the store, without secrets."""
    store: str
    """The incarnation of the store."""
    status: str
    epoch: int
    holder: bytes | None
    due_at: int | None
    done: bool = False
    """Whether it has arrived."""


class Chained(NamedTuple):
    """A receipt with its digest and the one before it."""

    receipt: Receipt
    previous: bytes
    digest: bytes


Part = tuple[str, Sequence[Row]]
"""Rows of one of the tables of a session."""


class MovingRows(Protocol):
    """What a move reads and writes. Every call that writes may be repeated without harm."""

    # -- reading

    async def page(self, table: str, of: int = 0, after: Values | None = None) -> list[Row]:
        """Rows of a table after a place, at most PAGE_ROWS, and of about PAGE_BYTES.

        `of` is the key of the session whose rows they are.
        """
        ...

    async def sessions(self, after: int = 0) -> list[Row]:
        """Sessions with a key (their place) after one, in that order, without deleted ones."""
        ...

    async def session(self, uid: bytes) -> Row | None:
        """The row of a session, also of a deleted one."""
        ...

    async def found(self, table: str, keys: Sequence[Values]) -> list[Values | None]:
        """The rows of a table of the store under some keys."""
        ...

    async def notes(self, kind: str, after: str = "") -> list[tuple[str, bytes]]:
        """Notes of a kind whose key is after one, in that order, at most PAGE_ROWS."""
        ...

    async def note(self, kind: str, key: str) -> bytes | None:
        """One note."""
        ...

    async def receipts(self, after: int) -> list[Chained]:
        """Receipts with an id after one."""
        ...

    # -- the store that is moved from

    async def fence(self, key: int, fence: Values, name: str, note: bytes) -> bool:
        """Mark a session as moved and note where to; False where the fence does not hold."""
        ...

    async def unfence(self, key: int, name: str, note: Note) -> None:
        """Take the mark back, with the note."""
        ...

    async def write_notes(
        self, kind: str, put: Sequence[tuple[str, bytes]], drop: Sequence[str] = ()
    ) -> None:
        """Write some notes of a kind and forget others, all or none."""
        ...

    # -- the store that is moved to

    async def arrive(
        self, arrival: Arrival, values: SessionValues, parts: Sequence[Part]
    ) -> Reserved:
        """Begin with a session, or go on with it: its events stay, its other rows come again.

        Raises SessionExists where it is there already.
        """
        ...

    async def add(self, key: int, arrival: Arrival, parts: Sequence[Part]) -> None:
        """Write more rows of a session that is arriving."""
        ...

    async def finish(self, key: int, arrival: Arrival, values: SessionValues) -> None:
        """Let a session be seen that is whole, and note that it has arrived.

        Raises SessionExists for an id that is taken, and StoreCorrupt where its row is not what
        was to be written; then nothing was.
        """
        ...

    async def discard(self, arrival: Arrival) -> bool:
        """Remove what there is of a session that is not whole; False where it is seen already."""
        ...

    async def swap(self, table: str, rows: Sequence[Swap], source: str) -> list[bool]:
        """Write some rows of the store and note each that is written, or was already."""
        ...

    async def add_receipts(
        self, receipts: Sequence[Chained], source: str, *, verbatim: bool
    ) -> None:
        """Append receipts, with `verbatim` as they are where they go on from the newest one.

        All others get an id and a digest of this store, and say in their body what they were.
        """
        ...


@runtime_checkable
class Movable(Protocol):
    """A store whose rows can be carried to another one."""

    @property
    def moving(self) -> MovingRows:
        """What a move reads and writes."""
        ...


def session_name(uid: bytes) -> str:
    """The key of the note of a session in the store that it was moved from."""
    return f"session:{uid.hex()}"


def item_name(table: str, key: Values) -> str:
    """The name of a row of the store in notes, which does not tell whose it is."""
    return f"item:{sha256(msgspec.msgpack.encode((table, *key))).hexdigest()}"


def item_digest(values: Values) -> bytes:
    """What is noted of a row of the store."""
    return sha256(msgspec.msgpack.encode(values)).digest()


def noted_receipt(chained: Chained) -> Receipt:
    """A receipt of another store as one of this store, which is not carried out again by restore.

    What it says was done was done there, before anything came here.
    """
    receipt = chained.receipt
    body = {
        "moved": {
            "id": receipt.id,
            "digest": chained.digest.hex(),
            "body": receipt.body.decode("utf-8", "replace"),
        }
    }
    return msgspec.structs.replace(receipt, body=msgspec.json.encode(body))


def there(values: SessionValues) -> SessionExists:
    """What is told where a session with its uid was there before."""
    return SessionExists(
        f"session {values.id!r} is in the other store already, and did not come from here",
        session_id=values.id,
    )


def taken(row: SessionValues) -> SessionExists:
    """What is told where an id is another session's."""
    return SessionExists(
        f"the other store has a session {row.id!r} that is another one", session_id=row.id
    )


def changed(row: SessionValues) -> StoreCorrupt:
    """What is told where a row was not written as it is."""
    return StoreCorrupt(f"the row of session {row.id!r} cannot be kept as it is; it was not moved")


def memory_of(values: Values) -> tuple[MemoryScope, MemoryRow]:
    """A memory as it is carried, as a store takes it."""
    app, user, key, content, metadata, created, updated, session, embedder, vector, sources = values
    memory = MemoryRow(
        key=key,
        content=content,
        metadata=metadata,
        created=created,
        updated=updated,
        session=session,
        embedder=embedder,
        vector=vector,
        sources=sources,
    )
    return MemoryScope(app, user), memory


async def moved_away(store: LogStore, row: SessionRow) -> SessionMoved:
    """What is told to whom wants to go on with a session that was moved."""
    found = await store.entity(MOVED, session_name(row.uid))
    to = "another store"
    if found is not None and found.value is not None:
        to = msgspec.json.decode(found.value, type=Note).to
    return SessionMoved(
        f"session {row.id!r} was moved to {to}; open it there: here it can be read, exported and "
        "deleted, and nothing else",
        session_id=row.id,
    )
