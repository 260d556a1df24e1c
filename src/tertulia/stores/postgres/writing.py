"""Writing a batch of changes, and finding out what became of one whose reply was lost."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from tertulia.errors import OutcomeUnknown, SessionExists, StaleWriter, VersionConflict
from tertulia.stores import engine
from tertulia.stores import rows as row
from tertulia.stores.base import Change, SessionRow, SharedWrite
from tertulia.stores.postgres import rows, sql
from tertulia.stores.postgres.arrays import Statement
from tertulia.stores.postgres.batches import Batch, Job, only
from tertulia.stores.postgres.driver import Connection

SQL = sql.queries("apply.sql")
READ = sql.queries("read.sql")
ADVANCE = Statement(SQL["advance"])
APPLY = Statement(SQL["apply"])


async def write(connection: Connection, batch: Batch) -> list[Job]:
    """Write a batch in one statement; the jobs that are decided, refused ones with their error.

    Where a chain is refused only its first job is decided: the others may still be right.
    """
    statement = ADVANCE if batch.plain else APPLY
    found = await connection.fetch(*statement.call(batch.rows()))
    keys: dict[int, int] = {each[0]: each[1] for each in found}
    decided: list[Job] = []
    for number, chain in enumerate(batch.chains.values()):
        key = keys.get(number)
        if key is None:
            decided.append(chain[0])
            continue
        for job in chain:
            job.result = _result(job.change, key)
        decided += chain
    if len(keys) < len(batch.chains):
        await _refuse(connection, [job for job in decided if job.result is None])
    return decided


async def _refuse(connection: Connection, refused: list[Job]) -> None:
    """Give those their error that were not written by an earlier attempt either."""
    if again := [job for job in refused if job.sent]:
        await find_out(connection, again)
    for job in refused:
        if job.result is None and job.error is None:
            job.error = refusal(job.change)


async def write_alone(connection: Connection, job: Job) -> None:
    """Write a change that may be refused late, in a transaction; what refuses it is raised.

    The connection is in a transaction of the caller.
    """
    change = job.change
    async with connection.transaction():
        [decided] = await write(connection, only(job))
        if decided.result is None or decided.recovered:
            return
        key = decided.result.key
        if change.take:
            done = await connection.execute(SQL["take_inputs"], list(change.take), key)
            if affected(done) != len(set(change.take)):
                raise _withdrawn(change.before)
        for each in sorted(change.shared, key=rows.shared_place):
            await _write_shared(connection, each)


async def _write_shared(connection: Connection, each: SharedWrite) -> None:
    values = rows.shared_values(each)
    if await connection.fetch(SQL["write_shared"], *values, each.expect):
        return
    found = await connection.fetch(READ["shared"], *values[:4])
    actual = found[0][1] if found else 0
    raise conflict(f"{each.scope} state {each.key!r}", each.expect or 0, actual)


async def find_out(connection: Connection, jobs: Iterable[Job]) -> None:
    """Of jobs that were refused at a second attempt, find those that the first had written."""
    unsure = list(jobs)
    keys = [job.change.after.key for job in unsure]
    uids = [job.change.after.uid for job in unsure if job.change.create]
    found = await connection.fetch(READ["fences"], keys, uids)
    fences = {each[0]: tuple(each[2:]) for each in found}
    key_of_uid = {each[1]: each[0] for each in found}
    heads = [(job.change.after.key, job.change.after.seq) for job in unsure]
    places = [[head[0] for head in heads], [head[1] for head in heads]]
    digests = {(key, seq): it for key, seq, it in await connection.fetch(READ["digests"], *places)}
    for job in unsure:
        change = job.change
        if change.create:
            key = key_of_uid.get(change.after.uid)
            written = key is not None
        else:
            key = change.after.key
            written = _is_written(change, fences.get(key), digests.get((key, change.after.seq)))
        if written:
            job.result, job.recovered = _result(change, key or 0), True
        elif not change.create and not change.records and fences.get(key) is not None:
            job.error = _unknown(change)


def _is_written(change: Change, fence: object, digest: bytes | None) -> bool:
    """My digest at my position means that it is mine; without records, the head as I left it."""
    if change.records:
        return digest == change.after.digest
    return fence == row.fence(change.after)[1:]


def refusal(change: Change) -> StaleWriter | SessionExists:
    if change.create:
        name = change.after.id
        return SessionExists(f"session {name!r} exists already", session_id=name)
    return engine.stale(change.before)


def conflict(what: str, expected: int, actual: int) -> VersionConflict:
    return VersionConflict(
        f"{what} is at version {actual}, not {expected}; nothing was written: read it again "
        "and repeat",
        expected=expected,
        actual=actual,
    )


def affected(tag: str) -> int:
    """How many rows a statement touched, as its command tag tells."""
    return int(tag.rpartition(" ")[2])


def _result(change: Change, key: int) -> SessionRow:
    return msgspec.structs.replace(change.after, key=key) if change.create else change.after


def _withdrawn(before: SessionRow) -> StaleWriter:
    return StaleWriter(
        f"an input of session {before.id!r} was withdrawn; nothing was written: read the "
        "inbox again",
        session_id=before.id,
    )


def _unknown(change: Change) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"the reply to a change of session {change.after.id!r} was lost, and the session went on "
        "since: read it before you repeat"
    )
