"""Whoever has a name works with sessions of their own, and learns of no others."""

from __future__ import annotations

from typing import Any

import pytest
from tests.server.web import Client

from tertulia import Runtime
from tertulia.server.api import OPERATIONS
from tertulia.testing import ScriptedModel, call

BODIES: dict[str, Any] = {
    "appendMessages": {"messages": [{"role": "user", "content": "let me in"}]},
    "runTurn": {"input": "let me in"},
    "resumeTurn": {},
    "decideApproval": {"decision": "approve"},
    "forkSession": {"id": "stolen"},
    "endSession": {},
}
PRIVATE = [each for each in OPERATIONS if "{id}" in each.path]
GUARDED = [each for each in OPERATIONS if not each.public]


async def waiting(client: Client, model: ScriptedModel, app: str = "") -> str:
    """A session of the client whose turn waits for a person; the id of the call."""
    model.add(call("refund", amount=7))
    await client.post("/v1/sessions", {"id": "hers", **({"app_name": app} if app else {})})
    path = f"/v1/sessions/hers/run{f'?app_name={app}' if app else ''}"
    return (await client.post(path, {"input": "a secret"}))["pending"][0]["id"]


@pytest.mark.parametrize("operation", PRIVATE, ids=[each.name for each in PRIVATE])
@pytest.mark.parametrize("app", ["", "store"])
async def test_nobody_else_can_do_anything_with_a_session(
    guarded: Client, model: ScriptedModel, runtime: Runtime, operation: Any, app: str
) -> None:
    alice, bob = guarded.known_as("alice"), guarded.known_as("bob")
    call_id = await waiting(alice, model, app)
    session = runtime.session("hers", app_name=app or None)
    before = session.to_dict(), await session.events()
    body = BODIES.get(operation.name)
    asked = f"?app_name={app}" if app else ""
    answers = [
        await bob.ask(
            operation.method, operation.path.format(id=name, call_id=call_id) + asked, body
        )
        for name in ("hers", "none")
    ]
    assert [each.status for each in answers] == [404, 404]
    hers, none = (each.data["error"] for each in answers)
    assert hers["message"].replace("hers", "none") == none["message"]
    assert hers["type"] == none["type"] == "SessionNotFound"
    assert (session.to_dict(), await session.events()) == before
    assert [info.id for info in await runtime.sessions()] == ["hers"]


async def test_the_table_of_bodies_has_every_operation_that_takes_one() -> None:
    assert set(BODIES) == {each.name for each in PRIVATE if each.body is not None}


@pytest.mark.parametrize("operation", GUARDED, ids=[each.name for each in GUARDED])
@pytest.mark.parametrize("user", ["mallory", ""])
async def test_who_shows_no_good_token_can_do_nothing(
    guarded: Client, operation: Any, user: str
) -> None:
    client = guarded.known_as(user) if user else guarded
    path = operation.path.format(id="s", call_id="c", swarm="shop", client_id="alice")
    refused = await client.ask(operation.method, path, raw=b"{")
    assert (refused.status, refused.data["error"]["type"]) == (401, "Unauthorized")
    assert refused.headers["www-authenticate"] == "Bearer"


async def test_a_listing_has_only_the_sessions_of_whoever_asks(
    guarded: Client, runtime: Runtime
) -> None:
    alice, bob = guarded.known_as("alice"), guarded.known_as("bob")
    for client, name in ((alice, "a1"), (bob, "b1"), (alice, "a2")):
        made = await client.post("/v1/sessions", {"id": name})
        assert made["user_id"] == ("bob" if name == "b1" else "alice")
    await runtime.session("nobody's").send_message({"role": "user", "content": "x"})
    ids = [
        [each["id"] for each in (await who.get("/v1/sessions"))["sessions"]] for who in (alice, bob)
    ]
    assert ids == [["a1", "a2"], ["b1"]]


async def test_a_session_that_has_no_owner_belongs_to_nobody_who_has_a_name(
    guarded: Client, runtime: Runtime
) -> None:
    await runtime.session("nobody's").send_message({"role": "user", "content": "x"})
    assert (await guarded.known_as("bob").ask("GET", "/v1/sessions/nobody's")).status == 404


async def test_an_id_that_somebody_else_has_is_taken_as_any_other(guarded: Client) -> None:
    alice, bob = guarded.known_as("alice"), guarded.known_as("bob")
    await alice.post("/v1/sessions", {"id": "one", "system": "hers"})
    await bob.post("/v1/sessions", {"id": "two"})
    taken = [
        await bob.ask("POST", path, {"id": name})
        for name in ("one", "two")
        for path in ("/v1/sessions", "/v1/sessions/two/fork")
    ]
    assert [each.status for each in taken] == [409] * 4
    said = [each.data["error"]["message"].replace("one", "two") for each in taken]
    assert len(set(said)) == 1


async def test_the_owner_of_a_session_can_do_all_of_it(
    guarded: Client, model: ScriptedModel
) -> None:
    alice = guarded.known_as("alice")
    call_id = await waiting(alice, model)
    model.add("Done.")
    await alice.post(f"/v1/sessions/hers/approvals/{call_id}", {"decision": "approve"})
    assert (await alice.post("/v1/sessions/hers/resume"))["text"] == "Done."
    assert (await alice.post("/v1/sessions/hers/fork", {"id": "copy"}))["user_id"] == "alice"
    assert (await alice.ask("DELETE", "/v1/sessions/hers")).status == 200
