"""The audit of a session: what happened, since when, as it happens, and whether it is true."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import anyio
import pytest
from tests.integration.test_sessions_support import (
    START,
    Place,
    broken,
    say,
    texts,
    user,
)

from tertulia import Event, Message, Runtime, Session, SQLiteStore
from tertulia.clock import to_datetime, to_iso
from tertulia.errors import CursorExpired, IdempotencyConflict, InvalidInput
from tertulia.stores.base import Request

pytest_plugins = ("tests.integration.test_sessions_support",)


async def test_every_position_is_taken_once(session: Session) -> None:
    await say(session, "a")
    await session.set_state("k", 1)
    async with session.turn("b"):
        pass
    session.clear()
    events = await session.events()
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert {event.session_id for event in events} == {session.id}


async def test_events_since_a_position_are_inclusive(session: Session) -> None:
    await say(session, "a", "b", "c")
    assert [event.seq for event in await session.events(since=3)] == [3, 4]
    assert [event.seq for event in await session.events(since=0)] == [1, 2, 3, 4]
    assert await session.events(since=99) == []
    assert [event.seq for event in await session.events(limit=2)] == [3, 4]
    assert [event.seq for event in await session.events(since=2, limit=2)] == [3, 4]
    assert await session.events(limit=0) == []


async def test_events_since_a_moment_in_every_form(place: Place) -> None:
    session = place.open(stopped=True).session("s")
    await say(session, "old")
    place.clock.advance(days=2)
    [new] = await say(session, "new")
    moment = to_datetime(START) + timedelta(days=1)
    forms: list[Any] = [
        moment,
        moment.replace(tzinfo=None),
        moment.astimezone(timezone(timedelta(hours=-9))),
        moment.isoformat(),
        moment.date().isoformat(),
        to_iso(START + 86_400_000_000),
        moment.astimezone(timezone(timedelta(hours=5))).isoformat(),
    ]
    for since in forms:
        assert [event.seq for event in await session.events(since=since)] == [new.seq], since
    assert len(await session.events(since="2024-01-01")) == 3
    assert len(await session.events(since=datetime(2024, 1, 1, tzinfo=UTC))) == 3


async def test_events_since_a_date_object(place: Place) -> None:
    session = place.open(stopped=True).session("s")
    await say(session, "old")
    since: Any = date(2024, 1, 1)
    assert len(await session.events(since=since)) == 2


@pytest.mark.parametrize("since", ["yesterday", "", -1, True])
async def test_a_since_that_is_no_moment_is_refused(session: Session, since: Any) -> None:
    await say(session, "a")
    with pytest.raises(InvalidInput):
        await session.events(since=since)


@pytest.mark.parametrize("since", [1.5, [1], {"seq": 1}])
async def test_a_since_of_another_type_is_refused(session: Session, since: Any) -> None:
    await say(session, "a")
    with pytest.raises(InvalidInput):
        await session.events(since=since)


async def test_events_by_type(session: Session) -> None:
    await say(session, "a")
    async with session.turn("b") as turn:
        await turn.record("app.note", {"text": "seen"})
    assert [e.type for e in await session.events(types="message.added")] == ["message.added"] * 2
    kinds = ["turn.started", "app.note"]
    assert [e.type for e in await session.events(types=kinds)] == kinds
    assert await session.events(types=[]) == []
    with pytest.raises(InvalidInput, match=r"app\.<name>"):
        await session.events(types="nothing")
    with pytest.raises(InvalidInput):
        async with session.turn("c") as turn:
            await turn.record("note", {})


async def test_the_events_of_a_fork_begin_with_what_it_inherits(session: Session) -> None:
    await say(session, "a", "b")
    fork = session.fork("f", at=2)
    await say(fork, "c")
    kinds = [(event.seq, event.type) for event in await fork.events()]
    assert kinds == [
        (1, "session.created"),
        (2, "message.added"),
        (3, "session.forked"),
        (4, "message.added"),
    ]


# -- following


async def _take(events: AsyncIterator[Event], count: int) -> list[Event]:
    """So many events as they come."""
    taken: list[Event] = []
    with anyio.fail_after(10):
        async for event in events:
            taken.append(event)
            if len(taken) == count:
                break
    return taken


async def test_a_follower_gets_what_is_there_and_what_comes(session: Session) -> None:
    await say(session, "a")
    following = asyncio.create_task(_take(session.follow(after=0), 5))
    await asyncio.sleep(0)
    await say(session, "b", "c", "d")
    assert await following == await session.events()


async def test_a_follower_of_a_session_that_is_yet_to_be_created_gets_it_all(
    session: Session,
) -> None:
    following = asyncio.create_task(_take(session.follow(), 2))
    await asyncio.sleep(0)
    await say(session, "a")
    assert await following == await session.events()


async def test_a_follower_begins_after_a_position_and_misses_nothing(session: Session) -> None:
    await say(session, "a", "b")
    events = session.follow(after=2)
    first = await anext(events)
    await say(session, "c", "d")
    rest = await _take(events, 2)
    assert [event.seq for event in (first, *rest)] == [3, 4, 5]


async def test_a_follower_of_a_fork_gets_what_it_inherits(session: Session) -> None:
    await say(session, "a", "b")
    fork = session.fork("f")
    await say(fork, "c")
    taken = await _take(fork.follow(after=0), 5)
    assert taken == await fork.events()
    await say(session, "parent only")
    await say(fork, "d")
    assert [e.seq for e in await _take(fork.follow(after=taken[-1].seq), 1)] == [6]


async def test_a_follower_of_more_events_than_one_page_gets_them_all(session: Session) -> None:
    await session.send_messages([user(str(number)) for number in range(1_200)])
    taken = await _take(session.follow(after=0), 1_201)
    assert [event.seq for event in taken] == list(range(1, 1_202))


async def test_a_cursor_goes_on_where_it_was_taken(place: Place) -> None:
    session = place.open().session("s")
    await say(session, "a")
    cursor = await session.cursor()
    await say(session, "b")
    again = place.open().session("s")
    assert [event.seq for event in await _take(again.follow(after=cursor), 1)] == [3]


async def test_a_cursor_of_a_session_that_was_created_anew_has_expired(session: Session) -> None:
    await say(session, "a", "b")
    cursor = await session.cursor()
    await session.delete()
    await say(session, "anew")
    with pytest.raises(CursorExpired):
        await _take(session.follow(after=cursor), 1)


async def test_a_position_beyond_the_end_is_an_expired_cursor(session: Session) -> None:
    await say(session, "a")
    with pytest.raises(CursorExpired):
        await _take(session.follow(after=99), 1)


async def test_a_cursor_of_another_store_has_expired(place: Place, runtime: Runtime) -> None:
    session = runtime.session("s")
    await say(session, "a")
    other = Runtime("memory:")
    elsewhere = other.session("s")
    await say(elsewhere, "a")
    with pytest.raises(CursorExpired):
        await _take(session.follow(after=await elsewhere.cursor()), 1)
    await other.close()


@pytest.mark.parametrize("after", ["", "5", "a:b", "a:b:c", "a:b:-1", -1, True])
async def test_what_is_no_cursor_is_refused(session: Session, after: Any) -> None:
    await say(session, "a")
    with pytest.raises(InvalidInput):
        await _take(session.follow(after=after), 1)


@pytest.mark.parametrize("after", [1.5, [1]])
async def test_a_cursor_of_another_type_is_refused(session: Session, after: Any) -> None:
    await say(session, "a")
    with pytest.raises(InvalidInput):
        await _take(session.follow(after=after), 1)


async def test_following_ends_when_the_session_is_deleted(session: Session) -> None:
    await say(session, "a")
    following = asyncio.create_task(_take(session.follow(after=0), 99))
    await asyncio.sleep(0)
    await session.delete()
    with anyio.fail_after(10):
        taken = await following
    assert [event.seq for event in taken] in ([1, 2], [])


async def test_a_follower_sees_what_another_worker_writes(lasting: Place) -> None:
    session = lasting.open().session("s")
    await say(session, "a")
    other = lasting.open().session("s")
    following = asyncio.create_task(_take(other.follow(after=2), 2))
    await asyncio.sleep(0)
    await say(session, "b", "c")
    assert [event.seq for event in await following] == [3, 4]


async def test_a_follower_sees_a_turn_while_it_runs(session: Session) -> None:
    await say(session, "a")
    following = asyncio.create_task(_take(session.follow(after=2), 3))
    await asyncio.sleep(0)
    async with session.turn("b") as turn:
        await turn.add_message(Message.assistant("c"))
        kinds = [event.type for event in await following]
    assert kinds == ["turn.started", "message.added", "message.added"]


# -- idempotency


async def test_the_same_request_with_the_same_key_is_done_once(place: Place) -> None:
    session = place.open().session("s")
    first = await session.send_messages([user("a"), user("b")], idempotency_key="k")
    second = await session.send_messages([user("a"), user("b")], idempotency_key="k")
    assert first == second
    again = place.open().session("s")
    third = await again.send_messages([user("a"), user("b")], idempotency_key="k")
    assert third == first
    assert texts(await session.history()) == ["a", "b"]


async def test_another_request_with_the_same_key_is_a_conflict(session: Session) -> None:
    await session.send_message(user("a"), idempotency_key="k")
    with pytest.raises(IdempotencyConflict) as conflict:
        await session.send_message(user("b"), idempotency_key="k")
    assert conflict.value.session_id == session.id
    await session.send_message(user("b"), idempotency_key="l")
    assert texts(await session.history()) == ["a", "b"]


async def test_a_key_belongs_to_its_session(runtime: Runtime) -> None:
    for name in "ab":
        await runtime.session(name).send_message(user(name), idempotency_key="k")
    assert texts(await runtime.session("b").history()) == ["b"]


async def test_a_key_is_forgotten_after_seven_days(place: Place) -> None:
    session = place.open(stopped=True).session("s")
    await session.send_message(user("a"), idempotency_key="k")
    place.clock.advance(days=6.9)
    await session.send_message(user("a"), idempotency_key="k")
    assert texts(await session.history()) == ["a"]
    place.clock.advance(days=0.2)
    await session.send_message(user("b"), idempotency_key="k")
    assert texts(await session.history()) == ["a", "b"]


async def test_the_same_key_at_once_from_two_tasks_is_done_once(session: Session) -> None:
    sent: list[Message] = []

    async def send() -> None:
        sent.append(await session.send_message(user("a"), idempotency_key="k"))

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(send)
    assert texts(await session.history()) == ["a"]
    assert len({message.seq for message in sent}) == 1


class _Overtaken(SQLiteStore):
    """A store on which somebody else is faster between the look and the write."""

    faster: Any = None

    async def request(self, session: int, key: str) -> Request | None:
        found = await super().request(session, key)
        faster, self.faster = self.faster, None
        if faster is not None:
            await faster()
        return found


async def test_the_same_key_at_once_from_two_workers_is_done_once(lasting: Place) -> None:
    first = lasting.open().session("s")
    await say(first, "before")
    store = _Overtaken(lasting.file)
    second = Runtime(store)

    async def faster() -> None:
        await first.send_message(user("a"), idempotency_key="k")

    store.faster = faster
    await second.session("s").send_message(user("a"), idempotency_key="k")
    assert texts(await first.history()) == ["before", "a"]
    await second.close()


@pytest.mark.parametrize("key", ["", 5, "x" * 2_000, "a\0b"])
async def test_a_key_that_cannot_be_is_refused(session: Session, key: Any) -> None:
    with pytest.raises(InvalidInput):
        await session.send_message(user("a"), idempotency_key=key)


# -- proof


async def test_a_session_of_every_kind_of_event_verifies(runtime: Runtime) -> None:
    session = runtime.session("s", user_id="ann", metadata={"k": 1}, retention={"ttl_days": 3})
    await say(session, *"abcdef")
    await session.set_state("k", 1)
    await session.set_state("k", 1, scope="user")
    async with broken(session, "x"):
        pass
    await session.prune("keep_last_4")
    fork = session.fork("f")
    await fork.prune("keep_important", n=1, judge=lambda m: m.text == "c")
    await session.rewind(4)
    await session.hold("case")
    await session.release_hold()
    await session.end("bye")
    await session.reopen()
    session.clear()
    for one in (session, fork):
        verified = await one.verify()
        assert verified
        assert verified.checked > 0
    assert verified.head


async def test_verifying_while_a_turn_runs_is_true(session: Session) -> None:
    await say(session, "a")
    async with session.turn("b"):
        assert await session.verify()
