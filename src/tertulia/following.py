"""The log of a session as events: by range, and as it grows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

import msgspec

from tertulia import history
from tertulia.clock import from_moment
from tertulia.codec import event_of
from tertulia.conversation import Conversation
from tertulia.doors import Outcome
from tertulia.errors import CursorExpired, InvalidInput
from tertulia.events import Event, check_type
from tertulia.opening import Opening
from tertulia.stores.base import LogStore, Segment, SessionRow
from tertulia.stores.moving import moved_away

PAGE = 500
_POLL = 30.0
"""Seconds after which a follower looks again even if no bell rang: a store makes good lost ones."""
_UNBORN = 0.25
"""Seconds after which it is looked again for a session that does not exist yet."""


async def log(store: LogStore, row: SessionRow) -> list[Segment]:
    """The segments of the whole log, newest first: its own, then what it forked off."""
    segments = [Segment(row.key, row.base, row.seq)]
    while row.parent is not None:
        parent = await store.row(row.parent)
        if parent is None or parent.status == "deleted":
            break
        segments.append(Segment(parent.key, parent.base, row.base))
        row = parent
    return segments


class Wanted(msgspec.Struct, frozen=True):
    """Which events of a log are asked for."""

    after: int
    since_time: int | None
    limit: int | None
    types: list[str] | None

    @classmethod
    def parse(cls, since: Any, limit: int | None, types: str | Iterable[str] | None) -> Wanted:
        """What a caller said, checked; raises InvalidInput."""
        history.check_limit(limit)
        after, since_time = _since(since)
        kinds = [types] if isinstance(types, str) else types
        return cls(
            after,
            since_time,
            limit,
            None if kinds is None else [check_type(kind) for kind in kinds],
        )


async def events(store: LogStore, row: SessionRow, wanted: Wanted) -> list[Event]:
    """The events of the log that are wanted, the last `limit` of them, oldest first."""
    if wanted.limit == 0:
        return []
    records = await store.records(
        clip(await log(store, row), wanted.after),
        wanted.limit,
        newest=wanted.limit is not None,
        types=wanted.types,
        since_time=wanted.since_time,
    )
    return [event_of(record, row.id) for record in records]


def clip(segments: list[Segment], after: int) -> list[Segment]:
    """The parts of some segments that lie after a position."""
    return [
        Segment(segment.session, max(segment.low, after), segment.high)
        for segment in segments
        if segment.high > after
    ]


def _since(since: Any) -> tuple[int, int | None]:
    if since is None:
        return 0, None
    if isinstance(since, int | float):
        return max(history.check_position(since, "since") - 1, 0), None
    return 0, from_moment(since)


async def cursor(conversation: Conversation, opening: Opening) -> str:
    """Where the log ends now, as text that tells when the log behind it is another one."""
    row = await conversation.existing(opening)
    return f"{row.uid.hex()}:{await conversation.host.store.incarnation()}:{row.seq}"


async def follow(
    conversation: Conversation, opening: Opening, after: int | str | None
) -> AsyncIterator[Event]:
    """Events after a position or cursor, as they come, until the session is deleted.

    Raises SessionMoved after the last one where it goes on in another store.
    """
    store = conversation.host.store
    uid, position = _start(after, await store.incarnation())
    while True:
        rung: Outcome[None] = Outcome()
        row = await conversation.row()
        if row is None and uid is None:
            await rung.within(_UNBORN)
            position = 0 if position is None else position
            continue
        if row is None:
            return
        conversation.check_access(row, opening)
        if uid is not None and uid != row.uid.hex():
            raise CursorExpired(f"session {row.id!r} was created anew; follow it from its start")
        uid = row.uid.hex()
        position = row.seq if position is None else position
        if position > row.seq:
            raise CursorExpired(f"session {row.id!r} ends at {row.seq}, before the cursor")
        forget = store.watch(row.key, lambda rung=rung: rung.set_result(None))
        try:
            found = False
            async for event in _after(store, row, position):
                found = True
                position = event.seq
                yield event
            if not found and row.status == "moved":
                raise await moved_away(store, row)
            if not found:
                await rung.within(_POLL)
        finally:
            forget()


async def _after(store: LogStore, row: SessionRow, position: int) -> AsyncIterator[Event]:
    segments = await log(store, row)
    while True:
        records = await store.records(clip(segments, position), PAGE)
        for record in records:
            yield event_of(record, row.id)
        if len(records) < PAGE:
            return
        position = records[-1].seq


def _start(after: Any, incarnation: str) -> tuple[str | None, int | None]:
    if after is None:
        return None, None
    if not isinstance(after, str):
        return None, history.check_position(after, "after")
    uid, _, rest = after.partition(":")
    known, _, position = rest.partition(":")
    if not position.isdigit():
        raise InvalidInput(f"{after!r} is no cursor; pass a seq, or what session.cursor() gave")
    if known != incarnation:
        raise CursorExpired("the store was created anew or restored; follow from the start")
    return uid, int(position)
