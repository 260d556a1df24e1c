"""What a session shows at one position, reading no more of the log than is asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from tertulia import events, history
from tertulia.clock import DAY
from tertulia.codec import body_of, message_of
from tertulia.errors import HistoryErased, InvalidInput
from tertulia.events import Record
from tertulia.gaps import Gaps
from tertulia.messages import Message
from tertulia.stores.base import Branch, LogStore, Mark, Segment, SessionRow

FLOORS, CUTS, HOLES, UNSUMMARIZED = 1, 2, 4, 8
"""The bits of `SessionRow.marks`; the last one says that a summary may be due."""

FIRST = 12
"""How many segments of a chain are read at first; a short history needs no more."""
PAGE = 64
_EVERYTHING = 2**62


async def owner_of(
    store: LogStore, row: SessionRow, position: int, asked: int | None = None
) -> SessionRow:
    """The session in whose own log a position lies: this one, or one that it forked off.

    Raises HistoryErased, naming the position that was `asked` for, when that one is gone.
    """
    while row.parent is not None and position <= row.base:
        parent = await store.row(row.parent)
        if parent is None or parent.status == "deleted":
            named = position if asked is None else asked
            raise HistoryErased(
                f"position {named} lies in a session that this one forked off and that was deleted",
                session_id=row.id,
            )
        row = parent
    return row


async def branch_of(store: LogStore, row: SessionRow, position: int) -> Branch:
    """The branch that was current at a position of a session's own log."""
    if position > row.branch:
        return Branch(row.key, row.branch)
    found = await store.branch_at(row.key, position)
    return found or Branch(row.key, row.base)


async def settle(store: LogStore, row: SessionRow, position: int) -> int:
    """The position, or, where it lies inside a turn, the position before that turn.

    Raises InvalidInput when it lies beyond the end of the log.
    """
    if position > row.seq:
        raise InvalidInput(f"position {position} is beyond the end of the log, which is {row.seq}")
    if row.open_turn is not None and position >= row.open_turn:
        position = row.open_turn - 1
    if position >= row.seq:
        return await _before_open_calls(store, row)
    owner = await owner_of(store, row, position + 1, asked=position)
    after = await store.records([Segment(owner.key, position, position + 1)])
    if after and after[0].turn <= position:
        return after[0].turn - 1
    return position


async def _before_open_calls(store: LogStore, row: SessionRow) -> int:
    if not row.open_calls:
        return row.seq
    newest = await store.messages([Segment(row.key, row.base, row.seq)], 1)
    return newest[-1].turn - 1 if newest else row.seq


HIDDEN_GRACE = 7 * DAY
"""How long after it was hidden a body is kept, so that hiding can be undone; in microseconds."""


class View:
    """The messages and the state of a session at `position`."""

    __slots__ = ("_branch", "_chain", "_store", "position", "row")

    def __init__(self, store: LogStore, row: SessionRow, position: int, branch: Branch) -> None:
        self.row = row
        self.position = position
        self._store = store
        self._branch = branch
        self._chain: list[Segment] | None = None

    @classmethod
    async def at(cls, store: LogStore, row: SessionRow, position: int) -> View:
        """The view at a position of this session's log or of the one that it forked off."""
        owner = row if position > row.base else await owner_of(store, row, position)
        return cls(store, owner, position, await branch_of(store, owner, position))

    @property
    def branch(self) -> Branch:
        """The branch that the view stands on."""
        return self._branch

    async def chain(self) -> list[Segment]:
        """The segments of the view, newest first, as many as one page has."""
        if self._chain is None:
            key, low = self._branch.session, self._branch.low
            if low == 0 and self.row.base == 0:
                self._chain = [Segment(key, 0, self.position)]
            else:
                self._chain = await self._store.chain(key, low, self.position, FIRST)
        return self._chain

    async def messages(self, limit: int | None = None, before: int | None = None) -> list[Message]:
        """The newest messages, at most `limit`, in the order of the log.

        A tool group is never split: one that the limit would cut is left out, but the newest is
        whole even where it is longer.
        """
        if limit == 0:
            return []
        wanted = limit
        while True:
            found = await self._read(wanted, before)
            complete = wanted is None or len(found) < wanted
            messages = history.whole_start(found)
            if before is not None:
                messages = history.whole_end(messages)
            if messages or complete:
                longer = limit is not None and len(messages) > limit
                return history.newest_group(messages) if longer else messages
            wanted = (wanted or 0) * 2

    async def check_kept(self) -> None:
        """Raise HistoryErased where the oldest message that would be shown was erased.

        Also where the summary was that would stand for those before it.
        """
        await self.summary()
        oldest: list[Segment] = []
        async for parts, _ in self.parts():
            oldest = parts or oldest
        found = await self._store.messages(oldest, 1, newest=False) if oldest else []
        for record in found:
            message_of(record, self.row.id)

    async def _read(self, limit: int | None, before: int | None) -> list[Message]:
        blocks: list[list[Record]] = []
        missing = limit
        floor = None if before is None else await self.floor()
        if floor is not None and floor.at == before:
            return []  # nothing comes before the summary
        async for parts, mark in self.parts(before):
            floor = mark
            if parts:
                block = await self._store.messages(parts, missing)
                blocks.append(block)
                missing = None if missing is None else missing - len(block)
            if missing == 0:
                break
        session_id = self.row.id
        messages = [
            message_of(record, session_id) for block in reversed(blocks) for record in block
        ]
        if floor is not None and missing != 0:
            messages[:0] = await self._summary(floor)
        return messages

    async def parts(
        self, before: int | None = None
    ) -> AsyncIterator[tuple[list[Segment], Mark | None]]:
        """The stretches of the log that are shown, newest first, with the floor found so far."""
        flags = self.row.marks
        if not flags:
            async for page in self.pages():
                yield _clipped(page, before), None
            return
        floor: Mark | None = None
        gaps = self._gaps()
        async for page in self.pages():
            for segment in page:
                if floor is not None and floor.high >= segment.high:
                    return
                if floor is None and flags & FLOORS:
                    found = await self._store.marks(segment, "floor", below=_EVERYTHING, limit=1)
                    floor = found[0] if found else None
                async for parts in self._shown(segment, gaps, floor, before):
                    yield parts, floor

    async def _shown(
        self, segment: Segment, gaps: Gaps, floor: Mark | None, before: int | None
    ) -> AsyncIterator[list[Segment]]:
        gaps.enter(segment)
        bottom = max(segment.low, floor.high if floor else 0)
        high = segment.high
        while high > bottom:
            low, found = await gaps.below(high, bottom)
            top = high if before is None else min(high, before - 1)
            if top > low:
                yield history.subtract(Segment(segment.session, low, top), found)
            high = low

    def _gaps(self) -> Gaps:
        flags = self.row.marks
        return Gaps(self._store, cuts=bool(flags & CUTS), holes=bool(flags & HOLES))

    async def pages(self) -> AsyncIterator[list[Segment]]:
        """The segments of the view, newest first, a page at a time."""
        page, size = await self.chain(), FIRST
        while page:
            yield page
            if len(page) < size:
                return
            last, size = page[-1], PAGE
            more = await self._store.chain(last.session, last.low, last.high, size + 1)
            page = more[1:]

    async def _summary(self, floor: Mark) -> list[Message]:
        """What stands for the messages below the floor, if they were summarised.

        Raises HistoryErased where it was erased, as what nothing showed any more.
        """
        record = await self.pruned(floor)
        if record is not None and record.body is None:
            raise HistoryErased(
                f"session {self.row.id!r}: what was hidden at {floor.at} was erased by retention",
                session_id=self.row.id,
            )
        body = body_of(record) if record is not None else {}
        summary = body.get("summary")
        if record is None or not isinstance(summary, str):
            return []
        return [
            Message(
                role="system",
                content=summary,
                metadata={"summary_of": [1, body.get("summarized", floor.high)]},
                id=f"{record.digest.hex()[:12]}-{floor.at}",
                seq=floor.at,
                time=record.time,
            )
        ]

    async def summary(self) -> Message | None:
        """The message that stands for what a prune has hidden, if there is one."""
        floor = await self.floor()
        found = await self._summary(floor) if floor is not None else []
        return found[0] if found else None

    async def floor(self) -> Mark | None:
        """The mark below which nothing is shown, if there is one."""
        if not self.row.marks & FLOORS:
            return None
        async for page in self.pages():
            for segment in page:
                found = await self._store.marks(segment, "floor", below=_EVERYTHING, limit=1)
                if found:
                    return found[0]
        return None

    async def pruned(self, floor: Mark) -> Record | None:
        """The event of the prune that made a floor; None where something else did, or is gone."""
        try:
            owner = await owner_of(self._store, self.row, floor.at)
        except HistoryErased:
            return None
        found = await self._store.records(
            [Segment(owner.key, floor.at - 1, floor.at)], types=[events.SESSION_PRUNED]
        )
        return found[0] if found else None

    async def stretch(self, low: int, high: int) -> list[Record]:
        """The records of the messages with low < seq <= high, also of those below the floor."""
        blocks: list[list[Record]] = []
        floor = Mark("floor", 0, low, 0)
        gaps = self._gaps()
        async for page in self.pages():
            for segment in page:
                if segment.high > low:
                    shown = self._shown(segment, gaps, floor, high + 1)
                    blocks.extend([await self._store.messages(parts) async for parts in shown])
        return [record for block in reversed(blocks) for record in block]

    async def count(self) -> int:
        """How many messages are shown."""
        total = 0
        floor: Mark | None = None
        async for parts, mark in self.parts():
            floor = mark
            total += await self._store.count_messages(parts)
        return total + (len(await self._summary(floor)) if floor else 0)

    async def oldest(self, limit: int) -> list[Record]:
        """The records of the oldest messages that are shown, at most `limit`, oldest first."""
        kept: list[Record] = []
        parts = [part async for page, _ in self.parts() for part in page]
        for part in reversed(parts):
            kept.extend(await self._store.messages([part], limit - len(kept), newest=False))
            if len(kept) >= limit:
                break
        return kept

    async def turns(self, limit: int | None = None) -> list[Record]:
        """The records of the newest messages, oldest first, not decoded."""
        blocks: list[list[Record]] = []
        missing = limit
        async for parts, _ in self.parts():
            block = await self._store.messages(parts, missing)
            blocks.append(block)
            missing = None if missing is None else missing - len(block)
            if missing == 0:
                break
        return [record for block in reversed(blocks) for record in block]

    async def state(self, key: str) -> Record | None:
        """The event that set or deleted a key of session state last."""
        async for page in self.pages():
            found = await self._store.state(page, key)
            if found is not None:
                return found
        return None

    async def state_keys(self) -> list[str]:
        """The keys of session state that were ever set, deleted ones included."""
        keys: dict[str, int] = {}
        async for page in self.pages():
            for key, seq in await self._store.state_keys(page):
                keys.setdefault(key, seq)
        return sorted(keys)


def _clipped(page: Sequence[Segment], before: int | None) -> list[Segment]:
    if before is None:
        return list(page)
    return [
        Segment(segment.session, segment.low, min(segment.high, before - 1))
        for segment in page
        if segment.low < before - 1
    ]
