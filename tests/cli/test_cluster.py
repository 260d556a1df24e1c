"""`tertulia cluster`, and `doctor`, `backup` and `restore` of a database."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.cli.program import Program, interrupt, read_until
from tests.cli.test_terminal import on_terminal
from tests.crash.children import child_of

from tertulia import Runtime
from tertulia.cli.seeing import worker_view
from tertulia.stores.clustering import WorkerRow
from tertulia.stores.postgres import driver
from tertulia.stores.postgres.maintenance import durability
from tertulia.sweeping import Sweeper

SECRET = "x9-secret-of-a-peer"
MOMENT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ")


@asynccontextmanager
async def worker(address: str) -> AsyncGenerator[Runtime]:
    """A worker that has the sweep, and says where it is reached and what it does."""
    async with Runtime(address) as runtime:
        store: Any = runtime.store
        await runtime.session("quiet", app_name="shop").send_message(hello())
        if hasattr(store, "advertise"):
            store.report_load(lambda: {"turns": 1, "clients": 40})
            await store.advertise("http://10.0.0.1:8080", SECRET)
            await store.take_seat("client:shop:ann")
        sweeper = Sweeper(runtime, every=60)
        sweeper.start()
        try:
            while sweeper.last is None:
                await asyncio.sleep(0.01)
            yield runtime
        finally:
            await sweeper.close()


def hello() -> dict[str, Any]:
    return {"role": "user", "content": "hello"}


async def ran(program: Program, *words: str, store: str) -> str:
    """What the program prints, while the loop of this test goes on."""
    return await asyncio.to_thread(program.ok, *words, store=store)


# -- databases


async def test_cluster_shows_who_is_there_and_who_has_what(empty: Program, postgres: str) -> None:
    async with worker(postgres) as runtime, runtime.session("a").turn("hello"):
        mine = runtime.store.worker.hex()
        async with asyncio.timeout(20):
            while not (seen := await _seen(empty, postgres))["workers"][0]["load"]:
                continue
        [one] = seen["workers"]
        assert (one["worker"], one["state"]) == (mine, "alive")
        assert (one["held"], one["seats"], one["url"]) == (1, 1, "http://10.0.0.1:8080")
        assert one["load"] == {"turns": 1, "clients": 40}
        assert (seen["sweep"]["worker"], seen["sweep"]["term"]) == (mine, 1)
        assert seen["durability"]["crash"] is True
        assert seen["durability"]["primary"] is False
        assert seen["database"]["tables"]["events"] > 0
        assert "held" not in seen
        [held] = (await _seen(empty, postgres, "--held"))["held"]
        assert (held["session"], held["app"], held["worker"]) == ("a", None, mine)
        printed = await ran(empty, "cluster", "--held", store=postgres)
    heads, line, _, held_heads, held_line, _, *rest = printed.splitlines()
    assert heads.split()[:4] == ["worker", "host", "process", "state"]
    assert line.split()[0] == mine[:8]
    assert "clients 40, turns 1" in line
    assert held_heads.split() == ["session", "app", "worker", "turn", "last", "event"]
    assert held_line.split()[:3] == ["a", "-", mine[:8]]
    assert rest[0].startswith(f"sweep: {mine[:8]}, since ")
    assert "survives a crash, but NOT the loss of the server" in rest[1]
    assert rest[2].startswith("database: PostgreSQL ")


async def _seen(program: Program, address: str, *more: str) -> dict[str, Any]:
    return json.loads(await ran(program, "cluster", "--json", *more, store=address))


async def test_no_secret_is_ever_shown(empty: Program, postgres: str) -> None:
    password = re.findall(r":([^:@/]+)@", postgres)[0]
    async with worker(postgres):
        for words in (("cluster",), ("cluster", "--json"), ("doctor", "--json")):
            done = await asyncio.to_thread(empty, *words, store=postgres)
            assert done.returncode == 0, done.stderr
            assert SECRET not in done.stdout + done.stderr
            assert password not in done.stdout + done.stderr


async def test_the_session_of_a_killed_worker_is_held_by_a_dead_one(
    empty: Program, postgres: str
) -> None:
    address = f"{postgres}?lease=2"
    with child_of("holds", address, "a") as child:
        assert child.hear() == "holds"
        child.kill()
    async with asyncio.timeout(20):
        while (seen := await _seen(empty, postgres, "--held"))["workers"][0]["state"] != "dead":
            continue
    assert seen["workers"][0]["process"] == child.pid
    assert seen["held"][0]["worker"] == seen["workers"][0]["worker"]


async def test_doctor_of_a_database_says_how_it_is(empty: Program, postgres: str) -> None:
    async with worker(postgres) as runtime:
        printed = await ran(empty, "doctor", "--sessions", store=postgres)
        assert printed.splitlines()[-1] == "ok: nothing is wrong"
        assert f"worker {runtime.store.worker.hex()[:8]} on" in printed
        found = json.loads(await ran(empty, "doctor", "--json", store=postgres))
    assert found["faults"] == []
    assert found["schema_version"] == found["schema_newest"]
    assert found["removals"] == 0
    assert "does not survive the loss of the server" in found["notes"][0]


async def test_doctor_finds_a_database_that_may_lose_what_it_acknowledged(
    empty: Program, postgres: str
) -> None:
    async with Runtime(postgres) as runtime:
        await runtime.session("a").send_message(hello())
    db = await driver.connect(postgres)
    [(name,)] = await db.fetch("SELECT current_database()")
    try:
        await db.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
        done = await asyncio.to_thread(empty, "doctor", store=postgres)
        assert done.returncode == 1
        assert "BAD: what is acknowledged may be lost by a crash" in done.stdout
        shown = await ran(empty, "cluster", store=postgres)
        assert "MAY BE LOST by a crash of the server: synchronous_commit is off" in shown
    finally:
        await db.execute(f'ALTER DATABASE "{name}" RESET synchronous_commit')
        await db.close()


def test_an_empty_database_is_to_be_migrated_first(empty: Program, postgres: str) -> None:
    for words in (("cluster",), ("doctor",)):
        assert "run `tertulia migrate`" in empty.refused(*words, store=postgres)


def test_what_is_for_files_refuses_a_database_and_says_what_to_use(
    empty: Program, postgres: str
) -> None:
    assert "pg_dump" in empty.refused("backup", "copy.db", store=postgres)
    assert "pg_restore" in empty.refused("restore", "copy.db", "--yes", store=postgres)


@pytest.mark.parametrize(
    ("settings", "confirming", "crash", "primary"),
    [
        ({"synchronous_commit": "on"}, 0, True, False),
        ({"synchronous_commit": "off", "synchronous_standbys": "a"}, 1, False, False),
        ({"synchronous_commit": "on", "fsync": "off"}, 0, False, False),
        ({"synchronous_commit": "on", "full_page_writes": "off"}, 0, False, False),
        ({"synchronous_commit": "local", "synchronous_standbys": "a"}, 1, True, False),
        ({"synchronous_commit": "on", "synchronous_standbys": "a"}, 0, True, False),
        ({"synchronous_commit": "on", "synchronous_standbys": "a"}, 1, True, True),
        ({"synchronous_commit": "remote_apply", "synchronous_standbys": "*"}, 2, True, True),
    ],
)
def test_what_a_commit_survives_is_told_from_the_settings(
    settings: dict[str, str], confirming: int, crash: bool, primary: bool
) -> None:
    found = durability(settings, confirming)
    assert (found.crash, found.primary) == (crash, primary)


@pytest.mark.parametrize(
    ("alive", "silent", "state"),
    [(True, 0.4, "alive"), (True, 2.5, "suspect"), (False, 9.0, "dead")],
)
def test_a_worker_that_is_silent_for_too_long_is_suspect(
    alive: bool, silent: float, state: str
) -> None:
    row = WorkerRow(
        worker=b"w" * 16, host="h", process=1, alive=alive, silent=silent, since=0, lease=5.0
    )
    assert worker_view(row).state == state


# -- files and memory


async def test_cluster_of_a_file_shows_its_processes_and_what_they_hold(
    empty: Program,
) -> None:
    with child_of("holds", empty.file, "b") as child:
        assert child.hear() == "holds"
        async with worker(empty.url) as runtime:
            child.kill_only()
            seen = await _seen(empty, empty.url, "--held")
            states = {one["process"] or 0: one["state"] for one in seen["workers"]}
            assert sorted(states.values()) == ["alive", "dead"]
            assert seen["sweep"]["worker"] == runtime.store.worker.hex()
            assert [one["session"] for one in seen["held"]] == ["b"]
            printed = await ran(empty, "cluster", store=empty.url)
            assert "NOT the loss of the server: it is one file on one disk" in printed


def test_cluster_of_a_file_that_nobody_has_open(program: Program) -> None:
    assert program.ok("cluster").splitlines()[:2] == [
        "no worker: no process has the store open",
        "sweep: no worker has swept yet",
    ]


def test_cluster_refuses_memory(empty: Program) -> None:
    assert "name a store that stays" in empty.refused("cluster", store="memory:")


# -- watching


def test_watch_goes_on_until_it_is_interrupted(program: Program) -> None:
    with program.started("cluster", "--watch") as process:
        for _ in range(2):
            read_until(process, "sweep: no worker has swept yet\n")
        assert interrupt(process)[0] == 130


def test_watch_with_json_says_one_line_a_look(program: Program) -> None:
    with program.started("cluster", "--watch", "--json") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["workers"] == []
        assert json.loads(process.stdout.readline())["sweep"] is None


@pytest.mark.parametrize("kind", ["dumb", "xterm"])
def test_watch_shows_it_on_every_terminal(program: Program, kind: str) -> None:
    with on_terminal(program, "cluster", "--watch", terminal=kind) as terminal:
        for _ in range(2):
            terminal.until("no worker has swept yet")
        assert terminal.interrupt() == 130


def test_on_a_terminal_a_table_is_drawn(program: Program) -> None:
    with child_of("holds", program.file, "b") as child:
        assert child.hear() == "holds"
        with on_terminal(program, "cluster", "--held", terminal="xterm") as terminal:
            assert "───" in terminal.until("no worker has swept yet")
            assert terminal.end() == 0


def test_the_start_of_the_command_needs_no_driver(tmp_path: Path) -> None:
    import subprocess

    look = (
        "import sys, tertulia.cli.main as m, click\n"
        "m.tertulia.get_command(click.Context(m.tertulia), 'cluster')\n"
        "print([name for name in ('asyncpg', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
