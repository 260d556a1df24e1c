"""Moving a store: rows are carried over as they are, once, and each session lives in one store."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import apsw
import msgspec
import pytest

from tertulia import Runtime, events
from tertulia.errors import AgentError, SessionMoved, UsageError, VersionConflict
from tertulia.moving import Moved, move
from tertulia.stores import MemoryStore, SQLiteStore, open_store
from tertulia.stores.base import Change, Input, LogStore, Receipt, Request, SessionRow, SharedWrite
from tertulia.stores.memories import MemoryKeeper, MemoryRow, MemoryScope
from tertulia.stores.moving import ARRIVED, ARRIVING, KEYS, MOVING, OF_SESSION, OF_STORE, Movable
from tertulia.testing.store_changes import append, birth

Urls = tuple[str, str]
DEAD = b"d" * 16


@pytest.fixture(params=["sqlite-sqlite", "sqlite-postgres", "postgres-sqlite", "postgres-postgres"])
def urls(request: pytest.FixtureRequest, tmp_path: Path) -> Urls:
    """The addresses of two empty stores."""
    found: list[str] = []
    for number, kind in enumerate(cast("str", request.param).split("-")):
        if kind == "sqlite":
            found.append(f"sqlite:///{tmp_path}/{number}.db")
        else:
            found.append(request.getfixturevalue("new_postgres")())
    return found[0], found[1]


@pytest.fixture
def files(tmp_path: Path) -> Urls:
    """The addresses of two empty stores in files."""
    return f"sqlite:///{tmp_path}/a.db", f"sqlite:///{tmp_path}/b.db"


@asynccontextmanager
async def opened(*urls: str) -> AsyncGenerator[list[LogStore]]:
    stores = [open_store(url) for url in urls]
    try:
        yield stores
    finally:
        for store in stores:
            await store.close()


async def moved(urls: Urls, **options: Any) -> Moved:
    async with opened(*urls) as (source, target):
        return await move(source, target, **options)


async def everything(url: str) -> dict[str, Any]:
    """All that a store keeps, with sessions by uid; without what a move notes, and who fenced."""
    found: dict[str, Any] = {}
    async with opened(url) as (store,):
        assert isinstance(store, Movable)
        rows = store.moving
        for table in OF_STORE:
            page = await rows.page(table)
            found[table] = {
                each.values[: KEYS[table]]: each.values
                for each in page
                if not str(each.values[0]).startswith("tertulia.")
            }
        for session in await rows.sessions():
            tables = {
                table: [each.values for each in await rows.page(table, session.place[0])]
                for table in OF_SESSION
            }
            found[session.values[0].hex()] = (session.values, tables)
        found["receipts"] = [(each.receipt, each.digest) for each in await rows.receipts(0)]
    return found


def new(name: str, **fields: Any) -> Change:
    """A session whose chain verifies."""
    uid = fields.setdefault("uid", sha256(name.encode()).digest()[:16])
    return birth(name, digest=events.genesis(uid), **fields)


def chained(row: SessionRow, first: int, last: int) -> list[Any]:
    """Records of application events, in a chain that verifies."""
    found: list[Any] = []
    digest = row.digest
    for seq in range(first, last + 1):
        body, salt = b'{"n":%d}' % seq, seq.to_bytes(16, "big")
        header = events.header(row.uid, seq, "app.n", seq, "app", seq)
        digest = events.link(digest, header, events.body_digest(salt, body))
        found.append(events.Record(seq, "app.n", seq, "app", seq, body, salt, digest))
    return found


async def fill(url: str) -> None:
    """Sessions with turns, forks, rewinds, erased bodies, state, requests, inputs, memories."""
    async with Runtime(url) as runtime:
        session = runtime.session("s", user_id="ann", metadata={"a": [1, "ü"]})
        for number in range(3):
            async with session.turn(f"question {number}") as turn:
                await turn.add_message({"role": "assistant", "content": f"answer {number}"})
        await session.set_state("color", "blue")
        await session.set_state("lang", "de", scope="user")
        await session.set_state("rate", 3, scope="app")
        fork = await session.fork("fork", at=4)
        fork.add_message({"role": "user", "content": "another way"})
        await fork.fork("fork of fork")
        await session.rewind(to=4)
        await session.prune("keep_last_1")
        gone = runtime.session("gone", app_name="shop")
        gone.add_message({"role": "user", "content": "hello"})
        heir = await gone.fork("heir")
        heir.add_message({"role": "user", "content": "on my own"})
        await gone.delete()
        ended = runtime.session("ended", app_name="shop", retention={"ttl_days": 3})
        ended.add_message({"role": "user", "content": "bye"})
        await ended.end()
        store = runtime.store
        row = await store.find(None, "s")
        assert row is not None
        asked = Request(key="k", digest=b"d", turn=1, status="done", result=b"{}", time=1)
        last = chained(row, row.seq + 1, row.seq + 1)
        row = await store.commit(append(row, *last, request=asked))
        await store.erase([(await store.chain(row.key, 0, row.seq))[0]], ["turn.started"])
        entry = Input(session=row.key, worker=DEAD, kind="input", time=5, body=b"[]")
        await store.put_input(entry)
        await store.put_entity("game", "one", b"{}", 0)
        await store.put_entity("tertulia.duty", "sweep", b"{}", 0)
        cast("Any", store).save("document", {"id": "document", "messages": []})
        assert isinstance(store, MemoryKeeper)
        memory = MemoryRow(
            key="m",
            content="Ann likes tea",
            metadata="{}",
            created=1,
            updated=2,
            session=row.uid,
            embedder="e",
            vector=b"\0\0\x80?" * 4,
            sources=((row.uid, 3),),
        )
        await store.put_memories(MemoryScope(None, "ann"), [memory])


async def test_every_row_is_in_the_other_store_as_it_was(urls: Urls) -> None:
    await fill(urls[0])
    before = await everything(urls[0])
    result = await moved(urls)
    assert result.left == []
    assert result.sessions == 5
    assert await everything(urls[1]) == before
    async with Runtime(urls[1]) as runtime:
        for name, app in (("s", None), ("fork", None), ("fork of fork", None), ("heir", "shop")):
            assert await runtime.session(name, app_name=app).verify()
        assert [m.content for m in await runtime.session("fork").history()][-1] == "another way"
        found = await cast("MemoryKeeper", runtime.store).memories_with(
            MemoryScope(None, "ann"), "tea", 5
        )
        assert [each.key for each in found] == ["m"]


async def test_sessions_keep_the_order_in_which_they_were_created(urls: Urls) -> None:
    await many(urls[0], 20, 3_000)
    await moved(urls)
    async with opened(urls[1]) as (target,):
        assert [row.id for row in await target.rows()] == [f"s{n}" for n in range(20)]


async def test_a_second_run_carries_nothing_again_and_leaves_no_notes(urls: Urls) -> None:
    await fill(urls[0])
    await moved(urls)
    there = await everything(urls[1])
    result = await moved(urls)
    assert (result.sessions, result.before, result.values, result.receipts) == (0, 5, 0, 0)
    assert await everything(urls[1]) == there
    async with opened(urls[1]) as (store,):
        assert isinstance(store, Movable)
        assert await store.moving.notes(ARRIVED) == []
        assert await store.moving.notes(ARRIVING) == []


async def noted(following: AsyncIterator[Any], seqs: list[int]) -> None:
    """Follow until an error ends that."""
    async for event in following:
        seqs += [event.seq]


async def test_a_moved_session_can_be_read_and_not_written_in_the_old_store(urls: Urls) -> None:
    await fill(urls[0])
    async with Runtime(urls[0]) as runtime:
        session = runtime.session("s")
        shown = [m.content for m in await session.history()]
        assert (await moved(urls)).left == []
        assert [m.content for m in await session.history()] == shown
        assert await session.verify()
        for deed in (
            lambda: session.set_state("color", "red"),
            lambda: session.fork("another"),
            lambda: session.rewind(to=2),
            session.end,
        ):
            with pytest.raises(SessionMoved, match=f"moved to {open_store(urls[1]).url};"):
                await deed()
        with pytest.raises(SessionMoved):
            async with session.turn("more"):
                pass
        seqs: list[int] = []
        with pytest.raises(SessionMoved):
            await noted(session.follow(0), seqs)
        assert seqs == list(range(1, len(seqs) + 1))
        assert seqs
        await session.delete()
    async with Runtime(urls[1]) as runtime, runtime.session("s").turn("more") as turn:
        await turn.add_message({"role": "assistant", "content": "here"})


async def test_a_follower_is_told_when_the_session_moves(files: Urls) -> None:
    await fill(files[0])
    async with Runtime(files[0]) as runtime:
        session = runtime.session("s")
        following = session.follow()

        async def next_event() -> Any:
            return await anext(following)

        waiting = asyncio.create_task(next_event())
        assert (await moved(files)).left == []
        with pytest.raises(SessionMoved):
            await waiting


async def test_nothing_is_moved_where_shared_state_contradicts(urls: Urls) -> None:
    await fill(urls[0])
    async with Runtime(urls[1]) as runtime:
        await runtime.session("x", user_id="ann").set_state("lang", "en", scope="user")
    with pytest.raises(VersionConflict, match="lang"):
        await moved(urls)
    async with opened(*urls) as (source, target):
        rows = await source.rows()
        assert {row.status for row in rows} == {"open", "ended"}
        assert len(await target.rows()) == 1


async def test_an_id_that_is_taken_is_named_and_the_others_go_on(urls: Urls) -> None:
    await fill(urls[0])
    async with Runtime(urls[1]) as runtime:
        runtime.session("fork").add_message({"role": "user", "content": "mine"})
    result = await moved(urls)
    assert sorted(left.session_id for left in result.left) == ["fork", "fork of fork"]
    assert result.sessions == 3
    async with Runtime(urls[0]) as runtime:
        await runtime.session("fork").set_state("still", "open")


async def test_sessions_that_were_moved_elsewhere_are_refused(files: Urls, tmp_path: Path) -> None:
    await fill(files[0])
    await moved(files)
    result = await moved((files[0], f"sqlite:///{tmp_path}/c.db"))
    assert result.sessions == 0
    assert len(result.left) == 5
    assert all("b.db" in left.reason for left in result.left)


async def test_a_turn_that_runs_is_waited_for_and_one_of_a_dead_holder_moves(urls: Urls) -> None:
    async with opened(urls[0]) as (source,):
        alive = await source.commit(new("busy", epoch=1, holder=source.worker))
        await source.commit(new("left", uid=b"left" * 4, epoch=1, holder=DEAD))
        async with opened(urls[1]) as (target,):
            result = await move(source, target, wait=0)
            assert [left.session_id for left in result.left] == ["busy"]
            found = await target.find(None, "left")
            assert found is not None
            assert found.holder == DEAD
            assert not await target.worker_is_alive(DEAD)
            waiting = asyncio.create_task(move(source, target, wait=30))
            await source.commit(append(alive, *chained(alive, 1, 1), after={"holder": None}))
            assert (await waiting).left == []


async def test_an_input_of_a_living_caller_stays_and_one_of_a_dead_comes_along(urls: Urls) -> None:
    async with opened(*urls) as (source, target):
        row = await source.commit(new("s"))
        for worker, body in ((source.worker, b"1"), (DEAD, b"2")):
            await source.put_input(
                Input(session=row.key, worker=worker, kind="input", time=1, body=body)
            )
        await move(source, target)
        there = await target.find(None, "s")
        assert there is not None
        assert [entry.body for entry in await target.inputs(there.key)] == [b"2"]


async def test_receipts_go_on_in_a_chain_that_has_some(urls: Urls) -> None:
    async with opened(*urls) as (source, target):
        for store, kind in ((source, "one"), (source, "two"), (target, "own")):
            await store.add_receipt(Receipt(time=1, type=kind, body=b'{"uid":"00"}'))
        await move(source, target)
        await source.add_receipt(Receipt(time=3, type="three", body=b"{}"))
        await move(source, target)
        found = await target.receipts()
    assert [(each.id, each.type) for each in found] == [
        (1, "own"),
        (2, "one"),
        (3, "two"),
        (4, "three"),
    ]
    assert msgspec.json.decode(found[1].body)["moved"]["body"] == '{"uid":"00"}'


async def test_state_that_changes_while_sessions_move_follows(urls: Urls) -> None:
    async with opened(*urls) as (source, target):
        row = await source.commit(new("busy", epoch=1, holder=source.worker))
        share = SharedWrite(scope="app", app=None, user=None, key="n", value=b"1")
        row = await source.commit(append(row, shared=[share]))
        await move(source, target, wait=0)
        share = msgspec.structs.replace(share, value=b"2")
        await source.commit(
            append(row, *chained(row, 1, 1), after={"holder": None}, shared=[share])
        )
        assert (await move(source, target)).left == []
        found = await target.shared("app", None, None, "n")
        assert found is not None
        assert (found.value, found.version) == (b"2", 2)
        there = cast("SessionRow", await target.find(None, "busy"))
        await target.commit(append(there, *chained(there, 2, 2), shared=[share]))
        assert (await move(source, target)).left == []


async def test_a_session_that_does_not_verify_stays_open_where_it_is(files: Urls) -> None:
    await fill(files[0])
    db: Any = apsw.Connection(files[0].removeprefix("sqlite:///"))
    db.execute("UPDATE events SET body = CAST(replace(body, 'bye', 'bad') AS BLOB) WHERE 1")
    db.close()
    result = await moved(files)
    assert [left.session_id for left in result.left] == ["ended"]
    async with opened(*files) as (source, target):
        row = await source.find("shop", "ended")
        assert row is not None
        assert row.status == "ended"
        assert await target.find("shop", "ended") is None
        assert isinstance(target, Movable)
        assert await target.moving.session(row.uid) is None


async def test_only_stores_of_logs_that_differ_can_be_moved(files: Urls) -> None:
    await fill(files[0])
    async with opened(files[0]) as (store,):
        with pytest.raises(UsageError, match="cannot be moved"):
            await move(store, MemoryStore())
        with pytest.raises(UsageError, match="one store"):
            await move(store, SQLiteStore(files[0].removeprefix("sqlite:///")))


async def test_one_app_can_be_moved_alone_and_a_dry_run_writes_nothing(files: Urls) -> None:
    await fill(files[0])
    before = await everything(files[0])
    async with opened(files[0]) as (store,):
        foreseen = await move(store, None, app="shop", dry_run=True)
    assert (foreseen.sessions, foreseen.dry_run) == (2, True)
    assert await everything(files[0]) == before
    assert (await moved(files, app="shop")).sessions == 2
    async with opened(files[1]) as (target,):
        assert [row.app for row in await target.rows()] == ["shop", "shop"]
        assert await target.shared_keys("app", None, None) == []


PROGRAM = """
import asyncio, sys
from tertulia.moving import move
from tertulia.stores import open_store
async def main():
    source, target = open_store(sys.argv[1]), open_store(sys.argv[2])
    print("go", flush=True)
    result = await move(source, target)
    assert not result.left, result.left
    await source.close()
    await target.close()
asyncio.run(main())
"""


async def many(url: str, sessions: int, longest: int) -> None:
    async with opened(url) as (store,):
        for number in range(sessions):
            row = await store.commit(new(f"s{number}"))
            size = longest if number % 7 == 0 else 3
            for low in range(0, size, 500):
                high = min(low + 500, size)
                row = await store.commit(append(row, *chained(row, low + 1, high)))


async def killed_and_repeated(urls: Urls, seed: int, kills: int) -> None:
    chance = random.Random(seed)
    # A mover from a database waits first until the one that was killed counts as dead.
    longest = 3.0 if urls[0].startswith("postgres") else 0.6
    await many(urls[0], 30, 2_500)
    before = await everything(urls[0])
    for _ in range(kills):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *urls], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "go\n"
        try:
            process.wait(chance.uniform(0.02, longest))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        async with opened(*urls) as (source, target):
            for row in await target.rows():
                here = await source.find(None, row.id)
                assert here is not None
                assert here.status == "moved"
    result = await moved(urls)
    assert result.left == []
    assert await everything(urls[1]) == before


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_a_move_that_is_killed_goes_on(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    target = f"sqlite:///{tmp_path}/b.db"
    if kind == "postgres":
        target = request.getfixturevalue("new_postgres")()
    await killed_and_repeated((f"sqlite:///{tmp_path}/a.db", target), 1, 3)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10))
async def test_a_move_that_is_killed_often_goes_on(
    seed: int, tmp_path: Path, new_postgres: Callable[[], str]
) -> None:
    await killed_and_repeated((f"sqlite:///{tmp_path}/a.db", new_postgres()), seed, 10)
    await killed_and_repeated((new_postgres(), f"sqlite:///{tmp_path}/b.db"), seed, 10)


async def test_one_process_at_a_time_moves_a_store(
    files: Urls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tertulia.moving.mover.PATIENCE", 0)
    async with opened(files[0], *files) as (other, source, target):
        await other.incarnation()
        await source.put_entity(MOVING, "", other.worker, 0)
        with pytest.raises(UsageError, match="being moved by another process"):
            await move(source, target)
        await other.close()
        assert (await move(source, target)).left == []


async def test_errors_of_a_store_that_is_none_are_the_usual_ones(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no store at all, but some text that is long enough")
    with pytest.raises(AgentError, match="no store"):
        await moved((f"sqlite:///{tmp_path}/text", f"sqlite:///{tmp_path}/b.db"))
