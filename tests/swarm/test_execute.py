"""Executing: one turn of a client, from what was said to what is told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.swarm.stage import SWARM, Heard, Stage, Without, asked, said, soon, swarm_of

from tertulia import Agent, Message, RunContext, Runtime, Swarm, tool
from tertulia.bus import BusEvent
from tertulia.errors import (
    ClientDisposed,
    IdempotencyConflict,
    InvalidInput,
    ModelError,
    SessionEnded,
    TurnTimeout,
    UnknownName,
    UsageError,
)
from tertulia.policies import Policy, PolicyContext
from tertulia.swarm import Answer, ClientSession, Rescue
from tertulia.testing import Pause, ScriptedModel, call


def client_of(stage: Stage, model: ScriptedModel, **options: Any) -> ClientSession:
    return stage.runtime(swarm_of(model, **options)).client_session("ann", SWARM)


# -- the answer


async def test_an_answer_is_its_text_and_says_whose_it_is(stage: Stage) -> None:
    client = client_of(stage, ScriptedModel("Hello, Ann."))
    answer = await client.execute("Hi")
    assert answer == "Hello, Ann."
    assert isinstance(answer, str)
    assert (answer.kind, answer.agent, answer.verdict) == ("answer", "triage", None)
    turns = [event.turn for event in await client.session.events(types=["turn.started"])]
    assert turns == [answer.turn]


async def test_an_answer_can_be_used_wherever_text_can() -> None:
    answer = Answer("yes", agent="triage")
    assert f"{answer}!" == "yes!"
    assert {"yes": 1}[answer] == 1
    assert type(answer.text) is str
    assert repr(answer) == "Answer('yes', kind='answer', agent='triage')"


async def test_what_is_said_and_what_is_answered_are_the_history(stage: Stage) -> None:
    client = client_of(stage, ScriptedModel("One.", "Two."))
    await client.execute("First")
    await client.execute("Second")
    assert said(await client.session.history()) == [
        ("user", "First"),
        ("assistant", "One."),
        ("user", "Second"),
        ("assistant", "Two."),
    ]


async def test_the_session_of_a_client_belongs_to_the_client_and_to_the_app_of_the_swarm(
    stage: Stage,
) -> None:
    runtime = stage.runtime(swarm_of(ScriptedModel("a"), app_name="store"))
    await runtime.client_session("ann", SWARM).execute("Hi")
    listed = await runtime.sessions()
    assert [(row.id, row.app_name, row.user_id) for row in listed] == [("ann", "store", "ann")]


# -- modes, metadata, keys


async def test_the_mode_is_kept_with_the_message(stage: Stage) -> None:
    client = client_of(stage, ScriptedModel("a", "b"))
    await client.execute("by a person")
    await client.execute("by code", "tool")
    history = await client.session.history()
    modes = [(message.metadata or {}).get("mode") for message in history if message.role == "user"]
    assert modes == ["user", "tool"]


async def test_metadata_of_a_request_reaches_its_tools(stage: Stage) -> None:
    found: list[Any] = []

    @tool
    def look(context: RunContext) -> str:
        """Look at the metadata."""
        found.append(dict(context.metadata))
        return "seen"

    client = client_of(stage, ScriptedModel(call("look"), "a"), tools=[look])
    await client.execute("Hi", metadata={"channel": "web"})
    assert [each["channel"] for each in found] == ["web"]


async def test_metadata_of_a_message_is_kept_in_the_history(stage: Stage) -> None:
    client = client_of(stage, ScriptedModel("a"))
    await client.execute(Message.user("Hi", metadata={"lang": "de"}))
    first = (await client.session.history())[0]
    assert (first.metadata or {})["lang"] == "de"


async def test_a_request_with_a_key_that_comes_again_gets_the_same_answer_and_asks_nobody(
    stage: Stage,
) -> None:
    model = ScriptedModel("Charged.")
    client = client_of(stage, model)
    first = await client.execute("Charge me", idempotency_key="k1")
    again = await client.execute("Charge me", idempotency_key="k1")
    assert (first, again) == ("Charged.", "Charged.")
    assert again.turn == first.turn
    assert again.kind == "answer"
    assert len(model.requests) == 1
    assert len(await client.session.history()) == 2


async def test_a_key_that_comes_with_another_message_is_a_conflict(stage: Stage) -> None:
    client = client_of(stage, ScriptedModel("a"))
    await client.execute("Charge me", idempotency_key="k1")
    with pytest.raises(IdempotencyConflict):
        await client.execute("Refund me", idempotency_key="k1")


# -- what cannot be


@pytest.mark.parametrize(
    "message",
    ["", "   ", "\n", None, 7, b"Hi", [], {}, {"role": "assistant", "content": "Hi"}],
)
async def test_what_is_no_message_of_a_client_is_refused_and_leaves_nothing(
    stage: Stage, message: Any
) -> None:
    model = ScriptedModel("a")
    client = client_of(stage, model)
    with pytest.raises(InvalidInput):
        await client.execute(message)
    assert model.requests == []
    assert await client.session.history() == []


@pytest.mark.parametrize("mode", ["", "User", "system", None, 0, True, []])
async def test_a_mode_that_does_not_exist_is_refused(stage: Stage, mode: Any) -> None:
    client = client_of(stage, ScriptedModel("a"))
    with pytest.raises(InvalidInput, match="user or tool"):
        await client.execute("Hi", mode)


@pytest.mark.parametrize("client_id", ["", None, 7, "a" * 2_000, "a\0b", "\ud800"])
async def test_a_client_id_that_cannot_be_is_refused_before_anything_is_made(
    stage: Stage, client_id: Any
) -> None:
    runtime = stage.runtime(swarm_of(ScriptedModel()))
    with pytest.raises(InvalidInput):
        runtime.client_session(client_id, SWARM)
    assert runtime.client_sessions() == []


async def test_an_unknown_swarm_is_refused_with_the_names_of_those_that_are(stage: Stage) -> None:
    runtime = stage.runtime(swarm_of(ScriptedModel()))
    with pytest.raises(UnknownName, match=SWARM):
        runtime.client_session("ann", "bakery")
    assert runtime.client_sessions() == []


# -- many at once


async def test_executions_of_one_client_never_overlap_and_keep_their_order(stage: Stage) -> None:
    running: list[str] = []
    most = 0

    async def answer(request: Any) -> str:
        nonlocal most
        running.append(request.messages[-1].text)
        most = max(most, len(running))
        await asyncio.sleep(0)
        running.pop()
        return f"re {request.messages[-1].text}"

    client = client_of(stage, ScriptedModel(*[answer] * 20))
    asks = [f"m{number}" for number in range(20)]
    answers = await asyncio.gather(*(client.execute(text) for text in asks))
    assert answers == [f"re {text}" for text in asks]
    assert most == 1
    history = [message.text for message in await client.session.history()]
    assert history == [text for ask in asks for text in (ask, f"re {ask}")]


async def test_two_clients_do_not_wait_for_each_other(stage: Stage) -> None:
    pause = Pause()
    runtime = stage.runtime(swarm_of(ScriptedModel([pause, "slow"], "quick")))
    slow = asyncio.create_task(runtime.client_session("ann", SWARM).execute("Hi"))
    await pause.reached()
    assert await soon(runtime.client_session("bob", SWARM).execute("Hi")) == "quick"
    assert not slow.done()
    pause.release()
    assert await slow == "slow"


async def test_one_that_does_not_want_to_wait_for_the_turn_before_gets_an_error(
    stage: Stage,
) -> None:
    pause = Pause()
    client = client_of(stage, ScriptedModel([pause, "slow"]))
    slow = asyncio.create_task(client.execute("Hi"))
    await pause.reached()
    with pytest.raises(TurnTimeout):
        await client.execute("And?", timeout=0.01)
    pause.release()
    assert await slow == "slow"
    assert said(await client.session.history()) == [("user", "Hi"), ("assistant", "slow")]


async def test_a_caller_that_is_cancelled_gets_its_cancellation_and_the_next_one_goes_on(
    stage: Stage,
) -> None:
    pause = Pause()
    client = client_of(stage, ScriptedModel([pause, "never"], "next"))
    task = asyncio.create_task(client.execute("Hi"))
    await pause.reached()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await soon(client.execute("Again")) == "next"


async def test_a_turn_that_is_cancelled_is_an_empty_answer_of_that_kind(stage: Stage) -> None:
    pause = Pause()
    client = client_of(stage, ScriptedModel([pause, "never"]))
    task = asyncio.create_task(client.execute("Hi"))
    await pause.reached()
    assert await client.cancel() is True
    answer = await soon(task)
    assert (answer, answer.kind) == ("", "cancelled")
    assert await client.cancel() is False


# -- inside of a turn


async def test_an_execution_inside_of_a_tool_is_a_part_of_the_running_turn(stage: Stage) -> None:
    inner: list[Answer] = []

    @tool
    async def ask_again() -> str:
        """Ask once more."""
        inner.append(await client.execute("and inside", "tool"))
        return "asked"

    model = ScriptedModel(call("ask_again"), "from inside", "from outside")
    client = client_of(stage, model, tools=[ask_again])
    answer = await soon(client.execute("Hi"))
    assert (answer, inner) == ("from outside", ["from inside"])
    assert inner[0].kind == "answer"
    started = await client.session.events(types=["turn.started"])
    assert len(started) == 1


async def test_executions_inside_of_one_turn_have_a_limit_that_says_so(stage: Stage) -> None:
    errors: list[Exception] = []

    @tool
    async def ask_again() -> str:
        """Ask without end."""
        try:
            await client.execute("once more", "tool")
        except UsageError as error:
            errors.append(error)
        return "asked"

    model = ScriptedModel(*[call("ask_again")] * 3, "1", "2", "3")
    client = client_of(stage, model, tools=[ask_again], max_nested=2)
    await soon(client.execute("Hi"))
    assert len(errors) == 1
    assert "max_nested" in str(errors[0])


async def test_two_clients_may_ask_each_other_inside_of_their_turns(stage: Stage) -> None:
    @tool
    async def ask_bob() -> str:
        """Ask Bob."""
        return await runtime.client_session("bob", SWARM).execute("Ann asks")

    model = ScriptedModel(call("ask_bob"), "Bob says hi", "done")
    runtime = stage.runtime(swarm_of(model, tools=[ask_bob]))
    assert await soon(runtime.client_session("ann", SWARM).execute("Hi")) == "done"
    history = await runtime.client_session("bob", SWARM).session.history()
    assert said(history) == [("user", "Ann asks"), ("assistant", "Bob says hi")]


# -- several swarms, restarts


async def test_a_client_has_a_conversation_of_its_own_in_each_swarm(stage: Stage) -> None:
    shop, help_ = ScriptedModel("from the shop"), ScriptedModel("from the help")
    runtime = stage.runtime(swarm_of(shop), swarm_of(help_, name="help"))
    first = runtime.client_session("ann", SWARM)
    second = runtime.client_session("ann", "help")
    assert first is not second
    assert await first.execute("Where?") == "from the shop"
    assert await second.execute("Why?") == "from the help"
    assert [m.text for m in await first.session.history()] == ["Where?", "from the shop"]
    assert [m.text for m in await second.session.history()] == ["Why?", "from the help"]
    assert "Where?" not in asked(help_)
    await first.dispose()
    assert not second.disposed


async def test_a_client_comes_back_after_a_restart_to_its_history_and_its_agent(
    durable: Stage,
) -> None:
    def swarm(model: ScriptedModel) -> Swarm:
        triage = Agent(name="triage", model=model, handoffs=["sales"])
        return Swarm(SWARM, agents=[triage, Agent(name="sales", model=model)])

    async with durable.runtime(swarm(ScriptedModel("Hello.", "Buy!"))) as before:
        client = before.client_session("ann", SWARM)
        await client.execute("Hi")
        await client.change_agent("sales")
        await client.execute("How much?")
        kept = said(await client.session.history())

    model = ScriptedModel("Still sales.")
    after = durable.runtime(swarm(model)).client_session("ann", SWARM)
    await after
    answer = await after.execute("And now?")
    assert (answer.agent, after.agent) == ("sales", "sales")
    expected = [*kept, ("user", "And now?"), ("assistant", "Still sales.")]
    assert said(await after.session.history()) == expected
    assert "How much?" in asked(model)


async def test_the_agent_of_a_client_is_known_once_it_was_awaited_after_a_restart(
    durable: Stage,
) -> None:
    def swarm() -> Swarm:
        agents = [Agent(name=name, model=ScriptedModel()) for name in ("triage", "sales")]
        return Swarm(SWARM, agents=agents)

    async with durable.runtime(swarm()) as before:
        await before.client_session("ann", SWARM).change_agent("sales")
    client = await durable.runtime(swarm()).client_session("ann", SWARM)
    assert client.agent == "sales"


# -- failures


async def test_a_model_that_fails_raises_and_leaves_the_history_as_it_was(stage: Stage) -> None:
    model = ScriptedModel("fine", ModelError("down"), "fine again")
    client = client_of(stage, model, rescue="raise")
    await client.execute("One")
    before = said(await client.session.history())
    with pytest.raises(ModelError, match="down"):
        await client.execute("Two")
    assert said(await client.session.history()) == before
    assert await client.execute("Three") == "fine again"


async def test_a_placeholder_can_be_told_from_an_answer(stage: Stage) -> None:
    rescue = Rescue(strategy="placeholder", placeholders=["Come again?"])
    client = client_of(stage, ScriptedModel(ModelError("down")), rescue=rescue)
    answer = await client.execute("Hi")
    assert (answer, answer.kind) == ("Come again?", "placeholder")


async def test_a_client_of_a_closed_runtime_says_that_it_is_gone(stage: Stage) -> None:
    runtime: Runtime = stage.runtime(swarm_of(ScriptedModel("a")))
    client = runtime.client_session("ann", SWARM)
    await client.execute("Hi")
    await runtime.close()
    with pytest.raises(ClientDisposed):
        await client.execute("Hi")


async def test_what_a_policy_refuses_is_answered_while_a_turn_runs_and_holds_up_nobody(
    stage: Stage,
) -> None:
    pause = Pause()
    runtime = stage.runtime(swarm_of(ScriptedModel([pause, "one"], "two"), Without("acme")))
    client = runtime.client_session("ann", SWARM)
    heard = Heard()
    runtime.bus.listen("ann", "session.execute", heard)
    client.connect(lambda outgoing: None)
    first = asyncio.create_task(client.execute("One"))
    await pause.reached()
    second = asyncio.create_task(client.execute("Two"))
    refused = await soon(client.execute("About acme"))
    noticed = await soon(client.notify("About acme"))
    assert (refused.kind, noticed.kind) == ("ban", "ban")
    assert not first.done()
    with pytest.raises(TurnTimeout):
        await soon(client.execute("Three", timeout=0.01))
    pause.release()
    assert (await soon(first), await soon(second)) == ("one", "two")
    await runtime.bus.drain()
    assert [event.output["kind"] for event in heard.events] == ["ban", "answer", "answer"]
    logged = [event for event in await client.session.events() if event.type == "policy.checked"]
    assert sum(not (event.body or {})["allowed"] for event in logged) == 2
    assert (await client.session.verify()).ok


async def test_what_a_policy_refuses_while_a_turn_fails_stays_in_the_audit(stage: Stage) -> None:
    pause = Pause()
    swarm = swarm_of(ScriptedModel([pause, ModelError("no")]), Without("acme"), rescue="raise")
    client = stage.runtime(swarm).client_session("ann", SWARM)
    first = asyncio.create_task(client.execute("One"))
    await pause.reached()
    await soon(client.execute("About acme"))
    pause.release()
    with pytest.raises(ModelError):
        await soon(first)
    assert await client.session.history() == []
    assert (await client.session.verify()).ok
    assert "About acme" in str([event.body for event in await client.session.events()])


async def test_what_a_policy_refuses_is_a_ban_also_where_the_session_was_ended(
    stage: Stage,
) -> None:
    runtime = stage.runtime(swarm_of(ScriptedModel("Hello"), Without("acme")))
    client = runtime.client_session("ann", SWARM)
    await client.execute("Hi")
    await client.session.end("it is over")
    assert (await client.execute("About acme")).kind == "ban"
    with pytest.raises(SessionEnded):
        await client.execute("And?")
    assert (await client.session.verify()).ok


@pytest.mark.parametrize("how", ["execute", "stream"])
async def test_a_repetition_of_a_request_asks_no_policy_and_calls_no_callback(
    stage: Stage, how: str
) -> None:
    asked_of: list[str] = []
    executed: list[str] = []

    class Once(Policy):
        def validate_input(self, message: str, context: PolicyContext, /) -> bool:
            asked_of.append(message)
            return len(asked_of) == 1

    def on_execute(client: ClientSession, event: BusEvent) -> None:
        executed.append(client.client_id)

    swarm = swarm_of(
        ScriptedModel("Hello."),
        Once(),
        on_execute=on_execute,
    )
    client = stage.runtime(swarm).client_session("ann", SWARM)
    assert await client.execute("Hi", idempotency_key="k") == "Hello."
    if how == "execute":
        assert await client.execute("Hi", idempotency_key="k") == "Hello."
    else:
        stream = client.stream("Hi", idempotency_key="k")
        assert "".join([event.text async for event in stream]) == "Hello."
        assert stream.answer == "Hello."
    assert (asked_of, executed) == (["Hi"], ["ann"])
    with pytest.raises(IdempotencyConflict):
        await client.execute("Ho", idempotency_key="k")
    assert asked_of == ["Hi"]
    assert (await client.execute("Hi", idempotency_key="other")).kind == "ban"
