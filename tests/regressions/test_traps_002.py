"""Where the system behind page 002 breaks, and this one must not: one test for each trap."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import BaseModel

from tertulia import Agent, Message, Runtime, Session, ToolCall, tool
from tertulia.agents.protocol import ModelEvent, ModelRequest, TextDelta
from tertulia.errors import InvalidInput, ModelError, SchemaValidationError
from tertulia.testing import Pause, ScriptedModel, call


@tool(read_only=True)
def look(place: str) -> str:
    """Look somewhere."""
    return f"nothing in {place}"


def said(messages: list[Message]) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in messages]


def check_valid(messages: list[Message]) -> None:
    """What every provider asks for: each call is answered once, right after it."""
    waiting: set[str] = set()
    for message in messages:
        if message.role == "tool":
            assert message.tool_call_id in waiting
            waiting.discard(message.tool_call_id or "")
            continue
        assert waiting == set()
        waiting = {made.id for made in message.tool_calls or ()}
    assert waiting == set()


# -- values that are false


async def test_temperature_zero_reaches_the_model(runtime: Runtime) -> None:
    model = ScriptedModel("a", "b", "c")
    await Agent(model=model, temperature=0, runtime=runtime).session().run_async("Hi")
    session = Agent(model=model, temperature=0.9, runtime=runtime).session()
    await session.run_async("Hi", temperature=0)
    async for _ in session.stream_async("Hi", temperature=0.0):
        pass
    assert [request.temperature for request in model.requests] == [0, 0, 0]


async def test_max_tokens_zero_is_refused_and_not_ignored(runtime: Runtime) -> None:
    model = ScriptedModel("a")
    with pytest.raises(InvalidInput):
        await Agent(model=model, runtime=runtime).session().run_async("Hi", max_tokens=0)
    assert model.requests == []


async def test_an_empty_question_is_asked_and_recorded_alike(runtime: Runtime) -> None:
    model = ScriptedModel("You said nothing.")
    session = Agent(model=model, runtime=runtime).session()
    await session.run_async("")
    assert said(model.last_request.messages) == [("user", "")]
    assert said(await session.history()) == [("user", ""), ("assistant", "You said nothing.")]


@pytest.mark.parametrize("value", [0, 0.0, False, "", [], {}, None])
async def test_a_falsy_result_of_a_tool_is_a_result(value: Any, runtime: Runtime) -> None:
    @tool(read_only=True)
    def give() -> Any:
        """Give something."""
        return value

    model = ScriptedModel(call("give"), "Thanks.")
    session = Agent(model=model, tools=[give], runtime=runtime).session()
    await session.run_async("Give")
    result = model.last_request.messages[-1]
    assert result.role == "tool"
    assert json.loads(result.text) == value
    assert "tool.returned" in [event.type for event in await session.events()]


@pytest.mark.parametrize("value", [0, False, "", [], {}, None])
async def test_a_falsy_state_is_kept_apart_from_none_at_all(value: Any, runtime: Runtime) -> None:
    session = runtime.session("s")
    await session.set_state("key", value)
    assert session.get_state("key", "default") == value
    assert session.state_keys() == ["key"]
    assert session.get_state("other", "default") == "default"


async def test_a_falsy_argument_reaches_the_tool(runtime: Runtime) -> None:
    got: list[Any] = []

    @tool(read_only=True)
    def take(amount: int = 7, name: str = "x", really: bool = True) -> None:
        """Take something."""
        got.append((amount, name, really))

    model = ScriptedModel(call("take", amount=0, name="", really=False), "Done.")
    await Agent(model=model, tools=[take], runtime=runtime).session().run_async("Take")
    assert got == [(0, "", False)]


async def test_a_limit_of_zero_is_nothing_and_not_everything(runtime: Runtime) -> None:
    session = runtime.session("s")
    await session.send_message({"role": "user", "content": "Hi"})
    assert await session.history(limit=0) == []
    assert await session.events(limit=0) == []


# -- tools


async def test_the_users_question_is_present_in_every_tool_round(runtime: Runtime) -> None:
    model = ScriptedModel(*[call("look", place=f"box {n}") for n in range(4)], "Nothing anywhere.")
    session = Agent(model=model, tools=[look], runtime=runtime).session(system="Be brief.")
    await session.run_async("What is in the boxes?")
    assert len(model.requests) == 5
    for request in model.requests:
        assert said(request.messages)[0] == ("user", "What is in the boxes?")
        assert request.system == "Be brief."
        check_valid(request.messages)


async def test_tool_calls_and_their_results_are_in_the_history(runtime: Runtime) -> None:
    model = ScriptedModel(call("look", place="the box"), "See above.", "It was the box.")
    session = Agent(model=model, tools=[look], runtime=runtime).session()
    await session.run_async("What is in the box?")
    await session.run_async("Where was that?")
    assert ("tool", "nothing in the box") in said(model.last_request.messages)
    [made] = model.last_request.messages[1].tool_calls or []
    assert (made.name, made.arguments) == ("look", {"place": "the box"})


async def test_the_history_is_valid_after_too_many_rounds(runtime: Runtime) -> None:
    @tool
    def act() -> str:
        """Act in the world."""
        return "done"

    model = ScriptedModel(*[call("act") for _ in range(11)], "I stopped.")
    session = Agent(model=model, tools=[act], runtime=runtime).session()
    with pytest.raises(ModelError, match="rounds"):
        await session.run_async("Never stop")
    check_valid(await session.history())
    assert (await session.run_async("And now?")).text == "I stopped."
    check_valid(model.last_request.messages)
    assert said(model.last_request.messages)[-1] == ("user", "And now?")


async def test_a_streamed_turn_runs_its_tools_and_leaves_no_call_open(runtime: Runtime) -> None:
    model = ScriptedModel(["Let me see. ", call("look", place="the box")], "Nothing.")
    session = Agent(model=model, tools=[look], runtime=runtime).session()
    kinds = [event.type async for event in session.stream_async("What is in it?")]
    assert "tool_call" in kinds
    assert "tool_result" in kinds
    history = await session.history()
    check_valid(history)
    assert [message.role for message in history] == ["user", "assistant", "tool", "assistant"]
    assert history[-1].text == "Nothing."


async def test_a_tool_does_not_run_again_because_the_model_failed_after_it(
    runtime: Runtime,
) -> None:
    charged: list[int] = []

    @tool
    def charge(cents: int) -> str:
        """Charge the card."""
        charged.append(cents)
        return "charged"

    model = ScriptedModel(call("charge", cents=500), ModelError("cut off"), "It was charged.")
    session = Agent(model=model, tools=[charge], runtime=runtime).session()
    with pytest.raises(ModelError):
        await session.run_async("Charge five")
    await session.run_async("Did it work?")
    assert charged == [500]
    assert ("tool", "charged") in said(model.last_request.messages)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (call("nothing_like_it"), "no tool 'nothing_like_it'"),
        (call("look", wrong=1), "bad arguments"),
        (call("look"), "bad arguments"),
        (call("raises"), "LookupError: it is gone"),
    ],
    ids=["unknown tool", "unknown argument", "missing argument", "raising tool"],
)
async def test_a_call_that_cannot_be_is_a_result_that_the_model_reads(
    step: ToolCall, expected: str, runtime: Runtime
) -> None:
    @tool(read_only=True)
    def raises() -> None:
        """Raise."""
        raise LookupError("it is gone")

    model = ScriptedModel(step, "I see.")
    session = Agent(model=model, tools=[look, raises], runtime=runtime).session()
    assert (await session.run_async("Try")).text == "I see."
    assert expected in model.last_request.messages[-1].text
    assert "tool.failed" in [event.type for event in await session.events()]
    check_valid(await session.history())


# -- streams


async def test_an_abandoned_stream_keeps_what_was_received(runtime: Runtime) -> None:
    pause = Pause()
    model = ScriptedModel(["One ", "two ", pause, "three"], "Four.")
    session = Agent(model=model, runtime=runtime).session()
    got = ""
    async for event in session.stream_async("Count"):
        got += event.text
        if got == "One two ":
            break
    await session.run_async("Go on")
    history = await session.history()
    assert said(history)[:2] == [("user", "Count"), ("assistant", "One two ")]
    assert (history[1].metadata or {})["interrupted"] is True
    assert said(model.last_request.messages) == [*said(history)[:2], ("user", "Go on")]


async def test_a_stream_that_was_never_begun_leaves_nothing(runtime: Runtime) -> None:
    model = ScriptedModel("One.")
    session = Agent(model=model, runtime=runtime).session()
    stream = session.stream_async("Count")
    await stream.aclose()
    assert await session.history() == []
    assert model.requests == []


async def test_iterating_twice_over_a_stream_runs_and_records_once(runtime: Runtime) -> None:
    model = ScriptedModel("One.", "Two.")
    session = Agent(model=model, runtime=runtime).session()
    stream = session.stream_async("Count")
    first = [event.type async for event in stream]
    assert [event.type async for event in stream] == []
    assert first.count("turn_completed") == 1
    assert said(await session.history()) == [("user", "Count"), ("assistant", "One.")]
    assert model.remaining == 1


def test_iterating_twice_over_a_synchronous_stream_runs_and_records_once() -> None:
    model = ScriptedModel("One.", "Two.")
    session = Agent(model=model).session()
    stream = session.stream("Count")
    assert "".join(event.text for event in stream) == "One."
    assert list(stream) == []
    assert said(session.messages) == [("user", "Count"), ("assistant", "One.")]


async def test_an_error_in_a_stream_is_an_event_then_raised_and_leaves_no_part_of_it(
    runtime: Runtime,
) -> None:
    model = ScriptedModel(["Half ", "an ", ModelError("cut off")])
    session = Agent(model=model, runtime=runtime).session()
    kinds: list[str] = []

    async def consume() -> None:
        async for event in session.stream_async("Count"):
            kinds.append(event.type)  # noqa: PERF401 - what came before the error counts

    with pytest.raises(ModelError, match="cut off"):
        await consume()
    assert kinds[-1] == "error"
    assert await session.history() == []


# -- copies that are no aliases


def with_parts() -> Message:
    return Message.user(
        [{"type": "text", "text": "Hi"}, {"type": "image_url", "image_url": {"url": "data:x"}}],
        metadata={"tags": ["a"]},
    )


def spoil(message: Message) -> None:
    """Change everything in a message that can be changed."""
    if isinstance(message.content, list):
        message.content[0]["text"] = "spoiled"
        message.content.append({"type": "text", "text": "spoiled"})
    if message.metadata is not None:
        message.metadata["tags"] = ["spoiled"]
    for made in message.tool_calls or ():
        made.arguments["place"] = "spoiled"


async def spoilable(runtime: Runtime) -> Session:
    model = ScriptedModel(call("look", place="the box"), "Nothing.")
    session = Agent(model=model, tools=[look], runtime=runtime).session("s")
    await session.send_message(with_parts())
    await session.run_async("Look")
    return session


async def test_changing_what_messages_gave_changes_nothing_that_is_stored(
    runtime: Runtime,
) -> None:
    session = await spoilable(runtime)
    before = await session.export()
    for message in [*session.messages, *await session.history()]:
        spoil(message)
    session.messages.clear()
    assert await session.export() == before
    assert "spoiled" not in str(await session.history())


async def test_changing_a_message_of_a_fork_changes_nothing_in_the_original(
    runtime: Runtime,
) -> None:
    session = await spoilable(runtime)
    before = await session.export()
    fork = session.fork()
    for message in await fork.history():
        spoil(message)
    await fork.send_message({"role": "user", "content": "only here"})
    assert await session.export() == before
    assert "spoiled" not in str(await fork.history())


async def test_state_of_a_fork_is_not_shared_in_its_depth(runtime: Runtime) -> None:
    session = runtime.session("s")
    await session.set_state("cart", {"items": ["apple"]})
    fork = session.fork()
    cart = fork.get_state("cart")
    cart["items"].append("pear")
    assert session.get_state("cart") == fork.get_state("cart") == {"items": ["apple"]}
    await fork.set_state("cart", cart)
    assert session.get_state("cart") == {"items": ["apple"]}


async def test_a_list_of_messages_that_a_session_was_given_neither_grows_nor_leaks(
    runtime: Runtime,
) -> None:
    given = [with_parts(), Message.assistant("Hello.")]
    model = ScriptedModel("Again.")
    session = Agent(model=model, runtime=runtime).session(messages=given)
    await session.run_async("More")
    assert len(given) == 2
    for message in given:
        spoil(message)
    assert "spoiled" not in str(await session.history())
    assert [message.role for message in model.last_request.messages] == [
        "user",
        "assistant",
        "user",
    ]


async def test_what_a_store_saved_is_no_alias_of_what_it_was_given(runtime: Runtime) -> None:
    session = await spoilable(runtime)
    data = session.to_dict()
    store: Any = runtime.store
    store.save("copy", data)
    data["messages"][0]["content"] = "spoiled"
    store.load("copy")["messages"].clear()
    assert "spoiled" not in str(store.load("copy"))
    assert len(store.load("copy")["messages"]) == len(session.messages)


async def test_changing_what_a_model_was_asked_with_changes_nothing_that_is_stored(
    runtime: Runtime,
) -> None:
    async def spoils(request: ModelRequest) -> AsyncIterator[ModelEvent]:
        for message in request.messages:
            spoil(message)
        request.messages.clear()
        yield TextDelta("Done.")

    session = Agent(model=ScriptedModel(spoils), runtime=runtime).session()
    await session.send_message(with_parts())
    response = await session.run_async("Spoil it")
    assert response.text == "Done."
    history = await session.history()
    assert "spoiled" not in str(history)
    assert len(history) == 3


# -- the rest


async def test_concurrent_runs_see_each_others_turns_and_lose_none(runtime: Runtime) -> None:
    def count(request: ModelRequest) -> str:
        return f"I see {len(request.messages)} messages"

    session = Agent(model=ScriptedModel(*[count] * 8), runtime=runtime).session()
    await asyncio.gather(*(session.run_async(f"question {n}") for n in range(8)))
    history = await session.history()
    assert [message.role for message in history] == ["user", "assistant"] * 8
    answers = [message.text for message in history if message.role == "assistant"]
    assert answers == [f"I see {n} messages" for n in range(1, 17, 2)]


async def test_a_turn_that_failed_leaves_the_history_as_it_was(runtime: Runtime) -> None:
    model = ScriptedModel("Hello.", ModelError("down"), "Hello again.")
    session = Agent(model=model, runtime=runtime).session()
    await session.run_async("Hi")
    before = await session.history()
    with pytest.raises(ModelError):
        await session.run_async("Are you there?")
    assert await session.history() == before
    await session.run_async("And now?")
    assert "Are you there?" not in [message.text for message in model.last_request.messages]


class Weather(BaseModel):
    city: str
    degrees: int


async def test_an_answer_that_does_not_fit_its_schema_is_an_error_and_no_empty_output(
    runtime: Runtime,
) -> None:
    model = ScriptedModel(*[{"city": "Lima"}] * 10)
    session = Agent(model=model, runtime=runtime).session()
    with pytest.raises(SchemaValidationError):
        await session.json_async("How is the weather?", schema=Weather)
    assert await session.history() == []
    assert model.requests


async def test_an_answer_that_fits_its_schema_has_its_falsy_values(runtime: Runtime) -> None:
    model = ScriptedModel(Weather(city="", degrees=0))
    session = Agent(model=model, runtime=runtime).session()
    response = await session.json_async("How is the weather?", schema=Weather)
    assert response.output == Weather(city="", degrees=0)


async def test_a_saved_session_is_the_same_with_its_tools_and_pictures(runtime: Runtime) -> None:
    session = await spoilable(runtime)
    data = json.loads(json.dumps(session.to_dict()))
    async with Runtime("memory:") as other:
        restored = Session.from_dict(data, runtime=other)
        again = await restored.history()
        first = await session.history()
        assert [m.content for m in again] == [m.content for m in first]
        assert [m.tool_calls for m in again] == [m.tool_calls for m in first]
        assert [m.tool_call_id for m in again] == [m.tool_call_id for m in first]
        assert [m.metadata for m in again] == [m.metadata for m in first]
        check_valid(again)
