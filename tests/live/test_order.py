"""What comes first: greetings, errors, and what is durable; and which request an answer is for."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.live.serving import serving
from tests.live.talking import Client, Recorder, Says, eventually, history, live, settled

from tertulia import Agent, Runtime
from tertulia.errors import ModelError
from tertulia.live import AgentNode, AgentSession, Node, OutputNode
from tertulia.server import AgentApp
from tertulia.testing import Pause, ScriptedModel
from tertulia.wire.events import (
    AgentErrorEvent,
    AgentSpeak,
    LLMRequest,
    ResponseChunk,
    ResponseEnd,
    ResponseStart,
    UserJoined,
)

GREETED = [("assistant", "Hello!"), ("user", "hi"), ("assistant", "yes")]


def greeting() -> AgentNode:
    """An agent that greets."""
    return AgentNode(Agent("a", model=ScriptedModel("yes", "yes")), greeting="Hello!")


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("store", ["memory:", "file"])
async def test_the_greeting_comes_before_the_first_line_of_the_user(
    store: str, started: bool, tmp_path: Path
) -> None:
    url = store if store == "memory:" else f"sqlite:///{tmp_path / 'store.db'}"
    for _ in range(2):
        async with (
            Runtime(url) as runtime,
            live(Recorder(), greeting(), runtime=runtime, start=started) as (session, client),
        ):
            again = session.resumed
            await session.receive(UserJoined())
            await client.says("hi")
            if not started:
                await session.start()
            end = await client.until(ResponseEnd)
            spoken = client.of(AgentSpeak)
            assert [event.text for event in spoken] == ([] if again else ["Hello!"])
            if not again:
                assert client.types[:3] == ["agent.ready", "agent.speak", ResponseStart.type]
                assert (spoken[0].seq or 0) < (end.seq or 0)
            said = await history(session)
            assert said[:3] == GREETED
            assert len(said) == (5 if again and store == "file" else 3)


async def test_the_greeting_comes_first_over_a_websocket_too() -> None:
    async def setup(session: AgentSession) -> None:
        session.add_node(greeting())
        await session.start()
        await session.wait_until_complete()

    async with serving(AgentApp(setup, store="memory:")) as server:
        for number in range(20):
            async with server.connected() as wire:
                await wire.init(f"s{number}")
                await wire.send("system.user.joined")
                await wire.says("hi")
                await wire.until(ResponseEnd)
                assert await history(server.session(f"s{number}")) == GREETED
                assert [event.type for event in wire.got[:3]] == [
                    "agent.ready",
                    "agent.speak",
                    "agent.llm.response.start",
                ]


# -- durable when it returns

DYING = """
import asyncio, os, signal
from tertulia import Agent, LiveEvent, Runtime, tool
from tertulia.live import AgentNode, AgentSession
from tertulia.testing import ScriptedModel, call
from tertulia.wire.events import AgentLog, LLMRequest, TranscriptUpdate

async def say(session):
    session.context["orders"] = 1
    if os.environ["HOW"] == "send":
        await session.send_event(AgentLog(name="ordered"))
    elif os.environ["HOW"] == "speak":
        await session.speak("ordered")
    else:
        await session.flush()
    os.kill(os.getpid(), signal.SIGKILL)

@tool
async def order() -> str:
    "Order."
    await say(AgentSession.current())
    return "never"

async def main():
    session = AgentSession(Runtime(os.environ["STORE"]).session("s"))
    await session.open()
    session.add_node(AgentNode(Agent("a", model=ScriptedModel(call("order")), tools=[order])))
    await session.start()
    if os.environ["WHERE"] == "session":
        await say(session)
    await session.receive(TranscriptUpdate(role="user", content="hi"))
    await session.receive(LLMRequest())
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("where", ["session", "tool"])
@pytest.mark.parametrize("how", ["send", "speak", "flush"])
async def test_what_is_durable_when_it_returns_outlives_a_process_that_is_killed(
    tmp_path: Path, where: str, how: str
) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    died = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", DYING],
        env={**os.environ, "STORE": url, "WHERE": where, "HOW": how},
        capture_output=True,
        timeout=50,
    )
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    async with Runtime(url) as runtime, live(Recorder(), runtime=runtime) as (session, client):
        if how == "flush":
            assert session.context["orders"] == 1
            return
        client.lose()
        back = (await Client(session).attach(0, again=True)).read()
        await settled(session)
        if how == "send":
            told = [event for event in back.got if event.type == "agent.log"]
        else:
            told = back.of(AgentSpeak)
        assert len(told) == 1


# -- errors, and requests


class Broken(OutputNode):
    """Raises in the middle of its answer."""

    async def generate_response(self) -> AsyncIterator[str]:
        yield "one "
        raise ValueError("no line")


def broken(kind: str) -> Node:
    """A node whose answer fails."""
    if kind == "output":
        return Broken()
    return AgentNode(Agent("a", model=ScriptedModel(["one ", ModelError("no line")])))


@pytest.mark.parametrize("kind", ["output", "agent"])
async def test_an_error_of_an_answer_comes_before_its_end_and_names_the_answer(kind: str) -> None:
    async with live(broken(kind)) as (session, client):
        await session.receive(LLMRequest(id="q1"))
        end = await client.until(ResponseEnd)
        [error] = client.of(AgentErrorEvent)
        assert client.got.index(error) < client.got.index(end)
        assert error.payload["request_id"] == end.request_id
        assert (error.seq or 0) < (end.seq or 0)
        assert end.interrupted
        client.lose()
        back = (await Client(session).attach(0, again=True)).read()
        again = await back.until(ResponseEnd)
        [same] = back.of(AgentErrorEvent)
        assert (same.seq, again.seq) == (error.seq, end.seq)
        assert back.got.index(same) < back.got.index(again)


def pausing(kind: str) -> tuple[Node, Any]:
    """A node that answers "one two", and what lets it go on after the first."""
    if kind == "output":
        go = asyncio.Event()
        return Says("one ", go, "two"), go.set
    pause = Pause()
    agent = Agent("a", model=ScriptedModel(["one ", pause, "two"]))
    return AgentNode(agent), pause.release


@pytest.mark.parametrize("given", ["q1", "turn-1"])
@pytest.mark.parametrize("kind", ["output", "agent"])
async def test_start_and_end_of_an_answer_say_for_which_request_it_is(
    kind: str, given: str
) -> None:
    node, go_on = pausing(kind)
    asked = {"request": given}
    async with Runtime("memory:") as runtime:
        async with live(node, runtime=runtime) as (session, client):
            await session.receive(LLMRequest(id=given))
            await client.until(ResponseChunk)
            assert client.of(ResponseStart)[0].metadata == asked
            client.lose()
            resumed = (await Client(session).attach(0, again=True)).read()
            assert (await resumed.until(ResponseStart)).metadata == asked
            go_on()
            assert (await resumed.until(ResponseEnd)).metadata == asked
            await settled(session)
            resumed.lose()
            replayed = (await Client(session).attach(0, again=True)).read()
            end = await replayed.until(ResponseEnd)
            assert [end.metadata, replayed.of(ResponseStart)[0].metadata] == [asked, asked]
        async with live(Recorder(), runtime=runtime) as (session, client):
            client.lose()
            replayed = (await Client(session).attach(0, again=True)).read()
            end = await replayed.until(ResponseEnd)
            assert [end.metadata, replayed.of(ResponseStart)[0].metadata] == [asked, asked]
            assert replayed.text() == "one two"


async def test_an_answer_that_goes_on_after_a_restart_says_for_which_request_it_is(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    died = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", IN_A_TURN],
        env={**os.environ, "STORE": url},
        capture_output=True,
        timeout=50,
    )
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    node = AgentNode(Agent("a", model=ScriptedModel("one two")))
    async with Runtime(url) as runtime, live(node, runtime=runtime) as (_, client):
        end = await client.until(ResponseEnd)
        assert client.of(ResponseStart)[0].metadata == {"request": "q1"}
        assert end.metadata == {"request": "q1"}
        await eventually(lambda: client.text() == "one two")


IN_A_TURN = """
import asyncio, os, signal
from tertulia import Agent, Runtime
from tertulia.live import AgentNode, AgentSession
from tertulia.testing import Pause, ScriptedModel
from tertulia.wire.events import LLMRequest

async def main():
    session = AgentSession(Runtime(os.environ["STORE"]).session("s"))
    await session.open()
    pause = Pause()
    session.add_node(AgentNode(Agent("a", model=ScriptedModel(["one ", pause, "two"]))))
    await session.start()
    await session.receive(LLMRequest(id="q1"))
    await pause.reached()
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""
