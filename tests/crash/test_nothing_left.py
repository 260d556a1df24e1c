"""Opened and closed again and again: no thread, descriptor, file or object stays behind."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.crash.children import child_of

from tertulia import Message, Runtime
from tertulia.doors import call
from tertulia.errors import NotAStore

pytestmark = pytest.mark.slow_crash

TIMES = [100, pytest.param(1_000, marks=[pytest.mark.soak, pytest.mark.timeout(300)])]


def descriptors() -> Counter[str]:
    """What this process has open, by name."""
    found: Counter[str] = Counter()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found[str(entry.readlink())] += 1
        except FileNotFoundError:
            continue  # the one that lists them
    return found


def left_over(before: Counter[str]) -> list[str]:
    gc.collect()
    return [name for name in descriptors() - before if not name.startswith("/dev/")]


def threads() -> set[str]:
    """Our threads, but for the one on which a process runs what synchronous code asked for."""
    names = {thread.name for thread in threading.enumerate() if "tertulia" in thread.name}
    return names - {"tertulia-portal"}


async def use_not(runtime: Runtime) -> None:
    runtime.session("s")


async def read(runtime: Runtime) -> None:
    await runtime.session("s").history()


async def write(runtime: Runtime) -> None:
    session = runtime.session("s")
    await session.send_message(Message.user("hello"))
    session.set_state("k", 1)  # written by the end


async def follow(runtime: Runtime) -> None:
    session = runtime.session("s")
    await session.send_message(Message.user("hello"))
    events = session.follow(after=0)
    await anext(events)
    waiting = asyncio.create_task(take_turn(runtime))
    async with asyncio.timeout(20):
        while (await anext(events)).type != "turn.completed":
            continue
    await waiting


async def take_turn(runtime: Runtime) -> None:
    async with runtime.session("s").turn("question") as turn:
        await turn.add_message(Message.assistant("answer"))


async def be_interrupted(runtime: Runtime) -> None:
    async with runtime.session("s").turn("question"):
        task = asyncio.create_task(take_turn(runtime))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


USES = [use_not, read, write, take_turn, follow, be_interrupted]


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("use", USES, ids=[use.__name__ for use in USES])
async def test_runtimes_that_were_closed_leave_nothing(
    tmp_path: Path, use: Callable[[Runtime], Awaitable[None]], times: int
) -> None:
    file = tmp_path / "x.db"
    before, running = descriptors(), threads()
    async with Runtime(f"sqlite:///{file}") as runtime:
        await write(runtime)
    for _ in range(times // len(USES)):
        async with Runtime(f"sqlite:///{file}") as runtime:
            await use(runtime)
    assert left_over(before) == []
    assert threads() <= running
    locks = {path.name for path in Path(f"{file}.workers").iterdir()}
    assert locks <= {"next", "writing"}
    assert {path.name for path in tmp_path.iterdir()} == {"x.db", "x.db.workers"}


@pytest.mark.parametrize("times", TIMES)
async def test_sessions_that_were_used_leave_nothing_in_their_runtime(
    tmp_path: Path, times: int
) -> None:
    async with Runtime(f"sqlite:///{tmp_path / 'x.db'}") as runtime:
        await write(runtime)
        await asyncio.gather(*(runtime.session("s").history() for _ in range(50)))
        before = descriptors()
        for number in range(times):
            async with runtime.session(f"s{number}") as session:
                await session.send_message(Message.user("hello"))
                session.set_state("k", number)
                events = session.follow(after=0)
                await anext(events)
                del events
            del session
        gc.collect()
        await asyncio.sleep(0)
        assert len(runtime.registry) == 0
        assert len(runtime.dirty) == 0
        assert left_over(before) == []
        assert threads() == {"tertulia-writer"}


@pytest.mark.parametrize("times", TIMES)
def test_stores_that_cannot_be_opened_leave_nothing(tmp_path: Path, times: int) -> None:
    file = tmp_path / "x.db"
    file.write_text("no database " * 1_000)
    before, running = descriptors(), threads()
    for _ in range(times):
        runtime = Runtime(f"sqlite:///{file}")
        with pytest.raises(NotAStore):
            call(runtime.sessions())
        call(runtime.close())
    assert left_over(before) == []
    assert threads() <= running
    assert not list(tmp_path.rglob("[0-9a-f]" * 32))


@pytest.mark.parametrize("times", [5, pytest.param(50, marks=pytest.mark.soak)])
def test_processes_that_were_killed_leave_no_lock_once_another_one_has_opened(
    tmp_path: Path, times: int
) -> None:
    file = tmp_path / "x.db"
    for _ in range(times):
        with child_of("opens", file) as child:
            child.tell("0")
            assert [child.hear(), child.hear()] == ["ready", "ok"]
            os.kill(child.pid, 9)
        runtime = Runtime(f"sqlite:///{file}")
        call(runtime.sessions())
        call(runtime.close())
        assert not list(tmp_path.rglob("[0-9a-f]" * 32))
