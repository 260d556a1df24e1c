"""One file, several processes: kills, stops, forks, turns at writing, and bells."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from tertulia.stores import SQLiteStore
from tertulia.stores.base import Segment
from tertulia.testing.store_changes import append, birth, record, seqs

HOLDER = """
import asyncio, sys
from tertulia.stores import SQLiteStore
from tertulia.testing.store_changes import birth

async def main():
    store = SQLiteStore(sys.argv[1])
    await store.commit(birth("held by a child"))
    print(store.worker.hex(), flush=True)
    sys.stdin.read()
    await store.close()

asyncio.run(main())
"""

BUSY = """
import asyncio, json, sys, time
from tertulia.stores import SQLiteStore
from tertulia.testing.store_changes import append, birth, record

async def main():
    path, name, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    store = SQLiteStore(path)
    row = await store.commit(birth(name))
    print("ready", flush=True)
    sys.stdin.readline()
    end, longest, count = time.monotonic() + seconds, 0.0, 0
    while (start := time.monotonic()) < end:
        row = await store.commit(append(row, record(row.seq + 1)))
        longest, count = max(longest, time.monotonic() - start), count + 1
    await store.close()
    print(json.dumps([count, longest, row.key]), flush=True)

asyncio.run(main())
"""

FORK = """
import asyncio, os, sys
from tertulia.errors import ForkedRuntimeError
from tertulia.stores import SQLiteStore
from tertulia.testing.store_changes import append, birth, record

path = sys.argv[1]

async def before():
    store = SQLiteStore(path)
    row = await store.commit(birth("s"))
    await store.find(None, "s")
    return store, row

store, row = asyncio.run(before())

def refused(attempt):
    try:
        asyncio.run(attempt())
    except ForkedRuntimeError:
        return True
    return False

if (child := os.fork()) == 0:
    async def commit():
        await store.commit(append(row, record(1)))
    async def anew():
        await SQLiteStore(path).find(None, "s")
    async def elsewhere():
        other = SQLiteStore(path + ".other")
        await other.commit(birth("s"))
        await other.close()
    answers = [
        refused(lambda: store.find(None, "s")),
        refused(commit),
        refused(anew),
        not refused(elsewhere),
    ]
    asyncio.run(store.close())
    if not all(answers):
        os._exit(1)
    sys.exit(0)

_, status = os.waitpid(child, 0)

async def after():
    global row
    alive = await store.worker_is_alive(store.worker)
    row = await store.commit(append(row, record(1)))
    other = SQLiteStore(path)
    held = await other.worker_is_alive(store.worker)
    await other.close()
    await store.close()
    return alive and held and row.seq == 1

print(os.waitstatus_to_exitcode(status), asyncio.run(after()), flush=True)
"""


@contextmanager
def process(script: str, *arguments: object) -> Generator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def line(child: subprocess.Popen[str]) -> str:
    if child.stdout is None:
        raise AssertionError("no pipe")
    return child.stdout.readline().strip()


def start(child: subprocess.Popen[str]) -> None:
    if child.stdin is None:
        raise AssertionError("no pipe")
    print("go", file=child.stdin, flush=True)


async def test_a_killed_worker_is_dead_at_once_and_its_file_goes(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    store = SQLiteStore(path)
    with process(HOLDER, path) as child:
        worker = bytes.fromhex(line(child))
        assert await store.worker_is_alive(worker)
        child.kill()
        child.wait()
        assert not await store.worker_is_alive(worker)
    assert not (tmp_path / "x.db.workers" / worker.hex()).exists()
    assert await store.find(None, "held by a child") is not None
    await store.close()


async def test_a_stopped_worker_is_not_taken_for_dead(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    store = SQLiteStore(path)
    with process(HOLDER, path) as child:
        worker = bytes.fromhex(line(child))
        child.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
        assert await store.worker_is_alive(worker)
        child.send_signal(signal.SIGCONT)
        child.communicate("")
        assert not await store.worker_is_alive(worker)
    await store.close()


async def test_the_next_opener_sweeps_up_after_the_dead(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with process(HOLDER, path) as child:
        left = tmp_path / "x.db.workers" / line(child)
        child.kill()
        child.wait()
    assert left.exists()
    store = SQLiteStore(path)
    assert await store.find(None, "held by a child") is not None
    assert not left.exists()
    await store.close()


async def test_the_next_opener_waits_for_nothing_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with process(BUSY, path, "a", 30) as child:
        line(child)
        start(child)
        store = SQLiteStore(path)
        row = await store.find(None, "a")
        assert row is not None
        rung = threading.Event()
        unwatch = store.watch(row.key, rung.set)
        assert await asyncio.to_thread(rung.wait, 10)
        unwatch()
        child.kill()
        child.wait()
    row = await store.find(None, "a")
    assert row is not None
    assert row.seq > 0
    found = await store.records([Segment(row.key, 0, row.seq)])
    assert seqs(found) == list(range(1, row.seq + 1))
    await asyncio.wait_for(store.commit(append(row, record(row.seq + 1))), 5)
    await store.close()


def test_of_two_busy_processes_none_starves(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with process(BUSY, path, "a", 3) as one, process(BUSY, path, "b", 3) as two:
        both = [one, two]
        for child in both:
            assert line(child) == "ready"
        for child in both:
            start(child)
        results = [json.loads(line(child)) for child in both]
    total = sum(count for count, _, _ in results)
    for count, longest, _ in results:
        assert count > 0.3 * total
        assert longest < 1.0
    assert {key for _, _, key in results} == {1, 2}


def test_a_forked_child_is_refused_and_the_parent_goes_on(tmp_path: Path) -> None:
    with process(FORK, tmp_path / "x.db") as child:
        assert line(child) == "0 True"


async def test_commits_of_another_process_ring_the_bells(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    store = SQLiteStore(path)
    row = await store.commit(birth("watched"))
    rung = threading.Event()
    unwatch = store.watch(row.key, rung.set)
    other = SQLiteStore(path)
    await other.commit(append(row, record(1)))
    assert await asyncio.to_thread(rung.wait, 10)
    unwatch()
    await other.close()
    await store.close()
