"""Moving a store: its values, then its sessions, parents before their forks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from time import monotonic
from typing import NamedTuple

import msgspec

from tertulia.errors import (
    AgentError,
    OutcomeUnknown,
    SessionExists,
    StoreClosed,
    StoreReadOnly,
    StoreUnavailable,
    UsageError,
)
from tertulia.moving.carrying import Carrier, Place
from tertulia.moving.results import Left, Moved, Progress
from tertulia.moving.values import Ends
from tertulia.stores.base import LogStore
from tertulia.stores.moving import (
    ARRIVING,
    MOVED,
    MOVING,
    Arrival,
    Movable,
    MovingRows,
    Note,
    Row,
    SessionValues,
    session_name,
)

WAIT = 60.0
PATIENCE = 5.0
"""Seconds after which a mover that was killed is known to be dead, in every store."""
PAUSE = 0.1
"""Seconds between two looks at sessions whose turn is running."""
AT_ONCE = 8
"""Sessions that are moved at the same time; each has a page or two in memory."""
TELL_AFTER = 100
"""Sessions after which the store that is moved from is told what has arrived."""
FATAL = (StoreUnavailable, StoreReadOnly, StoreClosed, OutcomeUnknown)
"""Errors that no single session is to blame for."""


class Waits(Exception):
    """A session cannot be moved yet; says why."""

    def __init__(self, why: str, *, on_parent: bool = False) -> None:
        super().__init__(why)
        self.on_parent = on_parent
        """Whether it waits for the session that it forked off, and not for itself."""


class Waiting(NamedTuple):
    """A session that waits."""

    values: SessionValues
    waits: Waits
    until: float


async def move(
    source: LogStore,
    target: LogStore | None,
    *,
    app: str | None = None,
    wait: float = WAIT,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Moved:
    """Carry everything a store keeps (or what belongs to one `app`) to another one, as it is.

    Each session is fenced as moved before it is read: from then on it can only be read in the
    source. It is compared and verified before anybody sees it in the target. `wait` is how many
    seconds a session is waited for whose turn is running. A move that was stopped goes on when it
    is called again. With `dry_run` nothing is written, and `target` may be None for a store that
    is not there yet.

    Sessions that could not be moved are in `left`. Raises UsageError for stores that cannot be
    moved, and for one that is being moved; VersionConflict where the target has other shared
    state, entities, documents or memories, before anything is written; and what stores raise.
    """
    ends, stores = await _ends(source, target, app)
    if dry_run:
        return await _foresee(ends[0], None if target is None else stores, app)
    if stores is None or target is None:
        raise UsageError("there is no store to move to; name one")
    mover = Mover((source, target), stores, wait, progress)
    await mover.begin()
    try:
        await mover.run()
    finally:
        await mover.end()
    return mover.moved


async def _ends(
    source: LogStore, target: LogStore | None, app: str | None
) -> tuple[list[MovingRows], Ends | None]:
    rows: list[MovingRows] = []
    for store in (source, target):
        if store is None:
            continue
        if not isinstance(store, Movable):
            raise UsageError(
                f"{store.url} cannot be moved; a move goes between sqlite: and postgresql: stores"
            )
        rows.append(store.moving)
    if target is None:
        return rows, None
    incarnations = (await source.incarnation(), await target.incarnation())
    if incarnations[0] == incarnations[1]:
        raise UsageError(f"{source.url} and {target.url} are one store, or copies of one")
    return rows, Ends((rows[0], rows[1]), incarnations, app)


async def _foresee(rows: MovingRows, ends: Ends | None, app: str | None) -> Moved:
    """What a move would carry, and what it would leave."""
    moved = Moved(dry_run=True)
    if ends is not None:
        await ends.check()
    async for row in sessions(rows, app):
        values = SessionValues(*row.values)
        if values.status == "moved":
            moved.before += 1
        else:
            moved.sessions += 1
            moved.events += values.seq - values.base
    return moved


async def sessions(rows: MovingRows, app: str | None) -> AsyncIterator[Row]:
    """The sessions of a store, or of an app of it, in the order of their creation."""
    after = 0
    while page := await rows.sessions(after):
        for row in page:
            if app is None or row.values[1] == app:
                yield row
        after = page[-1].place[0]


class Mover:
    """One run of a move."""

    def __init__(
        self,
        stores: tuple[LogStore, LogStore],
        ends: Ends,
        wait: float,
        progress: Progress | None,
    ) -> None:
        self._stores = stores
        self._ends = ends
        self._wait = wait
        self._progress = progress
        self._done = self._total = self._untold = 0
        self.moved = Moved()

    # -- one at a time

    async def begin(self) -> None:
        """Be the only one who moves this store. Raises UsageError."""
        source = self._stores[0]
        until = monotonic() + PATIENCE
        while True:
            found = await source.entity(MOVING, "")
            mover = found.value if found is not None else None
            if not mover or mover == source.worker or not await source.worker_is_alive(mover):
                break
            if monotonic() >= until:
                raise UsageError(f"{source.url} is being moved by another process already")
            await asyncio.sleep(PAUSE)
        version = 0 if found is None else found.version
        await source.put_entity(MOVING, "", source.worker, version)

    async def end(self) -> None:
        """Let others move it."""
        source = self._stores[0]
        found = await source.entity(MOVING, "")
        if found is not None and found.value == source.worker:
            await source.put_entity(MOVING, "", None, found.version)

    # -- all of it

    async def run(self) -> None:
        """Move everything that is not moved yet."""
        ends, moved = self._ends, self.moved
        await ends.acknowledge()
        await self._clean()
        await ends.check()
        whole = ends.app is None
        if whole:
            first = await ends.target.note(MOVING, f"{ends.from_}:receipts") is None
            await ends.receipts(moved, verbatim=first)
        await ends.carry(moved)
        await self._sessions()
        await ends.carry(moved, again=True)
        if whole:
            await ends.receipts(moved, verbatim=False)
        await ends.acknowledge()

    async def _clean(self) -> None:
        """Remove what began to arrive of sessions that are gone from the source by now."""
        ends = self._ends
        prefix, after = f"{ends.from_}:session:", f"{ends.from_}:session:"
        while found := await ends.target.notes(ARRIVING, after):
            after = found[-1][0]
            for key, _ in found:
                if not key.startswith(prefix):
                    return
                uid = bytes.fromhex(key.removeprefix(prefix))
                row = await ends.source.session(uid)
                if row is None or row.values[SessionValues._fields.index("status")] == "deleted":
                    await ends.target.discard(Arrival(ends.from_, uid))

    async def _sessions(self) -> None:
        async for row in sessions(self._ends.source, self._ends.app):
            self._total += _events(row)
        waiting: dict[bytes, Waiting] = {}
        together: list[Row] = []
        async for row in sessions(self._ends.source, self._ends.app):
            forked = SessionValues(*row.values).parent is not None
            if forked or len(together) == AT_ONCE:
                await self._try_all(together, waiting)
                together = []
            together.append(row)
            if forked:
                await self._try_all(together, waiting)
                together = []
        await self._try_all(together, waiting)
        while await self._waited(waiting):  # noqa: ASYNC110 - watching each would take as many bells
            await asyncio.sleep(PAUSE)

    async def _try_all(self, rows: list[Row], waiting: dict[bytes, Waiting]) -> None:
        """Move sessions at the same time, none of which forked off another of them."""
        places = [Place()]
        for _ in rows:
            places.append(Place(places[-1]))
        places[0].passed()
        tries = [self._tried(row, place) for row, place in zip(rows, places[1:], strict=True)]
        found = await asyncio.gather(*tries, return_exceptions=True)
        for row, waits in zip(rows, found, strict=True):
            if isinstance(waits, Waits):
                values = SessionValues(*row.values)
                waiting[values.uid] = Waiting(values, waits, monotonic() + self._wait)
            elif isinstance(waits, BaseException):
                raise waits
        if self._untold >= TELL_AFTER:
            self._untold = 0
            await self._ends.acknowledge()

    async def _waited(self, waiting: dict[bytes, Waiting]) -> bool:
        """Try those again that had to wait; whether there is still something to wait for."""
        before = len(waiting)
        for uid, each in list(waiting.items()):
            row = await self._ends.source.session(uid)
            waits = None if row is None else await self._tried(row, Place())
            if waits is None:
                del waiting[uid]
            elif not waits.on_parent and monotonic() >= each.until:
                del waiting[uid]
                self._leave(each.values, str(waits))
            else:
                waiting[uid] = each._replace(waits=waits)
        if (
            waiting
            and len(waiting) == before
            and all(each.waits.on_parent for each in waiting.values())
        ):
            for each in waiting.values():
                self._leave(each.values, str(each.waits))
            waiting.clear()
        return bool(waiting)

    async def _tried(self, row: Row, place: Place) -> Waits | None:
        """Move a session, or say why it has to wait."""
        values = SessionValues(*row.values)
        try:
            await self._session(row.place[0], values, place)
        except Waits as waits:
            return waits
        except FATAL:
            raise
        except AgentError as error:
            self._leave(values, str(error))
        finally:
            await place.wait()
            place.passed()
        return None

    def _leave(self, values: SessionValues, reason: str) -> None:
        self.moved.left.append(Left(session_id=values.id, app=values.app, reason=reason))

    def _advance(self, events: int) -> None:
        self._done += events
        if self._progress is not None:
            self._progress(self._done, max(self._total, self._done))

    # -- one session

    async def _session(self, key: int, values: SessionValues, place: Place) -> None:
        """Raises Waits, and the error that keeps the session from being moved."""
        name = session_name(values.uid)
        if values.status == "moved":
            note = await self._note(values)
            if note.done:
                self.moved.before += 1
                self._advance(values.seq - values.base)
                return
        else:
            await self._check_free(values)
            note = await self._fence(key, values, name)
        row = await self._ends.source.session(values.uid)
        if row is None:
            return
        fenced = SessionValues(*row.values)._replace(
            status=note.status, epoch=note.epoch, holder=note.holder, due_at=note.due_at
        )
        arrival = Arrival(self._ends.from_, values.uid)
        try:
            fenced = await self._on_parent(fenced)
            await self._carrier(arrival, fenced, place).carry(key, self.moved)
        except FATAL:
            raise
        except AgentError:
            if await self._ends.target.discard(arrival):
                await self._ends.source.unfence(key, name, note)
            raise
        self._untold += 1

    def _carrier(self, arrival: Arrival, values: SessionValues, place: Place) -> Carrier:
        ends = self._ends
        rows = (ends.source, ends.target)
        return Carrier(self._stores, rows, arrival, values, self._advance, place)

    async def _note(self, values: SessionValues) -> Note:
        """What was noted when a session was fenced. Raises UsageError where that was elsewhere."""
        found = await self._ends.source.note(MOVED, session_name(values.uid))
        if found is None:
            raise UsageError("it is marked as moved, and nothing says where to")
        note = msgspec.json.decode(found, type=Note)
        if note.store != self._ends.to:
            raise UsageError(f"it was moved to {note.to} before, which is not this store")
        return note

    async def _check_free(self, values: SessionValues) -> None:
        """Raises SessionExists, and Waits for a turn that is running or a parent to come."""
        source, target = self._stores
        there = await self._ends.target.session(values.uid)
        if there is not None:
            raise SessionExists("it is in the other store already, and did not come from here")
        taken = await target.find(values.app, values.id)
        if taken is not None:
            raise SessionExists("the other store has another session of this id")
        if values.holder is not None and await source.worker_is_alive(values.holder):
            raise Waits("a turn of it is running; repeat the move when it has ended")
        if values.parent:
            await self._check_parent(values.parent)

    async def _check_parent(self, uid: bytes) -> None:
        if await self._ends.target.session(uid) is not None:
            return
        parent = await self._ends.source.session(uid)
        if parent is None:
            return
        values = SessionValues(*parent.values)
        if values.status == "deleted":
            return
        if values.status == "moved" and (await self._note(values)).done:
            return
        raise Waits(f"the session that it forked off, {values.id!r}, was not moved", on_parent=True)

    async def _fence(self, key: int, values: SessionValues, name: str) -> Note:
        note = Note(
            to=self._stores[1].url,
            store=self._ends.to,
            status=values.status,
            epoch=values.epoch,
            holder=values.holder,
            due_at=values.due_at,
        )
        if await self._ends.source.fence(key, values.fence, name, msgspec.json.encode(note)):
            return note
        known = await self._ends.source.note(MOVED, name)
        if known is None:
            raise Waits("it is written to; repeat the move when it rests")
        return await self._note(values)

    async def _on_parent(self, values: SessionValues) -> SessionValues:
        """Make sure that what the session forked off is there; the row as it is to be then."""
        if values.parent is None:
            return values
        there = await self._ends.target.session(values.parent)
        here = await self._ends.source.session(values.parent)
        if there is None and here is not None:
            await self._stub(here)
            there = await self._ends.target.session(values.parent)
        if there is None:
            raise UsageError("the session that it forked off is not there")
        parent = SessionValues(*there.values)
        was_deleted = (
            here is None or here.values[SessionValues._fields.index("status")] == "deleted"
        )
        lost = parent.status == "deleted" and not was_deleted
        return values._replace(visible=-1) if lost or parent.visible < 0 else values

    async def _stub(self, row: Row) -> None:
        values = SessionValues(*row.values)
        stub = values._replace(
            id="", user=None, status="deleted", due_at=None, holder=None, details=None
        )
        stub = await self._on_parent(stub)
        arrival = Arrival(self._ends.from_, values.uid)
        await self._carrier(arrival, stub, Place()).leave_stub(row.place[0])


def _events(row: Row) -> int:
    values = SessionValues(*row.values)
    return values.seq - values.base
