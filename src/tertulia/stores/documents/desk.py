"""The sessions that are in use, in memory, beside the documents that they came from."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import msgspec

from tertulia.errors import ConfigurationError, StaleWriter
from tertulia.stores import engine, queries
from tertulia.stores.base import Input, SessionRow
from tertulia.stores.database import Database
from tertulia.stores.documents import names, saved
from tertulia.stores.documents.adoption import adopt
from tertulia.stores.documents.saved import NOTHING, OURS, SQL, Saved, Stamp, part, stamp
from tertulia.stores.documents.shelf import Document, Shelf

T = TypeVar("T")
P = ParamSpec("P")


class Run(Protocol):
    """Runs a function on the database in memory, alone."""

    def __call__(
        self, run: Callable[Concatenate[Database, P], T], *args: P.args, **kw: P.kwargs
    ) -> T: ...


class Desk:
    """Brings sessions from their documents into a database in memory and back.

    Of a session that is put away its row stays, which keeps its key. `unsaved` has those whose
    turn is open: they are ahead of their documents. Only one thread calls; the database is
    never held while a document is loaded or saved.
    """

    def __init__(self, shelf: Shelf, worker: bytes, run: Run, keep: int) -> None:
        self._shelf = shelf
        self._worker = worker
        self._run = run
        self._keep = keep
        self._stamps: dict[int, Stamp] = {}
        self.open: OrderedDict[int, None] = OrderedDict()
        self.unsaved: set[int] = set()

    def refresh(self, app: str | None, session_id: str) -> None:
        """Bring a session to what its document says, unless its turn is open here."""
        row = self._run(queries.find, app, session_id)
        if row is not None and row.key in self.unsaved:
            return
        data = self.load(app, session_id)
        if data is None:
            if row is not None:
                self._run(_forget, row)
                self.unlist(row.key)
        elif row is not None and self._is_same(row, data):
            self.open.move_to_end(row.key)
        else:
            self._bring(data, app, session_id, row)

    def present(self, key: int) -> None:
        """Have a session open that is known already."""
        if key in self.open:
            self.open.move_to_end(key)
            return
        row = self._run(queries.session, key)
        if row is not None and row.status != "deleted":
            self.refresh(row.app, row.id)

    def present_line(self, key: int | None) -> None:
        """Have a session open with all that it forked off."""
        while key is not None:
            self.present(key)
            row = self._run(queries.session, key)
            key = None if row is None else row.parent

    def discover(self) -> None:
        """Get to know every document that is there, and no other."""
        known = {
            names.of_session(app or None, name): key
            for key, app, name in self._run(_known)
            if key not in self.unsaved
        }
        found = self._shelf.names()
        for name in found:
            if name not in known:
                data = self._shelf.load(name)
                if data is not None:
                    self._meet(name, data)
        for name in known.keys() - set(found):
            row = self._run(queries.session, known[name])
            if row is not None:
                self.refresh(row.app, row.id)

    def load(self, app: str | None, session_id: str) -> Document | None:
        """The document of a session, also where it was saved by hand under its bare id."""
        name = names.of_session(app, session_id)
        data = self._shelf.load(name)
        if data is None and name != session_id and names.is_session(session_id):
            data = self._shelf.load(session_id)
        if data is not None and data.get("app_name") != app:
            return None
        return data

    def dump(self, db: Database, row: SessionRow) -> Document:
        """The document of a session as it is in memory, to be saved."""
        revision = self._stamps.get(row.key, NOTHING).revision + 1
        return saved.dump(db, row, self._worker, revision)

    def save(self, row: SessionRow, data: Document) -> None:
        """Save a session's document. Raises StaleWriter where somebody else did."""
        name = names.of_session(row.app, row.id)
        found = self._shelf.load(name)
        if found is not None:
            self._check_app(name, row, found)
            self._is_by_hand(row, found)
        try:
            expected = self._stamps.get(row.key, NOTHING)
            self._stamps[row.key] = self._shelf.save(name, data, expected)
        except StaleWriter as error:
            raise StaleWriter(
                f"session {row.id!r} was saved by another process; nothing was written: read it "
                "again",
                session_id=row.id,
            ) from error

    def save_inbox(self, row: SessionRow, inbox: list[Input]) -> None:
        """Save the inbox of a session alone, if the session was saved before."""
        data = self.load(row.app, row.id)
        if data is None or OURS not in data:
            return
        ours = {**data[OURS], "inbox": msgspec.to_builtins(inbox)}
        revision = self._stamps.get(row.key, NOTHING).revision + 1
        self.save(row, {**data, "revision": revision, OURS: ours})

    def keep(self, key: int, *, ahead: bool = False) -> None:
        """A session is open, and as its document is or ahead of it."""
        self.open[key] = None
        self.open.move_to_end(key)
        (self.unsaved.add if ahead else self.unsaved.discard)(key)

    def drop(self, key: int) -> None:
        """Forget what memory has of a session, so that its document is read again."""
        self._run(_put_away, key, b"")
        self.unlist(key)

    def tidy(self, used: Collection[int]) -> None:
        """Put away the sessions that were not used for longest, but none of `used`."""
        for key in list(self.open) if len(self.open) > self._keep else ():
            if len(self.open) <= self._keep:
                return
            busy = key in self.unsaved or key in used
            if not busy and not self._run(_waits, key, self._worker):
                self._run(_put_away, key, self._worker)
                del self.open[key]

    def unlist(self, key: int) -> None:
        """A session is gone."""
        self.open.pop(key, None)
        self.unsaved.discard(key)
        self._stamps.pop(key, None)

    # -- inside

    def _is_same(self, row: SessionRow, data: Document) -> bool:
        if row.key not in self.open:
            return False
        return self._stamps.get(row.key) == stamp(data) or self._is_by_hand(row, data)

    def _is_by_hand(self, row: SessionRow, data: Document) -> bool:
        """Whether somebody saved what `to_dict` gave of this very log; then we know better."""
        head = part(data, "head")
        if OURS in data or row.key not in self.open or head.get("uid") != row.uid.hex():
            return False
        found = self._run(_digest, row.key, head.get("seq"))
        if found is None or found.hex() != head.get("digest"):
            return False
        self._stamps[row.key] = stamp(data)
        return True

    def _check_app(self, name: str, row: SessionRow, data: Document) -> None:
        if data.get("app_name") != row.app:
            raise ConfigurationError(
                f"document {name!r} was saved by hand and holds a session of app "
                f"{data.get('app_name')!r}; open it with that app_name, or use another id"
            )

    def _meet(self, name: str, data: Document) -> None:
        """Get to know a session by its document."""
        app, session_id = data.get("app_name"), data.get("session_id") or name
        if self._run(queries.find, app, session_id) is None:
            self._bring(data, app, session_id, None)

    def _bring(
        self, data: Document, app: str | None, session_id: str, row: SessionRow | None
    ) -> None:
        name = names.of_session(app, session_id)
        found = saved.parse(data, name) if OURS in data else adopt(name, data, app, session_id)
        keys = self._lineage(found)
        key = self._run(_insert, found, keys, row, self._worker)
        if row is not None and row.key != key:
            self.unlist(row.key)
        self._stamps[key] = stamp(data)
        self.keep(key)

    def _lineage(self, found: Saved) -> dict[int, int]:
        """The keys here of what a session forked off, by their keys there."""
        keys: dict[int, int] = {}
        for ancestor in reversed(found.lineage):
            key = self._run(_key_of, ancestor.uid)
            if key is None and ancestor.status != "deleted":
                self.refresh(ancestor.app, ancestor.id)
                key = self._run(_key_of, ancestor.uid)
            if key is None:
                key = self._run(saved.insert_stub, ancestor, saved.there(keys, ancestor.parent))
            keys[ancestor.key] = key
        return keys


def _insert(
    db: Database, found: Saved, keys: Mapping[int, int], row: SessionRow | None, worker: bytes
) -> int:
    if row is not None and row.uid != found.row.uid:
        _forget(db, row)
    key = saved.insert(db, found, keys, _key_of(db, found.row.uid), worker)
    for entry in found.inbox:
        if entry.worker != worker:
            engine.put_input(db, msgspec.structs.replace(entry, session=key))
    return key


def _forget(db: Database, row: SessionRow) -> None:
    """Forget a session that is gone; its row stays where others stand on it."""
    _put_away(db, row.key, b"")
    if queries.children(db, row.key):
        db.execute(SQL["make_stub"], (row.key,))
    else:
        db.execute(SQL["forget"], {"key": row.key})


def _put_away(db: Database, key: int, worker: bytes) -> None:
    """Drop what a session has in memory, but for its row and the inputs of a worker."""
    db.execute(SQL["unload"], {"key": key, "worker": worker})


def _waits(db: Database, key: int, worker: bytes) -> bool:
    return bool(db.execute(SQL["waits_here"], (key, worker)).fetchall()[0][0])


def _digest(db: Database, key: int, seq: Any) -> bytes | None:
    for (digest,) in db.execute(SQL["digest"], (key, seq)).fetchall():
        return bytes(digest)
    return None


def _known(db: Database) -> list[Any]:
    return db.execute(SQL["known"]).fetchall()


def _key_of(db: Database, uid: bytes) -> int | None:
    for (key,) in db.execute(SQL["key_of"], (uid,)).fetchall():
        return int(key)
    return None
