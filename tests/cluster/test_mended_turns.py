"""Holds whose commit has an unknown outcome, or that the store was not there to end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.agents.shop import Shop, suspended
from tests.postgres.proxy import proxied

from tertulia import Agent, Runtime, Session, afterwards
from tertulia.afterwards import (
    Hold,
    _waiting,  # pyright: ignore[reportPrivateUsage]
    let_go_later,
)
from tertulia.errors import OutcomeUnknown, StoreUnavailable, UsageError
from tertulia.stores.base import Change, SessionRow
from tertulia.stores.postgres import connections, writer
from tertulia.testing import ScriptedModel
from tertulia.testing.models import call

AWAY = StoreUnavailable("the store is away")
UNKNOWN = OutcomeUnknown("the reply was lost")
PATIENCE = 10.0
"""Seconds, on a slow machine."""


class Network:
    """What lies before the store of a runtime: it can lose the reply to a commit, and be cut."""

    def __init__(self, runtime: Runtime, patch: pytest.MonkeyPatch) -> None:
        self.store = runtime.store
        self.cut = False
        self._lost: str | None = None
        self._replies = False
        self._commit = self.store.commit
        patch.setattr(self.store, "commit", self._losing)
        for name in ("find", "drop_inputs", "records", "inputs"):
            patch.setattr(self.store, name, self._cuttable(getattr(self.store, name)))

    def lose(self, kind: str, *, reply: bool = False) -> None:
        """Be cut once the next change with an event of this type is made, before its reply.

        With `reply` the reply comes, and the network is cut after it.
        """
        self._lost, self._replies = kind, reply

    async def _losing(self, change: Change) -> SessionRow:
        self._check()
        row = await self._commit(change)
        if any(record.type == self._lost for record in change.records):
            self._lost, self.cut = None, True
            if not self._replies:
                raise UNKNOWN
        return row

    def _cuttable(self, work: Any) -> Any:
        async def through(*args: Any, **options: Any) -> Any:
            self._check()
            return await work(*args, **options)

        return through

    def _check(self) -> None:
        if self.cut:
            raise AWAY


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    async with Runtime(f"sqlite:///{tmp_path}/s.db") as made:
        yield made


@pytest.fixture
def network(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Network:
    monkeypatch.setattr("tertulia.afterwards.FIRST", 0.05)
    return Network(runtime, monkeypatch)


async def row_of(session: Session) -> SessionRow:
    row = await session._conversation.row()  # pyright: ignore[reportPrivateUsage]
    assert row is not None
    return row


async def free(session: Session) -> SessionRow:
    """The row of a session, once nobody holds it."""
    async with asyncio.timeout(PATIENCE):
        while (row := await row_of(session)).holder is not None:
            await asyncio.sleep(0.01)
    return row


async def test_a_worker_goes_on_where_the_reply_to_the_beginning_of_anothers_turn_was_lost(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(afterwards, "FIRST", 0.05)
    real = writer.write

    async def losing(connection: Any, batch: Any) -> Any:
        found = await real(connection, batch)
        if any(r.type == "turn.started" for job in batch.jobs for r in job.change.records):
            proxy.hold()
            raise ConnectionResetError("the reply was lost")
        return found

    with proxied(postgres) as proxy:
        async with Runtime(f"{proxy.url}?lease=60") as here, Runtime(postgres) as there:
            await here.session("s").send_message({"role": "user", "content": "Hello"})
            with monkeypatch.context() as impatient:
                impatient.setattr(connections, "PATIENCE", 0.2)
                impatient.setattr(connections, "STATEMENT_SECONDS", 0.3)
                impatient.setattr(connections, "CONNECT_SECONDS", 0.3)
                impatient.setattr(writer, "write", losing)
                with pytest.raises(OutcomeUnknown):
                    async with here.session("s").turn():
                        pass
            proxy.let_go()
            async with asyncio.timeout(PATIENCE), there.session("s").turn("And now?"):
                pass
            assert [m.text for m in await there.session("s").history()] == [
                "Hello",
                "And now?",
            ]


async def test_a_turn_that_began_with_a_lost_reply_is_closed_when_the_store_is_back(
    runtime: Runtime, network: Network
) -> None:
    session = runtime.session("s")
    network.lose("turn.started")
    with pytest.raises(OutcomeUnknown):
        async with session.turn("Hello"):
            pass
    network.cut = False
    assert (await free(session)).open_turn is None


async def test_a_turn_that_was_resumed_with_a_lost_reply_is_suspended_again(
    runtime: Runtime, network: Network
) -> None:
    shop = Shop()
    session, _, waiting = await suspended(runtime, shop, "Done.")
    session.approve(waiting.pending[0].id)
    network.lose("turn.resumed")
    with pytest.raises(OutcomeUnknown):
        await session.resume_async()
    network.cut = False
    assert (await free(session)).suspended
    await session.resume_async()
    assert shop.done == ["refund 5"]


async def test_a_turn_that_was_resumed_in_vain_is_suspended_when_the_store_is_back(
    runtime: Runtime, network: Network
) -> None:
    agent = Agent("ann", ScriptedModel(call("refund", cents=5), "7"), tools=Shop().tools())
    session = agent.session("s", runtime=runtime)
    waiting = await session.run_async("My money!", output_type=int)
    session.approve(waiting.pending[0].id)
    network.lose("turn.resumed", reply=True)
    with pytest.raises(UsageError, match="output_type"):
        await session.resume_async()
    network.cut = False
    assert (await free(session)).suspended
    assert (await session.resume_async(output_type=int)).output == 7


async def complete(session: Session, network: Network) -> None:
    async with session.turn("Hello"):
        network.cut = True


async def fail(session: Session, network: Network) -> None:
    async with session.turn("Hello"):
        network.cut = True
        raise RuntimeError("no")


@pytest.mark.parametrize("end", [complete, fail])
async def test_a_turn_whose_end_could_not_be_written_is_closed_when_the_store_is_back(
    runtime: Runtime, network: Network, end: Callable[[Session, Network], Awaitable[None]]
) -> None:
    session = runtime.session("s")
    with pytest.raises(StoreUnavailable):
        await end(session, network)
    network.cut = False
    assert (await free(session)).open_turn is None


async def test_what_closes_a_turn_later_leaves_the_next_turn_alone(
    runtime: Runtime, network: Network
) -> None:
    session = runtime.session("s")
    network.lose("turn.started")
    with pytest.raises(OutcomeUnknown):
        async with session.turn("Hello"):
            pass
    network.cut = False
    async with session.turn("Hello again") as turn:
        await asyncio.wait(_waiting, timeout=PATIENCE)
        assert (await row_of(session)).open_turn == turn.number
        await turn.add_message({"role": "assistant", "content": "Hi."})
    assert [m.text for m in await session.history()] == ["Hello again", "Hi."]


@pytest.mark.parametrize("other", [(0, 1), (1, 0)])
async def test_only_the_hold_that_was_meant_is_let_go(
    runtime: Runtime, network: Network, monkeypatch: pytest.MonkeyPatch, other: tuple[int, int]
) -> None:
    monkeypatch.setattr(afterwards, "FIRST", PATIENCE)
    session = runtime.session("s")
    await session.send_message({"role": "user", "content": "Hello"})
    network.lose("turn.started")
    with pytest.raises(OutcomeUnknown):
        async with session.turn():
            pass
    network.cut = False
    before = await row_of(session)
    assert before.open_turn is not None
    turn, epoch = other
    monkeypatch.setattr(afterwards, "FIRST", 0)
    first = set(_waiting)
    let_go_later(
        session._conversation,  # pyright: ignore[reportPrivateUsage]
        Hold(before.open_turn + turn, before.epoch + epoch),
    )
    (task,) = _waiting - first
    await task
    assert await row_of(session) == before


async def test_a_turn_says_so_when_it_hears_others_no_more(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failed = asyncio.Event()
    real = runtime.store.inputs

    async def failing(key: int) -> Any:
        if failed.is_set():
            return await real(key)
        failed.set()
        raise ValueError("what was read is not what was written")

    async def slow() -> str:
        """Wait until it has failed."""
        await failed.wait()
        return "late"

    agent = Agent("ann", ScriptedModel(call("slow"), "Yes."), tools=[slow])
    session = agent.session("s", runtime=runtime)
    monkeypatch.setattr(runtime.store, "inputs", failing)
    async with asyncio.timeout(PATIENCE):
        assert (await session.run_async("Hello")).text == "Yes."
    assert "listens no more" in caplog.text
    assert "what was read is not" in caplog.text


def test_without_a_loop_the_next_change_closes_a_turn_that_began_with_a_lost_reply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = Runtime(f"sqlite:///{tmp_path}/s.db")
    network = Network(runtime, monkeypatch)
    session = Agent("ann", ScriptedModel("Yes."), runtime=runtime).session("s")
    network.lose("turn.started")
    with pytest.raises(OutcomeUnknown):
        session.run("Hello")
    assert "no event loop runs" in caplog.text
    network.cut = False
    assert session.run("Hello again").text == "Yes."
    assert [m.text for m in session.messages] == ["Hello again", "Yes."]
    asyncio.run(runtime.close())
