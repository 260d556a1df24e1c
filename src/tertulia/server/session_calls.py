"""What the HTTP API does with sessions: make, list, read, append, follow, fork, end, delete."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, cast

import msgspec

from tertulia import branching
from tertulia.conversation import How
from tertulia.drafting import Draft
from tertulia.errors import CursorExpired, InvalidInput, SessionError, SessionExists
from tertulia.events import Event
from tertulia.handle import conversation_of
from tertulia.messages import parse
from tertulia.server import requests, sse, views
from tertulia.server.operations import Call, Made
from tertulia.server.reaching import Reached, check_new_id, described, location, reach
from tertulia.server.sse import EventStream
from tertulia.server.views import (
    EventPage,
    MessagePage,
    MessagesStored,
    ReceiptShown,
    SessionDetail,
    SessionPage,
)
from tertulia.session import Session

RETRY = b"retry: 1000\n\n"
"""How long a browser waits before it comes back, in milliseconds."""


async def create(call: Call) -> Made:
    """A new session. Raises SessionExists."""
    body: requests.NewSession = call.body
    session = call.service.runtime.session(
        check_new_id(body.id),
        app_name=body.app_name,
        user_id=call.user,
        system=body.system,
        metadata=body.metadata,
        messages=[plain(each) for each in body.messages],
        retention=None if body.retention is None else msgspec.to_builtins(body.retention),
    )
    reached = await _made(session, call)
    return Made(await described(reached), location(session.id, session.app_name))


async def _made(session: Session, call: Call) -> Reached:
    """A session that was not there before, whoever else makes it meanwhile."""
    opening = session._opening  # pyright: ignore[reportPrivateUsage]
    conversation = conversation_of(call.service.runtime, session.app_name, session.id)
    exists = SessionExists(f"session {session.id!r} exists already", session_id=session.id)

    async def build(draft: Draft) -> None:
        if not draft.create:
            raise exists

    if await conversation.row() is not None:
        raise exists
    try:
        await conversation.append(opening, build, How(timeout=0.0))
    except SessionError:
        raise exists from None
    return Reached(session, conversation, opening, await conversation.existing(opening))


async def listing(call: Call) -> SessionPage:
    """A page of the sessions of whoever asks."""
    asked: requests.Listing = call.query
    found = await call.service.runtime.sessions(
        user_id=call.user, app_name=asked.app_name, after=asked.after, limit=asked.limit
    )
    following = found[-1].cursor if len(found) == asked.limit else None
    return SessionPage([views.line(info) for info in found], following)


async def read(call: Call) -> SessionDetail:
    """A session as it stands."""
    return await described(await reach(call))


async def history(call: Call) -> MessagePage:
    """A page of the messages that are visible."""
    asked: requests.HistoryAsked = call.query
    session = (await reach(call)).session
    found = await session.history(limit=asked.limit, at=asked.at, before=asked.before)
    return MessagePage([views.message(each) for each in found], found[0].seq if found else None)


async def append(call: Call) -> MessagesStored:
    """Messages, appended in one commit."""
    body: requests.NewMessages = call.body
    session = (await reach(call)).session
    stored = await session.send_messages(
        [plain(each) for each in body.messages], idempotency_key=key_of(call, body.idempotency_key)
    )
    return MessagesStored([views.message(each) for each in stored])


async def events(call: Call) -> EventPage:
    """The last events of the log, from a position or a time on."""
    asked: requests.EventsAsked = call.query
    session = (await reach(call)).session
    types = None if asked.types is None else asked.types.split(",")
    found = await session.events(_moment(asked.since), limit=asked.limit, types=types)
    return EventPage([views.event(each, whole=call.user is None) for each in found])


async def follow(call: Call) -> EventStream:
    """The events of the log as they come, each with its seq as its id."""
    asked: requests.FollowAsked = call.query
    reached = await reach(call)
    row, store = reached.row, call.service.runtime.store
    after = _last_seen(call.headers.get("last-event-id"), asked.after)
    position = row.seq if after is None else after
    if position > row.seq:
        raise CursorExpired(f"session {row.id!r} ends at {row.seq}, before {position}")
    cursor = f"{row.uid.hex()}:{await store.incarnation()}:{position}"
    facts = cast("AsyncGenerator[Event]", reached.session.follow(cursor))
    return EventStream(_told(facts, whole=call.user is None), call.place, call.service.closing)


async def _told(facts: AsyncGenerator[Event], *, whole: bool) -> AsyncGenerator[bytes]:
    yield RETRY
    async with aclosing(facts):
        async for fact in facts:
            yield sse.event(fact.type, views.event(fact, whole=whole), fact.seq)


async def fork(call: Call) -> Made:
    """A branch of a session, with its owner."""
    body: requests.NewFork = call.body
    reached = await reach(call)
    app = reached.session.app_name
    runtime = call.service.runtime
    branch = runtime.session(check_new_id(body.id), app_name=app, user_id=call.user)
    target = conversation_of(runtime, app, branch.id)
    await reached.session.flush()
    await branching.fork(reached.conversation, target, reached.opening, body.at)
    made = Reached(branch, target, reached.opening, await target.existing(reached.opening))
    return Made(await described(made), location(branch.id, app))


async def end(call: Call) -> SessionDetail:
    """A session whose conversation has ended."""
    body: requests.Ending = call.body
    reached = await reach(call)
    await reached.session.end(body.reason)
    return await described(reached)


async def delete(call: Call) -> ReceiptShown:
    """What was removed of a session."""
    session = (await reach(call)).session
    receipt = views.receipt(await session.delete())
    call.service.deleted(session)
    return receipt


def plain(given: requests.MessageGiven) -> dict[str, Any]:
    """A message as the core takes it. Raises InvalidMessage."""
    data: dict[str, Any] = msgspec.to_builtins(given)
    parse(data)
    return data


def key_of(call: Call, said: str | None) -> str | None:
    """The idempotency key, from the header or the body. Raises InvalidInput where they differ."""
    header = call.headers.get("idempotency-key")
    if header is not None and said is not None and header != said:
        raise InvalidInput("the header idempotency-key and the field idempotency_key differ")
    return said if header is None else header


def _moment(since: str | None) -> int | str | None:
    return int(since) if since is not None and since.isdecimal() and len(since) < 19 else since


def _last_seen(header: str | None, asked: int | None) -> int | None:
    """The seq that a client has seen last; what it says when it comes back goes first."""
    if header is None or header == "":
        return asked
    if not header.isdecimal() or len(header) > 18:
        raise InvalidInput("the header last-event-id is the seq of an event")
    return int(header)
