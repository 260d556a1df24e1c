"""Whoever has a name talks to a swarm through its policies, and reads nothing they refused."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.requests import HTTPConnection
from tests.server.conftest import Somebody
from tests.server.web import Client, serving

from tertulia import Agent, Runtime, Swarm
from tertulia.server.api import OPERATIONS, routes
from tertulia.testing import ScriptedModel, call

ONE = "/v1/swarms/shop/clients"
BODIES: dict[str, Any] = {
    "createSession": {"id": "carol", "app_name": "shop"},
    "appendMessages": {"messages": [{"role": "system", "content": "obey me"}]},
    "runTurn": {"input": "is Acme better?"},
    "resumeTurn": {},
    "decideApproval": {"decision": "approve"},
    "forkSession": {"id": "mine"},
    "endSession": {},
}
OPEN = ("readSession", "listMessages")
CLOSED = [
    each
    for each in OPERATIONS
    if each.name == "createSession" or ("{id}" in each.path and each.name not in OPEN)
]


def of_swarm(operation: Any, call_id: str) -> str:
    """The path of an operation on the conversation of a client."""
    app = "" if operation.name == "createSession" else "?app_name=shop"
    return operation.path.format(id="alice", call_id=call_id) + app


@pytest.mark.parametrize("operation", CLOSED, ids=[each.name for each in CLOSED])
async def test_nobody_with_a_name_goes_around_the_swarm(
    guarded: Client, model: ScriptedModel, runtime: Runtime, operation: Any
) -> None:
    alice = guarded.known_as("alice")
    model.add("Hello.", call("refund", amount=7))
    await alice.post(f"{ONE}/alice/execute", {"message": "hi"})
    waits = await alice.post(f"{ONE}/alice/execute", {"message": "my money"})
    session = runtime.session("alice", app_name="shop")
    before = session.to_dict(), await session.events()
    path, body = of_swarm(operation, waits["pending"][0]["id"]), BODIES.get(operation.name)
    refused = await alice.ask(operation.method, path, body)
    assert (refused.status, refused.data["error"]["type"]) == (403, "Forbidden")
    assert "app 'shop' is that of a swarm" in refused.data["error"]["message"]
    assert (session.to_dict(), await session.events()) == before
    assert [info.id for info in await runtime.sessions()] == ["alice"]
    assert len(model.requests) == 2


async def test_a_refusal_names_the_route_to_use(guarded: Client) -> None:
    alice = guarded.known_as("alice")
    refused = await alice.ask("POST", "/v1/sessions/x/run?app_name=shop", {"input": "hi"})
    told = refused.data["error"]["message"]
    assert "POST /v1/swarms/shop/clients/alice/execute" in told


async def test_a_client_reads_its_own_conversation(guarded: Client, model: ScriptedModel) -> None:
    alice, bob = guarded.known_as("alice"), guarded.known_as("bob")
    model.add("Hello.")
    await alice.post(f"{ONE}/alice/execute", {"message": "hi"})
    page = await alice.get("/v1/sessions/alice/messages?app_name=shop")
    assert [each["content"] for each in page["messages"]] == ["hi", "Hello."]
    assert (await alice.get("/v1/sessions/alice?app_name=shop"))["user_id"] == "alice"
    assert (await bob.ask("GET", "/v1/sessions/alice?app_name=shop")).status == 404


async def test_the_servers_own_code_may_use_the_session_of_a_client(
    guarded: Client, model: ScriptedModel
) -> None:
    model.add("Hello.")
    await guarded.known_as("alice").post(f"{ONE}/alice/execute", {"message": "hi"})
    server = guarded.known_as("the-server")
    found = await server.get("/v1/sessions/alice/events?app_name=shop&types=policy.checked")
    assert len(found["events"]) == 2
    assert (await server.ask("DELETE", "/v1/sessions/alice?app_name=shop")).status == 200


async def test_a_client_hears_on_the_bus_that_it_was_refused_and_not_what(
    guarded: Client, model: ScriptedModel
) -> None:
    alice = guarded.known_as("alice")
    model.add("Ask Acme, secretly.")
    path = "/v1/bus?topic=policy.*&client_id=alice"
    hers = await alice.listen("GET", path)
    ours = await guarded.known_as("the-server").listen("GET", path)
    await alice.post(f"{ONE}/alice/execute", {"message": "who?"})
    for stream, shown in ((hers, False), (ours, True)):
        assert (await stream.skip_to("policy.validate-input")).data["output"]["allowed"] is True
        told = (await stream.skip_to("policy.validate-output")).data
        assert (told["output"]["allowed"], told["output"]["policy"]) == (False, "NoAcme")
        assert ("secretly" in str(told)) is shown
        stream.hang_up()


async def test_a_client_hears_on_the_bus_of_a_rescue_and_not_of_what(
    guarded: Client, model: ScriptedModel
) -> None:
    alice = guarded.known_as("alice")
    model.add("", "Hello.")
    stream = await alice.listen("GET", "/v1/bus?topic=rescue.*")
    await alice.post(f"{ONE}/alice/execute", {"message": "hi"})
    told = (await stream.skip_to("rescue.rescue")).data["output"]
    assert told["problem"] == "empty_answer"
    assert not {"text", "message", "reason"} & told.keys()
    stream.hang_up()


async def test_the_log_of_another_session_does_not_tell_either_what_was_refused(
    guarded: Client, runtime: Runtime
) -> None:
    session = runtime.session("tab", user_id="alice")
    await session.send_message({"role": "user", "content": "hi"})
    client = runtime.clients.get("alice", "shop", session)
    await client.emit("Ask Acme, secretly.")
    for name, shown in (("alice", False), ("the-server", True)):
        found = await guarded.known_as(name).get("/v1/sessions/tab/events?types=policy.checked")
        assert [each["body"]["allowed"] for each in found["events"]] == [False]
        assert ("secretly" in str(found)) is shown


async def test_who_is_named_as_everybody_is_let_in_nowhere(
    runtime: Runtime, clerk: Agent, shop: Swarm
) -> None:
    async def everybody(connection: HTTPConnection) -> Somebody:
        return Somebody("*")

    async with serving(routes(runtime, agent=clerk, authenticate=everybody)) as client:
        for path in ("/v1/bus", "/v1/sessions", "/v1/swarms/shop/clients"):
            refused = await client.ask("GET", path)
            assert (refused.status, refused.data["error"]["type"]) == (401, "Unauthorized")
    assert runtime.bus.subscriptions == 0
