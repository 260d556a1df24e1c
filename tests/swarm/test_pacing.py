"""Pacing: messages in quick succession are executed once, and too many are refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from tests.agents.histories import check_whole
from tests.swarm.stage import SWARM, Stage, Without, said, soon, swarm_of, until

from tertulia.errors import ClientDisposed, InvalidInput, ModelError, RateLimited
from tertulia.policies import Policy, PolicyContext
from tertulia.swarm import Answer, ClientSession, Outgoing
from tertulia.testing import FrozenClock, Pause, ScriptedModel

SHORT = 0.02
LONG = 3_600.0


def client_of(
    stage: Stage, model: ScriptedModel, *policies: Policy, **options: Any
) -> ClientSession:
    swarm = swarm_of(model, *policies, **options)
    return stage.runtime(swarm).client_session("ann", SWARM)


async def together(
    execute: Callable[[str], Any], messages: Iterable[str], wait: float = 10.0
) -> list[Answer]:
    return await soon(asyncio.gather(*(execute(message) for message in messages)), wait)


# -- scheduled


async def test_what_comes_in_quick_succession_is_executed_once(stage: Stage) -> None:
    model = ScriptedModel("All three.")
    client = client_of(stage, model)
    answers = await together(client.scheduled(SHORT), ["One", "Two", "Three"])
    assert answers == ["All three."] * 3
    assert [each.kind for each in answers] == ["answer"] * 3
    assert len(model.requests) == 1
    assert said(await check_whole(client.session)) == [
        ("user", "One"),
        ("user", "Two"),
        ("user", "Three"),
        ("assistant", "All three."),
    ]


async def test_what_comes_after_the_silence_is_executed_by_itself(stage: Stage) -> None:
    client = client_of(stage, ScriptedModel("One.", "Two."))
    scheduled = client.scheduled(SHORT)
    assert await soon(scheduled("First")) == "One."
    assert await soon(scheduled("Second")) == "Two."


async def test_those_who_ask_for_the_same_delay_are_executed_together(stage: Stage) -> None:
    model = ScriptedModel("Both.")
    client = client_of(stage, model)
    assert client.scheduled(SHORT) is client.scheduled(SHORT)
    both = asyncio.gather(client.scheduled(SHORT)("One"), client.scheduled(SHORT)("Two"))
    assert await soon(both) == ["Both.", "Both."]
    assert len(model.requests) == 1


async def test_too_many_that_wait_are_executed_at_once(stage: Stage) -> None:
    model = ScriptedModel("All.")
    client = client_of(stage, model)
    answers = await together(client.scheduled(LONG), [f"m{number}" for number in range(100)])
    assert set(answers) == {"All."}
    assert len(model.requests) == 1


async def test_a_message_that_is_refused_is_answered_at_once_and_holds_up_nobody(
    stage: Stage,
) -> None:
    model = ScriptedModel("Fine.")
    client = client_of(stage, model, Without("acme", ban_message="Not that."))
    refused, first, last = await together(client.scheduled(SHORT), ["acme", "One", "Two"])
    assert (refused, refused.kind) == ("Not that.", "ban")
    assert (first, last) == ("Fine.", "Fine.")
    texts = [text for _, text in said(await check_whole(client.session))]
    assert texts == ["One", "Two", "Fine."]


async def test_a_refused_message_alone_executes_nothing(stage: Stage) -> None:
    model = ScriptedModel("Never.")
    client = client_of(stage, model, Without("acme"))
    assert (await soon(client.scheduled(LONG)("acme"))).kind == "ban"
    assert model.requests == []


async def test_an_error_is_raised_to_all_that_wait(stage: Stage) -> None:
    client = client_of(stage, ScriptedModel(ModelError("down"), "Up."), rescue="raise")
    scheduled = client.scheduled(SHORT)
    both = await soon(asyncio.gather(scheduled("One"), scheduled("Two"), return_exceptions=True))
    assert [type(each) for each in both] == [ModelError, ModelError]
    assert await soon(scheduled("Three")) == "Up."


async def test_one_who_stops_waiting_takes_nothing_from_the_others(stage: Stage) -> None:
    client = client_of(stage, ScriptedModel("Both."))
    scheduled = client.scheduled(0.05)
    first, second = (asyncio.ensure_future(scheduled(text)) for text in ("One", "Two"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.cancel()
    assert await soon(second) == "Both."
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_disposal_answers_those_that_wait(stage: Stage) -> None:
    model = ScriptedModel("Never.")
    client = client_of(stage, model)
    scheduled = client.scheduled(LONG)
    waiting = [asyncio.ensure_future(scheduled(text)) for text in ("One", "Two")]
    await until(lambda: len(scheduled._waiting) == 2)  # pyright: ignore[reportPrivateUsage]
    await client.dispose()
    assert [answer.kind for answer in await soon(asyncio.gather(*waiting))] == ["cancelled"] * 2
    with pytest.raises(ClientDisposed):
        await scheduled("Three")
    assert model.requests == []


async def test_a_disposal_while_the_messages_are_executed_cancels_them(stage: Stage) -> None:
    pause = Pause()
    client = client_of(stage, ScriptedModel([pause, "Never."]))
    waiting = asyncio.ensure_future(client.scheduled(SHORT)("One"))
    await pause.reached()
    await soon(client.dispose())
    assert (await soon(waiting)).kind == "cancelled"
    pause.release()


async def test_a_message_whose_policy_is_still_asked_at_the_disposal_does_not_wait(
    stage: Stage,
) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    class Slow(Policy):
        async def validate_input(self, message: str, context: PolicyContext, /) -> bool:
            asked.set()
            await go_on.wait()
            return True

    client = client_of(stage, ScriptedModel("Never."), Slow())
    waiting = asyncio.ensure_future(client.scheduled(LONG)("One"))
    await asked.wait()
    await soon(client.dispose())
    go_on.set()
    with pytest.raises(ClientDisposed):
        await soon(waiting)


async def test_a_closed_runtime_answers_those_that_wait(stage: Stage) -> None:
    runtime = stage.runtime(swarm_of(ScriptedModel("Never.")))
    scheduled = runtime.client_session("ann", SWARM).scheduled(LONG)
    waiting = asyncio.ensure_future(scheduled("One"))
    await until(lambda: bool(scheduled._waiting))  # pyright: ignore[reportPrivateUsage]
    await soon(runtime.close())
    assert (await soon(waiting)).kind == "cancelled"


# -- rate


async def test_a_second_execution_in_the_delay_is_refused(
    stage: Stage, frozen: FrozenClock
) -> None:
    model = ScriptedModel("One.", "Two.")
    rated = client_of(stage, model).rate(LONG)
    assert await rated("First") == "One."
    with pytest.raises(RateLimited) as caught:
        await rated("Second")
    assert 0 < caught.value.retry_after <= LONG
    assert len(model.requests) == 1
    frozen.advance(LONG)
    assert await rated("Third") == "Two."


async def test_refused_calls_do_not_make_the_wait_longer(stage: Stage, frozen: FrozenClock) -> None:
    rated = client_of(stage, ScriptedModel("One.", "Two.")).rate(LONG)
    await rated("First")
    frozen.advance(LONG - 1_000)
    with pytest.raises(RateLimited):
        await rated("Second")
    frozen.advance(1_000)
    assert await rated("Third") == "Two."


async def test_of_many_calls_at_once_one_is_executed(stage: Stage) -> None:
    model = ScriptedModel("One.")
    rated = client_of(stage, model).rate(LONG)
    tried = await asyncio.gather(*(rated("Hello") for _ in range(10)), return_exceptions=True)
    assert [each for each in tried if not isinstance(each, RateLimited)] == ["One."]


async def test_each_delay_and_each_client_is_counted_apart(stage: Stage) -> None:
    runtime = stage.runtime(swarm_of(ScriptedModel("One.", "Two.", "Three.")))
    ann, bob = (runtime.client_session(name, SWARM) for name in ("ann", "bob"))
    assert await ann.rate(LONG)("Hello") == "One."
    assert await bob.rate(LONG)("Hello") == "Two."
    assert await ann.rate(LONG + 1)("Hello") == "Three."
    with pytest.raises(RateLimited):
        await ann.rate(LONG)("Hello")


async def test_execute_itself_is_not_limited(stage: Stage) -> None:
    client = client_of(stage, ScriptedModel("One.", "Two."))
    await client.rate(LONG)("First")
    assert await client.execute("Second") == "Two."


async def test_a_disposed_client_cannot_be_paced(stage: Stage) -> None:
    client = client_of(stage, ScriptedModel())
    rated = client.rate(LONG)
    await client.dispose()
    with pytest.raises(ClientDisposed):
        await rated("Hello")
    for pace in (client.rate, client.scheduled):
        with pytest.raises(ClientDisposed):
            pace(1.0)


# -- through a connector


async def test_a_connector_gets_the_answer_of_scheduled_messages_once(stage: Stage) -> None:
    got: list[Outgoing] = []
    client = client_of(stage, ScriptedModel("Both."))
    send = client.connect(got.append)
    answers = await together(send.scheduled(SHORT), ["One", "Two"])
    assert answers == ["Both.", "Both."]
    assert [each.data for each in got] == ["Both."]


async def test_each_connector_that_sent_something_gets_the_answer(stage: Stage) -> None:
    got: dict[str, list[str]] = {"a": [], "b": [], "c": []}

    def into(name: str) -> Callable[[Outgoing], None]:
        return lambda outgoing: got[name].append(outgoing.data)

    client = client_of(stage, ScriptedModel("Both."))
    a, b, _ = (client.connect(into(name)) for name in got)
    both = asyncio.gather(a.scheduled(SHORT)("One"), b.scheduled(SHORT)("Two"))
    assert await soon(both) == ["Both.", "Both."]
    assert got == {"a": ["Both."], "b": ["Both."], "c": []}


async def test_a_connector_gets_the_answers_of_rated_messages(
    stage: Stage, frozen: FrozenClock
) -> None:
    got: list[str] = []
    client = client_of(stage, ScriptedModel("One.", "Two."))
    rated = client.connect(lambda outgoing: got.append(outgoing.data)).rate(LONG)
    assert await rated("First") == "One."
    with pytest.raises(RateLimited):
        await rated("Second")
    frozen.advance(LONG)
    await rated("Third")
    assert got == ["One.", "Two."]


async def test_a_refused_scheduled_message_reaches_its_connector_as_other_answers_do(
    stage: Stage,
) -> None:
    got: list[str] = []
    client = client_of(stage, ScriptedModel(), Without("acme", ban_message="Not that."))
    send = client.connect(lambda outgoing: got.append(outgoing.data))
    assert (await soon(send("acme"))) == "Not that."
    assert (await soon(send.scheduled(SHORT)("acme"))) == "Not that."
    assert got == ["Not that.", "Not that."]


# -- what cannot be


@pytest.mark.parametrize("delay", [0, -1, float("nan"), float("inf"), True, "1", None, 100_000])
async def test_a_delay_that_cannot_be_is_refused(stage: Stage, delay: Any) -> None:
    client = client_of(stage, ScriptedModel())
    for pace in (client.rate, client.scheduled):
        with pytest.raises(InvalidInput, match="delay"):
            pace(delay)


@pytest.mark.parametrize("message", ["", "  ", None, 7, {"role": "user", "content": "Hello"}])
async def test_a_scheduled_message_is_text(stage: Stage, message: Any) -> None:
    with pytest.raises(InvalidInput):
        await client_of(stage, ScriptedModel()).scheduled(SHORT)(message)


async def test_a_client_has_so_many_delays_and_no_more(stage: Stage) -> None:
    client = client_of(stage, ScriptedModel())
    for number in range(1, 101):
        client.rate(number)
    with pytest.raises(InvalidInput, match="100 different delays"):
        client.rate(101)
    assert client.rate(7) is client.rate(7.0)


async def test_what_is_no_message_does_not_use_up_the_rate(stage: Stage) -> None:
    rated = client_of(stage, ScriptedModel("One.")).rate(LONG)
    with pytest.raises(InvalidInput):
        await rated("")
    assert await rated("Hi") == "One."
    with pytest.raises(RateLimited):
        await rated("Hi")
