"""Rescue: what a client gets where there is no answer to give, and how it can tell."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from tests.agents.histories import bodies, check_whole, said
from tests.swarm.stage import SWARM, Heard, Stage, asked, swarm_of, until

from tertulia import Agent, Swarm, tool
from tertulia.agents.protocol import ModelEvent, ModelRequest, TextDelta
from tertulia.errors import InvalidInput, ModelError, SchemaValidationError, ToolError
from tertulia.errors import UnusableAnswer as Unusable
from tertulia.swarm import ClientSession, Rescue
from tertulia.swarm.rescue import PLACEHOLDERS, Failure, Retry
from tertulia.testing import ScriptedModel, call


@tool(idempotent=True)
def broken() -> str:
    """Fail."""
    raise RuntimeError("the shelf is empty")


@dataclass
class Price:
    """What an answer may have to be."""

    euros: int


def no_swearing(text: str) -> bool | str:
    return "it swears" if "damn" in text else True


PROBLEMS: dict[str, tuple[Any, str, type[Exception]]] = {
    "empty_answer": ("  ", "empty", Unusable),
    "invalid_answer": ("damn", "it swears", Unusable),
    "unknown_tool": (call("nothing"), "there is no tool 'nothing'", ToolError),
    "tool_error": (call("broken"), "the shelf is empty", ToolError),
    "model_error": (ModelError("the provider is down"), "the provider is down", ModelError),
}
each_problem = pytest.mark.parametrize("problem", PROBLEMS)


def client_of(stage: Stage, model: ScriptedModel, rescue: Any, **options: Any) -> ClientSession:
    swarm = swarm_of(model, tools=[broken], rescue=rescue, **{"validate": no_swearing, **options})
    return stage.runtime(swarm).client_session("ann", SWARM)


async def rescues(client: ClientSession) -> list[dict[str, Any]]:
    return await bodies(client.session, "rescue")


# -- each problem, each strategy


@each_problem
async def test_retry_gives_the_model_another_chance(stage: Stage, problem: str) -> None:
    step, _, _ = PROBLEMS[problem]
    model = ScriptedModel(step, "Fine.")
    client = client_of(stage, model, "retry")
    answer = await client.execute("Hello")
    assert (answer, answer.kind, answer.agent) == ("Fine.", "answer", "triage")
    [body] = await rescues(client)
    assert (body["problem"], body["strategy"], body["done"]) == (problem, "retry", "retry")
    assert (body["attempt"], body["agent"]) == (1, "triage")
    assert len(model.requests) == 2
    await check_whole(client.session)


@pytest.mark.parametrize("problem", ["empty_answer", "invalid_answer", "tool_error"])
async def test_the_model_that_is_asked_again_reads_the_reason(stage: Stage, problem: str) -> None:
    step, reason, _ = PROBLEMS[problem]
    model = ScriptedModel(step, "Fine.", "Next.")
    client = client_of(stage, model, "retry")
    await client.execute("Hello")
    assert reason in asked(model)
    await client.execute("More")
    if problem != "tool_error":
        assert reason not in asked(model)


@pytest.mark.parametrize("problem", ["empty_answer", "invalid_answer", "model_error"])
async def test_what_was_not_taken_and_why_is_not_in_the_history(stage: Stage, problem: str) -> None:
    step, _, _ = PROBLEMS[problem]
    client = client_of(stage, ScriptedModel(step, step, "Fine."), "retry")
    await client.execute("Hello")
    assert said(await client.session.history()) == [("user", "Hello"), ("assistant", "Fine.")]
    assert [body["attempt"] for body in await rescues(client)] == [1, 2]


@each_problem
async def test_a_placeholder_is_an_answer_that_says_what_it_is(stage: Stage, problem: str) -> None:
    step, _, _ = PROBLEMS[problem]
    client = client_of(stage, ScriptedModel(step, "Fine."), "placeholder")
    answer = await client.execute("Hello")
    assert (answer, answer.kind, answer.agent) == (PLACEHOLDERS[0], "placeholder", "triage")
    newest = (await check_whole(client.session))[-1]
    assert newest.text == PLACEHOLDERS[0]
    assert (newest.metadata or {})["kind"] == "placeholder"
    assert (newest.metadata or {})["problem"] == problem
    [body] = await rescues(client)
    assert (body["problem"], body["strategy"], body["done"]) == (problem, "placeholder", "answer")
    assert await client.execute("More") == "Fine."


@each_problem
async def test_raise_fails_the_turn_and_leaves_the_history_as_it_was(
    stage: Stage, problem: str
) -> None:
    step, reason, kind = PROBLEMS[problem]
    client = client_of(stage, ScriptedModel(step, "Fine."), "raise")
    with pytest.raises(kind, match=reason):
        await client.execute("Hello")
    assert said(await client.session.history()) == []
    [body] = await rescues(client)
    assert (body["problem"], body["strategy"], body["done"]) == (problem, "raise", "raise")
    assert [event.type for event in await client.session.events(types="turn.failed")]
    assert await client.execute("More") == "Fine."
    await check_whole(client.session)


@each_problem
async def test_a_function_is_told_what_went_wrong_and_may_answer(
    stage: Stage, problem: str
) -> None:
    step, reason, kind = PROBLEMS[problem]
    told: list[Failure] = []

    async def rescue(failure: Failure) -> str:
        told.append(failure)
        return "I call somebody."

    client = client_of(stage, ScriptedModel(step), rescue)
    answer = await client.execute("Hello")
    assert (answer, answer.kind) == ("I call somebody.", "placeholder")
    [failure] = told
    assert (failure.problem, failure.agent, failure.attempt) == (problem, "triage", 1)
    assert reason in failure.reason
    if kind is not Unusable:
        assert failure.error is not None
    assert failure.text == (
        "damn" if problem == "invalid_answer" else "  " if problem == "empty_answer" else ""
    )
    [body] = await rescues(client)
    assert (body["strategy"], body["done"]) == ("function", "answer")
    await check_whole(client.session)


@each_problem
async def test_a_function_may_ask_again_or_raise(stage: Stage, problem: str) -> None:
    step, reason, kind = PROBLEMS[problem]

    def rescue(failure: Failure) -> Retry | None:
        return Retry() if failure.attempt == 1 else None

    client = client_of(stage, ScriptedModel(step, step), rescue)
    with pytest.raises(kind, match=reason):
        await client.execute("Hello")
    assert [body["done"] for body in await rescues(client)] == ["retry", "raise"]


# -- the limits


@each_problem
@pytest.mark.parametrize("then", ["raise", "placeholder"])
async def test_the_model_is_asked_again_as_often_as_allowed_and_then_what_follows(
    stage: Stage, problem: str, then: Any
) -> None:
    step, _, kind = PROBLEMS[problem]
    model = ScriptedModel(step, step, step, "Too late.")
    client = client_of(stage, model, Rescue(retries=2, then=then))
    if then == "raise":
        with pytest.raises(kind):
            await client.execute("Hello")
    else:
        answer = await client.execute("Hello")
        assert (answer.kind, answer in PLACEHOLDERS) == ("placeholder", True)
    assert len(model.requests) == 3
    done = [body["done"] for body in await rescues(client)]
    assert done == ["retry", "retry", "raise" if then == "raise" else "answer"]


async def test_without_retries_the_first_failure_is_the_last(stage: Stage) -> None:
    model = ScriptedModel("", "Too late.")
    client = client_of(stage, model, Rescue(retries=0, then="placeholder"))
    assert (await client.execute("Hello")).kind == "placeholder"
    assert len(model.requests) == 1


async def test_the_limit_holds_for_functions_that_always_ask_again(stage: Stage) -> None:
    model = ScriptedModel(*[""] * 20)

    def ask_again(_: Failure) -> Retry:
        return Retry()

    rescue = Rescue(strategy=ask_again, retries=2, then="placeholder")
    answer = await client_of(stage, model, rescue).execute("Hello")
    assert answer.kind == "placeholder"
    assert len(model.requests) == 3


async def test_the_reason_of_a_function_is_what_the_model_reads(stage: Stage) -> None:
    model = ScriptedModel("", "Fine.")

    def ask_louder(_: Failure) -> Retry:
        return Retry("speak up, please")

    client = client_of(stage, model, ask_louder)
    await client.execute("Hello")
    assert "speak up, please" in asked(model)


async def test_the_failures_of_a_turn_are_counted_together_and_each_turn_begins_anew(
    stage: Stage,
) -> None:
    model = ScriptedModel("", "damn", "Fine.", "", "Fine again.")
    client = client_of(stage, model, Rescue(retries=2))
    assert await client.execute("Hello") == "Fine."
    assert await client.execute("More") == "Fine again."
    noted = [(body["problem"], body["attempt"]) for body in await rescues(client)]
    assert noted == [("empty_answer", 1), ("invalid_answer", 2), ("empty_answer", 1)]


async def test_placeholders_of_ones_own_are_used_in_their_order(stage: Stage) -> None:
    rescue = Rescue(retries=1, then="placeholder", placeholders=["First.", "Second."])
    client = client_of(stage, ScriptedModel("", ""), rescue)
    assert await client.execute("Hello") == "Second."


async def test_placeholders_are_used_in_turn_from_one_turn_to_the_next(stage: Stage) -> None:
    rescue = Rescue(retries=1, then="placeholder", placeholders=["A", "B", "C"])
    client = client_of(stage, ScriptedModel(*["", ""] * 4, "", "Fine.", "", ""), rescue)
    answers = [await client.execute("Hello") for _ in range(6)]
    assert answers == ["B", "C", "A", "B", "Fine.", "C"]
    other = client_of(stage, ScriptedModel("", ""), rescue)
    if stage.kind == "sqlite":
        assert await other.execute("After a restart") == "A"


async def test_a_good_answer_needs_no_rescue(stage: Stage) -> None:
    client = client_of(stage, ScriptedModel("Fine."), "raise")
    assert (await client.execute("Hello")).kind == "answer"
    assert await rescues(client) == []


# -- what functions give


@pytest.mark.parametrize("given", ["", "   ", 7, True, ["text"], object()])
async def test_a_function_that_gives_nonsense_fails_the_turn_and_says_so(
    stage: Stage, given: Any
) -> None:
    def rescue(_: Failure) -> Any:
        return given

    client = client_of(stage, ScriptedModel("", "Fine."), rescue)
    with pytest.raises(InvalidInput, match="rescue function"):
        await client.execute("Hello")
    assert await client.execute("More") == "Fine."
    assert said(await check_whole(client.session)) == [("user", "More"), ("assistant", "Fine.")]


async def test_a_function_that_raises_fails_the_turn_with_its_error(stage: Stage) -> None:
    def rescue(_: Failure) -> str:
        raise LookupError("mine")

    client = client_of(stage, ScriptedModel("", "Fine."), rescue)
    with pytest.raises(LookupError, match="mine"):
        await client.execute("Hello")
    assert await client.execute("More") == "Fine."


@pytest.mark.parametrize(
    "said_by_validate", [False, "", "no good"], ids=["False", "no reason", "a reason"]
)
async def test_validate_may_say_no_with_and_without_a_reason(
    stage: Stage, said_by_validate: Any
) -> None:
    async def validate(_: str) -> bool | str:
        return said_by_validate

    client = client_of(stage, ScriptedModel("Hm."), "placeholder", validate=validate)
    answer = await client.execute("Hello")
    assert (answer.kind, answer) == ("placeholder", PLACEHOLDERS[0])
    [body] = await rescues(client)
    assert body["reason"]
    assert body["text"] == "Hm."


async def test_a_validate_that_raises_fails_the_turn(stage: Stage) -> None:
    def validate(_: str) -> bool:
        raise LookupError("mine")

    client = client_of(stage, ScriptedModel("Hm."), "placeholder", validate=validate)
    with pytest.raises(LookupError, match="mine"):
        await client.execute("Hello")
    assert said(await client.session.history()) == []


async def test_an_answer_that_fits_no_schema_is_rescued(stage: Stage) -> None:
    model = ScriptedModel("x", "y", "z")
    agent = Agent(name="triage", model=model, output_type=Price)
    swarm = Swarm(SWARM, agents=[agent], rescue="placeholder")
    client = stage.runtime(swarm).client_session("ann", SWARM)
    answer = await client.execute("Hello")
    assert (answer.kind, answer) == ("placeholder", PLACEHOLDERS[0])
    [body] = await rescues(client)
    assert body["problem"] == "invalid_answer"
    model.add("x", "y", "z")
    swarm.rescue = Rescue(strategy="raise")
    with pytest.raises(SchemaValidationError):
        await client.execute("Hello")


# -- settings that cannot be


@pytest.mark.parametrize(
    "make",
    [
        lambda: Rescue(strategy="hope"),  # pyright: ignore[reportArgumentType]
        lambda: Rescue(retries=-1),
        lambda: Rescue(retries=11),
        lambda: Rescue(retries=True),
        lambda: Rescue(then="retry"),  # pyright: ignore[reportArgumentType]
        lambda: Rescue(placeholders=[]),
        lambda: Rescue(placeholders="text"),
        lambda: Rescue(placeholders=["fine", " "]),
        lambda: swarm_of(ScriptedModel(), rescue="hope"),
        lambda: swarm_of(ScriptedModel(), rescue=7),
        lambda: swarm_of(ScriptedModel(), validate="text"),
    ],
)
def test_settings_that_cannot_be_are_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(InvalidInput):
        make()


# -- who is told


async def test_the_bus_is_told_of_each_rescue(stage: Stage) -> None:
    client, heard = client_of(stage, ScriptedModel("", "Fine."), "retry"), Heard()
    client.listen("rescue.*", heard)
    await client.execute("Hello")
    await until(lambda: bool(heard.events))
    [event] = heard.of("rescue.rescue")
    assert event.output["problem"] == "empty_answer"
    assert event.seq is not None


# -- streams


async def stream(client: ClientSession, message: str) -> tuple[str, Any]:
    stream = client.stream(message)
    text = [event.text or "" async for event in stream if event.type == "text_delta"]
    return "".join(text), stream.answer


@each_problem
@pytest.mark.parametrize("strategy", ["retry", "placeholder"])
async def test_a_stream_shows_only_what_was_taken(
    stage: Stage, problem: str, strategy: str
) -> None:
    step, _, _ = PROBLEMS[problem]
    client = client_of(stage, ScriptedModel(step, "It is fine."), strategy)
    text, answer = await stream(client, "Hello")
    assert text.strip() == str(answer)
    expected = (
        ("It is fine.", "answer") if strategy == "retry" else (PLACEHOLDERS[0], "placeholder")
    )
    assert (answer, answer.kind) == expected


async def test_a_stream_that_is_raised_from_raises(stage: Stage) -> None:
    client = client_of(stage, ScriptedModel(""), "raise")
    with pytest.raises(Unusable):
        await stream(client, "Hello")


@pytest.mark.parametrize(
    "strategy",
    ["retry", "raise", "placeholder", Rescue(then="placeholder")],
    ids=["retry", "raise", "placeholder", "retry, then placeholder"],
)
async def test_a_model_that_breaks_off_after_text_has_left_is_not_asked_again_in_secret(
    stage: Stage, strategy: Any
) -> None:
    model = ScriptedModel(["It is ", ModelError("cut off")], "It is fine.")
    client = client_of(stage, model, strategy, validate=None)
    shown: list[str] = []
    taking = client.stream("Hello")

    async def take() -> None:
        async for event in taking:
            if event.type == "text_delta":
                shown.append(event.text or "")  # noqa: PERF401

    raises = strategy in ("retry", "raise")
    if raises:
        with pytest.raises(ModelError, match="cut off"):
            await take()
    else:
        await take()
        assert taking.answer.kind == "placeholder"
    assert len(model.requests) == 1
    assert "".join(shown).startswith("It is ")
    [body] = await rescues(client)
    assert body["done"] == ("raise" if raises else "answer")
    await check_whole(client.session)


# -- models and tools that fail in other ways


async def failing_model(request: ModelRequest) -> AsyncIterator[ModelEvent]:
    raise KeyError("choices")
    yield TextDelta("never")


async def test_a_model_may_fail_with_any_error(stage: Stage) -> None:
    failures: list[Failure] = []

    def rescue(failure: Failure) -> str:
        failures.append(failure)
        return "Later."

    client = client_of(stage, ScriptedModel(failing_model), rescue)
    answer = await client.execute("Hello")
    assert (answer, answer.kind) == ("Later.", "placeholder")
    [failure] = failures
    assert (failure.problem, failure.reason) == ("model_error", "KeyError: 'choices'")
    assert isinstance(failure.error, KeyError)
    await check_whole(client.session)


async def test_a_model_that_failed_with_any_error_is_asked_again(stage: Stage) -> None:
    client = client_of(stage, ScriptedModel(failing_model, "Fine."), "retry")
    assert await client.execute("Hello") == "Fine."


async def test_an_error_of_a_model_that_is_not_rescued_is_raised_as_it_is(stage: Stage) -> None:
    client = client_of(stage, ScriptedModel(failing_model), "raise")
    with pytest.raises(KeyError, match="choices"):
        await client.execute("Hello")
    assert [body["problem"] for body in await rescues(client)] == ["model_error"]


async def test_a_tool_that_fails_beside_a_transfer_is_rescued_too(stage: Stage) -> None:
    model = ScriptedModel([call("broken"), call("transfer_to_sales")], name="triage")
    agents = [
        Agent(name="triage", model=model, tools=[broken], handoffs=["sales"]),
        Agent(name="sales", model=ScriptedModel("Sold.", name="sales")),
    ]
    swarm = Swarm(SWARM, agents=agents, rescue="raise")
    client = stage.runtime(swarm).client_session("ann", SWARM)
    with pytest.raises(ToolError, match="the shelf is empty"):
        await client.execute("Hello")


@pytest.mark.parametrize(("retries", "told"), [(0, "1 attempt)"), (1, "2 attempts)")])
async def test_the_error_says_how_often_the_model_was_asked(
    stage: Stage, retries: int, told: str
) -> None:
    client = client_of(stage, ScriptedModel("", ""), Rescue(retries=retries))
    with pytest.raises(Unusable, match=re.escape(told)):
        await client.execute("Hello")
