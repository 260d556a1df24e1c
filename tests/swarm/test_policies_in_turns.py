"""Policies in the turns of clients: what is refused, where it is kept, and who never sees it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel
from tests.swarm.stage import SWARM, Heard, Stage, Without, asked, said, soon, swarm_of

from tertulia import Agent, Runtime, Swarm, tool
from tertulia.bus import BusEvent
from tertulia.errors import InvalidInput, PolicyError, UnknownName, UsageError
from tertulia.policies import BAN_MESSAGE, Policy, PolicyContext
from tertulia.swarm import ClientSession, Failure
from tertulia.testing import FrozenClock, Pause, ScriptedModel, call


def open_client(
    stage: Stage, model: ScriptedModel, *policies: Policy, **options: Any
) -> tuple[Runtime, ClientSession]:
    runtime = stage.runtime(swarm_of(model, *policies, **options))
    return runtime, runtime.client_session("ann", SWARM)


async def verdicts(client: ClientSession) -> list[dict[str, Any]]:
    """What the audit has of policies."""
    return [event.body or {} for event in await client.session.events(types=["policy.checked"])]


class Recording(Policy):
    """Accepts, and remembers what it was asked about."""

    def __init__(self, order: list[tuple[str, str, str]], **options: Any) -> None:
        super().__init__(**options)
        self.order = order

    def validate_input(self, message: str, context: PolicyContext, /) -> bool:
        self.order.append((self.name, "input", message))
        return True

    def validate_output(self, text: str, context: PolicyContext, /) -> bool:
        self.order.append((self.name, "output", text))
        return True


class Raising(Policy):
    """Fails at one direction."""

    def __init__(self, direction: str, **options: Any) -> None:
        super().__init__(**options)
        self.direction = direction

    def validate_input(self, message: str, context: PolicyContext, /) -> bool:
        return self._fail(context)

    def validate_output(self, text: str, context: PolicyContext, /) -> bool:
        return self._fail(context)

    def _fail(self, context: PolicyContext) -> bool:
        if context.direction == self.direction:
            raise ZeroDivisionError("the rules are broken")
        return True


# -- what a client says


async def test_a_blocked_input_is_not_in_the_history_and_no_model_is_asked(stage: Stage) -> None:
    model = ScriptedModel("fine")
    _, client = open_client(stage, model, Without("acme"))
    answer = await client.execute("What of acme?")
    assert (answer, answer.kind, answer.turn) == (BAN_MESSAGE, "ban", None)
    assert model.requests == []
    assert await client.session.history() == []
    assert await client.execute("Well?") == "fine"
    assert "acme" not in asked(model)


async def test_a_blocked_input_is_in_the_audit_with_policy_and_reason(stage: Stage) -> None:
    _, client = open_client(stage, ScriptedModel(), Without("acme"))
    answer = await client.execute("What of acme?")
    (noted,) = await verdicts(client)
    assert noted == {
        "direction": "input",
        "allowed": False,
        "policy": "without-acme",
        "reason": "it names acme",
        "banned": False,
        "text": "What of acme?",
        "message": str(answer),
    }
    assert answer.verdict is not None
    assert (answer.verdict.policy, answer.verdict.reason) == ("without-acme", "it names acme")


async def test_a_blocked_input_is_on_the_bus_with_policy_and_reason(stage: Stage) -> None:
    runtime, client = open_client(stage, ScriptedModel(), Without("acme"))
    heard = Heard()
    runtime.bus.listen("ann", "policy.*", heard)
    await client.execute("What of acme?")
    await runtime.bus.drain()
    (event,) = heard.events
    assert (event.topic, event.source) == ("policy.validate-input", "policy-bus")
    assert event.input == {"message": "What of acme?"}
    assert (event.output["allowed"], event.output["reason"]) == (False, "it names acme")
    assert event.context["policy_name"] == "without-acme"
    (record,) = await client.session.events(types=["policy.checked"])
    assert event.seq == record.seq


async def test_a_blocked_input_does_not_call_on_execute(stage: Stage) -> None:
    executed: list[str] = []

    def on_execute(client: ClientSession, event: BusEvent) -> None:
        executed.append(event.input["message"])

    _, client = open_client(stage, ScriptedModel("a"), Without("acme"), on_execute=on_execute)
    await client.execute("acme")
    await client.execute("fine")
    assert executed == ["fine"]


async def test_an_accepted_input_is_noted_with_those_that_passed_it_in_order(stage: Stage) -> None:
    order: list[tuple[str, str, str]] = []
    policies = [Recording(order, name=name) for name in ("first", "second", "third")]
    _, client = open_client(stage, ScriptedModel("Hello."), *policies)
    await client.execute("Hi")
    assert await verdicts(client) == [
        {"direction": "input", "allowed": True, "passed": ["first", "second", "third"]},
        {"direction": "output", "allowed": True, "passed": ["first", "second", "third"]},
    ]
    assert order == [
        (name, direction, text)
        for direction, text in (("input", "Hi"), ("output", "Hello."))
        for name in ("first", "second", "third")
    ]


async def test_the_first_policy_that_refuses_decides_and_those_behind_it_are_not_asked(
    stage: Stage,
) -> None:
    order: list[tuple[str, str, str]] = []
    policies = [
        Recording(order, name="first"),
        Without("acme", ban_message="No acme."),
        Recording(order, name="last"),
        Without("a", ban_message="No a."),
    ]
    _, client = open_client(stage, ScriptedModel(), *policies)
    answer = await client.execute("acme")
    assert answer == "No acme."
    assert [name for name, *_ in order] == ["first"]
    (noted,) = await verdicts(client)
    assert (noted["policy"], noted["passed"]) == ("without-acme", ["first"])


async def test_the_context_of_a_policy_says_who_and_where(stage: Stage) -> None:
    contexts: list[PolicyContext] = []

    class Looking(Policy):
        def validate_input(self, message: str, context: PolicyContext, /) -> bool:
            contexts.append(context)
            return True

    _, client = open_client(stage, ScriptedModel("a"), Looking())
    await client.execute("Hi")
    (context,) = contexts
    assert (context.client_id, context.swarm, context.agent) == ("ann", SWARM, "triage")
    assert (context.policy, context.direction) == ("Looking", "input")
    assert context.session is client.session


async def test_a_policy_may_keep_something_of_a_client_in_its_state(stage: Stage) -> None:
    class Twice(Policy):
        async def validate_input(self, message: str, context: PolicyContext, /) -> bool:
            count = context.state.get("asked", 0)
            await context.session.set_state("asked", count + 1)
            return count < 2

    model = ScriptedModel("a", "b", "x")
    runtime, client = open_client(stage, model, Twice())
    kinds = [(await soon(client.execute("Hi"))).kind for _ in range(3)]
    assert kinds == ["answer", "answer", "ban"]
    assert (await runtime.client_session("bob", SWARM).execute("Hi")).kind == "answer"


# -- what a client is told


async def test_a_refused_output_is_the_ban_message_in_answer_and_history(stage: Stage) -> None:
    policy = Without("acme", ban_message="I do not speak of them.")
    _, client = open_client(stage, ScriptedModel("Go to acme."), policy)
    answer = await client.execute("Where?")
    assert (answer, answer.kind) == ("I do not speak of them.", "ban")
    assert answer.turn is not None
    history = await client.session.history()
    assert said(history) == [("user", "Where?"), ("assistant", "I do not speak of them.")]
    assert (history[-1].metadata or {})["kind"] == "ban"
    assert (history[-1].metadata or {})["policy"] == "without-acme"


async def test_a_refused_output_is_never_what_a_model_is_asked_with(stage: Stage) -> None:
    model = ScriptedModel("Go to acme.", "fine")
    _, client = open_client(stage, model, Without("acme"))
    await client.execute("Where?")
    await client.execute("And now?")
    assert "acme" not in asked(model)
    assert BAN_MESSAGE in asked(model)


async def test_a_refused_output_is_in_the_audit_alone_of_all_that_is_kept(stage: Stage) -> None:
    _, client = open_client(stage, ScriptedModel("Go to acme."), Without("acme"))
    await client.execute("Where?")
    kept = await client.session.events()
    with_it = [event.type for event in kept if "Go to acme." in str(event.body)]
    assert with_it == ["policy.checked"]
    noted = (await verdicts(client))[-1]
    assert (noted["direction"], noted["policy"], noted["text"]) == (
        "output",
        "without-acme",
        "Go to acme.",
    )
    assert await client.session.verify()


async def test_a_refused_output_is_never_on_the_bus_as_what_was_said(stage: Stage) -> None:
    runtime, client = open_client(stage, ScriptedModel("Go to acme."), Without("acme"))
    heard = Heard()
    runtime.bus.listen("ann", "*", heard)
    await client.execute("Where?")
    await runtime.bus.drain()
    with_it = [event.topic for event in heard.events if "Go to acme." in str(event.to_dict())]
    assert with_it == ["policy.validate-output"]
    (output,) = heard.of("agent.output")
    assert (output.output["message"], output.output["kind"]) == (BAN_MESSAGE, "ban")
    (executed,) = heard.of("session.execute")
    assert executed.output == {"message": BAN_MESSAGE, "kind": "ban"}


async def test_an_answer_with_text_and_calls_is_checked_before_its_tools_run(stage: Stage) -> None:
    ran: list[int] = []

    @tool
    def charge() -> str:
        """Charge."""
        ran.append(1)
        return "charged"

    model = ScriptedModel(["As acme does, ", call("charge")], "never")
    _, client = open_client(stage, model, Without("acme"), tools=[charge])
    answer = await client.execute("Pay")
    assert (answer.kind, ran, len(model.requests)) == ("ban", [], 1)
    assert said(await client.session.history()) == [("user", "Pay"), ("assistant", BAN_MESSAGE)]


async def test_each_answer_of_a_turn_with_tools_is_checked(stage: Stage) -> None:
    @tool
    def look() -> str:
        """Look."""
        return "seen"

    order: list[tuple[str, str, str]] = []
    model = ScriptedModel(["One moment.", call("look")], "Done.")
    _, client = open_client(stage, model, Recording(order, name="all"), tools=[look])
    await client.execute("Hi")
    assert [text for _, direction, text in order if direction == "output"] == [
        "One moment.",
        "Done.",
    ]


# -- no mixing


async def test_ban_messages_of_two_clients_at_once_never_mix(stage: Stage) -> None:
    class Own(Policy):
        async def validate_output(self, text: str, context: PolicyContext, /) -> bool:
            await asyncio.sleep(0)
            return False

        async def ban_message(self, context: PolicyContext) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
            await asyncio.sleep(0)
            return f"not for {context.client_id}"

    runtime = stage.runtime(swarm_of(ScriptedModel(*["x"] * 20), Own()))
    names = [f"client-{number}" for number in range(20)]
    clients = [runtime.client_session(name, SWARM) for name in names]
    answers = await asyncio.gather(*(client.execute("Hi") for client in clients))
    assert answers == [f"not for {name}" for name in names]


async def test_two_policies_that_fail_at_once_give_each_client_the_message_of_its_own(
    stage: Stage,
) -> None:
    policies = [Without("red", ban_message="No red."), Without("blue", ban_message="No blue.")]
    runtime = stage.runtime(swarm_of(ScriptedModel(), *policies))
    words = ["red", "blue"] * 10
    clients = [runtime.client_session(f"c{number}", SWARM) for number in range(20)]
    pairs = zip(clients, words, strict=True)
    answers = await asyncio.gather(*(client.execute(word) for client, word in pairs))
    assert answers == [f"No {word}." for word in words]


# -- bans


async def test_a_policy_with_auto_ban_bans_at_its_first_refusal(stage: Stage) -> None:
    runtime, client = open_client(stage, ScriptedModel("hi"), Without("acme", auto_ban=True))
    heard = Heard()
    runtime.bus.listen("ann", "policy.ban-client", heard)
    first = await client.execute("acme")
    second = await client.execute("Something nice")
    assert (first.kind, second.kind) == ("ban", "ban")
    assert first.verdict is not None
    assert second.verdict is not None
    assert (first.verdict.banned, second.verdict.banned) == (False, True)
    await runtime.bus.drain()
    (event,) = heard.events
    assert event.context["policy_name"] == "without-acme"
    assert event.output == {"until": None, "reason": "it names acme"}
    (noted,) = await client.session.events(types=["policy.banned"])
    assert (noted.body or {})["policy"] == "without-acme"
    assert [ban.policy for ban in await client.swarm.bans("ann")] == ["without-acme"]
    assert (await runtime.client_session("bob", SWARM).execute("Hi")).kind == "answer"


async def test_an_output_that_bans_bans_once_and_tells_it_once(stage: Stage) -> None:
    model = ScriptedModel("Go to acme.")
    runtime, client = open_client(stage, model, Without("acme", auto_ban=True))
    heard = Heard()
    runtime.bus.listen("ann", "policy.ban-client", heard)
    await client.execute("Where?")
    await runtime.bus.drain()
    assert len(heard.events) == 1
    assert len(await client.session.events(types=["policy.banned"])) == 1
    assert (await client.execute("And?")).kind == "ban"


async def test_a_ban_that_lands_during_a_turn_blocks_its_answer(stage: Stage) -> None:
    pause = Pause()
    model = ScriptedModel([pause, "a perfectly fine answer"], "later")
    _, client = open_client(stage, model, Without("acme"))
    task = asyncio.create_task(client.execute("Hi"))
    await pause.reached()
    await client.swarm.ban("ann", "without-acme", reason="rude")
    pause.release()
    answer = await soon(task)
    assert answer.kind == "ban"
    assert answer.verdict is not None
    assert (answer.verdict.banned, answer.verdict.reason) == (True, "rude")
    assert said(await client.session.history()) == [("user", "Hi"), ("assistant", BAN_MESSAGE)]


async def test_a_ban_during_a_turn_blocks_it_also_where_no_policy_looks_at_output(
    stage: Stage,
) -> None:
    pause = Pause()
    _, client = open_client(stage, ScriptedModel([pause, "fine"]))
    task = asyncio.create_task(client.execute("Hi"))
    await pause.reached()
    await client.swarm.ban("ann")
    pause.release()
    assert (await soon(task)).kind == "ban"


async def test_a_client_that_is_unbanned_may_talk_again(stage: Stage) -> None:
    runtime, client = open_client(stage, ScriptedModel("Hello."), Without("acme"))
    heard = Heard()
    runtime.bus.listen("ann", "policy.*ban-client", heard)
    await client.swarm.ban("ann")
    assert (await client.execute("Hi")).kind == "ban"
    lifted = await client.swarm.unban("ann")
    assert [ban.policy for ban in lifted] == ["*"]
    assert await client.execute("Hi") == "Hello."
    await runtime.bus.drain()
    assert heard.topics == ["policy.ban-client", "policy.unban-client"]
    types = [event.type for event in await client.session.events()]
    assert types.count("policy.unbanned") == 1


async def test_a_ban_is_over_when_its_time_is(stage: Stage, frozen: FrozenClock) -> None:
    _, client = open_client(stage, ScriptedModel("Hello."), Without("acme"))
    await client.swarm.ban("ann", until=timedelta(minutes=5))
    frozen.advance(minutes=4, seconds=59)
    assert (await client.execute("Hi")).kind == "ban"
    frozen.advance(seconds=1)
    assert await client.execute("Hi") == "Hello."
    assert await client.swarm.bans("ann") == []


async def test_an_auto_ban_is_over_when_its_time_is(stage: Stage, frozen: FrozenClock) -> None:
    policy = Without("acme", auto_ban=True, ban_for=60)
    _, client = open_client(stage, ScriptedModel("Hello."), policy)
    await client.execute("acme")
    frozen.advance(seconds=59)
    assert (await client.execute("Hi")).kind == "ban"
    frozen.advance(seconds=1)
    assert await client.execute("Hi") == "Hello."


async def test_a_ban_under_an_unknown_policy_lists_those_that_are(stage: Stage) -> None:
    _, client = open_client(stage, ScriptedModel(), Without("acme"), Without("red"))
    for method in (client.swarm.ban, client.swarm.unban):
        with pytest.raises(UnknownName, match="without-acme, without-red"):
            await method("ann", "nobody")
    assert await client.swarm.bans("ann") == []


async def test_a_ban_outside_of_a_runtime_says_where_to_do_it() -> None:
    swarm = swarm_of(ScriptedModel())
    for method in (swarm.ban, swarm.unban, swarm.bans):
        with pytest.raises(UsageError, match="Runtime"):
            await method("ann")


@pytest.mark.parametrize("until", ["2020-01-01", "soon", 0, -1, True, float("nan"), object()])
async def test_a_ban_that_ends_before_it_begins_or_never_is_refused(
    stage: Stage, until: Any
) -> None:
    _, client = open_client(stage, ScriptedModel("Hello."))
    with pytest.raises(InvalidInput):
        await client.swarm.ban("ann", until=until)
    assert await client.execute("Hi") == "Hello."


async def test_a_ban_of_a_client_that_never_came_makes_no_session_and_holds(stage: Stage) -> None:
    swarm = swarm_of(ScriptedModel("Hello."))
    runtime = stage.runtime(swarm)
    await swarm.ban("ann")
    assert runtime.client_sessions() == []
    assert await runtime.sessions() == []
    assert (await runtime.client_session("ann", SWARM).execute("Hi")).kind == "ban"


async def test_a_ban_in_one_swarm_is_none_in_another(stage: Stage) -> None:
    shop, help_ = swarm_of(ScriptedModel()), swarm_of(ScriptedModel("Hello."), name="help")
    runtime = stage.runtime(shop, help_)
    await shop.ban("ann")
    assert (await runtime.client_session("ann", SWARM).execute("Hi")).kind == "ban"
    assert (await runtime.client_session("ann", "help").execute("Hi")).kind == "answer"


async def test_a_ban_is_kept_over_a_restart(durable: Stage) -> None:
    async with durable.runtime(swarm_of(ScriptedModel(), Without("acme"))) as before:
        await before.swarm(SWARM).ban("ann", "without-acme", reason="rude")
    after = durable.runtime(swarm_of(ScriptedModel(), Without("acme")))
    answer = await after.client_session("ann", SWARM).execute("Hi")
    assert answer.verdict is not None
    assert (answer.kind, answer.verdict.reason) == ("ban", "rude")


async def test_a_ban_that_another_runtime_sets_holds_from_the_next_look(durable: Stage) -> None:
    here = durable.runtime(swarm_of(ScriptedModel("one", "two")))
    there_swarm = swarm_of(ScriptedModel())
    durable.runtime(there_swarm)
    client = here.client_session("ann", SWARM)
    assert (await client.execute("Hi")).kind == "answer"
    await there_swarm.ban("ann")
    assert (await client.execute("Hi")).kind == "ban"
    await there_swarm.unban("ann")
    assert (await client.execute("Hi")).kind == "answer"


async def test_a_ban_that_another_runtime_sets_during_a_turn_blocks_its_answer(
    durable: Stage,
) -> None:
    pause = Pause()
    here = durable.runtime(swarm_of(ScriptedModel([pause, "fine"])))
    there_swarm = swarm_of(ScriptedModel())
    durable.runtime(there_swarm)
    client = here.client_session("ann", SWARM)
    task = asyncio.create_task(client.execute("Hi"))
    await pause.reached()
    banning = asyncio.create_task(there_swarm.ban("ann"))
    while not await has_bans(here, client):
        await asyncio.sleep(0)
    pause.release()
    assert (await soon(task)).kind == "ban"
    await soon(banning)


async def has_bans(runtime: Runtime, client: ClientSession) -> bool:
    return bool(await client.swarm.bans_in(runtime).read("ann"))


# -- policies that fail


async def test_a_validator_that_raises_on_input_fails_closed_and_leaves_the_history(
    stage: Stage,
) -> None:
    model = ScriptedModel("never")
    _, client = open_client(stage, model, Raising("input", name="broken"))
    with pytest.raises(PolicyError, match="broken") as caught:
        await client.execute("Hi")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert caught.value.policy == "broken"
    assert model.requests == []
    assert await client.session.history() == []
    (noted,) = await verdicts(client)
    assert noted == {
        "direction": "input",
        "allowed": False,
        "policy": "broken",
        "error": "ZeroDivisionError",
    }


async def test_a_validator_that_raises_on_output_fails_the_turn_and_leaves_the_history(
    stage: Stage,
) -> None:
    model = ScriptedModel("secret one", "secret two")
    _, client = open_client(stage, model, Raising("output", name="broken"))
    with pytest.raises(PolicyError, match="broken"):
        await client.execute("Hi")
    assert await client.session.history() == []
    types = [event.type for event in await client.session.events()]
    assert "turn.failed" in types
    assert "turn.completed" not in types
    with pytest.raises(PolicyError):
        await client.execute("Again")
    assert "secret" not in asked(model)


async def test_a_validator_that_raises_is_no_refusal_on_the_bus(stage: Stage) -> None:
    runtime, client = open_client(stage, ScriptedModel("x"), Raising("output", name="broken"))
    heard = Heard()
    runtime.bus.listen("ann", "*", heard)
    with pytest.raises(PolicyError):
        await client.execute("Hi")
    await runtime.bus.drain()
    (executed,) = heard.of("session.execute")
    assert executed.output["kind"] == "error"
    (checked,) = heard.of("policy.validate-output")
    assert checked.output["error"] == "ZeroDivisionError"


@pytest.mark.parametrize("said_", [None, "no", 0, 1, [], object()])
async def test_a_validator_that_gives_no_verdict_fails_closed(stage: Stage, said_: Any) -> None:
    class Vague(Policy):
        def validate_input(self, message: str, context: PolicyContext, /) -> Any:
            return said_

    _, client = open_client(stage, ScriptedModel("never"), Vague())
    with pytest.raises(PolicyError, match="no verdict"):
        await client.execute("Hi")
    assert await client.session.history() == []


async def test_a_client_whose_validator_raised_goes_on_when_it_no_longer_does(
    stage: Stage,
) -> None:
    policy = Raising("output", name="broken")
    model = ScriptedModel("one", "two")
    _, client = open_client(stage, model, policy)
    with pytest.raises(PolicyError):
        await client.execute("Hi")
    policy.direction = "neither"
    assert await soon(client.execute("Again")) == "two"
    assert said(await client.session.history()) == [("user", "Again"), ("assistant", "two")]


# -- what a rescue says


async def test_the_text_of_a_rescue_function_goes_through_the_output_policies(
    stage: Stage,
) -> None:
    def rescue(failure: Failure) -> str:
        return f"As I said: {failure.text}"

    def validate(text: str) -> bool:
        return False

    model = ScriptedModel("Go to acme.")
    _, client = open_client(
        stage, model, Without("acme", name="rivals"), rescue=rescue, validate=validate
    )
    answer = await client.execute("Where?")
    assert "acme" not in answer
    assert "acme" not in str(await client.session.history())


async def test_a_ban_during_a_turn_blocks_a_placeholder_too(stage: Stage) -> None:
    pause = Pause()
    _, client = open_client(stage, ScriptedModel([pause, ""]), rescue="placeholder")
    task = asyncio.create_task(client.execute("Hi"))
    await pause.reached()
    await client.swarm.ban("ann")
    pause.release()
    assert (await soon(task)).kind == "ban"


async def test_an_answer_of_a_type_is_checked_as_the_text_that_it_is(stage: Stage) -> None:
    class Tip(BaseModel):
        shop: str

    model = ScriptedModel({"shop": "acme"})
    agent = Agent(name="triage", model=model, output_type=Tip)
    runtime = stage.runtime(Swarm(SWARM, agents=[agent], policies=[Without("acme")]))
    answer = await runtime.client_session("ann", SWARM).execute("Where?")
    assert (answer, answer.kind) == (BAN_MESSAGE, "ban")
