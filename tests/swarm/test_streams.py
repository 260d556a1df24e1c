"""Streams of clients: nothing that a policy may still refuse leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.swarm.stage import SWARM, Stage, Without, said, soon, swarm_of

from tertulia import Agent, MemoryStore, Runtime, Swarm, tool
from tertulia.agents.protocol import ModelEvent, ModelRequest, TextDelta
from tertulia.agents.response import StreamEvent
from tertulia.errors import ClientDisposed, InvalidInput, ModelError, PolicyError, UsageError
from tertulia.policies import BAN_MESSAGE, Policy, PolicyContext
from tertulia.swarm import ClientSession, ClientStream
from tertulia.testing import Pause, ScriptedModel, call


def client_of(
    stage: Stage, model: ScriptedModel, *policies: Policy, **options: Any
) -> ClientSession:
    return stage.runtime(swarm_of(model, *policies, **options)).client_session("ann", SWARM)


async def all_of(stream: ClientStream) -> list[StreamEvent]:
    return [event async for event in stream]


def text_of(events: list[StreamEvent]) -> str:
    return "".join(event.text for event in events if event.type == "text_delta")


class Taking:
    """A task that takes a stream, and the events that it has got."""

    def __init__(self, stream: ClientStream) -> None:
        self.events: list[StreamEvent] = []
        self.task = asyncio.create_task(self._take(stream))

    async def _take(self, stream: ClientStream) -> None:
        async for event in stream:
            self.events.append(event)

    @property
    def text(self) -> str:
        return text_of(self.events)


# -- what comes


async def test_a_stream_without_policies_brings_text_as_it_comes(stage: Stage) -> None:
    pause = Pause()
    client = client_of(stage, ScriptedModel(["One two ", pause, "three"]))
    taking = Taking(client.stream("Hi"))
    await pause.reached()
    while taking.text != "One two ":
        await asyncio.sleep(0)
    pause.release()
    await soon(taking.task)
    assert taking.text == "One two three"


async def test_the_events_of_a_stream_begin_with_the_turn_and_end_with_it(stage: Stage) -> None:
    client = client_of(stage, ScriptedModel("One two"))
    events = await all_of(client.stream("Hi"))
    types = [event.type for event in events]
    assert (types[0], types[-1]) == ("turn_started", "turn_completed")
    assert types.count("text_delta") == 2


async def test_the_answer_of_a_stream_is_there_at_its_end_and_not_before(stage: Stage) -> None:
    client = client_of(stage, ScriptedModel("Hello."))
    stream = client.stream("Hi")
    with pytest.raises(UsageError, match="not ended"):
        _ = stream.answer
    await all_of(stream)
    assert (stream.answer, stream.answer.kind, stream.answer.agent) == (
        "Hello.",
        "answer",
        "triage",
    )
    assert said(await client.session.history()) == [("user", "Hi"), ("assistant", "Hello.")]


async def test_a_stream_that_nobody_iterates_does_nothing(stage: Stage) -> None:
    model = ScriptedModel("Hello.")
    client = client_of(stage, model)
    stream = client.stream("Hi")
    await stream.aclose()
    assert model.requests == []
    assert await client.session.history() == []


async def test_a_stream_of_a_message_that_cannot_be_is_refused_at_once(stage: Stage) -> None:
    client = client_of(stage, ScriptedModel())
    with pytest.raises(InvalidInput):
        client.stream("")


# -- policies


async def test_without_a_window_no_text_leaves_before_the_whole_answer_was_checked(
    stage: Stage,
) -> None:
    pause, checked = Pause(), Pause()

    class Slow(Policy):
        async def validate_output(self, text: str, context: PolicyContext, /) -> bool:
            await checked.hold()
            return True

    client = client_of(stage, ScriptedModel(["One two three ", pause, "four"]), Slow())
    taking = Taking(client.stream("Hi"))
    await pause.reached()
    for _ in range(50):
        await asyncio.sleep(0)
    assert taking.text == ""
    pause.release()
    await checked.reached()
    for _ in range(50):
        await asyncio.sleep(0)
    assert taking.text == ""
    checked.release()
    await soon(taking.task)
    assert taking.text == "One two three four"


async def test_with_a_window_text_leaves_behind_it_and_not_within_it(stage: Stage) -> None:
    pause = Pause()
    policy = Without("acme", chunk_window=4)
    client = client_of(stage, ScriptedModel(["0123456789 ", "0123456789 ", pause, "end"]), policy)
    taking = Taking(client.stream("Hi"))
    await pause.reached()
    while not taking.text:
        await asyncio.sleep(0)
    assert len(taking.text) <= 22 - 4
    pause.release()
    await soon(taking.task)
    assert taking.text == "0123456789 0123456789 end"


@pytest.mark.parametrize("window", [None, 4, 10])
async def test_nothing_of_a_forbidden_word_leaves_a_stream(
    stage: Stage, window: int | None
) -> None:
    policy = Without("acme", name="rivals", chunk_window=window)
    parts = ["We like ", *(TextDelta(letter) for letter in "acme"), " much and ", "more"]
    client = client_of(stage, ScriptedModel(parts), policy)
    stream = client.stream("Hi")
    events = await all_of(stream)
    text = text_of(events)
    assert text.endswith(BAN_MESSAGE)
    assert "We like ".startswith(text.removesuffix(BAN_MESSAGE))
    assert (stream.answer, stream.answer.kind) == (BAN_MESSAGE, "ban")
    assert "acme" not in str(events)
    assert said(await client.session.history()) == [("user", "Hi"), ("assistant", BAN_MESSAGE)]


@settings(max_examples=60, deadline=None)
@given(
    parts=st.lists(st.text("acme x", min_size=1, max_size=6), min_size=1, max_size=12),
    window=st.integers(4, 9),
)
async def test_no_way_to_cut_an_answer_lets_a_forbidden_word_out(
    parts: list[str], window: int
) -> None:
    model = ScriptedModel([TextDelta(part) for part in parts], *["x"] * 5)
    whole = "".join(parts)
    swarm = swarm_of(model, Without("acme", chunk_window=window), rescue="placeholder")
    async with Runtime(MemoryStore(), swarms=[swarm]) as runtime:
        stream = runtime.client_session("ann", SWARM).stream("Hi")
        text = text_of(await all_of(stream))
    if "acme" in whole:
        before = whole[: whole.index("acme")]
        assert before.startswith(text.removesuffix(BAN_MESSAGE))
        assert stream.answer.kind == "ban"
    elif whole.strip():
        assert (text, stream.answer) == (whole, whole)


async def test_a_model_is_stopped_as_soon_as_its_answer_is_refused(stage: Stage) -> None:
    asked: list[str] = []

    async def endless(request: ModelRequest) -> AsyncIterator[ModelEvent]:
        for number in range(1_000):
            asked.append("acme" if number == 3 else "good ")
            yield TextDelta(asked[-1])

    client = client_of(stage, ScriptedModel(endless), Without("acme", chunk_window=4))
    await soon(all_of(client.stream("Hi")))
    assert len(asked) < 100


async def test_a_blocked_input_comes_as_a_stream_of_the_ban_message(stage: Stage) -> None:
    model = ScriptedModel()
    client = client_of(stage, model, Without("acme"))
    stream = client.stream("acme?")
    assert text_of(await all_of(stream)) == BAN_MESSAGE
    assert (stream.answer, stream.answer.kind) == (BAN_MESSAGE, "ban")
    assert model.requests == []
    assert await client.session.history() == []


async def test_a_policy_that_raises_ends_the_stream_with_its_error_and_no_text(
    stage: Stage,
) -> None:
    class Broken(Policy):
        def validate_output(self, text: str, context: PolicyContext, /) -> bool:
            raise ZeroDivisionError

    client = client_of(stage, ScriptedModel("secret"), Broken())
    taking = Taking(client.stream("Hi"))
    with pytest.raises(PolicyError):
        await soon(taking.task)
    assert taking.text == ""
    assert taking.events[-1].type == "error"
    assert await client.session.history() == []


async def test_a_ban_that_lands_while_an_answer_streams_stops_it(stage: Stage) -> None:
    pause = Pause()
    policy = Without("acme", chunk_window=4)
    client = client_of(stage, ScriptedModel(["Some good text ", pause, "and some more"]), policy)
    taking = Taking(client.stream("Hi"))
    await pause.reached()
    await client.swarm.ban("ann")
    pause.release()
    await soon(taking.task)
    assert "more" not in taking.text
    assert taking.text.endswith(BAN_MESSAGE)


# -- tools, failures


async def test_a_stream_runs_tools_and_tells_of_them(stage: Stage) -> None:
    @tool
    def look() -> str:
        """Look."""
        return "seen"

    client = client_of(stage, ScriptedModel(call("look"), "Done."), tools=[look])
    events = await all_of(client.stream("Hi"))
    types = [event.type for event in events]
    assert types.index("tool_call") < types.index("tool_result") < types.index("turn_completed")
    assert text_of(events) == "Done."


async def test_a_model_that_fails_in_a_stream_raises_and_leaves_the_history(stage: Stage) -> None:
    client = client_of(stage, ScriptedModel(["One ", ModelError("down")], "fine"), rescue="raise")
    with pytest.raises(ModelError, match="down"):
        await soon(all_of(client.stream("Hi")))
    assert await client.session.history() == []
    assert await client.execute("Hi") == "fine"


# -- the early end


async def test_a_stream_that_is_broken_off_ends_its_turn_and_the_next_one_goes_on(
    stage: Stage,
) -> None:
    pause = Pause()
    client = client_of(stage, ScriptedModel(["One ", pause, "never"], "next"))
    async with client.stream("Hi") as stream:
        async for event in stream:
            if event.type == "text_delta":
                break
    assert await soon(client.execute("Again")) == "next"
    types = [event.type for event in await client.session.events()]
    assert "turn.interrupted" in types


async def test_what_left_of_a_stream_before_it_was_broken_off_is_what_is_kept(
    stage: Stage,
) -> None:
    pause = Pause()
    client = client_of(stage, ScriptedModel(["One ", "two ", pause, "never"]))
    async with client.stream("Hi") as stream:
        async for event in stream:
            if event.text == "One ":
                break
    history = said(await client.session.history())
    assert history == [("user", "Hi"), ("assistant", "One ")]


async def test_text_that_was_held_for_its_policies_is_not_kept_when_a_stream_is_broken_off(
    stage: Stage,
) -> None:
    pause = Pause()
    model = ScriptedModel(["held acme text ", pause, "never"], "next")
    client = client_of(stage, model, Without("acme"))
    async with client.stream("Hi") as stream:
        async for event in stream:
            assert event.type == "turn_started"
            await pause.reached()
            break
    kept = str(await client.session.history())
    assert "acme" not in kept
    assert await soon(client.execute("Again")) == "next"
    assert "acme" not in str(model.requests[-1].messages)


async def test_a_stream_that_is_cancelled_from_elsewhere_ends_with_an_answer_of_that_kind(
    stage: Stage,
) -> None:
    pause = Pause()
    client = client_of(stage, ScriptedModel(["One ", pause, "never"]))
    stream = client.stream("Hi")
    taking = Taking(stream)
    await pause.reached()
    assert await soon(client.cancel()) is True
    await soon(taking.task)
    assert (stream.answer, stream.answer.kind) == ("", "cancelled")
    assert "error" not in [event.type for event in taking.events]


async def test_a_client_that_is_disposed_in_the_middle_of_a_stream_ends_it(stage: Stage) -> None:
    pause = Pause()
    client = client_of(stage, ScriptedModel(["One ", pause, "never"]))
    stream = client.stream("Hi")
    taking = Taking(stream)
    await pause.reached()
    await soon(client.dispose())
    await soon(taking.task)
    assert stream.answer.kind == "cancelled"
    assert client._desk.life.running == {}  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(ClientDisposed):
        client.stream("Again")


async def test_a_stream_that_was_made_before_the_disposal_begins_no_turn_after_it(
    stage: Stage,
) -> None:
    model = ScriptedModel("never")
    client = client_of(stage, model)
    stream = client.stream("Hi")
    await client.dispose()
    with pytest.raises(ClientDisposed):
        await all_of(stream)
    assert model.requests == []


async def test_a_stream_whose_task_is_cancelled_leaves_no_turn_behind(stage: Stage) -> None:
    pause = Pause()
    client = client_of(stage, ScriptedModel(["One ", pause, "never"], "next"))
    taking = Taking(client.stream("Hi"))
    await pause.reached()
    taking.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking.task
    assert await soon(client.execute("Again")) == "next"
    assert client._desk.life.running == {}  # pyright: ignore[reportPrivateUsage]


async def test_a_stream_that_is_dropped_ends_its_turn_also_for_others(stage: Stage) -> None:
    client = client_of(stage, ScriptedModel(["One ", Pause(), "never"], "next"))
    async for event in client.stream("Hi"):
        if event.type == "text_delta":
            break
    other = asyncio.create_task(client.execute("Again"))
    assert await soon(other) == "next"
    assert client._desk.life.running == {}  # pyright: ignore[reportPrivateUsage]


async def test_a_stream_that_is_kept_but_not_read_does_not_make_its_reader_wait_for_itself(
    stage: Stage,
) -> None:
    client = client_of(stage, ScriptedModel(["One ", Pause(), "never"], "next"))
    stream = client.stream("Hi")
    async for event in stream:
        if event.type == "text_delta":
            break
    async with asyncio.timeout(10):
        assert await client.execute("Again") == "next"


async def test_an_option_that_does_not_exist_is_refused(stage: Stage) -> None:
    model = ScriptedModel()
    client = client_of(stage, model)
    with pytest.raises(InvalidInput, match="colour"):
        await all_of(client.stream("Hi", colour="red"))
    assert model.requests == []


# -- structured answers


@dataclass
class Told:
    """What an answer has to be."""

    text: str


async def test_nothing_of_a_structured_answer_that_is_refused_leaves(stage: Stage) -> None:
    agent = Agent(name="triage", model=ScriptedModel({"text": "SECRET"}), output_type=Told)
    swarm = Swarm(SWARM, agents=[agent], policies=[Without("SECRET")])
    stream = stage.runtime(swarm).client_session("ann", SWARM).stream("Hi")
    assert text_of(await all_of(stream)) == BAN_MESSAGE
    assert stream.answer.kind == "ban"


def fine(text: str) -> bool:
    return True


@pytest.mark.parametrize("validate", [None, fine])
async def test_a_structured_answer_that_is_taken_comes_once(stage: Stage, validate: Any) -> None:
    agent = Agent(name="triage", model=ScriptedModel({"text": "Fine"}), output_type=Told)
    swarm = Swarm(SWARM, agents=[agent], policies=[Without("SECRET")], validate=validate)
    stream = stage.runtime(swarm).client_session("ann", SWARM).stream("Hi")
    assert text_of(await all_of(stream)) == str(stream.answer) == '{"text":"Fine"}'


# -- closing


async def test_the_space_of_an_answer_that_was_not_taken_does_not_leave(stage: Stage) -> None:
    client = client_of(stage, ScriptedModel([" ", "\n"], [" ", " Good", " one."]))
    stream = client.stream("Hi")
    assert text_of(await all_of(stream)) == str(stream.answer) == "  Good one."


async def test_a_stream_that_another_task_takes_is_not_closed_by_accident(stage: Stage) -> None:
    pause = Pause()
    client = client_of(stage, ScriptedModel(["One ", pause, "two"]))
    stream = client.stream("Hi")
    taking = Taking(stream)
    await pause.reached()
    while taking.text != "One ":
        await asyncio.sleep(0)
    with pytest.raises(UsageError, match="another task"):
        await stream.aclose()
    with pytest.raises(UsageError, match="another task"):
        await anext(stream)
    pause.release()
    await soon(taking.task)
    assert stream.answer == "One two"


async def test_a_stream_that_was_closed_early_has_an_answer_that_says_so(stage: Stage) -> None:
    client = client_of(stage, ScriptedModel(["One ", Pause(), "two"]))
    stream = client.stream("Hi")
    async for event in stream:
        if event.type == "text_delta":
            break
    await stream.aclose()
    assert (stream.answer, stream.answer.kind) == ("", "cancelled")


async def test_a_stream_that_is_closed_after_its_last_event_has_its_answer(stage: Stage) -> None:
    client = client_of(stage, ScriptedModel("Hello."))
    stream = client.stream("Hi")
    async for event in stream:
        if event.type == "turn_completed":
            break
    await stream.aclose()
    assert (stream.answer, stream.answer.kind) == ("Hello.", "answer")


async def test_a_stream_that_failed_says_so_when_it_is_asked_for_its_answer(stage: Stage) -> None:
    client = client_of(stage, ScriptedModel(ModelError("down")), rescue="raise")
    stream = client.stream("Hi")
    with pytest.raises(ModelError):
        await all_of(stream)
    await stream.aclose()
    with pytest.raises(ModelError, match="down"):
        _ = stream.answer
