"""Power loss, which a kill cannot show: what was not synced may be there, or not, or in part."""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.crash.promises import check_next_turn, losses
from tests.crash.workload import USER, Fact, Worker

from tertulia import Message, Runtime, SQLiteStore
from tertulia.errors import AgentError, OutcomeUnknown, StoreUnavailable
from tertulia.stores.database import Database
from tertulia.stores.sqlite import checkpoints, connection
from tertulia.testing.power_loss import (
    Delete,
    Disk,
    FailedSync,
    RecordingVFS,
    Said,
    Step,
    Sync,
    Write,
)

numbers = itertools.count()

LIVES = [
    pytest.param(3, 20, id="60 crash points"),
    pytest.param(20, 25, id="500 crash points", marks=[pytest.mark.soak, pytest.mark.timeout(600)]),
]


@pytest.fixture(autouse=True)
def frequent_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """A life is short here: the journal is copied into the database every few commits."""
    monkeypatch.setattr(checkpoints, "DUE_PAGES", 30)
    monkeypatch.setattr(checkpoints, "AGAIN_PAGES", 10)


async def live(folder: Path, luck: random.Random, *, syncs: bool = True) -> list[Step]:
    """Work on the file of a folder, opened several times; all that was done, and was told."""
    vfs = RecordingVFS(f"recording{next(numbers)}", syncs=syncs)
    try:
        for _ in range(3):
            store = SQLiteStore(folder / "x.db", vfs=vfs.name)
            async with Runtime(store) as runtime:
                await work(runtime, luck, vfs)
    finally:
        vfs.unregister()
    return vfs.steps


async def work(runtime: Runtime, luck: random.Random, vfs: RecordingVFS) -> None:
    workers = [
        Worker(runtime, name, random.Random(luck.random()), lambda fact: note(vfs, fact))
        for name in "abc"
    ]
    for _ in range(luck.randrange(5, 25)):
        await luck.choice(workers).step()


def note(vfs: RecordingVFS, fact: Fact) -> None:
    vfs.steps.append(Said(fact))


def crashes(
    folder: Path, before: dict[str, bytes], steps: list[Step], count: int, luck: random.Random
) -> Iterator[tuple[Path, list[Fact]]]:
    """The folders that are found after a power loss at so many moments of a life, in order."""
    disk, done = Disk(before), 0
    for number, moment in enumerate(sorted(luck.choices(range(1, len(steps) + 1), k=count))):
        disk.do(steps[done:moment])
        done = moment
        found = folder / f"crash{number}"
        found.mkdir()
        for name, content in disk.after_power_loss(luck).items():
            (found / name).write_bytes(content)
        yield found, [step.fact for step in steps[:moment] if isinstance(step, Said)]


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.is_file() and not path.name.endswith("-shm")
    }


async def lost(folder: Path, facts: list[Fact]) -> list[str]:
    """What is missing for a store of the usual kind that finds a folder after a power loss."""
    try:
        async with Runtime(f"sqlite:///{folder / 'x.db'}") as runtime:
            return await losses(runtime, facts)
    except AgentError as error:
        return [f"{type(error).__name__}: {error}"]


async def check_it_goes_on(folder: Path, luck: random.Random) -> None:
    async with Runtime(f"sqlite:///{folder / 'x.db'}") as runtime:
        infos = await runtime.sessions(limit=None)
        for info in luck.sample(infos, min(2, len(infos))):
            await check_next_turn(runtime, info.id)


@pytest.mark.slow_crash
@pytest.mark.parametrize(("lives", "points"), LIVES)
async def test_all_that_was_acknowledged_survives_a_power_loss_at_any_moment(
    tmp_path: Path, lives: int, points: int
) -> None:
    """Each life begins with what the power loss of another one left."""
    here, told = tmp_path / "born", list[Fact]()
    here.mkdir()
    for number in range(lives):
        luck = random.Random(number)
        before = files_of(here)
        steps = await live(here, luck)
        assert any(isinstance(step, Write) and step.file == "x.db" for step in steps)
        room = tmp_path / str(number)
        room.mkdir()
        found: list[tuple[Path, list[Fact]]] = []
        for folder, facts in crashes(room, before, steps, points, luck):
            assert await lost(folder, told + facts) == []
            await check_it_goes_on(folder, luck)
            found.append((folder, facts))
        here, facts = luck.choice(found)
        told += facts


@pytest.mark.slow_crash
@pytest.mark.parametrize("setting", ["OFF", "NORMAL"])
async def test_a_store_that_does_not_sync_its_commits_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    opened = connection.open_writer

    def open_writer(path: str, *, vfs: str | None = None) -> Database:
        db = opened(path, vfs=vfs)
        db.execute(f"PRAGMA synchronous = {setting}")
        return db

    with monkeypatch.context() as patched:
        patched.setattr(connection, "open_writer", open_writer)
        steps = await live(tmp_path, random.Random(1))
    assert await count_of_losses(tmp_path, steps) > 5


@pytest.mark.slow_crash
async def test_a_disk_that_only_says_that_it_has_synced_is_caught(tmp_path: Path) -> None:
    steps = await live(tmp_path, random.Random(1), syncs=False)
    assert not any(isinstance(step, Sync) for step in steps)
    assert await count_of_losses(tmp_path, steps) > 5


async def count_of_losses(folder: Path, steps: list[Step]) -> int:
    found = crashes(folder, {}, steps, 20, random.Random(2))
    return sum([bool(await lost(crash, facts)) for crash, facts in found])


@pytest.mark.slow_crash
@pytest.mark.parametrize("failing", [1, 3])
async def test_what_is_acknowledged_after_a_failed_sync_survives_a_power_loss(
    tmp_path: Path, failing: int
) -> None:
    """A system may forget what it could not sync, and say of the next sync that it succeeded."""
    steps = await live_with_failed_syncs(tmp_path, failing)
    assert any(isinstance(step, FailedSync) for step in steps)
    for folder, facts in crashes(tmp_path, {}, steps, 40, random.Random(failing)):
        assert await lost(folder, facts) == []


async def live_with_failed_syncs(folder: Path, failing: int) -> list[Step]:
    """Messages, every fourth of which meets syncs that fail; and what was acknowledged."""
    vfs = RecordingVFS(f"recording{next(numbers)}")
    try:
        async with Runtime(SQLiteStore(folder / "x.db", vfs=vfs.name)) as runtime:
            session = runtime.session("s", user_id=USER)
            for number in range(30):
                vfs.failing_syncs = failing if number % 4 == 3 else 0
                with contextlib.suppress(StoreUnavailable, OutcomeUnknown):
                    await session.send_message(Message.user("word " * 500))
                    row = await runtime.store.find(None, "s")
                    assert row is not None
                    note(vfs, ["head", "s", row.seq, row.digest.hex()])
            return list(vfs.steps)
    finally:
        vfs.unregister()


def outcomes(disk: Disk) -> set[tuple[tuple[str, bytes], ...]]:
    return {tuple(sorted(disk.after_power_loss(random.Random(n)).items())) for n in range(500)}


def test_what_was_synced_is_always_found_and_what_was_not_in_every_combination() -> None:
    disk = Disk({"x": b"old!"})
    disk.do([Write("x", 0, b"new"), Sync("x")])
    assert outcomes(disk) == {(("x", b"new!"),)}
    disk.do([Write("x", 0, b"N"), Write("x", 2, b"W"), Said("so")])
    assert disk.unsynced == 2
    assert {dict(files)["x"] for files in outcomes(disk)} == {b"new!", b"New!", b"neW!", b"NeW!"}


def test_a_write_may_be_torn_at_a_sector_and_nowhere_else() -> None:
    disk = Disk({})
    disk.do([Write("x", 0, bytes(600)), Sync("x"), Write("x", 500, b"y" * 100)])
    sizes = {dict(files)["x"].count(b"y") for files in outcomes(disk)}
    assert sizes == {0, 12, 88, 100}


def test_what_a_failed_sync_was_for_stays_in_doubt_after_the_next_sync() -> None:
    disk = Disk({})
    disk.do([Write("x", 0, b"a"), FailedSync("x"), Write("x", 1, b"b"), Sync("x")])
    assert outcomes(disk) == {(("x", b"\0b"),), (("x", b"ab"),)}
    disk.do([Write("x", 0, b"A"), Sync("x")])
    assert outcomes(disk) == {(("x", b"Ab"),)}


def test_a_file_that_was_deleted_may_come_back_without_what_came_after_it() -> None:
    disk = Disk({"x": b"old"})
    disk.do([Delete("x", durable=False), Write("x", 0, b"n"), Write("x", 1, b"ew")])
    assert {dict(files).get("x") for files in outcomes(disk)} == {
        *(b"old", None, b"n", b"\0ew", b"new")
    }
    disk.do([Write("y", 0, b""), Sync("y", folder=True)])
    assert {dict(files).get("x") for files in outcomes(disk)} == {None, b"n", b"\0ew", b"new"}
    disk.do([Delete("x", durable=True), Delete("y", durable=True)])
    assert outcomes(disk) == {()}
