"""A process that stands still (SIGSTOP): it is not robbed, and it does not hold up the others."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from tests.crash.children import Child, child_of
from tests.crash.promises import AT_ONCE, check_valid_for_a_provider, losses
from tests.crash.workload import Fact

from tertulia import Message, Runtime, Session
from tertulia.errors import TurnTimeout

pytestmark = pytest.mark.slow_crash


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    async with Runtime(f"sqlite:///{tmp_path / 'x.db'}") as made:
        yield made


def order(child: Child, *lines: str) -> None:
    for line in lines:
        child.tell(line)
        assert child.hear() == "ok"


async def answer(session: Session, text: str) -> None:
    async with session.turn(text) as turn:
        await turn.add_message(Message.assistant(f"answer to {text}"))


async def texts(session: Session) -> list[str]:
    return [message.text for message in await session.history()]


@pytest.mark.parametrize("times", [40, pytest.param(300, marks=pytest.mark.soak)])
@pytest.mark.parametrize(
    "send",
    ["send", "send-much"],
)
async def test_a_process_that_stops_after_a_commit_holds_up_nobody(
    tmp_path: Path, runtime: Runtime, times: int, send: str
) -> None:
    """After every few large messages the journal is copied, and the stop falls into that."""
    mine = runtime.session("mine")
    with child_of("obeys", tmp_path / "x.db") as child:
        for number in range(times):
            order(child, f"{send} theirs")
            child.stop()
            with anyio.fail_after(AT_ONCE):
                await mine.send_message(Message.user(str(number)))
                await answer(runtime.session("other"), str(number))
            child.go_on()
        order(child, "send theirs")
    assert await texts(mine) == [str(number) for number in range(times)]
    assert len(await texts(runtime.session("theirs"))) == times + 1


async def test_a_stopped_holder_is_not_robbed_and_the_next_turn_comes_when_it_has_ended(
    tmp_path: Path, runtime: Runtime
) -> None:
    session = runtime.session("held")
    with child_of("obeys", tmp_path / "x.db") as child:
        order(child, "send held", "begin held", "call x")
        await stop_idle(child, runtime)
        with anyio.fail_after(AT_ONCE):
            await answer(runtime.session("other"), "meanwhile")
            assert await texts(session) == ["sent"]
        with pytest.raises(TurnTimeout):
            await anext(aiter_of_turn(session))
        waiting = asyncio.create_task(answer(session, "mine"))
        while not await waits(runtime, "held"):
            await asyncio.sleep(0)
        child.go_on()
        order(child, "return x", "add done")
        assert not waiting.done()
        order(child, "end")
        with anyio.fail_after(AT_ONCE):
            await waiting
    said = ["sent", "theirs", "", "charged", "done", "mine", "answer to mine"]
    assert await texts(session) == said
    assert await session.events(types=["turn.abandoned", "turn.interrupted"]) == []
    assert await session.verify()


async def stop_idle(child: Child, runtime: Runtime) -> None:
    """Stop it when it has let go of the file, which it has once somebody else could write."""
    await runtime.session("other").send_message(Message.user("now"))
    child.stop()


async def aiter_of_turn(session: Session) -> AsyncIterator[None]:
    async with session.turn("impatient", timeout=0.3):
        yield


async def waits(runtime: Runtime, name: str) -> bool:
    """Whether somebody's input lies in the inbox of a session."""
    row = await runtime.store.find(None, name)
    return row is not None and bool(await runtime.store.inputs(row.key))


@pytest.mark.parametrize("attempt", ["add late", "call y", "return x", "end", "fail"])
async def test_after_unlock_the_stopped_holder_is_refused_and_writes_nothing(
    tmp_path: Path, runtime: Runtime, attempt: str
) -> None:
    session = runtime.session("held")
    with child_of("obeys", tmp_path / "x.db") as child:
        order(child, "begin held", "call x")
        await stop_idle(child, runtime)
        row = await runtime.store.find(None, "held")
        assert row is not None
        with anyio.fail_after(AT_ONCE):
            assert await session.unlock() == row.open_turn
            await answer(session, "mine")
        before = await session.events()
        child.go_on()
        child.tell(attempt)
        assert child.hear() == "StaleWriter"
        assert await session.events() == before
        order(child, "send held")
    said = await session.history()
    assert [message.role for message in said] == "user assistant tool user assistant user".split()
    assert (said[2].metadata or {}).get("outcome") == "unknown"
    check_valid_for_a_provider(said)
    assert await session.verify()


@pytest.mark.parametrize("times", [10, pytest.param(100, marks=pytest.mark.soak)])
async def test_a_process_that_is_stopped_anywhere_and_goes_on_loses_nothing(
    tmp_path: Path, runtime: Runtime, times: int
) -> None:
    """In the middle of a commit it holds up writers, but no readers, and only until it goes on."""
    luck = random.Random(times)
    mine = runtime.session("mine")
    heard: list[str] = []
    with child_of("writes", tmp_path / "x.db", times) as child:
        for number in range(times):
            heard += [child.hear() for _ in range(luck.randrange(1, 40))]
            child.stop()
            sending = asyncio.create_task(mine.send_message(Message.user(str(number))))
            with anyio.fail_after(AT_ONCE):
                await runtime.sessions()
                await mine.history()
            child.go_on()
            with anyio.fail_after(AT_ONCE):
                await sending
        heard += child.kill()
    facts: list[Fact] = [json.loads(line) for line in heard]
    assert await losses(runtime, facts) == []
    assert await texts(mine) == [str(number) for number in range(times)]
