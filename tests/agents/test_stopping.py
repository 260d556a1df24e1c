"""Whoever stops a turn, and whenever, the session is free afterwards."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.agents.histories import check_whole, kinds

from tertulia import Agent, Runtime, Session, SQLiteStore, doors, tool
from tertulia.doors import Outcome
from tertulia.errors import InvalidInput, StoreUnavailable, TurnTimeout
from tertulia.stores.base import Input
from tertulia.testing.models import Pause, ScriptedModel, call

PATIENCE = 20.0
"""Seconds, on a slow machine, in which what waits for nobody has ended."""


class Watched(SQLiteStore):
    """A store that says when a turn is about to be taken, and can be out of order."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.taking = asyncio.Event()
        self.taker: asyncio.Task[Any] | None = None
        self.stopped: Callable[[], Awaitable[Any]] | None = None
        """What happens while the next turn is being taken."""
        self.broken = False
        self.refused = asyncio.Event()

    async def commit(self, change: Any) -> Any:
        if change.after.holder is not None:
            self.taker = asyncio.current_task() if doors.current_loop() else None
            self.taking.set()
            if self.stopped is not None:
                stop, self.stopped = self.stopped, None
                await stop()
        return await super().commit(change)

    async def inputs(self, session: int) -> list[Input]:
        if self.broken:
            self.refused.set()
            raise StoreUnavailable("the disk hiccups")
        return await super().inputs(session)


@pytest.fixture
def store(tmp_path: Path) -> Watched:
    return Watched(tmp_path / "x.db")


@pytest.fixture
async def here(store: Watched) -> AsyncIterator[Runtime]:
    async with Runtime(store) as made:
        yield made


@pytest.fixture
async def elsewhere(here: Runtime, tmp_path: Path) -> AsyncIterator[Runtime]:
    async with Runtime(SQLiteStore(tmp_path / "x.db")) as made:
        yield made


@tool(requires_approval=True)
def pay() -> str:
    """Pay."""
    return "paid"


async def cancelled_twice(waits: asyncio.Task[Any], store: Watched, first: int, then: int) -> None:
    """Cancel whoever takes a turn some steps after it is about to, and again some steps later."""
    await store.taking.wait()
    assert store.taker is not None
    for _ in range(first):
        await asyncio.sleep(0)
    store.taker.cancel()
    for _ in range(then):
        await asyncio.sleep(0)
    store.taker.cancel()
    with anyio.fail_after(PATIENCE):
        await asyncio.gather(waits, store.taker, return_exceptions=True)


async def until_free(session: Session) -> None:
    """What was left to be put in order after a cancellation has been."""
    gate = session._conversation.gate  # pyright: ignore[reportPrivateUsage]
    with anyio.fail_after(PATIENCE):
        while gate.busy:
            await asyncio.sleep(0.001)


MOMENTS = [(first, then) for first in range(4) for then in range(1, 5)]


async def test_cancelled_twice_while_a_turn_begins_the_session_is_free(
    here: Runtime, elsewhere: Runtime, store: Watched
) -> None:
    for number, (first, then) in enumerate(MOMENTS):
        session = Session(str(number), runtime=here)
        await session.send_message({"role": "user", "content": "Hello"})
        store.taking.clear()

        async def hold(session: Session = session) -> None:
            async with session.turn("Go"):
                await asyncio.Event().wait()

        await cancelled_twice(asyncio.create_task(hold()), store, first, then)
        async with session.turn("Here", timeout=5):
            pass
        async with elsewhere.session(str(number)).turn("There", busy="reject"):
            pass
        texts = [message.text for message in await check_whole(session)]
        assert texts in (["Hello", "Here", "There"], ["Hello", "Go", "Here", "There"])


async def test_cancelled_twice_while_an_agent_begins_the_session_is_free(
    here: Runtime, elsewhere: Runtime, store: Watched
) -> None:
    for number, (first, then) in enumerate(MOMENTS):
        pause = Pause()
        model = ScriptedModel("Hello.", [pause, "Late."], "Here.")
        session = Agent("ann", model, runtime=here).session(str(number))
        await session.run_async("Hello")
        store.taking.clear()
        task = asyncio.ensure_future(session.run_async("Go"))
        await cancelled_twice(task, store, first, then)
        async with session.turn("Here", timeout=5):
            pass
        async with elsewhere.session(str(number)).turn("There", busy="reject"):
            pass
        await check_whole(session)


async def test_a_scope_that_is_cancelled_while_a_turn_begins_leaves_the_session_free(
    here: Runtime, elsewhere: Runtime, store: Watched
) -> None:
    """A cancelled scope cancels each wait in it anew, not the first only."""
    session = Session("s", runtime=here)
    await session.send_message({"role": "user", "content": "Hello"})
    with anyio.CancelScope() as scope:
        store.stopped = cancelling(scope)
        async with session.turn("Go"):
            raise AssertionError("it was cancelled before")
    assert scope.cancelled_caught
    async with session.turn("Here", timeout=5):
        pass
    async with elsewhere.session("s").turn("There", busy="reject"):
        pass


def cancelling(scope: anyio.CancelScope) -> Callable[[], Awaitable[None]]:
    async def cancel() -> None:
        scope.cancel()

    return cancel


async def test_cancelled_twice_while_a_turn_is_resumed_it_can_be_resumed(
    here: Runtime, elsewhere: Runtime, store: Watched
) -> None:
    for number, (first, then) in enumerate(MOMENTS):
        model = ScriptedModel(call("pay"), "Done.")
        agent = Agent("ann", model, tools=[pay], runtime=here)
        session = agent.session(str(number))
        await session.run_async("Go")
        session.approve(session.pending[0].id)
        with anyio.CancelScope() as scope:
            store.stopped = cancelling(scope)
            await session.resume_async()
        store.taking.clear()
        task = asyncio.ensure_future(session.resume_async())
        await cancelled_twice(task, store, first, then)
        await until_free(session)
        if (await kinds(session))[-1] == "turn.suspended":
            there = elsewhere.session(str(number))
            assert (await agent.resume(there, timeout=5)).text == "Done."
        async with elsewhere.session(str(number)).turn("There", busy="reject"):
            pass
        async with session.turn("Here", timeout=5):
            pass
        paid = [m for m in await check_whole(session) if m.text == "paid"]
        assert len(paid) <= 1


class Stopping(SQLiteStore):
    """A store that stops whoever commits an event of a type, with the commit on its way."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.stop: Callable[[], Any] = asyncio.Event
        self.at = ""

    def stop_at(self, kind: str, stop: Callable[[], Any]) -> None:
        self.at, self.stop = kind, stop

    async def commit(self, change: Any) -> Any:
        if self.at in [record.type for record in change.records]:
            self.at = ""
            self.stop()
        return await super().commit(change)


@pytest.mark.parametrize("at", ["app.step", "message.added", "turn.completed"])
async def test_a_scope_that_is_cancelled_while_a_turn_commits_leaves_the_session_free(
    tmp_path: Path, elsewhere: Runtime, at: str
) -> None:
    store = Stopping(tmp_path / "x.db")
    async with Runtime(store) as stopping:
        session = Session("s", runtime=stopping)
        await session.send_message({"role": "user", "content": "Hello"})
        with anyio.CancelScope() as scope:
            async with session.turn("Go") as turn:
                store.stop_at(at, scope.cancel)
                await turn.record("app.step", {})
                await turn.add_message({"role": "assistant", "content": "Gone"})
        assert scope.cancelled_caught
        await until_free(session)
        async with elsewhere.session("s").turn("There", busy="reject"):
            pass
        said = [] if at == "app.step" else ["Gone"]
        texts = [message.text for message in await check_whole(session)]
        assert texts == ["Hello", "Go", *said, "There"]


async def test_a_turn_goes_on_after_a_call_in_it_was_cancelled(tmp_path: Path) -> None:
    store = Stopping(tmp_path / "x.db")
    async with Runtime(store) as stopping:
        session = Session("s", runtime=stopping)
        async with session.turn("Go") as turn:
            with anyio.CancelScope() as scope:
                store.stop_at("message.added", scope.cancel)
                await turn.add_message({"role": "assistant", "content": "One"})
            assert scope.cancelled_caught
            await turn.add_message({"role": "assistant", "content": "Two"})
        assert [m.text for m in await check_whole(session)] == ["Go", "One", "Two"]


@pytest.mark.parametrize("at", ["tool.called", "tool.returned", "turn.completed"])
async def test_an_agent_that_is_cancelled_while_it_commits_leaves_the_session_free(
    tmp_path: Path, elsewhere: Runtime, at: str
) -> None:
    @tool
    def look() -> str:
        """Look."""
        return "seen"

    store = Stopping(tmp_path / "x.db")
    async with Runtime(store) as stopping:
        model = ScriptedModel("Hello.", call("look"), "Done.")
        session = Agent("ann", model, tools=[look], runtime=stopping).session("s")
        await session.run_async("Hello")
        task = asyncio.ensure_future(session.run_async("Go"))
        store.stop_at(at, task.cancel)
        await asyncio.wait([task], timeout=PATIENCE)
        assert task.cancelled()
        await until_free(session)
        async with elsewhere.session("s").turn("There", busy="reject"):
            pass
        await check_whole(session)


async def test_a_store_that_fails_while_it_is_watched_does_not_keep_a_turn_from_being_stopped(
    here: Runtime, store: Watched
) -> None:
    @tool
    async def wait() -> str:
        """Wait for ever."""
        store.broken = True
        await asyncio.Event().wait()
        return "never"

    model = ScriptedModel(call("wait"), "Next.")
    session = Agent("ann", model, tools=[wait], runtime=here).session("s")
    task = asyncio.ensure_future(session.run_async("Go"))
    with anyio.fail_after(PATIENCE):
        await store.refused.wait()
        store.broken = False
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (await kinds(session))[-1] == "turn.interrupted"
    assert (await session.run_async("More")).text == "Next."
    await check_whole(session)


# -- Ctrl-C


class Stopped(Outcome[None]):
    """An outcome at which a waiting thread is stopped, as by Ctrl-C."""

    def wait(self, timeout: float | None = None) -> bool:
        raise KeyboardInterrupt


async def ctrl_c() -> None:
    await Stopped()


def test_ctrl_c_while_a_turn_begins_leaves_the_session_free(tmp_path: Path) -> None:
    store = Watched(tmp_path / "x.db")
    runtime = Runtime(store)
    model = ScriptedModel("One.", "Two.")
    session = Agent("ann", model, runtime=runtime).session("s")
    session.run("First")
    store.stopped = ctrl_c
    with pytest.raises(KeyboardInterrupt):
        session.run("Second")
    assert session.run("Third", timeout=5).text == "Two."
    there = Runtime(SQLiteStore(tmp_path / "x.db")).session("s")
    agent = Agent("bob", ScriptedModel("Three."))
    assert agent.run_sync("Fourth", there, busy="reject").text == "Three."


def test_ctrl_c_while_a_turn_is_resumed_leaves_it_to_be_resumed(tmp_path: Path) -> None:
    store = Watched(tmp_path / "x.db")
    model = ScriptedModel(call("pay"), "Done.")
    session = Agent("ann", model, tools=[pay], runtime=Runtime(store)).session("s")
    session.run("Go")
    session.approve(session.pending[0].id)
    store.stopped = ctrl_c
    with pytest.raises(KeyboardInterrupt):
        session.resume()
    assert session.resume(timeout=5).text == "Done."


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_program_ends_only_the_tool(error: type[BaseException]) -> None:
    @tool
    def stop() -> str:
        """Stop everything."""
        raise error

    session = Agent(model=ScriptedModel(call("stop"), "Done.", "Two."), tools=[stop]).session()
    other = Agent(model=ScriptedModel("Other.")).session()
    answers: list[str] = []

    def talk() -> None:
        response = session.run("Go")
        answers.extend(m.text for m in response.messages[1:])
        answers.append(session.run("More").text)
        answers.append(other.run("Hello").text)

    thread = threading.Thread(target=talk, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert answers == ["", f"Error: {error.__name__}", "Done.", "Two.", "Other."]


# -- how long one waits

NO_TIME: list[Any] = [-1, "abc", float("nan"), float("inf"), True]


async def _run(session: Session, timeout: Any) -> None:
    await session.run_async("More", timeout=timeout)


async def _turn(session: Session, timeout: Any) -> None:
    async with session.turn("More", timeout=timeout):
        pass


async def _stream(session: Session, timeout: Any) -> None:
    async for _ in session.stream_async("More", timeout=timeout):
        pass


async def _run_of_an_agent(session: Session, timeout: Any) -> None:
    await Agent("bob", ScriptedModel("More.")).run("More", session, timeout=timeout)


DOORS = {"run": _run, "turn": _turn, "stream": _stream, "agent": _run_of_an_agent}


@pytest.mark.parametrize("door", DOORS)
async def test_a_timeout_of_0_is_at_once(runtime: Runtime, door: str) -> None:
    pause = Pause()
    model = ScriptedModel([pause, "Done."])
    session = Agent("ann", model, runtime=runtime).session("s")
    task = asyncio.ensure_future(session.run_async("Go"))
    await pause.reached()
    with anyio.fail_after(PATIENCE), pytest.raises(TurnTimeout):
        await DOORS[door](session, 0)
    pause.release()
    assert (await task).text == "Done."
    assert [m.text for m in await check_whole(session)] == ["Go", "Done."]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("timeout", NO_TIME, ids=repr)
async def test_a_timeout_that_is_no_time_is_refused(
    runtime: Runtime, door: str, timeout: Any
) -> None:
    session = Agent("ann", ScriptedModel(), runtime=runtime).session("s")
    with anyio.fail_after(PATIENCE), pytest.raises(InvalidInput, match="a timeout of"):
        await DOORS[door](session, timeout)
    assert await runtime.sessions() == []


async def test_a_session_has_a_timeout_of_its_own(runtime: Runtime) -> None:
    pause = Pause()
    session = Agent("ann", ScriptedModel([pause, "Done."]), runtime=runtime).session("s")
    task = asyncio.ensure_future(session.run_async("Go"))
    await pause.reached()
    impatient = Session("s", runtime=runtime, turn_timeout=0)
    with anyio.fail_after(PATIENCE), pytest.raises(TurnTimeout):
        await Agent("bob", ScriptedModel("More.")).run("More", impatient)
    pause.release()
    assert (await task).text == "Done."
    for bad in NO_TIME:
        with pytest.raises(InvalidInput, match="a timeout of"):
            Session("s", runtime=runtime, turn_timeout=bad)


@pytest.mark.parametrize("busy", ["", "later", 0, False], ids=repr)
async def test_a_way_of_being_busy_that_does_not_exist_is_refused(
    runtime: Runtime, busy: Any
) -> None:
    session = Agent("ann", ScriptedModel(), runtime=runtime).session("s")
    with pytest.raises(InvalidInput, match="busy="):
        await session.run_async("Go", busy=busy)
    assert await runtime.sessions() == []


async def test_an_answer_has_one_type(runtime: Runtime) -> None:
    session = Agent("ann", ScriptedModel("1"), runtime=runtime).session("s")
    with pytest.raises(InvalidInput, match=r"schema=.*output_type"):
        await session.json_async("Go", schema=int, output_type=str)
    assert (await session.json_async("Go", schema=int)).output == 1
