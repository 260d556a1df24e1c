"""Writing all that is not a change of a session: inbox, entities, erasing, documents.

Functions with several statements open a transaction of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import msgspec

from tertulia.stores import engine
from tertulia.stores import rows as row
from tertulia.stores.base import Input, Receipt, Segment, SessionRow
from tertulia.stores.postgres import reading, remembering, sql
from tertulia.stores.postgres.driver import Connection
from tertulia.stores.postgres.writing import affected, conflict

SQL = sql.queries("write.sql")


async def put_input(db: Connection, entry: Input, token: bytes) -> Input:
    values = (token, entry.session, entry.worker, entry.kind, entry.time, entry.body)
    [(number,)] = await db.fetch(SQL["put_input"], *values)
    return msgspec.structs.replace(entry, id=number)


async def drop_inputs(db: Connection, numbers: Sequence[int]) -> int:
    return affected(await db.execute(SQL["drop_inputs"], list(numbers)))


async def drop_requests(db: Connection, before: int) -> int:
    """Drop some; how many, fewer than ERASE_AT_ONCE when none is left."""
    return affected(await db.execute(SQL["drop_requests"], before, engine.ERASE_AT_ONCE))


async def put_entity(db: Connection, kind: str, key: str, value: bytes | None, expect: int) -> int:
    for (version,) in await db.fetch(SQL["put_entity"], kind, key, value, expect):
        return int(version)
    found = await reading.entity(db, kind, key)
    raise conflict(f"{kind} {key!r}", expect, found.version if found else 0)


async def erase(db: Connection, segment: Segment, types: Sequence[str] | None) -> int:
    """Erase some bodies of a segment; how many, fewer than ERASE_AT_ONCE when none is left.

    What was remembered of them goes too.
    """
    wanted = None if types is None else list(types)
    place = (segment.session, segment.low, segment.high)
    async with db.transaction():
        done = await db.execute(SQL["erase_bodies"], *place, wanted, engine.ERASE_AT_ONCE)
        if erased := affected(done):
            await remembering.forget_erased(db, segment)
    return erased


async def erase_user(db: Connection, user: str, receipt: Receipt) -> int:
    async with db.transaction():
        erased = affected(await db.execute(SQL["erase_shared"], user))
        erased += await remembering.forget_user(db, user)
        await add_receipt(db, receipt)
    return erased


async def add_receipt(db: Connection, receipt: Receipt) -> None:
    async with db.transaction():
        await db.execute(SQL["lock_receipts"])
        newest = await db.fetch(SQL["newest_receipt"])
        number, previous = newest[0] if newest else (0, b"")
        receipt = msgspec.structs.replace(receipt, id=number + 1)
        digest = sha256(previous + row.receipt_header(receipt)).digest()
        values = (receipt.id, receipt.time, receipt.type, receipt.body, digest)
        await db.execute(SQL["add_receipt"], *values)


async def delete_session(
    db: Connection, before: SessionRow, receipt: Receipt | None, stub: bool
) -> None:
    """Make a session unfindable and note it; `remove_events` takes its events away."""
    async with db.transaction():
        if not affected(await db.execute(SQL["mark_deleted"], *row.fence(before))):
            raise engine.stale(before)
        if stub:
            await db.execute(SQL["forget_visible"], before.key)
        await remembering.forget_session(db, before.uid)
        await db.execute(SQL["empty_session"], before.key, stub)
        if receipt is not None:
            await add_receipt(db, receipt)


async def remove_events(db: Connection, key: int) -> bool:
    """Remove some events of a deleted session; True when the removal is finished."""
    done = await db.execute(SQL["remove_events"], key, engine.ERASE_AT_ONCE)
    if affected(done) == engine.ERASE_AT_ONCE:
        return False
    await db.execute(SQL["finish_removal"], key)
    return True


async def removals(db: Connection) -> list[int]:
    """The deleted sessions whose removal was not finished."""
    return [int(each[0]) for each in await db.fetch(reading.SQL["removals"])]


async def save_document(db: Connection, session_id: str, data: str) -> None:
    await db.execute(SQL["save_document"], session_id, data)


async def delete_document(db: Connection, session_id: str) -> bool:
    return affected(await db.execute(SQL["delete_document"], session_id)) == 1
