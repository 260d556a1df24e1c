"""Agents in whole processes: what is imported, what exits cleanly, what survives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tertulia import Runtime, SQLiteStore

STUCK = """
import asyncio, sys
from tertulia import Agent, configure
from tertulia.agents.offline import OfflineModel

configure(store=sys.argv[1])
session = Agent(model=OfflineModel(pause=PAUSE)).session("s")
"""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)


async def left_behind(path: Path) -> tuple[list[tuple[str, str]], str]:
    """The history and the last event that another process left."""
    runtime = Runtime(SQLiteStore(path))
    session = await runtime.get("s")
    history = [(message.role, message.text) for message in await session.history()]
    last = (await session.events(limit=1))[-1].type
    await runtime.close()
    return history, last


def test_the_offline_model_needs_no_model_library() -> None:
    code = """
import sys, tertulia
assert "tertulia.agents" not in sys.modules
assert tertulia.Agent(model="offline").session().run("I'm a baker").text
assert not {"pydantic", "pydantic_ai", "openai"} & set(sys.modules)
assert "Agent" in dir(tertulia) or tertulia.LanguageModel
try:
    tertulia.nothing
except AttributeError as error:
    assert "nothing" in str(error)
"""
    done = run(code)
    assert (done.returncode, done.stderr) == (0, "")


async def test_a_script_that_ends_in_the_middle_of_a_stream_closes_its_turn(
    tmp_path: Path,
) -> None:
    code = STUCK.replace("PAUSE", "0.001") + (
        "stream = session.stream('Who are you?')\nfor event in stream:\n    if event.text: break\n"
    )
    done = run(code, f"sqlite:///{tmp_path / 'x.db'}")
    assert (done.returncode, done.stderr) == (0, "")
    history, last = await left_behind(tmp_path / "x.db")
    assert last == "turn.interrupted"
    assert history == [("user", "Who are you?"), ("assistant", "I ")]


async def test_a_loop_that_ends_in_the_middle_of_a_stream_closes_its_turn(
    tmp_path: Path,
) -> None:
    code = STUCK.replace("PAUSE", "0.001") + (
        "stream = session.stream_async('Who are you?')\n"
        "async def main():\n"
        "    async for event in stream:\n"
        "        if event.text: break\n"
        "asyncio.run(main())\n"
    )
    done = run(code, f"sqlite:///{tmp_path / 'x.db'}")
    assert (done.returncode, done.stderr) == (0, "")
    history, last = await left_behind(tmp_path / "x.db")
    assert last == "turn.interrupted"
    assert history == [("user", "Who are you?"), ("assistant", "I ")]


async def test_after_kill_9_in_the_middle_of_an_answer_the_next_turn_works(
    tmp_path: Path,
) -> None:
    code = STUCK.replace("PAUSE", "10") + (
        "session.run('My name is Ann') if len(sys.argv) > 2 else None\n"
        "for event in session.stream('Who are you?'):\n"
        "    print(event.type, flush=True)\n"
    )
    command = [sys.executable, "-c", code, f"sqlite:///{tmp_path / 'x.db'}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "turn_started"
        process.send_signal(signal.SIGKILL)
    again = STUCK.replace("PAUSE", "0") + "print(session.run('My name is Ann'))\n"
    done = run(again, f"sqlite:///{tmp_path / 'x.db'}")
    assert (done.stdout.strip(), done.stderr) == ("Nice to meet you, Ann.", "")
    history, last = await left_behind(tmp_path / "x.db")
    assert last == "turn.completed"
    assert history[-1] == ("assistant", "Nice to meet you, Ann.")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_runs_turns_in_a_runtime_of_its_own() -> None:
    code = """
import os, warnings
from tertulia import Agent, Runtime
from tertulia.errors import ForkedRuntimeError

warnings.simplefilter("ignore")
agent = Agent(model="offline")
old = agent.session()
old.run("My name is Ann")
child = os.fork()
if child == 0:
    try:
        old.run("Hi")
    except ForkedRuntimeError:
        pass
    else:
        os._exit(3)
    answer = agent.session(runtime=Runtime("memory:")).run("My name is Bob").text
    os._exit(0 if "Bob" in answer else 4)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
assert "Ann" in old.run("What is my name?").text
"""
    done = run(code)
    assert (done.returncode, done.stderr) == (0, "")
