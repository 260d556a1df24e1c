"""What a runtime does to many sessions: sweeping what is due, erasing and exporting a user."""

from __future__ import annotations

from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

import msgspec

from tertulia import condensing, ending, erasing, hiding, pruning, retention
from tertulia.admission import REQUEST_TTL
from tertulia.codec import decode, encode, event_of
from tertulia.errors import AgentError, RetentionRefused
from tertulia.following import log
from tertulia.handle import conversation_of
from tertulia.host import Host
from tertulia.opening import Opening
from tertulia.recovery import close_abandoned
from tertulia.retention import Due, Retention
from tertulia.snapshot import take
from tertulia.stores.base import Receipt, SessionRow
from tertulia.stores.memories import MemoryKeeper

ERASE = "messages were hidden more than 7 days ago"
SUMMARIZE = "messages that max_messages has hidden are not summarised yet"
PAGE = 200


class Swept(msgspec.Struct, frozen=True, kw_only=True):
    """What a sweep did to a session, or would do."""

    session_id: str
    app_name: str | None
    action: str
    """`delete`, `end`, `prune`, `summarize` or `erase`."""
    reason: str
    acts: bool
    """False where retention only says it: `auto_prune` is off, or a hold stands."""
    done: bool
    error: str | None = None


class Erasure(msgspec.Struct, frozen=True, kw_only=True):
    """The receipt of an erasure; it names what could not be reached."""

    sessions: int
    values: int
    """Values of user state and memories that were removed; none while a session is held.

    What was remembered from a session goes with that session.
    """
    held: list[str]
    """Sessions that were left because of a legal hold, on them or on a fork of theirs."""
    time: int
    out_of_reach: list[str]
    bans: int = 0
    """Bans from swarms that were removed; none while a session is held."""


async def rows(host: Host, **wanted: Any) -> AsyncIterator[SessionRow]:
    """All sessions that fit, a page at a time."""
    after = 0
    while True:
        page = await host.store.rows(after=after, limit=PAGE, **wanted)
        for row in page:
            yield row
        if len(page) < PAGE:
            return
        after = page[-1].key


async def sweep(host: Host, *, dry_run: bool) -> list[Swept]:
    """Go through the sessions on which something is due (all of them for a dry run)."""
    now = host.clock.now()
    wanted: dict[str, Any] = {} if dry_run else {"due_before": now}
    found: list[Swept] = []
    async for row in rows(host, **wanted):
        found += await tend(host, row, now, dry_run=dry_run)
    if not dry_run:
        await host.store.drop_requests(now - REQUEST_TTL)
    return found


async def tend(host: Host, row: SessionRow, now: int, *, dry_run: bool = False) -> list[Swept]:
    """Do what is due on one session at `now`, in microseconds, or only say it."""
    found: list[Swept] = []
    policy = retention.parse(row.details.retention)
    if policy is None:
        return found
    for due in [*_due(policy, row, now), *await _hidden(host, row, policy, now)]:
        error = None if dry_run or not due.acts else await _carry_out(host, row, policy, due)
        found.append(_swept(row, due, error, done=not dry_run))
        if due.action == "delete":
            break
    return found


async def close_left(host: Host, left: SessionRow) -> bool:
    """Close the turn that a dead worker left open in a session, as a new turn would.

    False where that is not to be done any more: it goes on, it was closed, or its session is gone.
    """
    conversation = conversation_of(host, left.app, left.id)
    if left.holder is None or not conversation.gate.try_enter():
        return False
    try:
        row = await conversation.row()
        if row is None or (row.holder, row.epoch) != (left.holder, left.epoch):
            return False
        if await host.store.worker_is_alive(left.holder):
            return False
        draft = conversation.draft_on(row)
        await close_abandoned(host.store, draft)
        await conversation.trim(draft)
        return await conversation.made(draft)
    finally:
        conversation.gate.leave()


async def _hidden(host: Host, row: SessionRow, policy: Retention, now: int) -> list[Due]:
    """What is due of the messages that were hidden: first their summary, then their end."""
    found: list[Due] = []
    held = policy.legal_hold or row.details.hold is not None
    if policy.summarizes and policy.auto_prune and not held:
        conversation = conversation_of(host, row.app, row.id)
        if await condensing.unsummarized(conversation, row) is not None:
            found.append(Due("summarize", SUMMARIZE, True))
    if await erasing.hidden(host.store, row, policy, now):
        found.append(Due("erase", ERASE, True))
    return found


def _swept(row: SessionRow, due: Due, error: str | None, *, done: bool) -> Swept:
    return Swept(
        session_id=row.id,
        app_name=row.app,
        action=due.action,
        reason=due.reason,
        acts=due.acts,
        done=done and due.acts and error is None,
        error=error,
    )


def _due(policy: Retention, row: SessionRow, now: int) -> list[Due]:
    return retention.due(
        policy,
        active=row.active,
        visible=max(row.visible, 0),
        held=row.details.hold is not None,
        ended=row.status == "ended",
        now=now,
    )


async def _carry_out(host: Host, row: SessionRow, policy: Retention, due: Due) -> str | None:
    """Do one due thing; the error if that failed, so that the sweep goes on with the others."""
    conversation = conversation_of(host, row.app, row.id)
    opening = Opening()
    try:
        if due.action == "delete":
            await ending.delete(conversation, opening, due.reason)
        elif due.action == "end":
            await ending.end(conversation, opening, due.reason, quiet=True)
        elif due.action == "summarize":
            await condensing.summarize_hidden(conversation, host.condenser())
        elif due.action == "erase":
            await erasing.erase(conversation, policy)
        else:
            name = f"keep_last_{policy.keep}"
            await hiding.prune(conversation, opening, pruning.parse(name), name, hiding.Callables())
    except AgentError as error:
        return f"{type(error).__name__}: {error}"
    return None


async def erase_user(host: Host, user: str) -> Erasure:
    """Delete a user's sessions, unless a legal hold stands, then their state, memories and bans."""
    from tertulia.swarm import bans

    now = host.clock.now()
    erased, held = await _delete_sessions(host, user)
    out_of_reach = ["backups", "exports"]
    lifted = 0 if held else await bans.erase(host.store, user, now)
    body = {
        "user": sha256(b"tertulia.1/user\0" + user.encode()).hexdigest(),
        "sessions": erased,
        "held": len(held),
        "bans": lifted,
        "out_of_reach": out_of_reach,
    }
    values = 0
    receipt = Receipt(time=now, type="session.erased", body=encode(body))
    if held:
        await host.store.add_receipt(receipt)
    else:
        values = await host.store.erase_user(user, receipt)
    return Erasure(
        sessions=erased,
        values=values,
        held=held,
        time=now,
        out_of_reach=out_of_reach,
        bans=lifted,
    )


async def _delete_sessions(host: Host, user: str) -> tuple[int, list[str]]:
    """How many sessions of a user were deleted, and the ids of those that a hold kept."""
    erased = 0
    held: list[str] = []
    async for row in rows(host, user=user):
        conversation = conversation_of(host, row.app, row.id)
        try:
            await ending.delete(conversation, Opening(), "a person's erasure", erasing=True)
        except RetentionRefused:
            held.append(row.id)
        else:
            erased += 1
    return erased, held


async def export_user(host: Host, user: str) -> dict[str, Any]:
    """A user's sessions with their whole logs, their state and memories by app, bans by swarm."""
    from tertulia.swarm import bans

    sessions: list[dict[str, Any]] = []
    apps: set[str | None] = {None}
    async for row in rows(host, user=user):
        apps.add(row.app)
        data = await take(conversation_of(host, row.app, row.id), Opening())
        records = await host.store.records(await log(host.store, row))
        data["events"] = [event_of(record, row.id).to_dict() for record in records]
        sessions.append(data)
    state: dict[str, dict[str, Any]] = {}
    for app in apps:
        for key, stored in await host.store.shared_keys("user", app, user):
            if stored.value is not None:
                state.setdefault(app or "", {})[key] = decode(stored.value, f"state {key!r}")
    memories = await _memories(host, user)
    return {
        "user_id": user,
        "sessions": sessions,
        "state": state,
        "memories": memories,
        "bans": await bans.exported(host.store, user),
    }


async def _memories(host: Host, user: str) -> dict[str, list[dict[str, Any]]]:
    """What is remembered of a user, by app."""
    from tertulia.memory.entries import entry_of

    store = host.store
    found: dict[str, list[dict[str, Any]]] = {}
    if not isinstance(store, MemoryKeeper):
        return found
    for scope in await store.memory_scopes(user):
        after = 0
        while page := await store.memory_page(scope, after, PAGE):
            kept = found.setdefault(scope.app or "", [])
            kept += [msgspec.to_builtins(entry_of(row)) for row in page]
            after = page[-1].id
    return found
