"""A disk that is full, for real: a small file system of its own, which takes root to make."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tertulia import Runtime, Session
from tertulia.errors import StoreUnavailable

pytestmark = pytest.mark.system


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


async def fill(session: Session, acknowledged: list[str]) -> None:
    for number in range(10_000):
        text = f"{number} " + "x" * 4_000
        await session.send_message({"role": "user", "content": text})
        acknowledged.append(text)


async def test_a_full_disk_refuses_clearly_and_loses_nothing_that_was_acknowledged(
    small_disk: Path,
) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"\0" * 600_000)
    address = f"sqlite:///{small_disk / 'x.db'}"
    acknowledged: list[str] = []
    async with Runtime(store=address) as runtime:
        session = runtime.session("s")
        with pytest.raises(StoreUnavailable):
            await fill(session, acknowledged)
        assert [message.text for message in await session.history()] == acknowledged

        ballast.unlink()
        await session.send_message({"role": "user", "content": "there is room again"})
        acknowledged.append("there is room again")

    async with Runtime(store=address) as runtime:
        session = runtime.session("s")
        assert [message.text for message in await session.history()] == acknowledged
        assert await session.verify()
