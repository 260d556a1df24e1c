"""Bans: they last, everybody sees them at once, none is lost, and they go with the person."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tertulia import Runtime
from tertulia.clock import MICROSECONDS
from tertulia.errors import InvalidInput, StoreCorrupt
from tertulia.policies import Ban, is_banned
from tertulia.swarm.bans import KIND, Bans, key_of
from tertulia.testing import FrozenClock


@pytest.fixture(params=["memory", "sqlite"])
async def runtime(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Runtime]:
    address = "memory:" if request.param == "memory" else f"sqlite:///{tmp_path / 'x.db'}"
    async with Runtime(address, clock=FrozenClock()) as runtime:
        yield runtime


def names(bans: tuple[Ban, ...]) -> list[str]:
    return sorted(ban.policy for ban in bans)


async def test_nobody_is_banned_at_first(runtime: Runtime) -> None:
    bans = Bans(runtime, "shop")
    assert await bans.read("ann") == ()
    assert await bans.unban("ann") == []
    assert await runtime.store.entity(KIND, key_of("ann")) is None


async def test_a_ban_says_since_when_until_when_and_why(runtime: Runtime) -> None:
    bans = Bans(runtime, "shop")
    now = runtime.clock.now()
    [ban] = await bans.ban("ann", "polite", now + 5, "rude")
    assert ban == Ban("polite", now, now + 5, "rude")
    assert await bans.read("ann") == (ban,)


async def test_a_ban_is_for_one_client_of_one_swarm(runtime: Runtime) -> None:
    shop, bank = Bans(runtime, "shop"), Bans(runtime, "bank")
    await shop.ban("ann", ["polite", "*"])
    await bank.ban("ann", "secrets")
    assert names(await shop.read("ann")) == ["*", "polite"]
    assert names(await bank.read("ann")) == ["secrets"]
    assert await shop.read("bob") == ()
    assert names(tuple(await shop.unban("ann"))) == ["*", "polite"]
    assert names(await bank.read("ann")) == ["secrets"]


async def test_a_ban_that_is_repeated_writes_nothing(runtime: Runtime) -> None:
    bans = Bans(runtime, "shop")
    await bans.ban("ann", ["polite"], None, "first")
    before = await runtime.store.entity(KIND, key_of("ann"))
    assert await bans.ban("ann", ["polite"], None, "second") == []
    assert await bans.unban("ann", ["nobody"]) == []
    assert await runtime.store.entity(KIND, key_of("ann")) == before
    [new] = await bans.ban("ann", ["polite", "brief"])
    assert new.policy == "brief"


async def test_a_ban_is_over_at_its_end_and_is_dropped_by_the_next_write() -> None:
    clock = FrozenClock()
    async with Runtime("memory:", clock=clock) as runtime:
        bans = Bans(runtime, "shop")
        await bans.ban("ann", "polite", clock.now() + 10 * MICROSECONDS)
        clock.advance(9.999999)
        assert is_banned(await bans.read("ann"), "polite", clock.now())
        clock.advance(0.000001)
        assert not is_banned(await bans.read("ann"), "polite", clock.now())
        assert names(await bans.read("ann")) == ["polite"]
        await Bans(runtime, "bank").ban("ann", "secrets")
        assert await bans.read("ann") == ()


async def test_when_the_last_ban_goes_nothing_is_kept_of_it(runtime: Runtime) -> None:
    bans = Bans(runtime, "shop")
    await bans.ban("ann", ["polite", "brief"], None, "rude")
    assert [ban.policy for ban in await bans.unban("ann", "brief")] == ["brief"]
    await bans.unban("ann", ["polite"])
    stored = await runtime.store.entity(KIND, key_of("ann"))
    assert stored is not None
    assert stored.value is None
    await bans.ban("ann", "polite")
    assert names(await bans.read("ann")) == ["polite"]


async def test_what_cannot_be_banned_is_refused(runtime: Runtime) -> None:
    bans = Bans(runtime, "shop")
    with pytest.raises(InvalidInput, match="name of a policy must not be empty"):
        await bans.ban("ann", ["polite", ""])
    with pytest.raises(InvalidInput, match="id of a client must not be empty"):
        await bans.ban("", "polite")
    with pytest.raises(InvalidInput, match="at most 1,000 characters"):
        await bans.ban("ann", "polite", None, "x" * 1_001)
    assert await bans.read("ann") == ()


async def test_bans_that_are_not_what_was_written_are_an_error(runtime: Runtime) -> None:
    await runtime.store.put_entity(KIND, key_of("ann"), b'{"shop": [{"policy": 3}]}', 0)
    bans = Bans(runtime, "shop")
    with pytest.raises(StoreCorrupt, match="bans of a client"):
        await bans.read("ann")
    with pytest.raises(StoreCorrupt):
        await bans.ban("ann", "polite")


async def test_of_50_bans_at_once_none_is_lost(runtime: Runtime) -> None:
    bans = Bans(runtime, "shop")
    policies = [f"p{number:02}" for number in range(50)]
    changed = await asyncio.gather(*(bans.ban("ann", name) for name in policies))
    assert [[ban.policy for ban in some] for some in changed] == [[name] for name in policies]
    assert names(await bans.read("ann")) == policies
    await asyncio.gather(*(bans.unban("ann", name) for name in policies[:49]))
    assert names(await bans.read("ann")) == policies[49:]


async def test_of_the_same_ban_set_50_times_at_once_one_is_new(runtime: Runtime) -> None:
    bans = Bans(runtime, "shop")
    changed = await asyncio.gather(*(bans.ban("ann", "polite") for _ in range(50)))
    assert sum(map(len, changed)) == 1


async def test_two_runtimes_on_one_file_lose_no_ban_and_see_each_other(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'x.db'}"
    async with Runtime(address) as one, Runtime(address) as two:
        first, second = Bans(one, "shop"), Bans(two, "shop")
        both = [(first, "a"), (second, "b")]
        await asyncio.gather(
            *(bans.ban("ann", f"{side}{n:02}") for n in range(20) for bans, side in both)
        )
        expected = sorted(f"{side}{n:02}" for n in range(20) for side in "ab")
        assert names(await first.read("ann")) == expected
        await second.unban("ann")
        assert await first.read("ann") == ()


PROGRAM = """
import asyncio, sys
from tertulia import Runtime
from tertulia.swarm.bans import Bans

async def main():
    async with Runtime(sys.argv[1]) as runtime:
        print([ban.policy for ban in await Bans(runtime, "shop").read("ann")], flush=True)
        await Bans(runtime, "shop").ban("ann", "theirs")

asyncio.run(main())
"""


async def test_a_ban_is_seen_by_another_process_at_once_and_by_a_later_one(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'x.db'}"
    async with Runtime(address) as runtime:
        bans = Bans(runtime, "shop")
        await bans.ban("ann", "mine")
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", PROGRAM, address],
            capture_output=True,
            text=True,
            timeout=50,
            check=True,
        )
        assert done.stdout == "['mine']\n"
        assert names(await bans.read("ann")) == ["mine", "theirs"]
    async with Runtime(address) as runtime:
        assert names(await Bans(runtime, "shop").read("ann")) == ["mine", "theirs"]


# -- erasing and exporting a person


async def test_an_export_has_the_bans_of_every_swarm(runtime: Runtime) -> None:
    now = runtime.clock.now()
    await Bans(runtime, "shop").ban("ann", "polite", None, "rude")
    await Bans(runtime, "bank").ban("ann", "secrets", now + 1)
    known = await runtime.export_user("ann")
    assert json.loads(json.dumps(known))["bans"] == {
        "shop": [{"policy": "polite", "since": now, "until": None, "reason": "rude"}],
        "bank": [{"policy": "secrets", "since": now, "until": now + 1, "reason": ""}],
    }
    assert (await runtime.export_user("bob"))["bans"] == {}


async def test_bans_go_with_the_person_and_the_receipt_says_how_many(runtime: Runtime) -> None:
    shop = Bans(runtime, "shop")
    await shop.ban("ann", ["polite", "*"])
    await Bans(runtime, "bank").ban("ann", "secrets")
    await shop.ban("bob", "polite")
    assert (await runtime.erase_user("ann")).bans == 3
    assert await shop.read("ann") == ()
    assert (await runtime.export_user("ann"))["bans"] == {}
    assert names(await shop.read("bob")) == ["polite"]
    [receipt] = await runtime.store.receipts()
    assert json.loads(receipt.body)["bans"] == 3


async def test_bans_stay_while_a_session_is_held(runtime: Runtime) -> None:
    session = runtime.session("s", user_id="ann", retention={"legal_hold": True})
    await session.send_message({"role": "user", "content": "x"})
    await Bans(runtime, "shop").ban("ann", "polite")
    erasure = await runtime.erase_user("ann")
    assert (erasure.held, erasure.bans) == (["s"], 0)
    assert names(await Bans(runtime, "shop").read("ann")) == ["polite"]


async def test_nothing_in_the_file_tells_who_was_banned_after_an_erasure(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with Runtime(f"sqlite:///{path}") as runtime:
        await Bans(runtime, "shop").ban("ann-from-kyoto", "polite", None, "she was rude")
        files = [file for file in tmp_path.iterdir() if file.is_file()]
        read = ["cat", *files]  # not by this process: closing the file would drop SQLite's locks
        before = await asyncio.to_thread(subprocess.check_output, read, timeout=50)
        assert b"she was rude" in before
        await runtime.erase_user("ann-from-kyoto")
        found = await asyncio.to_thread(subprocess.check_output, read, timeout=50)
    assert b"ann-from-kyoto" not in found
    assert b"she was rude" not in found


@pytest.mark.parametrize("held", [False, True])
async def test_a_restored_backup_brings_back_only_what_was_not_erased(
    tmp_path: Path, held: bool
) -> None:
    path, copy = str(tmp_path / "x.db"), str(tmp_path / "copy.db")
    async with Runtime(f"sqlite:///{path}") as runtime:
        session = runtime.session("s", user_id="ann", retention={"legal_hold": held})
        await session.send_message({"role": "user", "content": "x"})
        await session.update_state("language", lambda _: "English", scope="user")
        for client in ("ann", "bob"):
            await Bans(runtime, "shop").ban(client, "polite")
        runtime.backup(copy)
        await runtime.erase_user("ann")
    Runtime.restore(copy, path)
    async with Runtime(f"sqlite:///{path}") as runtime:
        bans = Bans(runtime, "shop")
        assert names(await bans.read("ann")) == (["polite"] if held else [])
        assert names(await bans.read("bob")) == ["polite"]
        state = (await runtime.export_user("ann"))["state"]
        assert state == ({"": {"language": "English"}} if held else {})


def test_the_file_keeps_bans_as_entities_without_the_id_of_the_client(tmp_path: Path) -> None:
    path = tmp_path / "x.db"

    async def ban() -> None:
        async with Runtime(f"sqlite:///{path}") as runtime:
            await Bans(runtime, "shop").ban("ann", "polite")

    asyncio.run(ban())
    db = sqlite3.connect(path)
    [(kind, key, value)] = db.execute("SELECT kind, key, value FROM entities").fetchall()
    db.close()
    assert (kind, key) == (KIND, key_of("ann"))
    assert [ban["policy"] for ban in json.loads(value)["shop"]] == ["polite"]
