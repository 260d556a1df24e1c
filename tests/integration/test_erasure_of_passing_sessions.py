"""Sessions that were for one turn only: nothing is left of them, not even a receipt."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tertulia import Runtime, Session, ending
from tertulia.errors import RetentionRefused, SessionNotFound


async def discard(session: Session) -> None:
    await ending.discard(session._conversation, session._opening)  # pyright: ignore[reportPrivateUsage]


async def test_300_sessions_that_are_discarded_leave_no_row_and_no_receipt(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with Runtime(f"sqlite:///{path}") as runtime:
        for number in range(300):
            session = runtime.session(f"s{number}", metadata={"number": number})
            await session.send_message({"role": "user", "content": "hello"}, idempotency_key="k")
            async with session.turn("and?") as turn:
                session.set_state("k", number)
                await turn.add_message({"role": "assistant", "content": "hi"})
            await discard(session)
            assert await session.events() == []
        assert await runtime.store.receipts() == []
    db = sqlite3.connect(path)
    names = "sessions session_details events branches marks session_state requests inbox removals"
    for name in [*names.split(), "receipts"]:
        assert (name, db.execute(f"SELECT count(*) FROM {name}").fetchone()) == (name, (0,))
    db.close()


async def test_a_session_that_is_deleted_still_leaves_its_receipt() -> None:
    async with Runtime("memory:") as runtime:
        session = runtime.session("s")
        await session.send_message({"role": "user", "content": "hello"})
        receipt = await session.delete()
        [kept] = await runtime.store.receipts()
        assert (kept.type, kept.body) == ("session.deleted", receipt.body)


async def test_what_forked_off_a_session_that_is_discarded_stays() -> None:
    async with Runtime("memory:") as runtime:
        session = runtime.session("s")
        await session.send_message({"role": "user", "content": "hello"})
        fork = await session.fork("f")
        await fork.send_message({"role": "user", "content": "still here"})
        await discard(session)
        assert [message.text for message in await fork.history()] == ["still here"]
        assert await runtime.store.receipts() == []


async def test_discarding_is_refused_where_deleting_is() -> None:
    async with Runtime("memory:") as runtime:
        session = runtime.session("s")
        with pytest.raises(SessionNotFound):
            await discard(session)
        await session.send_message({"role": "user", "content": "hello"})
        await session.hold("case 7")
        with pytest.raises(RetentionRefused):
            await discard(session)
