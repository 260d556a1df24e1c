"""Each promise of the design, by its number and its name; the other tests go into the depth."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import subprocess
import sys
from contextvars import Context
from pathlib import Path
from typing import Any

import pytest

from tertulia import Message, Runtime, Session, SessionStore, errors
from tertulia.audit import generate_key, public_key
from tertulia.conversation import MAX_WAITERS
from tertulia.errors import AccessDenied, AgentError, RetentionRefused, SessionBusy, StaleWriter
from tertulia.stores.database import connect
from tertulia.testing import FrozenClock

WRITE_AND_WAIT = """
import asyncio, sys
from tertulia import Runtime
async def main():
    async with Runtime(store=sys.argv[1]) as runtime:
        sent = await runtime.session("s").send_message({"role": "user", "content": "kept"})
        print(sent.seq, flush=True)
        sys.stdin.read()
asyncio.run(main())
"""


class Documents(SessionStore):
    """The four methods on a dictionary."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, Any]] = {}

    def save(self, session_id: str, data: dict[str, Any]) -> None:
        self.kept[session_id] = data

    def load(self, session_id: str) -> dict[str, Any] | None:
        return self.kept.get(session_id)

    def delete(self, session_id: str) -> bool:
        return self.kept.pop(session_id, None) is not None

    def list_sessions(self) -> list[str]:
        return list(self.kept)


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'x.db'}"


def user(text: str) -> Message:
    return Message.user(text)


def call(*ids: str) -> Message:
    return Message.assistant("", tool_calls=[{"id": one, "name": "pay"} for one in ids])


def texts(messages: list[Message]) -> list[str]:
    return [message.text for message in messages]


async def test_promise_1_acknowledged_means_durable(address: str) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", WRITE_AND_WAIT, address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    seq = int(child.stdout.readline())
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    async with Runtime(store=address) as runtime:
        history = await runtime.session("s").history()
        assert [(message.seq, message.text) for message in history] == [(seq, "kept")]


async def test_promise_2_one_writer(address: str) -> None:
    async with Runtime(store=address) as here, Runtime(store=address) as there:
        async with here.session("s").turn("one") as turn:
            with pytest.raises(SessionBusy):
                async with there.session("s", busy="reject").turn("two"):
                    pytest.fail("two writers")
            await there.session("s").unlock()
            with pytest.raises(StaleWriter):
                await turn.add_message(Message.assistant("too late"))
        assert await there.session("s").history() == []
        assert await there.session("s").verify()


async def fail(session: Session, question: str, *, harmful: bool) -> None:
    async with session.turn(question) as turn:
        await turn.add_message(call("c1"))
        if harmful:
            await turn.tool_called("c1", "pay")
        raise ZeroDivisionError


async def test_promise_3_turns_are_atomic_and_honest_about_effects(address: str) -> None:
    async with Runtime(store=address) as runtime:
        session = runtime.session("s")
        with pytest.raises(ZeroDivisionError):
            await fail(session, "tell me", harmful=False)
        assert await session.history() == []

        with pytest.raises(ZeroDivisionError):
            await fail(session, "charge my card", harmful=True)
        question, asked, result = await session.history()
        assert (question.text, asked.role) == ("charge my card", "assistant")
        assert result.metadata == {"outcome": "unknown"}


async def test_promise_4_tool_calls_and_their_results_are_never_parted(address: str) -> None:
    async with Runtime(store=address) as runtime:
        session = runtime.session("s")
        await session.send_messages([user("go"), call("a", "b")])
        await session.send_messages([Message.tool("1", "a"), Message.tool("2", "b"), user("on")])
        assert texts(await session.history(limit=2)) == ["on"]
        assert texts(await session.fork("f", at=4).history()) == ["go"]
        await session.rewind(4)
        assert texts(await session.history()) == ["go"]
        await session.send_messages([call("c"), user("what now?")])
        assert [message.role for message in await session.history()][-2:] == ["tool", "user"]


async def test_promise_5_costs_are_flat(address: str, tmp_path: Path) -> None:
    async def rows_of_a_fork(messages: int) -> int:
        session = runtime.session(f"s{messages}")
        await session.send_messages([user(f"{number}") for number in range(messages)])
        before = database.total()
        await session.fork(f"f{messages}")
        return database.total() - before

    class Rows:
        def total(self) -> int:
            reader = connect(str(tmp_path / "x.db"))
            tables = ("events", "branches", "marks", "session_state", "sessions")
            counts = [reader.execute(f"SELECT count(*) FROM {one}").fetchall() for one in tables]
            reader.close()
            return sum(count[0][0] for count in counts)

    database = Rows()
    async with Runtime(store=address) as runtime:
        assert await rows_of_a_fork(10) == await rows_of_a_fork(900)


async def test_promise_6_nothing_is_unbounded() -> None:
    async with Runtime("memory:") as runtime:
        session = runtime.session("s")
        gate = session._conversation.gate  # pyright: ignore[reportPrivateUsage]
        async with session.turn("busy"):
            waiting = [
                asyncio.create_task(session.send_message(user(f"{n}")), context=Context())
                for n in range(MAX_WAITERS + 1)
            ]
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_EXCEPTION)
            assert [type(task.exception()) for task in done] == [SessionBusy]
            assert gate.waiting == MAX_WAITERS
        await asyncio.wait(waiting)
        assert len(await session.history()) == 1 + MAX_WAITERS
        assert gate.waiting == 0


async def test_promise_7_the_audit_can_be_checked(address: str, tmp_path: Path) -> None:
    key = generate_key()
    async with Runtime(store=address) as runtime:
        session = runtime.session("s")
        for number in range(5):
            await session.send_message(user(f"{number}"))
        anchor = await session.anchor(key)
        assert await session.verify(anchor, public_key(key))
    writer = connect(str(tmp_path / "x.db"))
    writer.execute(
        "UPDATE events SET body = CAST(replace(CAST(body AS TEXT), '3', '8') AS BLOB) WHERE seq = 5"
    )
    writer.close()
    async with Runtime(store=address) as runtime:
        found = await runtime.session("s").verify()
        assert not found
        assert found.first_bad == 5


async def test_promise_8_retention_and_erasure_are_real(address: str) -> None:
    clock = FrozenClock()
    async with Runtime(store=address, clock=clock) as runtime:
        brief = runtime.session("brief", retention={"ttl_days": 1, "auto_prune": True})
        firm = runtime.session("firm", retention={"immutable": True})
        hers = runtime.session("hers", user_id="ann")
        for session in (brief, firm, hers):
            await session.send_message(user("x"))
        await hers.set_state("language", "English", scope="user")
        with pytest.raises(RetentionRefused):
            firm.clear()
        clock.advance(days=2)
        assert [(swept.session_id, swept.done) for swept in await runtime.sweep()] == [
            ("brief", True)
        ]
        erasure = await runtime.erase_user("ann")
        assert (erasure.sessions, erasure.values, erasure.held) == (1, 1, [])
        assert [info.id for info in await runtime.sessions()] == ["firm"]


async def test_promise_9_isolation(address: str) -> None:
    async with Runtime(store=address) as runtime:
        session = runtime.session("s", user_id="ann", metadata={"tags": ["a"]})
        await session.send_message(user("private"))
        with pytest.raises(AccessDenied):
            await runtime.session("s", user_id="bob").history()
        session.metadata["tags"].append("b")
        assert session.metadata == {"tags": ["a"]}


def test_promise_10_errors_are_loud_and_typed() -> None:
    classes = [one for _, one in inspect.getmembers(errors, inspect.isclass)]
    assert all(issubclass(one, AgentError) for one in classes)
    assert all(one.__doc__ for one in classes)


async def test_promise_11_every_store_says_what_level_it_keeps(address: str) -> None:
    levels: list[str] = []
    for store in (address, "memory:", Documents()):
        async with Runtime(store) as runtime:
            levels.append(runtime.store.level)
            await Session("s", runtime=runtime).send_message(user("x"))
    assert levels == ["log", "memory", "document"]
