"""The page on the sessions of swarms: its one block as a shape, and each claim of its prose."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tertulia import Agent, MemoryStore, Policy, Runtime, Swarm
from tertulia.bus import BusEvent
from tertulia.errors import InvalidInput, UnknownName
from tertulia.policies import PolicyContext
from tertulia.swarm import ClientSession, SessionConnectionService, SessionPublicService
from tertulia.testing import ScriptedModel


class NoCompetitors(Policy):
    """Says no to acme, both ways."""

    ban_message = "I am not going to discuss it!"

    async def validate_input(self, message: str, context: PolicyContext, /) -> bool:
        return "acme" not in message

    async def validate_output(self, text: str, context: PolicyContext, /) -> bool:
        return "acme" not in text


class Params:
    """What the page calls ``this.params``: the parameters of a session."""

    def __init__(self, client: ClientSession) -> None:
        self.bus = client.bus
        self.client_id = client.client_id
        self.swarm_name = client.swarm.name


def a_swarm(*steps: Any, **options: Any) -> Swarm:
    agent = Agent(name="triage", model=ScriptedModel(*steps))
    return Swarm("shop", agents=[agent], **options)


# -- the block


async def test_the_block_emits_an_event_that_its_listeners_get_as_it_is() -> None:
    async with Runtime(MemoryStore(), swarms=[a_swarm()]) as runtime:
        params = Params(runtime.client_session("client-1", "shop"))
        message = "We are closing."
        heard: list[BusEvent] = []
        runtime.bus.listen("client-1", "session.emit", heard.append)
        await params.bus.emit(
            params.client_id,
            {
                "type": "emit",
                "source": "session-bus",
                "input": {"message": message},
                "output": {},
                "context": {"swarm_name": params.swarm_name},
                "client_id": params.client_id,
            },
        )
        await runtime.bus.drain()
    (event,) = heard
    assert (event.type, event.source, event.client_id) == ("emit", "session-bus", "client-1")
    assert (event.input, event.output) == ({"message": message}, {})
    assert event.context == {"swarm_name": "shop"}


async def test_the_block_may_keep_the_key_of_the_page_for_the_client() -> None:
    async with Runtime(MemoryStore(), swarms=[a_swarm()]) as runtime:
        heard: list[BusEvent] = []
        runtime.bus.listen("client-1", "session.emit", heard.append)
        event = {"type": "emit", "source": "session-bus", "clientId": "client-1"}
        await runtime.bus.emit("client-1", event)
        await runtime.bus.drain()
    assert [event.client_id for event in heard] == ["client-1"]


# -- "a three-tier architecture"


async def test_the_three_tiers_are_there_under_the_names_of_the_page() -> None:
    async with Runtime(MemoryStore(), swarms=[a_swarm("Hello.")]) as runtime:
        public = SessionPublicService(runtime)
        assert isinstance(runtime.clients, SessionConnectionService)
        client = runtime.clients.get("client-1", "shop")
        assert isinstance(client, ClientSession)
        assert await public.execute("Hi", "user", "client-1", "shop") == "Hello."
        assert [message.text for message in await client.session.history()] == ["Hi", "Hello."]


async def test_the_public_service_refuses_what_cannot_be_and_logs_what_is_called(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Runtime(MemoryStore(), swarms=[a_swarm("Hello.")]) as runtime:
        public = SessionPublicService(runtime)
        with caplog.at_level("INFO", "tertulia.swarm"):
            await public.execute("the secret of Ann", "user", "client-1", "shop")
            with pytest.raises(InvalidInput, match="mode"):
                await public.execute("Hi", "other", "client-1", "shop")  # pyright: ignore[reportArgumentType]
            with pytest.raises(InvalidInput, match="id of a client"):
                await public.execute("Hi", "user", "", "shop")
            with pytest.raises(UnknownName, match="shop"):
                await public.execute("Hi", "user", "client-1", "nobody")
    assert "execute" in caplog.text
    assert "client-1" in caplog.text
    assert "secret" not in caplog.text


# -- "memoization to cache session instances"


async def test_the_same_client_in_the_same_swarm_is_the_same_instance_until_it_is_disposed() -> (
    None
):
    async with Runtime(MemoryStore(), swarms=[a_swarm()]) as runtime:
        first = runtime.client_session("client-1", "shop")
        assert runtime.client_session("client-1", "shop") is first
        assert runtime.clients.get("client-1", "shop") is first
        assert runtime.client_session("client-2", "shop") is not first
        await first.dispose()
        assert runtime.clients.find("client-1", "shop") is None
        assert runtime.client_session("client-1", "shop") is not first


async def test_the_sessions_that_live_can_be_listed() -> None:
    async with Runtime(MemoryStore(), swarms=[a_swarm()]) as runtime:
        assert runtime.client_sessions() == []
        clients = [runtime.client_session(f"client-{number}", "shop") for number in range(3)]
        assert runtime.client_sessions() == clients
        await clients[0].dispose()
        assert runtime.client_sessions() == clients[1:]


# -- "all message flows include policy validation checkpoints"


@pytest.mark.parametrize("flow", ["execute in", "execute out", "emit", "notify", "stream"])
async def test_every_flow_substitutes_the_ban_message_and_tells_the_bus(flow: str) -> None:
    swarm = a_swarm("Go to acme.", policies=[NoCompetitors()])
    async with Runtime(MemoryStore(), swarms=[swarm]) as runtime:
        client = runtime.client_session("client-1", "shop")
        client.connect(lambda outgoing: None)
        violations: list[BusEvent] = []
        runtime.bus.listen("client-1", "policy.validate-*", violations.append)
        if flow == "execute in":
            answer = await client.execute("And acme?")
        elif flow == "execute out":
            answer = await client.execute("Where?")
        elif flow == "emit":
            answer = await client.emit("Go to acme.")
        elif flow == "notify":
            answer = await client.notify("Go to acme.")
        else:
            stream = client.stream("Where?")
            async for _ in stream:
                pass
            answer = stream.answer
        await runtime.bus.drain()
    assert (answer, answer.kind) == ("I am not going to discuss it!", "ban")
    refused = [event for event in violations if not event.output["allowed"]]
    assert [event.context["policy_name"] for event in refused] == ["NoCompetitors"]


# -- "event types include emit, execute, connect and dispose"


async def test_the_types_of_the_page_occur_with_what_they_are_filtered_by() -> None:
    async with Runtime(MemoryStore(), swarms=[a_swarm("Hello.")]) as runtime:
        heard: list[BusEvent] = []
        runtime.bus.listen("client-1", "session.*", heard.append)
        client = runtime.client_session("client-1", "shop")
        client.connect(lambda outgoing: None)
        await client.execute("Hi")
        await client.emit("Bye")
        await client.dispose()
    assert [event.type for event in heard] == ["connect", "execute", "emit", "dispose"]
    for event in heard:
        assert (event.source, event.client_id) == ("session-bus", "client-1")
        assert event.context["swarm_name"] == "shop"


# -- "lifecycle hooks for initialization, emission, execution, and disposal"


async def test_the_callbacks_of_a_swarm_are_called_with_the_client_and_the_event() -> None:
    called: list[tuple[str, ClientSession, str]] = []

    def callback(name: str) -> Any:
        def call(client: ClientSession, event: BusEvent) -> None:
            called.append((name, client, event.type))

        return call

    names = ["on_init", "on_connect", "on_execute", "on_emit", "on_dispose"]
    swarm = a_swarm("Hello.", **{name: callback(name) for name in names})
    async with Runtime(MemoryStore(), swarms=[swarm]) as runtime:
        client = runtime.client_session("client-1", "shop")
        client.connect(lambda outgoing: None)
        await client.execute("Hi")
        await client.emit("Bye")
        await client.dispose()
    assert [name for name, *_ in called] == names
    assert all(given is client for _, given, _ in called)
    assert [kind for *_, kind in called] == ["init", "connect", "execute", "emit", "dispose"]


# -- "execution context across agent transitions"


async def test_a_client_keeps_its_conversation_when_the_agent_changes() -> None:
    sales_model = ScriptedModel("It costs seven.")
    triage = Agent(name="triage", model=ScriptedModel("Hello."), handoffs=["sales"])
    swarm = Swarm("shop", agents=[triage, Agent(name="sales", model=sales_model)])
    async with Runtime(MemoryStore(), swarms=[swarm]) as runtime:
        client = runtime.client_session("client-1", "shop")
        await client.execute("My name is Ann.")
        await client.change_agent("sales")
        answer = await client.execute("How much?")
    assert (answer, answer.agent) == ("It costs seven.", "sales")
    asked = [message.text for message in sales_model.last_request.messages]
    assert "My name is Ann." in asked


# -- "complete resource release"


async def test_disposal_releases_subscriptions_instances_and_tasks() -> None:
    async with Runtime(MemoryStore(), swarms=[a_swarm(*["Hello."] * 100)]) as runtime:
        before = asyncio.all_tasks()
        for number in range(100):
            client = runtime.client_session(f"client-{number}", "shop")
            client.listen("session.*", lambda event: None)
            client.connect(lambda outgoing: None)
            await client.execute("Hi")
            await client.dispose()
        for _ in range(10):
            await asyncio.sleep(0)
        assert runtime.client_sessions() == []
        assert runtime.bus.subscriptions == 0
        assert asyncio.all_tasks() <= before
