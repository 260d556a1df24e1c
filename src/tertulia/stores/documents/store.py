"""Live sessions on any store of four methods: a session is saved whole at the end of a turn."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from inspect import iscoroutinefunction
from typing import Any, Concatenate, ParamSpec, TypeVar

from tertulia.doors import Outcome
from tertulia.errors import AgentError, ConfigurationError, StoreClosed, StoreUnavailable
from tertulia.events import Record
from tertulia.stores import engine, queries
from tertulia.stores.base import (
    Branch,
    Change,
    Input,
    Level,
    Mark,
    MarkKind,
    Receipt,
    Request,
    Segment,
    SessionRow,
    SessionStore,
    SharedScope,
    SharedValue,
)
from tertulia.stores.database import Database
from tertulia.stores.documents import beside, names
from tertulia.stores.documents.beside import Owner
from tertulia.stores.documents.desk import Desk
from tertulia.stores.documents.memories import DocumentMemories
from tertulia.stores.documents.saved import SQL, Stamp, stamp
from tertulia.stores.documents.shelf import Document, Shelf
from tertulia.stores.documents.thread import Thread

T = TypeVar("T")
P = ParamSpec("P")

KEEP = 100
"""Sessions that stay in memory when nobody uses them."""


def _check_blocking(documents: SessionStore) -> None:
    """Raise ConfigurationError where a method is asynchronous: nobody would await it."""
    for name in ("save", "load", "delete", "list_sessions", "save_if"):
        if iscoroutinefunction(getattr(documents, name, None)):
            raise ConfigurationError(
                f"{type(documents).__name__}.{name} is asynchronous; the methods of a "
                "SessionStore are plain ones: they may block, and are called in a thread"
            )


class DocumentStore(DocumentMemories):
    """Holds live sessions on a store of documents; level "document".

    What is in use is in memory. A change that leaves no open turn is acknowledged when the
    session was saved whole; so is a turn, at its end. What another process saved in between is
    seen by looking before saving, and then nothing is written (StaleWriter); it is prevented
    where the documents offer ``save_if(id, data, version) -> bool``. Calls of the documents
    block, so one thread makes them all.
    """

    def __init__(self, documents: SessionStore, *, keep: int = KEEP) -> None:
        _check_blocking(documents)
        super().__init__(keep)
        self.documents = documents
        self._shelf = Shelf(documents)
        self._thread = Thread("tertulia-documents")
        self._desk = Desk(self._shelf, self._worker, self._transact, keep)

    @property
    def level(self) -> Level:
        return "document"

    @property
    def url(self) -> str:
        return f"documents:{type(self.documents).__name__}"

    async def incarnation(self) -> str:
        return "documents"

    # -- writing

    def commit(self, change: Change) -> Awaitable[SessionRow]:
        return self._submit(self._commit_now, change)

    def _commit_now(self, change: Change) -> SessionRow:
        self._prepare(change)
        try:
            if change.after.open_turn is not None:
                row = self._commit_in_turn(change)
            else:
                row = self._commit_whole(change)
        except AgentError:
            self._refused += 1
            raise
        self._changes += 1
        self._desk.keep(row.key, ahead=row.open_turn is not None)
        self._desk.tidy((row.key,))
        self._bells.ring((row.key,))
        return row

    def _prepare(self, change: Change) -> None:
        """Bring the session and its lineage to what others may have saved."""
        row = change.before
        if row.key not in self._desk.unsaved:
            self._desk.refresh(row.app, row.id)
        self._desk.present_line(row.parent)

    def _commit_in_turn(self, change: Change) -> SessionRow:
        """A change that stays in memory; what it writes of shared state is saved at once."""
        stamps = self._load_shared(change)
        _, shared = self._tried(_dumped_shared, change, stamps)
        with self._saved_shared(shared):
            return self._transact(_apply, change)

    def _commit_whole(self, change: Change) -> SessionRow:
        stamps = self._load_shared(change)
        row, (data, shared) = self._tried(self._dumped, change, stamps)
        with self._saved_shared(shared):
            try:
                self._desk.save(row, data)
            except AgentError:
                if not change.create:
                    self._desk.drop(row.key)
                raise
        return self._transact(_apply, change)

    def _tried(
        self,
        look: Callable[[Database, SessionRow, Change, dict[Owner, Stamp]], T],
        change: Change,
        stamps: dict[Owner, Stamp],
    ) -> tuple[SessionRow, T]:
        """What a change would make, with nothing changed yet."""

        def attempt(db: Database) -> tuple[SessionRow, T]:
            row = _apply(db, change)
            return row, look(db, row, change, stamps)

        return self._transact(_undone, attempt)

    def _dumped(
        self, db: Database, row: SessionRow, change: Change, stamps: dict[Owner, Stamp]
    ) -> tuple[Document, list[_Shared]]:
        return self._desk.dump(db, row), _dumped_shared(db, row, change, stamps)

    def _load_shared(self, change: Change) -> dict[Owner, Stamp]:
        """Bring the shared state that a change writes to what is saved."""
        stamps: dict[Owner, Stamp] = {}
        for owner in beside.owners(change):
            stamps[owner] = self._bring_shared(owner)
        return stamps

    def _bring_shared(self, owner: Owner) -> Stamp:
        data = self._shelf.load(names.of_shared(*owner))
        self._transact(beside.put_shared, owner, data)
        return stamp(data)

    @contextmanager
    def _saved_shared(self, shared: Iterable[_Shared]) -> Generator[None]:
        """Save shared state first; take it back when what follows fails."""
        done: list[tuple[str, Document | None, Stamp]] = []
        try:
            for name, data, expected in shared:
                before = self._shelf.load(name)
                done.append((name, before, self._shelf.save(name, data, expected)))
            yield
        except BaseException:
            for name, before, now in done:
                self._take_back(name, before, now)
            raise

    def _take_back(self, name: str, before: Document | None, now: Stamp) -> None:
        if before is None:
            self._shelf.delete(name)
        else:
            self._shelf.save(name, {**before, "revision": now.revision + 1}, now)

    # -- the inbox

    async def put_input(self, entry: Input) -> Input:
        return await self._submit(self._put_input, entry)

    def _put_input(self, entry: Input) -> Input:
        self._desk.present(entry.session)
        made = self._transact(engine.put_input, entry)
        try:
            self._save_inbox(entry.session)
        except AgentError:
            self._transact(engine.drop_inputs, [made.id])
            raise
        self._bells.ring((entry.session,))
        return made

    async def drop_inputs(self, ids: Sequence[int]) -> int:
        return await self._submit(self._drop_inputs, list(ids))

    def _drop_inputs(self, ids: list[int]) -> int:
        touched = self._transact(_waiting, ids)
        dropped = self._transact(engine.drop_inputs, ids)
        for key in touched:
            self._save_inbox(key)
        return dropped

    def _save_inbox(self, key: int) -> None:
        """Save the inbox alone: a running turn is not to be seen."""
        row = self._transact(queries.session, key)
        if row is not None and row.status != "deleted":
            self._desk.save_inbox(row, self._transact(queries.inputs, key))

    # -- reading

    async def find(self, app: str | None, session_id: str) -> SessionRow | None:
        await self._submit(self._desk.refresh, app, session_id)
        return await super().find(app, session_id)

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
        await self._submit(self._discover)
        return await super().rows(
            app=app, user=user, after=after, limit=limit, due_before=due_before, any_app=any_app
        )

    async def children(self, key: int) -> list[SessionRow]:
        await self._submit(self._discover)
        return await super().children(key)

    async def branch_at(self, key: int, position: int) -> Branch | None:
        await self._present((key,))
        return await super().branch_at(key, position)

    async def chain(self, session: int, low: int, high: int, limit: int = 64) -> list[Segment]:
        await self._submit(self._desk.present_line, session)
        return await super().chain(session, low, high, limit)

    async def marks(
        self, segment: Segment, kind: MarkKind, *, below: int, limit: int = 64
    ) -> list[Mark]:
        await self._present((segment.session,))
        return await super().marks(segment, kind, below=below, limit=limit)

    async def messages(
        self, segments: Sequence[Segment], limit: int | None = None, *, newest: bool = True
    ) -> list[Record]:
        await self._present(part.session for part in segments)
        return await super().messages(segments, limit, newest=newest)

    async def records(
        self,
        segments: Sequence[Segment],
        limit: int | None = None,
        *,
        newest: bool = False,
        types: Sequence[str] | None = None,
        since_time: int | None = None,
    ) -> list[Record]:
        await self._present(part.session for part in segments)
        return await super().records(
            segments, limit, newest=newest, types=types, since_time=since_time
        )

    async def count_messages(self, segments: Sequence[Segment]) -> int:
        await self._present(part.session for part in segments)
        return await super().count_messages(segments)

    async def state(self, segments: Sequence[Segment], key: str) -> Record | None:
        await self._present(part.session for part in segments)
        return await super().state(segments, key)

    async def state_keys(self, segments: Sequence[Segment]) -> list[tuple[str, int]]:
        await self._present(part.session for part in segments)
        return await super().state_keys(segments)

    async def inputs(self, session: int) -> list[Input]:
        await self._present((session,))
        return await super().inputs(session)

    async def request(self, session: int, key: str) -> Request | None:
        await self._present((session,))
        return await super().request(session, key)

    # -- what belongs to no single session

    async def shared(
        self, scope: SharedScope, app: str | None, user: str | None, key: str
    ) -> SharedValue | None:
        await self._submit(self._bring_shared, (scope, app, user))
        return await super().shared(scope, app, user, key)

    async def shared_keys(
        self, scope: SharedScope, app: str | None, user: str | None
    ) -> list[tuple[str, SharedValue]]:
        await self._submit(self._bring_shared, (scope, app, user))
        return await super().shared_keys(scope, app, user)

    async def entity(self, kind: str, key: str) -> SharedValue | None:
        return await self._submit(beside.entity, self._shelf, kind, key)

    async def put_entity(self, kind: str, key: str, value: bytes | None, expect: int) -> int:
        return await self._submit(beside.put_entity, self._shelf, kind, key, value, expect)

    async def receipts(self) -> list[Receipt]:
        return await self._submit(beside.receipts, self._shelf)

    async def add_receipt(self, receipt: Receipt) -> None:
        await self._submit(beside.add_receipt, self._shelf, receipt)

    # -- erasing

    async def erase(self, segments: Sequence[Segment], types: Sequence[str] | None = None) -> int:
        await self._present(part.session for part in segments)
        erased = await super().erase(segments, types)
        for segment in segments:
            await self._submit(self._forget_erased, segment)
        for key in {part.session for part in segments}:
            await self._submit(self._save_again, key)
        return erased

    async def delete_session(self, row: SessionRow, receipt: Receipt | None, *, stub: bool) -> None:
        await self._submit(self._delete_session, row, receipt, stub)

    def _delete_session(self, row: SessionRow, receipt: Receipt | None, stub: bool) -> None:
        if row.key not in self._desk.unsaved:
            self._desk.refresh(row.app, row.id)
        self._transact(_undone, engine.delete_session, row, receipt, stub)
        self._forget_session(row)
        self._shelf.delete(names.of_session(row.app, row.id))
        self._transact(engine.delete_session, row, receipt, stub)
        while not self._transact(engine.remove_events, row.key):
            pass
        self._desk.unlist(row.key)
        if receipt is not None:
            beside.add_receipt(self._shelf, receipt)
        self._bells.ring((row.key,))
        for key in self._transact(_descendants, row.key):
            self._save_again(key)

    async def erase_user(self, user: str, receipt: Receipt) -> int:
        return await self._submit(self._erase_user, user, receipt)

    def _erase_user(self, user: str, receipt: Receipt) -> int:
        erased = beside.erase_user(self._shelf, user) + self._forget_user(user)
        beside.add_receipt(self._shelf, receipt)
        return erased

    def _save_again(self, key: int) -> None:
        """Save a session whose rows changed beside its log."""
        self._desk.present_line(key)
        row = self._transact(queries.session, key)
        if row is not None and row.status != "deleted" and key not in self._desk.unsaved:
            self._desk.save(row, self._transact(self._desk.dump, row))

    # -- documents by hand

    def save(self, session_id: str, data: dict[str, Any]) -> None:
        self.documents.save(session_id, data)

    def load(self, session_id: str) -> dict[str, Any] | None:
        return self.documents.load(session_id)

    def delete(self, session_id: str) -> bool:
        return self.documents.delete(session_id)

    def list_sessions(self) -> list[str]:
        return [name for name in self.documents.list_sessions() if names.is_session(name)]

    # -- life

    async def close(self) -> None:
        try:
            await self._submit(self._save_all)
        except StoreClosed:
            return
        finally:
            self._thread.stop()
            await super().close()

    def _save_all(self) -> None:
        """Save also the sessions whose turn is open; who comes next closes it."""
        problems: list[AgentError] = []
        for key in list(self._desk.unsaved):
            self._desk.present_line(key)
            row = self._transact(queries.session, key)
            try:
                if row is not None:
                    self._desk.save(row, self._transact(self._desk.dump, row))
            except AgentError as problem:
                problems.append(problem)
        if problems:
            raise StoreUnavailable(
                f"{len(problems)} sessions with an open turn could not be saved: {problems[0]}"
            ) from problems[0]

    # -- inside

    def _discover(self) -> None:
        self._desk.discover()
        self._desk.tidy(())

    async def _present(self, keys: Iterable[int]) -> None:
        """Have sessions in memory that are about to be read."""
        wanted = list(keys)
        if any(key not in self._desk.open for key in wanted):
            await self._submit(self._present_now, wanted)

    def _present_now(self, keys: list[int]) -> None:
        for key in keys:
            self._desk.present(key)
        self._desk.tidy(keys)

    def _submit(self, work: Callable[P, T], *args: P.args, **kw: P.kwargs) -> Outcome[T]:
        return self._thread.submit(lambda: work(*args, **kw))


_Shared = tuple[str, Document, Stamp]


def _undone(
    db: Database, run: Callable[Concatenate[Database, P], T], *args: P.args, **kw: P.kwargs
) -> T:
    """What a function gives, with nothing of what it did left."""
    db.execute("SAVEPOINT undone")
    try:
        return run(db, *args, **kw)
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK TO undone")
            db.execute("RELEASE undone")


def _apply(db: Database, change: Change) -> SessionRow:
    row, events = engine.apply(db, change)
    engine.add_events(db, events)
    return row


def _dumped_shared(
    db: Database, row: SessionRow, change: Change, stamps: dict[Owner, Stamp]
) -> list[_Shared]:
    return [
        (
            names.of_shared(*owner),
            beside.shared_document(db, owner, stamps[owner].revision + 1),
            stamps[owner],
        )
        for owner in beside.owners(change)
    ]


def _waiting(db: Database, ids: list[int]) -> list[int]:
    return [int(key) for (key,) in db.execute(SQL["waiting"], (json.dumps(ids),)).fetchall()]


def _descendants(db: Database, key: int) -> list[int]:
    """The sessions that forked off a session, and those that forked off them."""
    found: list[int] = []
    left = [key]
    while left:
        children = [row.key for row in queries.children(db, left.pop())]
        found += children
        left += children
    return found
