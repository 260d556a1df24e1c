"""Turns that were not asked for by way of a client session: its policies are asked all the same."""

from __future__ import annotations

from typing import Any

import pytest
from tests.agents.histories import bodies, check_whole
from tests.swarm.stage import SWARM, Heard, Stage, Without, asked, said, swarm_of

from tertulia import RunContext, tool
from tertulia.bus import BusEvent
from tertulia.errors import PolicyError
from tertulia.policies import BAN_MESSAGE, Policy, PolicyContext
from tertulia.swarm import ClientSession
from tertulia.testing import ScriptedModel, call


class Asked(Policy):
    """Accepts, and remembers what it was asked about."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def validate_input(self, message: str, context: PolicyContext, /) -> bool:
        self.texts.append(message)
        return True


class Broken(Policy):
    """Fails."""

    def validate_input(self, message: str, context: PolicyContext, /) -> bool:
        raise RuntimeError("mine")


def client_of(stage: Stage, model: ScriptedModel, *policies: Policy, **more: Any) -> ClientSession:
    return stage.runtime(swarm_of(model, *policies, **more)).client_session("ann", SWARM)


async def test_a_request_that_is_refused_reaches_no_model_and_no_history(stage: Stage) -> None:
    model = ScriptedModel("Fine.")
    client = client_of(stage, model, Without("secret"))
    response = await client.session.run_async("The secret")
    assert response.text == BAN_MESSAGE
    assert model.requests == []
    [checked] = await bodies(client.session, "policy.checked")
    assert (checked["allowed"], checked["text"]) == (False, "The secret")
    assert (await client.session.run_async("Hello")).text == "Fine."
    assert "secret" not in asked(model)
    assert said(await check_whole(client.session)) == [
        ("assistant", BAN_MESSAGE),
        ("user", "Hello"),
        ("assistant", "Fine."),
    ]


async def test_a_request_is_asked_about_once_however_it_came(stage: Stage) -> None:
    policy = Asked()
    client = client_of(stage, ScriptedModel("One.", "Two.", "Three."), policy)
    await client.execute("First")
    await client.session.run_async("Second")
    async for _ in client.session.stream_async("Third"):
        pass
    assert policy.texts == ["First", "Second", "Third"]
    checked = await bodies(client.session, "policy.checked")
    assert [body["direction"] for body in checked] == ["input"] * 3


async def test_it_is_told_of_as_of_one_that_was_executed(stage: Stage) -> None:
    heard, executed = Heard(), list[str]()

    def on_execute(client: ClientSession, event: BusEvent) -> None:
        executed.append(str(event.input))

    client = client_of(
        stage,
        ScriptedModel("Fine."),
        Asked(),
        on_execute=on_execute,
    )
    client.listen("session.execute", heard)
    await client.session.run_async("Hello")
    await client.dispose()
    assert executed == ["{'message': 'Hello', 'mode': 'user'}"]
    assert heard.topics == ["session.execute"]


async def test_a_request_that_a_tool_makes_of_its_own_session_is_asked_about(stage: Stage) -> None:
    @tool
    async def ask(context: RunContext) -> str:
        """Ask the agent something."""
        return (await context.session.run_async("The secret")).text

    model = ScriptedModel(call("ask"), "Done.")
    client = client_of(stage, model, Without("secret"), tools=[ask])
    assert await client.execute("Hello") == "Done."
    assert len(model.requests) == 2
    history = await check_whole(client.session)
    assert [m.text for m in history if m.role == "tool"] == [BAN_MESSAGE]


async def test_where_a_policy_fails_nothing_is_let_through(stage: Stage) -> None:
    model = ScriptedModel()
    client = client_of(stage, model, Broken())
    with pytest.raises(PolicyError):
        await client.session.run_async("Hello")
    assert model.requests == []
    assert await check_whole(client.session) == []
