"""A turn with tools over a real provider's client, cancelled at every step of all its tasks.

A step is what a task does from one await to the next. Wherever the caller is cancelled, the next
turn on that session works at once, with a history that the provider takes.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, cast

import pytest
from tests.agents import anthropic_server, openai_server
from tests.agents.http_server import Reply, Server, elsewhere

from tertulia import Agent, Runtime, Session

PATIENCE = 20
"""Seconds, on a slow machine, that a cancelled call has to end."""
EVERY = 60
"""Steps up to which each one is tried by `make soak`; beyond, it is every fifth."""
APART = 4
"""Of four steps `make test` tries one; another one for each way in which it is cancelled."""


class Stepped(Coroutine[Any, Any, Any]):
    """A coroutine that says when it is about to take a step."""

    def __init__(self, inner: Any, before: Callable[[], None]) -> None:
        self._inner = inner
        self._before = before

    def send(self, value: Any, /) -> Any:
        self._before()
        return self._inner.send(value)

    def throw(self, *error: Any) -> Any:
        return self._inner.throw(*error)

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._inner.__await__()


class Steps:
    """Counts the steps of all tasks, and cancels before the step with a number.

    What is cancelled is one task, or, as when a loop shuts down, every task that took a step.
    """

    def __init__(self, number: int, *, everything: bool) -> None:
        self.taken = 0
        self.cancelled = False
        self.task: asyncio.Task[Any] | None = None
        self._number = number
        self._everything = everything
        self._begun = set[asyncio.Task[Any]]()

    def before(self) -> None:
        if self.taken == self._number and self.task is not None:
            self.cancelled = self.task.cancel()
            for task in self._begun if self._everything else ():
                task.cancel()
        self._begun.add(cast("asyncio.Task[Any]", asyncio.current_task()))
        self.taken += 1

    @contextmanager
    def counted(self) -> Generator[None]:
        """Tasks that are started in here are counted."""
        loop = asyncio.get_running_loop()

        def make(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
            return asyncio.Task(Stepped(work, self.before), loop=loop, **options)

        loop.set_task_factory(make)
        try:
            yield
        finally:
            loop.set_task_factory(None)


class Scene:
    """A provider that asks for two tools, and an agent that has them."""

    def __init__(self, wire: ModuleType, server: Server, runtime: Runtime) -> None:
        self.ran: list[str] = []
        self.open = 0
        """Turns that were open when the call that ran them had ended."""
        self.server = server
        self._wire = wire
        self._runtime = runtime
        self._agent = Agent(model=wire.MODEL, tools=[self.look, self.wait], runtime=runtime)
        server.choose = self.choose

    def session(self) -> Session:
        """A new session of the agent."""
        return self._agent.session(system="Be brief.")

    def look(self, city: str) -> str:
        """Look outside."""
        self.ran.append("look")
        return f"sun in {city}"

    async def wait(self, moments: int) -> str:
        """Wait a little."""
        self.ran.append("wait")
        for _ in range(moments):
            await asyncio.sleep(0)
        return "waited"

    def choose(self, request: dict[str, Any]) -> Reply:
        """The provider's answer, by what was said last."""
        last = str(request["messages"][-1])
        if "Next" in last:
            return self._wire.text("Well.")
        if "waited" in last or "sun in" in last:
            return self._wire.text("Sunny", ", ", "I waited.")
        return self._wire.calls(
            ("c1", "look", '{"city": "Lima"}'), ("c2", "wait", '{"moments": 3}')
        )

    async def cancelled_before(
        self, number: int, *, streamed: bool, everything: bool = False
    ) -> tuple[bool, list[str]]:
        """One turn, cancelled before a step; whether it was, and the roles that it left."""
        self.ran.clear()
        session = self.session()
        before = asyncio.all_tasks()
        steps = Steps(number, everything=everything)
        with steps.counted():
            steps.task = asyncio.ensure_future(run(session, streamed=streamed))
            await asyncio.wait([steps.task], timeout=PATIENCE)
        assert steps.task.done()
        if not steps.cancelled or not steps.task.cancelled():
            assert steps.task.result() == "Sunny, I waited."
        assert len(set(self.ran)) == len(self.ran)
        left = [message.role for message in await session.history()]
        await Session(runtime=self._runtime).send_message({"role": "user", "content": "Done?"})
        self.open += await still_open(session)  # what was on its way is in the log by now
        await self.check(session)
        await nothing_left(before)
        return steps.cancelled, left

    async def check(self, session: Session) -> None:
        """The next turn works, and what was stored is whole."""
        response = await asyncio.wait_for(session.run_async("Next"), 20)
        assert response.text == "Well."
        assert self.server.problems == []
        assert await session.verify()
        assert (await session.history())[-1].text == "Well."
        assert await still_open(session) == 0


ENDS = ("turn.completed", "turn.failed", "turn.interrupted", "turn.abandoned")


async def still_open(session: Session) -> int:
    """Turns in the log that began and did not end."""
    events = [event.type for event in await session.events()]
    return events.count("turn.started") - sum(event in ENDS for event in events)


async def run(session: Session, *, streamed: bool) -> str:
    """One turn with two tools, awaited or streamed."""
    if not streamed:
        return (await session.run_async("Look, and wait")).text
    text = ""
    async for event in session.stream_async("Look, and wait"):
        text += event.text
    return text


async def nothing_left(before: set[asyncio.Task[Any]]) -> None:
    """Every task that was started since has ended, or ends by itself."""
    left = asyncio.all_tasks() - before
    if left:
        await asyncio.wait(left, timeout=10)
    assert [task for task in left if not task.done()] == []


@pytest.fixture
async def scene(
    request: pytest.FixtureRequest, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Scene]:
    wire: ModuleType = request.param
    with elsewhere(wire.server) as server:
        monkeypatch.setenv(wire.KEY, "key")
        monkeypatch.setenv(wire.ADDRESS, server.url)
        yield Scene(wire, server, runtime)


@pytest.mark.parametrize("streamed", [False, True], ids=["run", "stream"])
@pytest.mark.parametrize(
    "scene", [openai_server, anthropic_server], ids=["openai", "anthropic"], indirect=True
)
@pytest.mark.parametrize("everything", [False, True], ids=["caller", "everything"])
@pytest.mark.parametrize("apart", [APART, pytest.param(1, marks=pytest.mark.soak)])
async def test_wherever_a_turn_is_cancelled_the_next_one_works(
    scene: Scene, streamed: bool, everything: bool, apart: int
) -> None:
    seen = set[tuple[str, ...]]()
    number = (2 * everything + streamed) % apart
    while True:
        cancelled, left = await scene.cancelled_before(
            number, streamed=streamed, everything=everything
        )
        if not cancelled:
            break
        seen.add(tuple(left))
        number += apart if number < EVERY else 5
    assert number > 40
    gc.collect()
    assert () in seen or ("user",) in seen
    assert ("user", "assistant", "tool", "tool") in seen


@pytest.mark.parametrize("runtime", ["sqlite"], indirect=True)
@pytest.mark.parametrize("streamed", [False, True], ids=["run", "stream"])
@pytest.mark.parametrize("scene", [openai_server], ids=["openai"], indirect=True)
async def test_a_turn_that_is_cancelled_as_it_begins_is_closed(
    scene: Scene, streamed: bool
) -> None:
    for number in range(20):
        await scene.cancelled_before(number, streamed=streamed)
    assert scene.open == 0


@pytest.mark.parametrize("runtime", ["memory"], indirect=True)
@pytest.mark.parametrize("streamed", [False, True], ids=["run", "stream"])
@pytest.mark.parametrize("scene", [openai_server], ids=["openai"], indirect=True)
async def test_a_call_ends_when_its_task_is_cancelled_before_its_first_step(
    scene: Scene, streamed: bool
) -> None:
    before = asyncio.all_tasks()
    call = asyncio.ensure_future(run(scene.session(), streamed=streamed))
    await asyncio.sleep(0)
    for task in asyncio.all_tasks() - before:
        task.cancel()
    await asyncio.wait([call], timeout=1)
    assert call.done()
