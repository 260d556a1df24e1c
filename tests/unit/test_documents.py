"""Live sessions on a user's store of four methods."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tertulia import Message, Runtime, Session, SessionStore, admission
from tertulia.asked import Asked
from tertulia.errors import (
    ConfigurationError,
    OutcomeUnknown,
    StaleWriter,
    StoreClosed,
    StoreCorrupt,
    StoreTooNew,
    StoreUnavailable,
)
from tertulia.stores.base import LogStore
from tertulia.stores.documents import DocumentStore
from tertulia.testing.store_contract import StoreContract


class Redis:
    """As much of a Redis client as the store on the page uses."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}
        self.threads: set[str] = set()

    def set(self, key: str, value: str) -> None:
        self.threads.add(threading.current_thread().name)
        self.kept[key] = value

    def get(self, key: str) -> str | None:
        self.threads.add(threading.current_thread().name)
        return self.kept.get(key)

    def delete(self, key: str) -> int:
        return 1 if self.kept.pop(key, None) is not None else 0

    def keys(self, pattern: str) -> list[str]:
        return [key for key in self.kept if key.startswith(pattern.removesuffix("*"))]


class RedisStore(SessionStore):
    """As it is printed on the page."""

    def __init__(self, redis_client: Redis) -> None:
        self.redis = redis_client

    def save(self, session_id: str, data: dict[str, Any]) -> None:
        self.redis.set(f"session:{session_id}", json.dumps(data))

    def load(self, session_id: str) -> dict[str, Any] | None:
        data = self.redis.get(f"session:{session_id}")
        return json.loads(data) if data else None

    def delete(self, session_id: str) -> bool:
        return self.redis.delete(f"session:{session_id}") > 0

    def list_sessions(self) -> list[str]:
        keys = self.redis.keys("session:*")
        return [k.replace("session:", "") for k in keys]


class Careful(RedisStore):
    """One that also saves only where nobody else did, whatever one saw before."""

    def save_if(self, session_id: str, data: dict[str, Any], version: int) -> bool:
        kept = super().load(session_id)
        if (kept or {}).get("revision", 0) != version:
            return False
        self.save(session_id, data)
        return True


class Blind(Careful):
    """One whose reads are one write behind, as a replica's."""

    def __init__(self, redis_client: Redis) -> None:
        super().__init__(redis_client)
        self.behind: dict[str, dict[str, Any] | None] = {}

    def load(self, session_id: str) -> dict[str, Any] | None:
        if session_id in self.behind:
            return self.behind[session_id]
        return super().load(session_id)


class Failing(RedisStore):
    """One that fails on demand: before it saved, after it saved, or for good."""

    def __init__(self, redis_client: Redis) -> None:
        super().__init__(redis_client)
        self.fails: str | None = None

    def save(self, session_id: str, data: dict[str, Any]) -> None:
        if self.fails in ("before", "for good"):
            raise ConnectionError("no route to the store")
        super().save(session_id, data)
        if self.fails == "after":
            raise ConnectionError("the answer was lost")
        if self.fails == "half":
            self.fails = "for good"
            raise ConnectionError("the answer was lost")

    def load(self, session_id: str) -> dict[str, Any] | None:
        if self.fails == "for good":
            raise ConnectionError("no route to the store")
        return super().load(session_id)


class TestContract(StoreContract):
    def make(self) -> LogStore:
        return DocumentStore(RedisStore(Redis()))


class TestContractWithoutMemory(StoreContract):
    """The same, with every session put away as soon as another one is used."""

    def make(self) -> LogStore:
        return DocumentStore(RedisStore(Redis()), keep=1)


class TestContractOfCarefulOnes(StoreContract):
    def make(self) -> LogStore:
        return DocumentStore(Careful(Redis()))


@pytest.fixture
def redis() -> Redis:
    return Redis()


@pytest.fixture
async def runtime(redis: Redis) -> AsyncIterator[Runtime]:
    made = Runtime(RedisStore(redis))
    yield made
    await made.close()


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def texts(session: Session) -> list[str]:
    return [message.text for message in session.messages]


async def test_a_live_session_lives_in_its_document(redis: Redis, runtime: Runtime) -> None:
    session = runtime.session("s", metadata={"k": 1}, system="Be brief.")
    await session.send_message(user("hello"))
    data = RedisStore(redis).load("s")
    assert data is not None
    assert data["session_id"] == "s"
    assert data["system"] == "Be brief."
    assert [(m["role"], m["content"]) for m in data["messages"]] == [("user", "hello")]
    assert runtime.store.level == "document"


async def test_a_document_has_what_to_dict_gives(redis: Redis, runtime: Runtime) -> None:
    session = runtime.session("s", user_id="ann", retention={"ttl_days": 3}, metadata={"k": 1})
    for number in range(6):
        await session.send_message(user(str(number)))
    await session.set_state("cart", ["apple"])
    await session.set_state("gone", 1)
    await session.delete_state("gone")
    with pytest.raises(ConnectionError):
        async with session.turn("hidden"):
            raise ConnectionError
    await session.prune("keep_important", n=4, judge=lambda m: m.text == "0")
    await session.prune("summarize_old", threshold=3, summarize=lambda _: "before")
    await session.rewind(session.messages[-1].seq or 0)
    fork = session.fork("f")
    await fork.send_message(user("own"))
    for one in (session, fork):
        data = RedisStore(redis).load(one.id)
        assert data is not None
        expected = one.to_dict()
        assert {name: data[name] for name in expected} == expected


async def test_a_reader_of_plain_documents_restores_one(redis: Redis, runtime: Runtime) -> None:
    await runtime.session("s").send_message(user("hello"))
    data = RedisStore(redis).load("s")
    assert data is not None
    elsewhere = Runtime("memory:")
    restored = Session.from_dict(data, runtime=elsewhere)
    assert texts(restored) == ["hello"]
    await elsewhere.close()


async def test_a_process_that_starts_later_finds_everything(redis: Redis) -> None:
    first = Runtime(RedisStore(redis))
    session = first.session("s", app_name="shop", user_id="ann")
    await session.send_message(user("a"))
    await session.set_state("k", 1)
    await session.set_state("language", "es", scope="user")
    await session.set_state("version", 2, scope="app")
    fork = session.fork("f")
    await fork.send_message(user("b"))
    before = await fork.events()
    await first.close()
    second = Runtime(RedisStore(redis))
    again = second.session("f", app_name="shop")
    assert texts(again) == ["a", "b"]
    assert await again.events() == before
    assert again.get_state("k") == 1
    assert again.get_state("language", scope="user") == "es"
    assert again.get_state("version", scope="app") == 2
    assert await again.verify()
    assert [info.id for info in await second.sessions()] == ["s", "f"]
    await second.close()


async def test_sessions_of_two_apps_and_odd_ids_do_not_meet(redis: Redis, runtime: Runtime) -> None:
    names = ["s", "a:b", "tertulia:state:app::", "tertulia:of:x:s", "session:s", "../s", "%2F"]
    for app in (None, "x", "of:x"):
        for name in names:
            await runtime.session(name, app_name=app).send_message(user(f"{app} {name}"))
    for app in (None, "x", "of:x"):
        for name in names:
            assert texts(runtime.session(name, app_name=app)) == [f"{app} {name}"]


async def test_state_documents_are_in_no_listing(redis: Redis, runtime: Runtime) -> None:
    session = runtime.session("s", user_id="ann")
    await session.set_state("k", 1, scope="user")
    await session.set_state("k", 1, scope="app")
    await runtime.store.put_entity("Counter", "c", b"1", 0)
    assert len(RedisStore(redis).list_sessions()) == 4
    assert [info.id for info in await runtime.sessions()] == ["s"]
    store = runtime.store
    assert isinstance(store, DocumentStore)
    assert store.list_sessions() == ["s"]


async def test_a_running_turn_is_in_no_document(redis: Redis, runtime: Runtime) -> None:
    session = runtime.session("s")
    await session.send_message(user("before"))
    async with session.turn("question") as turn:
        await turn.add_message(Message.assistant("answer"))
        data = RedisStore(redis).load("s")
        assert data is not None
        assert [message["content"] for message in data["messages"]] == ["before"]
    data = RedisStore(redis).load("s")
    assert data is not None
    assert [message["content"] for message in data["messages"]][1:] == ["question", "answer"]


async def test_closing_saves_an_open_turn_for_whoever_comes_next(redis: Redis) -> None:
    first = Runtime(RedisStore(redis))
    session = first.session("s")
    await session.send_message(user("before"))
    conversation = session._conversation  # pyright: ignore[reportPrivateUsage]
    opening = session._opening  # pyright: ignore[reportPrivateUsage]
    await admission.begin(conversation, opening, Asked(messages=(Message.user("left"),)))
    await first.close()
    second = Runtime(RedisStore(redis))
    again = second.session("s")
    assert texts(again) == ["before"]
    await again.send_message(user("next"))
    assert texts(again) == ["before", "next"]
    assert len(await again.events(types="turn.abandoned")) == 1
    assert await again.verify()
    await second.close()


# -- others


async def test_what_another_process_saved_is_seen_and_built_on(redis: Redis) -> None:
    first, second = Runtime(RedisStore(redis)), Runtime(RedisStore(redis))
    one, two = first.session("s"), second.session("s")
    for number in range(3):
        await one.send_message(user(f"a{number}"))
        await two.send_message(user(f"b{number}"))
    expected = ["a0", "b0", "a1", "b1", "a2", "b2"]
    assert texts(one) == texts(two) == expected
    assert await one.verify()
    assert [info.messages for info in await first.sessions()] == [6]
    await first.close()
    await second.close()


async def test_a_turn_that_was_overtaken_is_refused_and_nothing_of_it_is_written(
    redis: Redis,
) -> None:
    first, second = Runtime(RedisStore(redis)), Runtime(RedisStore(redis))
    one, two = first.session("s"), second.session("s")
    await one.send_message(user("a"))
    with pytest.raises(StaleWriter):
        async with one.turn("overtaken"):
            await two.send_message(user("b"))
    assert texts(one) == texts(two) == ["a", "b"]
    await one.send_message(user("c"))
    assert texts(two) == ["a", "b", "c"]
    await first.close()
    await second.close()


async def test_save_if_prevents_what_looking_before_does_not_see(redis: Redis) -> None:
    documents = Blind(redis)
    first, second = Runtime(documents), Runtime(RedisStore(redis))
    one = first.session("s")
    await one.send_message(user("a"))
    documents.behind["s"] = RedisStore(redis).load("s")
    await second.session("s").send_message(user("b"))
    with pytest.raises(StaleWriter):
        async with one.turn("overtaken"):
            pass
    documents.behind.clear()
    assert texts(one) == ["a", "b"]
    await first.close()
    await second.close()


async def test_shared_state_of_two_processes_is_never_lost(redis: Redis) -> None:
    runtimes = [Runtime(Careful(redis)) for _ in range(2)]
    sessions = [
        runtime.session(f"s{number}", user_id="ann") for number, runtime in enumerate(runtimes)
    ]

    async def add(session: Session) -> None:
        for _ in range(10):
            await session.update_state("n", lambda value: value + 1, scope="user", default=0)

    await asyncio.gather(*(add(session) for session in sessions))
    assert sessions[0].get_state("n", scope="user") == 20
    for runtime in runtimes:
        await runtime.close()


async def test_a_session_that_another_process_deleted_is_gone(redis: Redis) -> None:
    first, second = Runtime(RedisStore(redis)), Runtime(RedisStore(redis))
    one = first.session("s")
    await one.send_message(user("a"))
    await second.session("s").delete()
    assert texts(one) == []
    assert await first.sessions() == []
    await one.send_message(user("anew"))
    assert texts(second.session("s")) == ["anew"]
    await first.close()
    await second.close()


# -- failure


@pytest.mark.parametrize("at_first", [True, False])
async def test_a_failing_save_is_an_error_and_nothing_is_acknowledged(
    redis: Redis, at_first: bool
) -> None:
    documents = Failing(redis)
    runtime = Runtime(documents)
    session = runtime.session("s")
    if not at_first:
        await session.send_message(user("a"))
    kept = dict(redis.kept)
    documents.fails = "before"
    with pytest.raises(StoreUnavailable, match="no route"):
        await session.send_message(user("lost"))
    with pytest.raises(StoreUnavailable):
        async with session.turn("lost too"):
            pass
    documents.fails = None
    assert redis.kept == kept
    assert "lost" not in texts(session)
    await session.send_message(user("b"))
    assert texts(session)[-1] == "b"
    assert "lost too" not in texts(session)
    assert await session.verify()
    await runtime.close()


async def test_a_failing_save_takes_shared_state_back(redis: Redis) -> None:
    documents = Failing(redis)
    runtime = Runtime(documents)
    session = runtime.session("s", user_id="ann")
    await session.set_state("k", "old", scope="user")
    real = documents.save

    def fails_for_the_session(session_id: str, data: dict[str, Any]) -> None:
        if session_id == "s":
            raise ConnectionError("no route to the store")
        real(session_id, data)

    documents.save = fails_for_the_session
    with pytest.raises(StoreUnavailable):
        await session.update_state("k", lambda _: "new", scope="user")
    documents.save = real
    other = runtime.session("t", user_id="ann")
    assert other.get_state("k", scope="user") == "old"
    await session.update_state("k", lambda _: "newest", scope="user")
    assert other.get_state("k", scope="user") == "newest"
    await runtime.close()


async def test_a_save_whose_answer_was_lost_is_resolved_by_reading(redis: Redis) -> None:
    documents = Failing(redis)
    runtime = Runtime(documents)
    session = runtime.session("s")
    documents.fails = "after"
    await session.send_message(user("a"))
    documents.fails = None
    assert texts(session) == ["a"]
    await session.send_message(user("b"))
    assert texts(session) == ["a", "b"]
    await runtime.close()


async def test_a_save_that_cannot_be_resolved_is_told_as_unknown(redis: Redis) -> None:
    documents = Failing(redis)
    runtime = Runtime(documents)
    session = runtime.session("s")
    await session.send_message(user("a"))
    documents.fails = "half"
    with pytest.raises(OutcomeUnknown):
        await session.send_message(user("perhaps"))
    documents.fails = None
    assert texts(session) == ["a", "perhaps"]
    await runtime.close()


async def test_a_store_that_cannot_be_reached_is_a_typed_error(redis: Redis) -> None:
    documents = Failing(redis)
    documents.fails = "for good"
    runtime = Runtime(documents)
    with pytest.raises(StoreUnavailable):
        await runtime.session("s").history()
    with pytest.raises(StoreUnavailable):
        await runtime.session("s").send_message(user("a"))
    documents.fails = None
    await runtime.close()


@pytest.mark.parametrize(
    ("document", "error"),
    [
        ([1], StoreCorrupt),
        ({"session_id": "s", "app_name": None, "tertulia": 5}, StoreCorrupt),
        ({"session_id": "s", "tertulia": {"format": 1}}, StoreCorrupt),
        ({"session_id": "s", "tertulia": {"format": 99}}, StoreTooNew),
        ({"session_id": "s", "messages": [{"role": "nobody"}]}, StoreCorrupt),
        ({"session_id": "s", "messages": 5}, StoreCorrupt),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "y"}]}, StoreCorrupt),
    ],
)
async def test_a_document_that_is_no_session_is_reported_and_left_alone(
    redis: Redis, runtime: Runtime, document: Any, error: type[Exception]
) -> None:
    redis.kept["session:s"] = json.dumps(document)
    kept = dict(redis.kept)
    with pytest.raises(error, match="'s'"):
        await runtime.session("s").history()
    with pytest.raises(error):
        await runtime.session("s").send_message(user("a"))
    assert redis.kept == kept


# -- documents saved by hand


async def test_a_document_that_to_dict_gave_is_adopted(redis: Redis, runtime: Runtime) -> None:
    elsewhere = Runtime("memory:")
    saved = elsewhere.session("s", user_id="ann", system="Be brief.", metadata={"k": 1})
    await saved.send_messages(
        [
            user("a"),
            {"role": "assistant", "tool_calls": [{"id": "x", "name": "f"}]},
            {"role": "tool", "tool_call_id": "x", "content": "done"},
        ]
    )
    await saved.set_state("cart", ["apple"])
    RedisStore(redis).save("s", saved.to_dict())
    await elsewhere.close()
    session = runtime.session("s")
    assert texts(session) == ["a", "", "done"]
    assert session.get_state("cart") == ["apple"]
    assert (session.user_id, session.system, session.metadata) == ("ann", "Be brief.", {"k": 1})
    before = await session.events()
    assert await session.events() == before
    assert [info.id for info in await runtime.sessions()] == ["s"]
    await session.send_message(user("b"))
    assert (await session.events())[:-1] == before
    assert await session.verify()
    again = Runtime(RedisStore(redis))
    assert texts(again.session("s")) == ["a", "", "done", "b"]
    assert await again.session("s").verify()
    await again.close()


async def test_a_document_of_an_app_that_was_saved_by_hand_is_found(
    redis: Redis, runtime: Runtime
) -> None:
    plain = {"session_id": "s", "app_name": "shop", "messages": [user("a")]}
    RedisStore(redis).save("s", plain)
    assert texts(runtime.session("s", app_name="shop")) == ["a"]
    assert texts(runtime.session("s")) == []
    assert [(info.id, info.app_name) for info in await runtime.sessions()] == [("s", "shop")]
    with pytest.raises(ConfigurationError, match="shop"):
        await runtime.session("s").send_message(user("would overwrite it"))
    assert RedisStore(redis).load("s") == plain


async def test_saving_by_hand_what_a_live_session_gave_loses_nothing(
    redis: Redis, runtime: Runtime
) -> None:
    session = runtime.session("s")
    await session.send_message(user("a"))
    before = await session.events()
    RedisStore(redis).save("s", session.to_dict())
    assert await session.events() == before
    await session.send_message(user("b"))
    assert (await session.events())[:-1] == before
    data = RedisStore(redis).load("s")
    assert data is not None
    assert "tertulia" in data


async def test_saving_by_hand_inside_a_turn_does_not_fail_the_turn(
    redis: Redis, runtime: Runtime
) -> None:
    session = runtime.session("s")
    await session.send_message(user("a"))
    async with session.turn("b"):
        RedisStore(redis).save("s", session.to_dict())
    assert texts(session) == ["a", "b"]
    assert await session.verify()


# -- forks, deletion, memory


async def test_a_deleted_parent_leaves_its_forks_what_is_their_own(redis: Redis) -> None:
    first = Runtime(RedisStore(redis))
    session = first.session("s")
    await session.send_message(user("secret"))
    fork = session.fork("f")
    await fork.send_message(user("own"))
    await session.delete()
    assert "secret" not in json.dumps(redis.kept)
    assert texts(fork) == ["own"]
    await first.close()
    second = Runtime(RedisStore(redis))
    again = second.session("f")
    assert texts(again) == ["own"]
    await again.send_message(user("more"))
    assert texts(again) == ["own", "more"]
    assert [receipt.type for receipt in await second.store.receipts()] == ["session.deleted"]
    await second.close()


async def test_a_fork_stands_on_a_parent_that_was_put_away(redis: Redis) -> None:
    runtime = Runtime(DocumentStore(RedisStore(redis), keep=1))
    session = runtime.session("0")
    await session.send_message(user("0"))
    for depth in range(1, 10):
        session = session.fork(str(depth))
        await session.send_message(user(str(depth)))
    for depth in range(20):
        await runtime.session(f"other {depth}").send_message(user("x"))
    assert texts(session) == [str(depth) for depth in range(10)]
    data = RedisStore(redis).load("9")
    assert data is not None
    assert [message["content"] for message in data["messages"]] == texts(session)
    await runtime.close()


async def test_memory_holds_no_more_than_is_in_use(redis: Redis) -> None:
    store = DocumentStore(RedisStore(redis), keep=5)
    runtime = Runtime(store)
    busy = runtime.session("busy")
    async with busy.turn("held"):
        for number in range(30):
            await runtime.session(f"s{number}").send_message(user("x" * 100))
        held = store._desk.open  # pyright: ignore[reportPrivateUsage]
        assert len(held) <= 6
    assert texts(busy) == ["held"]
    assert texts(runtime.session("s0")) == ["x" * 100]
    await runtime.close()


async def test_documents_are_never_loaded_or_saved_on_the_event_loop(
    redis: Redis, runtime: Runtime
) -> None:
    session = runtime.session("s", user_id="ann")
    await session.send_message(user("a"))
    await session.history()
    await session.update_state("k", lambda _: 1, scope="user")
    await runtime.sessions()
    assert redis.threads == {"tertulia-documents"}


async def test_erasing_a_user_removes_documents(redis: Redis, runtime: Runtime) -> None:
    session = runtime.session("s", user_id="ann", app_name="shop")
    await session.send_message(user("secret"))
    await session.set_state("k", "secret", scope="user")
    other = runtime.session("t", user_id="bob", app_name="shop")
    await other.set_state("k", 1, scope="user")
    erased = await runtime.erase_user("ann")
    assert (erased.sessions, erased.values) == (1, 1)
    assert "secret" not in json.dumps(redis.kept)
    assert other.get_state("k", scope="user") == 1


async def test_a_closed_store_ends_its_thread(redis: Redis) -> None:
    before = set(threading.enumerate())
    runtime = Runtime(RedisStore(redis))
    await runtime.session("s").send_message(user("a"))
    mine = {thread for thread in set(threading.enumerate()) - before if "documents" in thread.name}
    assert mine
    await runtime.close()
    await runtime.close()
    assert not mine & set(threading.enumerate())
    with pytest.raises(StoreClosed):
        await runtime.session("s").history()


async def test_many_tasks_on_many_sessions_lose_nothing(redis: Redis, runtime: Runtime) -> None:
    async def talk(name: str) -> None:
        for number in range(10):
            await runtime.session(name).send_message(user(str(number)))

    await asyncio.gather(*(talk(name) for name in "abcdabcd"))
    for name in "abcd":
        assert len(texts(runtime.session(name))) == 20
        assert await runtime.session(name).verify()


def test_documents_work_without_an_event_loop(redis: Redis) -> None:
    session = Session("s", store=RedisStore(redis))
    session.add_message(user("a"))
    session.set_state("k", 1)
    again = Session("s", store=RedisStore(redis))
    assert texts(again) == ["a"]
    assert again.get_state("k") == 1
    for one in (session, again):
        asyncio.run(one._host.store.close())  # pyright: ignore[reportPrivateUsage]


def test_a_store_with_asynchronous_methods_is_refused_before_anything_is_lost() -> None:
    class Asynchronous(RedisStore):
        async def save(self, session_id: str, data: dict[str, Any]) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
            raise AssertionError("nobody awaits this")

    with pytest.raises(ConfigurationError, match="save is asynchronous"):
        Session("s", store=Asynchronous(Redis()))
