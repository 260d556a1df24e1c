"""Sessions between processes: durable when acknowledged, one writer, and the dead leave no lock."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import IO

import anyio
import pytest
from tests.integration.test_sessions_support import (
    Place,
    begin,
    calls,
    paired,
    result,
    say,
    texts,
)

from tertulia import Message
from tertulia.errors import SessionBusy, StaleWriter, TurnTimeout
from tertulia.stores.base import Change, Input

pytest_plugins = ("tests.integration.test_sessions_support",)

_BEGINNING = """
import asyncio, sys
from tertulia import Runtime

def say(*words):
    print(*words, flush=True)

runtime = Runtime(f"sqlite:///{sys.argv[1]}")
session = runtime.session("s")
"""


class Child:
    """A process of its own on the same file, driven by lines."""

    def __init__(self, place: Place, program: str) -> None:
        command = [sys.executable, "-c", _BEGINNING + program, str(place.file)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def _pipe(self, pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe

    def hear(self) -> str:
        """The next line that it says."""
        return self._pipe(self.process.stdout).readline().strip()

    def tell(self, line: str) -> None:
        """Say a line to it."""
        pipe = self._pipe(self.process.stdin)
        pipe.write(line + "\n")
        pipe.flush()

    def kill(self) -> None:
        """``kill -9``."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def end(self) -> int:
        """Wait for its end; its exit status."""
        self._pipe(self.process.stdin).close()
        return self.process.wait(timeout=30)


@pytest.fixture
def children() -> Iterator[list[Child]]:
    """The processes that a test started, which end with it."""
    started: list[Child] = []
    yield started
    for child in started:
        child.kill()
        for pipe in (child.process.stdin, child.process.stdout):
            if pipe is not None:
                pipe.close()


_WRITES = """
for number in range(100_000):
    session.add_message({"role": "user", "content": str(number)})
    say(number)
"""


@pytest.mark.parametrize("moment", [0, 3, 20])
def test_what_was_acknowledged_survives_kill_9(
    lasting: Place, children: list[Child], moment: int
) -> None:
    child = Child(lasting, _WRITES)
    children.append(child)
    acknowledged = -1
    while acknowledged < moment:
        acknowledged = int(child.hear())
    child.kill()
    session = lasting.open().session("s")
    said = texts(session.messages)
    assert said == [str(number) for number in range(len(said))]
    assert len(said) > acknowledged
    session.add_message({"role": "user", "content": "next"})
    assert session.messages[-1].text == "next"


_SETS = """
for number in range(100_000):
    session.set_state("n", number)
    say(number)
"""


def test_state_that_was_acknowledged_survives_kill_9(lasting: Place, children: list[Child]) -> None:
    child = Child(lasting, _SETS)
    children.append(child)
    acknowledged = -1
    while acknowledged < 5:
        acknowledged = int(child.hear())
    child.kill()
    assert lasting.open().session("s").get_state("n") >= acknowledged


_DIES_IN_A_TURN = """
async def main():
    async with session.turn("question") as turn:
        await turn.add_message({"role": "assistant", "content": "", "tool_calls": [
            {"id": "x", "name": "charge"}, {"id": "y", "name": "charge"}]})
        await turn.tool_called("x", "charge", effect=sys.stdin.readline().strip())
        say("called")
        sys.stdin.readline()

asyncio.run(main())
"""


@pytest.mark.parametrize("effect", ["none", "unknown"])
def test_a_turn_that_a_killed_process_left_is_closed_and_the_next_one_waits_for_nothing(
    lasting: Place, children: list[Child], effect: str
) -> None:
    child = Child(lasting, _DIES_IN_A_TURN)
    children.append(child)
    child.tell(effect)
    assert child.hear() == "called"
    session = lasting.open().session("s")
    assert session.messages == []
    child.kill()

    async def go_on() -> None:
        with anyio.fail_after(5):
            async with session.turn("next", timeout=4) as turn:
                await turn.add_message(Message.assistant("answer"))

    asyncio.run(go_on())
    history = session.messages
    assert paired(history)
    kept = ["question", "", *[history[2].text] * 2] if effect == "unknown" else []
    assert texts(history) == [*kept, "next", "answer"]
    abandoned = asyncio.run(session.events(types="turn.abandoned"))
    assert len(abandoned) == 1


_TAKES_TURNS = """
async def main():
    say("ready")
    sys.stdin.readline()
    for number in range(10):
        async with session.turn(f"{sys.argv[1][-1]}{number}") as turn:
            await turn.add_message({"role": "assistant", "content": turn.asked.messages[0].text})

asyncio.run(main())
"""


def test_two_processes_at_once_follow_each_other_and_lose_nothing(
    lasting: Place, children: list[Child]
) -> None:
    children += [Child(lasting, _TAKES_TURNS) for _ in range(2)]
    for child in children:
        assert child.hear() == "ready"
    for child in children:
        child.tell("go")
    assert [child.end() for child in children] == [0, 0]
    said = texts(lasting.open().session("s").messages)
    assert len(said) == 40
    assert said[0::2] == said[1::2]


_WAITS = """
async def main():
    say("ready")
    async with session.turn("from the waiter"):
        pass
    say("done")

asyncio.run(main())
"""


def test_an_input_whose_process_was_killed_while_it_waited_is_not_lost(
    lasting: Place, children: list[Child]
) -> None:
    runtime = lasting.open()
    session = runtime.session("s")

    async def run() -> None:
        turn = await begin(session, "one")
        child = Child(lasting, _WAITS)
        children.append(child)
        assert await asyncio.to_thread(child.hear) == "ready"
        row = await runtime.store.find(None, "s")
        assert row is not None
        with anyio.fail_after(20):
            while not await runtime.store.inputs(row.key):
                await asyncio.sleep(0)
        child.kill()
        await turn.complete()
        assert texts(session.pending_inputs) == ["from the waiter"]
        async with session.turn("two"):
            pass
        assert texts(await session.history()) == ["one", "from the waiter", "two"]
        assert session.pending_inputs == []

    asyncio.run(run())


def test_a_waiter_in_another_process_comes_next(lasting: Place, children: list[Child]) -> None:
    runtime = lasting.open()
    session = runtime.session("s")

    async def run() -> None:
        turn = await begin(session, "one")
        child = Child(lasting, _WAITS)
        children.append(child)
        assert await asyncio.to_thread(child.hear) == "ready"
        row = await runtime.store.find(None, "s")
        assert row is not None
        with anyio.fail_after(20):
            while not await runtime.store.inputs(row.key):
                await asyncio.sleep(0)
            await turn.complete()
            assert await asyncio.to_thread(child.hear) == "done"
        assert texts(await session.history()) == ["one", "from the waiter"]

    asyncio.run(run())


def test_a_follower_sees_what_another_process_writes(lasting: Place, children: list[Child]) -> None:
    session = lasting.open().session("s")
    session.add_message({"role": "user", "content": "here"})

    async def run() -> list[str]:
        events = session.follow(after=0)
        await anext(events)
        await anext(events)
        child = Child(lasting, 'session.add_message({"role": "user", "content": "there"})')
        children.append(child)
        with anyio.fail_after(20):
            event = await anext(events)
        return [event.type, (event.body or {})["content"]]

    assert asyncio.run(run()) == ["message.added", "there"]


def test_user_state_is_shared_with_another_process(lasting: Place, children: list[Child]) -> None:
    session = lasting.open().session("mine", user_id="ann")
    session.set_state("language", "es", scope="user")
    child = Child(
        lasting,
        """
other = runtime.session("other", user_id="ann")
other.add_message({"role": "user", "content": "x"})
say(other.get_state("language", scope="user"))
other.set_state("language", "fr", scope="user")
say("set")
""",
    )
    children.append(child)
    assert child.hear() == "es"
    assert child.hear() == "set"
    assert session.get_state("language", scope="user") == "fr"


# -- two workers in one process, which are to each other as two processes


async def test_a_writer_that_is_behind_writes_nothing(lasting: Place) -> None:
    first, second = lasting.open(), lasting.open()
    await say(first.session("s"), "a")
    row = await first.store.find(None, "s")
    assert row is not None
    await say(second.session("s"), "b")
    before = await second.session("s").events()
    with pytest.raises(StaleWriter):
        await first.store.commit(Change(before=row, after=row))
    assert await second.session("s").events() == before
    await say(first.session("s"), "c")
    assert texts(await second.session("s").history()) == ["a", "b", "c"]


async def test_a_change_that_was_overtaken_by_another_worker_begins_again(
    lasting: Place,
) -> None:
    first, second = lasting.open().session("s"), lasting.open().session("s")
    for number in range(5):
        await say(first, f"a{number}")
        await say(second, f"b{number}")
    expected = [f"{name}{number}" for number in range(5) for name in "ab"]
    assert texts(await first.history()) == expected


async def test_two_workers_that_create_a_session_at_once_make_one(lasting: Place) -> None:
    sessions = [lasting.open().session("s") for _ in range(4)]

    async def send(number: int) -> None:
        await say(sessions[number], str(number))

    async with anyio.create_task_group() as group:
        for number in range(4):
            group.start_soon(send, number)
    assert sorted(texts(await sessions[0].history())) == ["0", "1", "2", "3"]
    assert len(await sessions[0].events(types="session.created")) == 1


@pytest.mark.parametrize("known", [False, True])
async def test_reject_refuses_at_once_when_another_worker_holds_it(
    lasting: Place, known: bool
) -> None:
    first = lasting.open().session("s")
    second = lasting.open().session("s", busy="reject")
    if known:
        await say(second, "known")
    turn = await begin(first, "one")
    with anyio.fail_after(5), pytest.raises(SessionBusy):
        async with second.turn("two"):
            pytest.fail("another worker holds it")
    await turn.complete()
    async with second.turn("three"):
        pass


@pytest.mark.parametrize("known", [False, True])
async def test_a_deadline_holds_also_when_another_worker_holds_it(
    lasting: Place, known: bool
) -> None:
    first, second = lasting.open().session("s"), lasting.open().session("s")
    if known:
        await say(second, "known")
    turn = await begin(first, "one")
    with anyio.fail_after(5), pytest.raises(TurnTimeout):
        async with second.turn("two", timeout=0.05):
            pytest.fail("another worker holds it")
    assert second.pending_inputs == []
    await turn.complete()
    assert "two" not in texts(await first.history())


async def test_a_deadline_of_zero_is_no_wait(lasting: Place) -> None:
    first, second = lasting.open().session("s"), lasting.open().session("s")
    turn = await begin(first, "one")
    with anyio.fail_after(2), pytest.raises(TurnTimeout):
        async with second.turn("two", timeout=0):
            pytest.fail("another worker holds it")
    await turn.complete()


async def test_an_input_that_waits_for_another_worker_is_durable(lasting: Place) -> None:
    first, runtime = lasting.open().session("s"), lasting.open()
    second = runtime.session("s")
    await say(second, "known")
    turn = await begin(first, "one")

    async def wait() -> None:
        async with second.turn("two"):
            pass

    waiting: list[Input] = []
    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        row = await runtime.store.find(None, "s")
        assert row is not None
        with anyio.move_on_after(2):
            while not waiting:
                waiting = await runtime.store.inputs(row.key)
                await asyncio.sleep(0)
        await turn.complete()
    assert len(waiting) == 1


async def test_interrupt_reaches_a_turn_of_another_worker(lasting: Place) -> None:
    first, second = lasting.open().session("s"), lasting.open().session("s")
    turn = await begin(first, "one")
    await turn.add_message(Message.assistant("so far"))

    async def urgent() -> None:
        async with second.turn("two", busy="interrupt"):
            pass

    async with anyio.create_task_group() as group:
        group.start_soon(urgent)
        with anyio.fail_after(15):
            while not turn.stop.done:
                await turn.listen()
                await asyncio.sleep(0)
            await turn.interrupt(turn.stop.result())
    assert texts(await second.history()) == ["one", "so far", "two"]


async def test_a_holder_that_lives_is_not_robbed(lasting: Place) -> None:
    first, second = lasting.open().session("s"), lasting.open().session("s")
    turn = await begin(first, "one")
    with pytest.raises(TurnTimeout):
        async with second.turn("two", timeout=0.2):
            pytest.fail("another worker holds it")
    await turn.add_message(calls("x"))
    await turn.tool_called("x", "charge")
    await turn.tool_returned("x", result("x"))
    await turn.complete()
    assert len(await second.history()) == 3


async def test_others_see_nothing_of_a_turn_of_another_worker_before_it_ends(
    lasting: Place,
) -> None:
    first, second = lasting.open().session("s"), lasting.open().session("s")
    await say(first, "before")
    turn = await begin(first, "one")
    assert texts(await second.history()) == ["before"]
    assert second.to_dict()["messages"][-1]["content"] == "before"
    assert await second.verify()
    await turn.complete()
    assert texts(await second.history()) == ["before", "one"]
