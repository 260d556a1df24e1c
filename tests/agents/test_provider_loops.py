"""A provider's client belongs to an event loop and is closed with it, in all kinds of programs."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from types import ModuleType
from weakref import WeakSet

import httpx2
import pytest
from tests.agents import anthropic_server, openai_server
from tests.agents.http_server import Server, elsewhere

from tertulia import Agent, MemoryStore, Runtime, Session
from tertulia.agents.models import LanguageModel


@pytest.fixture(params=[openai_server, anthropic_server], ids=["openai", "anthropic"])
def wire(request: pytest.FixtureRequest) -> ModuleType:
    return request.param


@pytest.fixture
def server(wire: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with elsewhere(wire.server) as made:
        monkeypatch.setenv(wire.KEY, "key")
        monkeypatch.setenv(wire.ADDRESS, made.url)
        made.choose = lambda _: wire.text("Well.")
        yield made
    assert made.problems == []


@pytest.fixture
def session(wire: ModuleType, server: Server) -> Session:
    return Agent(model=LanguageModel(wire.MODEL), runtime=Runtime(MemoryStore())).session()


def test_loops_one_after_the_other_leave_nothing_behind(session: Session) -> None:
    loops: WeakSet[asyncio.AbstractEventLoop] = WeakSet()

    async def ask() -> str:
        loops.add(asyncio.get_running_loop())
        await session.run_async("Hi")
        return (await session.run_async("Hi")).text

    for _ in range(5):
        assert asyncio.run(ask()) == "Well."
    gc.collect()
    assert len(loops) == 0


async def test_a_model_that_nobody_has_any_more_closes_its_connections(
    wire: ModuleType, server: Server
) -> None:
    def clients() -> WeakSet[httpx2.AsyncClient]:
        return WeakSet(each for each in gc.get_objects() if isinstance(each, httpx2.AsyncClient))

    before = clients()
    for _ in range(3):
        agent = Agent(model=LanguageModel(wire.MODEL, base_url=server.url, api_key="key"))
        assert (await agent.run("Hi")).text == "Well."
        made = clients() - before
        assert [client for client in made if not client.is_closed] != []
        del agent
        gc.collect()
        async with asyncio.timeout(10):
            while any(not client.is_closed for client in made):
                await asyncio.sleep(0.01)


def test_loops_at_the_same_time_do_not_share_a_client(wire: ModuleType, server: Server) -> None:
    agent = Agent(model=wire.MODEL, runtime=Runtime(MemoryStore()))
    answers: list[str] = []

    async def ask() -> None:
        session = agent.session()
        answers.extend([(await session.run_async("Hi")).text for _ in range(5)])

    threads = [threading.Thread(target=lambda: asyncio.run(ask())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert answers == ["Well."] * 20


def test_synchronous_calls_work_from_threads_and_in_a_script(session: Session) -> None:
    answers: list[str] = []

    def ask() -> None:
        answers.append(session.run("Hi").text)
        answers.append("".join(event.text for event in session.stream("Hi")))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    ask()
    assert answers == ["Well."] * 8


async def test_a_synchronous_call_works_on_a_running_loop(session: Session) -> None:
    assert (await session.run_async("Hi")).text == "Well."
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the first such call of a process warns
        assert session.run("Hi").text == "Well."
    assert (await session.run_async("Hi")).text == "Well."


def test_a_loop_that_was_run_by_hand_does_not_spoil_the_next(session: Session) -> None:
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(session.run_async("Hi")).text == "Well."
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    assert asyncio.run(ask_once(session)) == "Well."


async def ask_once(session: Session) -> str:
    return (await session.run_async("Hi")).text


async def test_the_first_turns_of_a_loop_may_be_at_the_same_time(
    wire: ModuleType, server: Server
) -> None:
    agent = Agent(model=LanguageModel(wire.MODEL), runtime=Runtime(MemoryStore()))
    calls = [agent.session().run_async("Hi") for _ in range(20)]
    assert [response.text for response in await asyncio.gather(*calls)] == ["Well."] * 20


SCRIPT = """
import asyncio, gc, sys, threading
from tertulia import Agent, MemoryStore, Runtime

class Importing:
    def find_spec(self, name, *rest):
        slow = name in ("pydantic_ai", "openai", "anthropic", "httpx2")
        if slow and threading.current_thread() is threading.main_thread():
            print(name, "was imported on the thread of the loop")

sys.meta_path.insert(0, Importing())

session = Agent(model="{model}", runtime=Runtime(MemoryStore())).session()

async def ask():
    async for event in session.stream_async("Hi"):
        if event.text:
            break
    return (await session.run_async("Hi")).text

print(asyncio.run(ask()))
print(session.run("Hi").text)
print(asyncio.run(ask()))
thread = threading.Thread(target=lambda: print(session.run("Hi").text))
thread.start()
thread.join()
gc.collect()
"""


def test_a_script_ends_without_a_word_of_complaint(wire: ModuleType, server: Server) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT.format(model=wire.MODEL)],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.stderr == ""
    assert ran.stdout.splitlines() == ["Well."] * 4
    assert ran.returncode == 0
