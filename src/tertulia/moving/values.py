"""Carrying what a store keeps beside its sessions: state, entities, documents, memories, receipts.

A row is carried once, and again where it changed here and not there. Which it was, the store that
it came from remembers; until it was told, the other one does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import msgspec

from tertulia.errors import VersionConflict
from tertulia.moving.carrying import pages
from tertulia.moving.results import Left, Moved
from tertulia.stores.moving import (
    ARRIVED,
    DUTIES,
    KEYS,
    MOVED,
    MOVING,
    OF_STORE,
    OWN_KINDS,
    PAGE_ROWS,
    MovingRows,
    Note,
    SessionValues,
    Swap,
    Values,
    item_digest,
    item_name,
    memory_of,
)

NAMED = 3
"""Conflicts that an error names."""


class _Receipt(msgspec.Struct):
    """What is read of the body of a receipt."""

    uid: str | None = None


class Ends:
    """The two ends of a move."""

    def __init__(
        self, rows: tuple[MovingRows, MovingRows], incarnations: tuple[str, str], app: str | None
    ) -> None:
        self.source, self.target = rows
        self.from_, self.to = incarnations
        self.app = app
        """Only this one; None for the whole store."""

    async def acknowledge(self) -> None:
        """Tell the store that is moved from what has arrived, so that the other may forget it."""
        prefix = f"{self.from_}:"
        while True:
            found = await self.target.notes(ARRIVED, prefix)
            names = [key for key, _ in found if key.startswith(prefix)]
            if not names:
                return
            notes: list[tuple[str, bytes]] = []
            for key, value in found:
                name = key.removeprefix(prefix)
                if key.startswith(prefix):
                    notes += await self._told(name, value)
            await self.source.write_notes(MOVED, notes)
            await self.target.write_notes(ARRIVED, (), names)

    async def _told(self, name: str, value: bytes) -> list[tuple[str, bytes]]:
        if not name.startswith("session:"):
            return [(f"{self.to}:{name}", value)]
        known = await self.source.note(MOVED, name)
        if known is None:
            return []
        note = msgspec.json.decode(known, type=Note)
        return [(name, msgspec.json.encode(msgspec.structs.replace(note, done=True)))]

    async def check(self) -> None:
        """Raises VersionConflict where the target has another value for something."""
        conflicts: list[str] = []
        async for table, swaps in self._due():
            conflicts += [_named(table, each) for each in swaps if not isinstance(each, Swap)]
        if conflicts:
            rest = f" and {len(conflicts) - NAMED} more" if len(conflicts) > NAMED else ""
            raise VersionConflict(
                "the other store has values of its own, and nothing was moved: "
                f"{', '.join(conflicts[:NAMED])}{rest}; make them equal, or delete one of each",
                expected=0,
                actual=None,
            )

    async def carry(self, moved: Moved, *, again: bool = False) -> None:
        """Carry what is due; what the target changed meanwhile is left and told.

        `again`, when sessions can be seen in the target, no memory comes of one that was deleted.
        """
        async for table, swaps in self._due():
            due = [each for each in swaps if isinstance(each, Swap)]
            if again and table == "memories":
                due = [each for each in due if await self._has_session(each.new)]
            done = await self.target.swap(table, due, self.from_)
            refused = [each for each in swaps if not isinstance(each, Swap)]
            refused += [each.new for each, kept in zip(due, done, strict=True) if not kept]
            moved.values += sum(done)
            moved.left += [
                Left(
                    session_id="",
                    app=self.app,
                    reason=f"{_named(table, each)} changed in both stores; it was left",
                )
                for each in refused
            ]
            await self.acknowledge()

    async def receipts(self, moved: Moved, *, verbatim: bool) -> None:
        """Carry receipts, but for those of what was left here of moved sessions."""
        after = int(await self.target.note(MOVING, f"{self.from_}:receipts") or 0)
        while found := await self.source.receipts(after):
            after = found[-1].receipt.id
            due = [
                each
                for each in found
                if verbatim or not await self._is_left_over(each.receipt.body)
            ]
            await self.target.add_receipts(due, self.from_, verbatim=verbatim)
            moved.receipts += len(due)

    async def _has_session(self, memory: Values) -> bool:
        uid: bytes | None = memory_of(memory)[1].session
        if uid is None:
            return True
        found = await self.target.session(uid)
        return found is not None and SessionValues(*found.values).status != "deleted"

    async def _is_left_over(self, body: bytes) -> bool:
        uid = msgspec.json.decode(body, type=_Receipt).uid
        return uid is not None and await self.source.note(MOVED, f"session:{uid}") is not None

    async def _due(self) -> AsyncIterator[tuple[str, list[Swap | Values]]]:
        """Pages of rows that are to be written; a row alone is in conflict with the target."""
        for table in OF_STORE:
            batch: list[Values] = []
            async for row in pages(self.source, table):
                if self._wanted(table, row.values):
                    batch.append(row.values)
                if len(batch) >= PAGE_ROWS // 10:
                    yield table, await self._compared(table, batch)
                    batch = []
            if batch:
                yield table, await self._compared(table, batch)

    def _wanted(self, table: str, values: Values) -> bool:
        if table == "entities":
            kind: str = values[0]
            return self.app is None and kind not in OWN_KINDS and not kind.startswith(DUTIES)
        if self.app is None:
            return True
        places = {"shared_state": 1, "memory_owners": 0, "memories": 0}
        return table in places and values[places[table]] == self.app

    async def _compared(self, table: str, batch: Sequence[Values]) -> list[Swap | Values]:
        keys = [each[: KEYS[table]] for each in batch]
        there = await self.target.found(table, keys)
        due: list[Swap | Values] = []
        for new, key, old in zip(batch, keys, there, strict=True):
            known = await self.source.note(MOVED, f"{self.to}:{item_name(table, key)}")
            if known == item_digest(new):
                continue
            same = table == "memory_owners" or old in (None, new)
            fresh = same and (old is not None or known is None)
            if fresh or (old is not None and known == item_digest(old)):
                due.append(Swap(old, new))
            else:
                due.append(new)
        return due


def _named(table: str, change: Swap | Values) -> str:
    values = change.new if isinstance(change, Swap) else change
    key = "/".join(str(each or "") for each in values[: KEYS[table]])
    return f"{table.replace('_', ' ')} {key!r}"
