"""What `tertulia.testing` gives to the tests of others: models, clocks and ids that obey."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pydantic
import pytest

from tertulia import Agent, MemoryStore, Message, Runtime, SQLiteStore, ToolCall, tool
from tertulia.agents.protocol import (
    Finished,
    ModelEvent,
    ModelRequest,
    TextDelta,
    ToolCallMade,
    ToolSpec,
    UsageReport,
)
from tertulia.clock import MICROSECONDS, from_moment
from tertulia.errors import InvalidInput, ModelError, TurnTimeout, UsageError
from tertulia.testing import (
    FrozenClock,
    Pause,
    ScriptedModel,
    SequentialIds,
    SimulatedCaller,
    call,
)


async def answer(model: ScriptedModel, question: str = "Hi") -> list[ModelEvent]:
    """What the model gives to one request."""
    request = ModelRequest(messages=[Message.user(question)])
    return [event async for event in model.stream(request)]


def text_of(events: list[ModelEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


# -- the model


async def test_text_is_streamed_word_by_word_and_nothing_of_it_is_lost() -> None:
    events = await answer(ScriptedModel("  Hello,\n there "))
    assert events[:2] == [TextDelta("  Hello,\n "), TextDelta("there ")]
    assert events[2:] == [UsageReport(1, 2), Finished("stop")]
    assert text_of(await answer(ScriptedModel(["a", " ", "b"]))) == "a b"


class Weather(pydantic.BaseModel):
    city: str
    degrees: int


@dataclass
class Plain:
    city: str
    degrees: int


@pytest.mark.parametrize(
    "step",
    [{"city": "Lima", "degrees": 0}, Weather(city="Lima", degrees=0), Plain("Lima", 0)],
    ids=["mapping", "pydantic", "dataclass"],
)
async def test_an_object_is_a_structured_answer_as_json(step: Any) -> None:
    events = await answer(ScriptedModel(step))
    assert json.loads(text_of(events)) == {"city": "Lima", "degrees": 0}


async def test_calls_get_ids_of_their_own_and_keep_the_ones_they_have() -> None:
    model = ScriptedModel([call("look", place="box"), call("look")], ToolCall("mine", "look"))
    first = await answer(model)
    assert first[:2] == [
        ToolCallMade(ToolCall("call_1", "look", {"place": "box"})),
        ToolCallMade(ToolCall("call_2", "look", {})),
    ]
    assert first[-1] == Finished("tool_calls")
    assert (await answer(model))[0] == ToolCallMade(ToolCall("mine", "look"))


def test_an_argument_of_a_call_may_be_called_name() -> None:
    assert call("greet", name="Ann", id=7).arguments == {"name": "Ann", "id": 7}


async def test_usage_and_end_are_those_of_the_script_where_it_has_them() -> None:
    events = await answer(ScriptedModel([UsageReport(10, 5), "Half an", Finished("length")]))
    assert [event for event in events if isinstance(event, UsageReport)] == [UsageReport(10, 5)]
    assert [event for event in events if isinstance(event, Finished)] == [Finished("length")]


@pytest.mark.parametrize("error", [ModelError("down"), KeyboardInterrupt("stop")])
async def test_an_error_is_raised_after_what_came_before_it(error: BaseException) -> None:
    model = ScriptedModel(["Half", error], "next")
    stream = model.stream(ModelRequest(messages=[]))
    assert await anext(stream) == TextDelta("Half")
    with pytest.raises(type(error)):
        await anext(stream)
    assert text_of(await answer(model)) == "next"


async def test_a_function_may_answer_with_what_is_a_step_now_or_later() -> None:
    def echo(request: ModelRequest) -> str:
        return request.messages[-1].text

    async def later(request: ModelRequest) -> list[Any]:
        return [call("look"), f"{len(request.messages)}"]

    async def pieces(request: ModelRequest) -> AsyncIterator[ModelEvent]:
        yield TextDelta(f"<{request.messages[-1].text}>")

    model = ScriptedModel(echo, later, pieces)
    assert text_of(await answer(model, "echo me")) == "echo me"
    assert (await answer(model))[0] == ToolCallMade(ToolCall("call_1", "look"))
    assert await answer(model, "raw") == [TextDelta("<raw>")]


async def test_after_the_last_step_the_error_says_what_was_asked() -> None:
    model = ScriptedModel("One.", name="clerk")
    await answer(model)
    request = ModelRequest(
        messages=[Message.user("And then?")], tools=[ToolSpec("look", "Look.", {})]
    )
    with pytest.raises(ModelError, match=r"'clerk'.*1 requests.*user: 'And then\?'.*tools: look"):
        await anext(model.stream(request))
    assert model.last_request is request


async def test_requests_and_steps_are_counted() -> None:
    model = ScriptedModel("One.")
    with pytest.raises(UsageError, match="not asked yet"):
        _ = model.last_request
    assert (model.remaining, model.name) == (1, "scripted")
    await answer(model, "first")
    model.add("Two.", "Three.")
    await answer(model, "second")
    assert model.remaining == 1
    assert [request.messages[0].text for request in model.requests] == ["first", "second"]
    assert model.last_request.messages[0].text == "second"


@pytest.mark.parametrize("step", [None, 7, True, ["text", None], [["list"]], ModelError, object()])
async def test_what_cannot_be_a_step_is_refused_where_it_is_written(step: Any) -> None:
    with pytest.raises(InvalidInput, match="is no step"):
        ScriptedModel("fine", step)
    model = ScriptedModel(lambda _: step)
    with pytest.raises(InvalidInput, match="is no step"):
        await answer(model)


async def test_a_pause_holds_the_model_until_it_is_released() -> None:
    pause = Pause()
    model = ScriptedModel(["One", pause, " two"])
    task = asyncio.ensure_future(answer(model))
    await pause.reached()
    assert not task.done()
    pause.release()
    assert text_of(await task) == "One two"


async def test_a_pause_that_was_released_before_holds_nobody_and_can_be_waited_for() -> None:
    pause = Pause()
    pause.release()
    assert text_of(await answer(ScriptedModel([pause, "on"]))) == "on"
    await pause.reached()


def test_a_pause_works_between_threads() -> None:
    pause = Pause()
    agent = Agent(model=ScriptedModel(["One", pause, " two"]))
    answers: list[str] = []
    thread = threading.Thread(target=lambda: answers.append(agent.run_sync("Hi").text))
    thread.start()
    pause.wait()
    assert answers == []
    pause.release()
    thread.join()
    assert answers == ["One two"]


async def test_a_pause_that_nobody_comes_to_says_so() -> None:
    with pytest.raises(UsageError, match="no model came to this pause"):
        await Pause().reached(timeout=0)
    with pytest.raises(UsageError, match="no model came to this pause"):
        Pause().wait(timeout=0)


# -- the clock


@pytest.mark.parametrize(
    "start",
    [
        "2026-01-01T00:00:00Z",
        "2026-01-01",
        datetime(2026, 1, 1, tzinfo=UTC),
        datetime(2026, 1, 1),  # noqa: DTZ001 - no zone means UTC
        1_767_225_600_000_000,
    ],
    ids=["text", "day", "aware", "naive", "microseconds"],
)
def test_a_clock_starts_where_it_is_told_to(start: Any) -> None:
    assert FrozenClock(start).now() == from_moment(date(2026, 1, 1)) == FrozenClock().now()


def test_time_passes_only_when_it_is_told_to() -> None:
    clock = FrozenClock()
    start, monotonic = clock.now(), clock.monotonic()
    assert clock.now() == start
    clock.advance(1.5, minutes=1, hours=1, days=1)
    assert clock.now() - start == (1.5 + 60 + 3_600 + 86_400) * MICROSECONDS
    assert clock.monotonic() - monotonic >= 90_061.5
    assert repr(clock) == "FrozenClock('2026-01-02T01:01:01.500000Z')"


def test_a_ticking_clock_rises_with_each_reading_of_the_wall_time_only() -> None:
    clock = FrozenClock(0, tick=0.5)
    assert [clock.now(), clock.now(), clock.now()] == [0, 500_000, 1_000_000]
    clock.monotonic()
    assert clock.now() == 1_500_000


async def test_a_wait_on_a_frozen_clock_ends_in_real_time(tmp_path: Path) -> None:
    clock = FrozenClock()
    path = tmp_path / "x.db"
    async with (
        Runtime(SQLiteStore(path), clock=clock) as one,
        Runtime(SQLiteStore(path), clock=clock) as two,
        one.session("s").turn("held"),
    ):
        with pytest.raises(TurnTimeout):
            await two.session("s", turn_timeout=0.01).send_message(
                {"role": "user", "content": "Hi"}
            )


def test_a_clock_shared_by_threads_gives_every_tick_once() -> None:
    clock = FrozenClock(0, tick=1)
    with ThreadPoolExecutor(8) as pool:
        drawn = [pool.submit(clock.now) for _ in range(400)]
        readings = [each.result() for each in drawn]
    assert sorted(readings) == [number * MICROSECONDS for number in range(400)]


@pytest.mark.parametrize("start", ["yesterday", True, None, 1.5])
def test_a_start_that_is_no_moment_is_refused(start: Any) -> None:
    with pytest.raises(InvalidInput):
        FrozenClock(start)


def test_time_does_not_go_back() -> None:
    with pytest.raises(InvalidInput, match="does not go back"):
        FrozenClock().advance(-1)
    with pytest.raises(InvalidInput, match="0 or more"):
        FrozenClock(tick=-1)


# -- the ids


def test_ids_and_salts_are_the_same_in_every_run_and_never_twice() -> None:
    def drawn(ids: SequentialIds) -> list[bytes]:
        return [draw() for _ in range(50) for draw in (ids.uid, ids.salt)]

    first, again, other = drawn(SequentialIds()), drawn(SequentialIds()), drawn(SequentialIds(1))
    assert first == again
    assert len({*first, *other}) == 200
    assert {len(each) for each in first} == {16}


def test_how_many_salts_were_drawn_does_not_change_the_ids() -> None:
    one, two = SequentialIds("seed"), SequentialIds("seed")
    two.salt()
    assert one.uid() == two.uid()


# -- both


@tool(read_only=True)
def look(place: str) -> str:
    """Look somewhere."""
    return f"nothing in {place}"


@tool
async def note(text: str) -> int:
    """Write something down."""
    return len(text)


async def story(runtime: Runtime) -> list[str]:
    """A conversation with tools, state, a failure, a fork and a rewind; its exports."""
    model = ScriptedModel(
        [call("look", place="the box"), call("note", text="empty")],
        "The box is empty.",
        ModelError("the provider is down"),
        [call("note", text="gone")],
        "It was noted.",
        "Here it is otherwise.",
    )
    agent = Agent("ann", model=model, tools=[look, note], runtime=runtime)
    session = agent.session(user_id="u", system="Be brief.")
    await session.run_async("What is in the box?")
    session.set_state("place", {"box": 0})
    await session.set_state("visits", 1, scope="user")
    with pytest.raises(ModelError):
        await session.run_async("And in the chest?")
    fork = await session.fork()
    await session.run_async("Write it down")
    await fork.run_async("Go on")
    await session.rewind(to=(await session.history())[0].seq or 0)
    assert model.remaining == 0
    assert await session.verify()
    return [await session.export(), await session.export("json"), await fork.export()]


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_two_runs_of_one_script_give_the_same_bytes(kind: str, tmp_path: Path) -> None:
    runs: list[list[str]] = []
    for number in range(2):
        store = MemoryStore() if kind == "memory" else SQLiteStore(tmp_path / f"{number}.db")
        clock, ids = FrozenClock(tick=0.001), SequentialIds("story")
        async with Runtime(store, clock=clock, ids=ids) as runtime:
            runs.append(await story(runtime))
    assert runs[0] == runs[1]
    lines = [json.loads(line) for line in runs[0][0].splitlines()]
    times = [line["timestamp"] for line in lines if "timestamp" in line]
    assert len(set(times)) > 10
    assert times == sorted(times)


async def test_every_store_gives_the_same_digests(tmp_path: Path) -> None:
    exports: list[list[str]] = []
    for store in (MemoryStore(), SQLiteStore(tmp_path / "x.db")):
        clock, ids = FrozenClock(tick=0.001), SequentialIds()
        async with Runtime(store, clock=clock, ids=ids) as runtime:
            exports.append(await story(runtime))
    assert exports[0] == exports[1]


async def test_another_seed_gives_another_chain() -> None:
    heads: list[Any] = []
    for seed in (1, 2):
        async with Runtime("memory:", clock=FrozenClock(), ids=SequentialIds(seed)) as runtime:
            session = runtime.session("s")
            await session.send_message({"role": "user", "content": "Hi"})
            heads.append((await session.events())[-1].digest)
    assert heads[0] != heads[1]


@pytest.mark.parametrize(
    "owner", [ScriptedModel, Pause, FrozenClock, SequentialIds, SimulatedCaller]
)
def test_the_reference_tells_every_public_name_of_the_kit(owner: type) -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "testing.md").read_text()
    section = page.split(f"## {owner.__name__}\n")[1].split("\n## ")[0]
    public = [name for name in dir(owner) if not name.startswith("_")]
    assert [name for name in public if f"`{name}" not in section] == []


# -- the imports that it costs


def test_who_tests_a_store_imports_no_agents_and_no_test_runner() -> None:
    code = """
import sys
from tertulia.testing import FrozenClock, SequentialIds, StoreContract
assert not {"tertulia.agents", "pytest", "pydantic"} & set(sys.modules)
from tertulia.testing import ScriptedModel
assert "tertulia.agents" in sys.modules
assert not {"pytest", "pydantic", "pydantic_ai"} & set(sys.modules)
import tertulia.testing
assert all(getattr(tertulia.testing, name) for name in tertulia.testing.__all__)
try:
    tertulia.testing.nothing
except AttributeError as error:
    assert "nothing" in str(error)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], timeout=50, check=False)
    assert done.returncode == 0
