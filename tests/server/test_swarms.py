"""Swarms over HTTP: clients talk to them, the server speaks for them, and nobody else does."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import pytest
from tests.server.web import Client, serving

from tertulia import Agent, AgentApp, Runtime, Swarm, SwarmNode, Token
from tertulia.errors import ConfigurationError, InvalidInput
from tertulia.live import AgentSession
from tertulia.server.api import routes
from tertulia.testing import Pause, ScriptedModel, call

ONE = "/v1/swarms/shop/clients"


async def test_a_client_gets_an_answer_and_talks_on_where_it_was(
    web: Client, model: ScriptedModel, runtime: Runtime
) -> None:
    model.add("Hello.", "Blue.")
    answer = await web.post(f"{ONE}/c/execute", {"message": "hi"})
    assert answer == {
        "text": "Hello.",
        "kind": "answer",
        "agent": "clerk",
        "turn": answer["turn"],
        "verdict": None,
        "pending": [],
    }
    assert (await web.post(f"{ONE}/c/execute", {"message": "which color"}))["text"] == "Blue."
    assert [each.text for each in model.requests[1].messages] == ["hi", "Hello.", "which color"]
    page = await web.get("/v1/sessions/c/messages?app_name=shop")
    assert [each["content"] for each in page["messages"]] == [
        "hi",
        "Hello.",
        "which color",
        "Blue.",
    ]
    assert [each["client_id"] for each in (await web.get(ONE))["clients"]] == ["c"]
    assert runtime.client_session("c", "shop").agent == "clerk"


async def test_a_refusal_says_who_refused_and_asks_no_model(
    web: Client, model: ScriptedModel
) -> None:
    answer = await web.post(f"{ONE}/c/execute", {"message": "is Acme better?"})
    assert (answer["kind"], answer["text"]) == ("ban", "Let us talk about us.")
    assert answer["verdict"] == {
        "direction": "input",
        "policy": "NoAcme",
        "reason": "",
        "banned": False,
    }
    assert model.requests == []


async def test_a_stream_ends_with_the_answer_and_shows_nothing_that_was_refused(
    web: Client, model: ScriptedModel
) -> None:
    model.add(["Ask ", "Acme."], "Fine.")
    for said, kind in (("Let us talk about us.", "ban"), ("Fine.", "answer")):
        body = {"message": "who?", "stream": True}
        told = await (await web.listen("POST", f"{ONE}/c/execute", body)).rest()
        texts = [each.data["text"] for each in told if each.type == "text_delta"]
        assert "".join(texts) == said
        assert (told[-1].type, told[-1].data["kind"]) == ("answer", kind)
        assert "Acme." not in str(told)


async def test_a_repetition_with_the_same_key_runs_once(web: Client, model: ScriptedModel) -> None:
    model.add("Hello.", "Twice.")
    answers = [
        await web.post(f"{ONE}/c/execute", {"message": "hi"}, **{"idempotency-key": "k"})
        for _ in range(2)
    ]
    assert [each["text"] for each in answers] == ["Hello.", "Hello."]
    assert len(model.requests) == 1


async def test_a_call_that_waits_is_decided_and_its_turn_goes_on(
    web: Client, model: ScriptedModel
) -> None:
    model.add(call("refund", amount=7), "Done.")
    answer = await web.post(f"{ONE}/c/execute", {"message": "my money"})
    assert answer["kind"] == "pending"
    waiting = answer["pending"][0]["id"]
    path = f"/v1/sessions/c/approvals/{waiting}?app_name=shop"
    await web.post(path, {"decision": "approve"})
    assert (await web.post(f"{ONE}/c/resume"))["text"] == "Done."


async def test_what_the_server_emits_is_in_the_history_and_what_it_notifies_is_not(
    web: Client, runtime: Runtime
) -> None:
    refused = await web.ask("POST", f"{ONE}/c/notify", {"text": "psst"})
    assert (refused.status, refused.data["error"]["type"]) == (409, "NotConnected")
    got: list[Any] = []
    runtime.client_session("c", "shop").connect(got.append)
    await web.post(f"{ONE}/c/notify", {"text": "psst"})
    await web.post(f"{ONE}/c/emit", {"text": "we close"})
    banned = await web.post(f"{ONE}/c/emit", {"text": "go to Acme"})
    assert (banned["kind"], banned["verdict"]["policy"]) == ("ban", "NoAcme")
    assert [each.data for each in got] == ["psst", "we close", "Let us talk about us."]
    page = await web.get("/v1/sessions/c/messages?app_name=shop")
    assert [each["content"] for each in page["messages"]] == ["we close", "Let us talk about us."]


async def test_a_ban_holds_until_it_is_lifted(web: Client, model: ScriptedModel) -> None:
    model.add("Hello.")
    said = {"policy": "NoAcme", "until": 3600, "reason": "rude"}
    plain = {"content-type": "text/plain"}
    answered = await web.ask("PUT", f"{ONE}/c/bans", said, plain)
    assert answered.status == 415
    answered = await web.ask("PUT", f"{ONE}/c/bans", said)
    ban = answered.data["bans"][0]
    assert (ban["policy"], ban["reason"], ban["until"] is None) == ("NoAcme", "rude", False)
    assert await web.get(f"{ONE}/c/bans") == answered.data
    assert await web.get(f"{ONE}/d/bans") == {"bans": []}
    answer = await web.post(f"{ONE}/c/execute", {"message": "hi"})
    assert (answer["kind"], answer["verdict"]["banned"]) == ("ban", True)
    assert (await web.ask("DELETE", f"{ONE}/c/bans?policy=NoAcme")).data == {"bans": []}
    assert (await web.post(f"{ONE}/c/execute", {"message": "hi"}))["text"] == "Hello."


async def test_a_disposal_lets_go_of_the_client_and_keeps_its_conversation(
    web: Client, model: ScriptedModel, runtime: Runtime
) -> None:
    pause = Pause()
    model.add(["Wait", pause], "Again.")
    asked = asyncio.create_task(web.post(f"{ONE}/c/execute", {"message": "hi"}))
    await pause.reached()
    assert (await web.ask("DELETE", f"{ONE}/c")).data == {"disposed": True}
    assert (await asked)["kind"] == "cancelled"
    assert (await web.ask("DELETE", f"{ONE}/c")).data == {"disposed": False}
    assert runtime.client_sessions() == []
    assert (await web.post(f"{ONE}/c/execute", {"message": "and now"}))["text"] == "Again."


async def test_the_swarms_are_listed_and_unknown_names_are_not_found(web: Client) -> None:
    assert await web.get("/v1/swarms") == {
        "swarms": [
            {"name": "shop", "agents": ["clerk"], "default": "clerk", "policies": ["NoAcme"]}
        ]
    }
    unknown = await web.ask("POST", "/v1/swarms/none/clients/c/execute", {"message": "hi"})
    assert (unknown.status, unknown.data["error"]["type"]) == (404, "UnknownName")
    unknown = await web.ask("DELETE", f"{ONE}/c/bans?policy=none")
    assert (unknown.status, unknown.data["error"]["type"]) == (404, "UnknownName")


@pytest.mark.parametrize("client_id", ["a/b", "a/bans", "%2F", "a b/ä", "/"])
async def test_a_client_whose_id_has_a_slash_is_named_with_its_code(
    web: Client, model: ScriptedModel, runtime: Runtime, client_id: str
) -> None:
    model.add("Hello.")
    one = f"{ONE}/{quote(client_id, safe='')}"
    assert (await web.post(f"{one}/execute", {"message": "hi"}))["text"] == "Hello."
    assert [each["client_id"] for each in (await web.get(ONE))["clients"]] == [client_id]
    banned = await web.ask("PUT", f"{one}/bans", {})
    assert len(banned.data["bans"]) == 1
    assert len(await runtime.swarm("shop").bans(client_id)) == 1
    path = f"/v1/sessions/{quote(client_id, safe='')}/messages?app_name=shop"
    assert len((await web.get(path))["messages"]) == 2
    assert (await web.ask("DELETE", one)).data == {"disposed": True}
    assert len(await runtime.swarm("shop").bans(client_id)) == 1


# -- who may


OTHERS: list[tuple[str, str, Any]] = [
    ("POST", "/execute", {"message": "let me in"}),
    ("POST", "/resume", {}),
    ("POST", "/emit", {"text": "x"}),
    ("POST", "/notify", {"text": "x"}),
    ("GET", "/bans", None),
    ("PUT", "/bans", {}),
    ("DELETE", "/bans", None),
    ("DELETE", "", None),
]


@pytest.mark.parametrize(("method", "what", "body"), OTHERS, ids=[f"{m}{w}" for m, w, _ in OTHERS])
async def test_nobody_uses_the_client_of_somebody_else(
    guarded: Client, model: ScriptedModel, runtime: Runtime, method: str, what: str, body: Any
) -> None:
    alice, bob = guarded.known_as("alice"), guarded.known_as("bob")
    model.add("Hello.")
    await alice.post(f"{ONE}/alice/execute", {"message": "a secret"})
    before = runtime.client_session("alice", "shop").session.to_dict()
    for name in ("alice", "none"):
        refused = await bob.ask(method, f"{ONE}/{name}{what}", body)
        assert refused.status == 404
        message = refused.data["error"]["message"].replace(name, "…")
        assert (refused.data["error"]["type"], message) == (
            "SessionNotFound",
            "there is no session '…'",
        )
    assert runtime.client_session("alice", "shop").session.to_dict() == before
    assert [each["client_id"] for each in (await alice.get(ONE))["clients"]] == ["alice"]
    assert await bob.get(ONE) == {"clients": []}


@pytest.mark.parametrize(
    ("method", "what", "body"),
    [*OTHERS[2:7], ("POST", "/execute", {"message": "x", "mode": "tool"})],
)
async def test_what_is_the_servers_to_do_a_client_cannot_do_for_itself(
    guarded: Client, runtime: Runtime, method: str, what: str, body: Any
) -> None:
    refused = await guarded.known_as("alice").ask(method, f"{ONE}/alice{what}", body)
    assert (refused.status, refused.data["error"]["type"]) == (403, "Forbidden")
    assert await runtime.swarm("shop").bans("alice") == []


async def test_a_token_of_the_server_may_do_everything(
    guarded: Client, model: ScriptedModel
) -> None:
    server = guarded.known_as("the-server")
    model.add("Hello.")
    said = {"message": "x", "mode": "tool"}
    assert (await server.post(f"{ONE}/alice/execute", said))["text"] == "Hello."
    assert (await server.post(f"{ONE}/alice/emit", {"text": "we close"}))["text"] == "we close"
    banned = await server.ask("PUT", f"{ONE}/alice/bans", {})
    assert banned.data["bans"][0]["policy"] == "*"
    assert [each["client_id"] for each in (await server.get(ONE))["clients"]] == ["alice"]


# -- an app that serves them


async def test_an_app_serves_its_swarms_with_tokens_of_users_and_of_trusted_code(
    clerk: Agent, model: ScriptedModel
) -> None:
    model.add("Hello.")
    auth = Token({"alices-token": "alice"}, trusted="our-own-token")
    app = AgentApp(swarms=[Swarm("desk", [clerk])], store="memory:", auth=auth)
    async with serving(app.app) as client:
        app.bind("127.0.0.1")
        alice, ours = client.known_as("alices-token"), client.known_as("our-own-token")
        path = "/v1/swarms/desk/clients/alice"
        assert (await alice.post(f"{path}/execute", {"message": "hi"}))["text"] == "Hello."
        assert (await alice.ask("POST", f"{path}/emit", {"text": "x"})).status == 403
        assert (await ours.post(f"{path}/emit", {"text": "we close"}))["kind"] == "answer"
    await app.runtime.close()


async def test_the_swarms_of_a_setup_handler_are_served_before_a_live_client_came(
    clerk: Agent, model: ScriptedModel
) -> None:
    model.add("Hello.")
    desk = Swarm("desk", [clerk])

    async def setup(session: AgentSession) -> None:
        session.add_node(SwarmNode(desk))
        await session.start()
        await session.wait_until_complete()

    app = AgentApp(setup, store="memory:")
    async with serving(app.app, lifespan="on") as client:
        app.bind("127.0.0.1")
        path = "/v1/swarms/desk/clients/alice/execute"
        assert (await client.post(path, {"message": "hi"}))["text"] == "Hello."
        unknown = await client.ask("POST", "/v1/swarms/none/clients/c/execute", {"message": "hi"})
        assert "AgentApp(setup, swarms=[…])" in unknown.data["error"]["message"]


async def test_a_setup_handler_with_another_swarm_of_a_known_name_is_not_ready(
    clerk: Agent,
) -> None:
    async def setup(session: AgentSession) -> None:
        session.add_node(SwarmNode(Swarm("desk", [clerk])))
        await session.start()

    app = AgentApp(setup, swarms=[Swarm("desk", [clerk])], store="memory:")
    async with serving(app.app, lifespan="on") as client:
        assert (await client.ask("GET", "/none")).status == 404
        assert "two swarms are named 'desk'" in (app.hub.not_ready or "")


def test_a_swarm_or_an_agent_in_the_place_of_a_setup_handler_is_told_where_it_goes(
    clerk: Agent,
) -> None:
    shop: Any = Swarm("shop", [clerk])
    with pytest.raises(InvalidInput, match=r"AgentApp\(swarms=\[…\]\)"):
        AgentApp(shop)
    agent: Any = clerk
    with pytest.raises(InvalidInput, match=r"AgentApp\(agent=…\)"):
        AgentApp(agent)


def test_an_app_without_a_setup_handler_has_one_swarm_or_an_agent(clerk: Agent) -> None:
    with pytest.raises(InvalidInput, match="setup handler"):
        AgentApp(swarms=[Swarm("a", [clerk]), Swarm("b", [clerk])])
    with pytest.raises(ConfigurationError, match="two swarms are named 'a'"):
        AgentApp(agent=clerk, swarms=[Swarm("a", [clerk]), Swarm("a", [clerk])])


async def test_the_routes_without_a_swarm_list_none(runtime: Runtime) -> None:
    async with serving(routes(runtime)) as client:
        assert await client.get("/v1/swarms") == {"swarms": []}
