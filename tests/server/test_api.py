"""The HTTP API over real connections: sessions, messages, logs, turns, approvals."""

from __future__ import annotations

import asyncio

import pytest
from tests.server.web import Client, serving

from tertulia import Agent, Runtime
from tertulia.server.api import routes
from tertulia.testing import ScriptedModel, call


async def test_a_session_is_made_and_read_back(web: Client) -> None:
    made = await web.ask(
        "POST",
        "/v1/sessions",
        {
            "id": "shop:1",
            "system": "Be kind.",
            "metadata": {"channel": "web"},
            "messages": [{"role": "user", "content": "hello"}],
            "retention": {"ttl_days": 30},
        },
    )
    assert made.status == 201
    assert made.headers["location"] == "/v1/sessions/shop%3A1"
    read = await web.get(made.headers["location"])
    assert read == made.data
    assert (read["id"], read["system"], read["messages"]) == ("shop:1", "Be kind.", 1)
    assert read["metadata"] == {"channel": "web"}
    assert read["retention"] == {"ttl_days": 30.0}
    assert (read["running"], read["pending"], read["floor"]) == (False, [], None)


async def test_a_session_without_an_id_gets_one(web: Client) -> None:
    made = await web.post("/v1/sessions")
    assert await web.get(f"/v1/sessions/{made['id']}") == made


async def test_an_id_is_taken_once(web: Client, runtime: Runtime) -> None:
    answers = await asyncio.gather(
        *(web.ask("POST", "/v1/sessions", {"id": "one", "metadata": {"n": n}}) for n in range(8))
    )
    assert sorted(each.status for each in answers) == [201] + [409] * 7
    winner = next(each.data["metadata"] for each in answers if each.status == 201)
    assert (await web.get("/v1/sessions/one"))["metadata"] == winner
    assert len(await runtime.session("one").events()) == 1


async def test_an_app_has_sessions_of_its_own(web: Client) -> None:
    made = await web.ask("POST", "/v1/sessions", {"id": "a", "app_name": "my shop"})
    assert made.headers["location"] == "/v1/sessions/a?app_name=my%20shop"
    assert (await web.get(made.headers["location"]))["app_name"] == "my shop"
    assert (await web.ask("GET", "/v1/sessions/a")).status == 404


async def test_an_id_that_no_path_can_name_is_refused(web: Client) -> None:
    for name in ("a/b", ".", ".."):
        refused = await web.ask("POST", "/v1/sessions", {"id": name})
        assert (refused.status, refused.data["error"]["type"]) == (422, "InvalidInput")


async def test_the_listing_is_given_in_pages(web: Client) -> None:
    for number in range(5):
        await web.post("/v1/sessions", {"id": f"s{number}"})
    seen: list[str] = []
    path = "/v1/sessions?limit=2"
    while True:
        page = await web.get(path)
        seen += [each["id"] for each in page["sessions"]]
        if page["next"] is None:
            break
        path = f"/v1/sessions?limit=2&after={page['next']}"
    assert seen == ["s0", "s1", "s2", "s3", "s4"]


async def test_messages_are_appended_and_read_in_pages(web: Client) -> None:
    await web.post("/v1/sessions", {"id": "s"})
    given = [{"role": "user", "content": f"line {number}"} for number in range(5)]
    stored = await web.post("/v1/sessions/s/messages", {"messages": given})
    newest = await web.get("/v1/sessions/s/messages?limit=2")
    assert newest["messages"] == stored["messages"][3:]
    older = await web.get(f"/v1/sessions/s/messages?limit=500&before={newest['before']}")
    assert older["messages"] == stored["messages"][:3]
    end = await web.get(f"/v1/sessions/s/messages?before={older['before']}")
    assert end == {"messages": [], "before": None}
    past = await web.get(f"/v1/sessions/s/messages?at={older['messages'][0]['seq']}")
    assert [each["content"] for each in past["messages"]] == ["line 0"]


async def test_an_append_with_the_same_key_is_stored_once(web: Client) -> None:
    await web.post("/v1/sessions", {"id": "s"})
    body = {"messages": [{"role": "user", "content": "hello"}]}
    path = "/v1/sessions/s/messages"
    first = await web.ask("POST", path, body, {"idempotency-key": "k"})
    second = await web.ask("POST", path, {**body, "idempotency_key": "k"})
    assert first.data == second.data
    other = {"messages": [{"role": "user", "content": "bye"}]}
    clash = await web.ask("POST", path, other, {"idempotency-key": "k"})
    assert (clash.status, clash.data["error"]["type"]) == (409, "IdempotencyConflict")
    differ = await web.ask("POST", path, {**body, "idempotency_key": "k"}, {"idempotency-key": "l"})
    assert differ.status == 422


async def test_the_log_is_read_from_a_place_and_by_type(web: Client) -> None:
    await web.post("/v1/sessions", {"id": "s", "messages": [{"role": "user", "content": "a"}]})
    log = (await web.get("/v1/sessions/s/events"))["events"]
    assert [each["type"] for each in log] == ["session.created", "message.added"]
    assert (await web.get("/v1/sessions/s/events?since=2"))["events"] == log[1:]
    since = log[1]["timestamp"].replace("+", "%2B")
    assert (await web.get(f"/v1/sessions/s/events?since={since}"))["events"][-1] == log[1]
    assert (await web.get("/v1/sessions/s/events?limit=1"))["events"] == log[1:]
    assert (await web.get("/v1/sessions/s/events?types=session.created"))["events"] == log[:1]
    assert (await web.ask("GET", "/v1/sessions/s/events?types=nonsense")).status == 422


async def test_a_turn_is_run_by_the_agent_that_has_the_floor(runtime: Runtime) -> None:
    agents = {
        "first": Agent("one", model=ScriptedModel("I am one.", "still one")),
        "second": Agent("two", model=ScriptedModel("I am two.", "still two")),
    }
    async with serving(routes(runtime, agents=agents)) as web:
        await web.post("/v1/sessions", {"id": "s"})
        nobody = await web.ask("POST", "/v1/sessions/s/run", {"input": "hi"})
        assert nobody.status == 422
        assert "first" in nobody.data["error"]["message"]
        two = await web.post("/v1/sessions/s/run", {"input": "hi", "agent": "second"})
        assert (two["text"], two["output"], two["agent"]) == ("I am two.", "I am two.", "two")
        assert [each["role"] for each in two["messages"]] == ["user", "assistant"]
        assert (await web.get("/v1/sessions/s"))["floor"] == "two"
        assert (await web.post("/v1/sessions/s/run", {"input": "hi"}))["text"] == "still two"
        usage = (await web.get("/v1/sessions/s"))["usage"]
        assert usage["requests"] == 2


async def test_a_turn_takes_its_options(web: Client, model: ScriptedModel) -> None:
    model.add("fine")
    await web.post("/v1/sessions", {"id": "s"})
    said = {"role": "user", "content": "hi", "metadata": {"x": 1}}
    options = {"temperature": 0.5, "max_tokens": 7, "metadata": {"trace": "t"}, "busy": "reject"}
    await web.post("/v1/sessions/s/run", {"input": said, **options})
    assert model.last_request.temperature == 0.5
    assert model.last_request.max_tokens == 7
    started = await web.get("/v1/sessions/s/events?types=turn.started")
    assert started["events"][0]["body"]["metadata"] == {"trace": "t"}


async def test_a_run_with_the_same_key_runs_once(web: Client, model: ScriptedModel) -> None:
    model.add("once")
    await web.post("/v1/sessions", {"id": "s"})
    body = {"input": "hi", "idempotency_key": "k"}
    first = await web.post("/v1/sessions/s/run", body)
    second = await web.ask("POST", "/v1/sessions/s/run", {"input": "hi"}, {"idempotency-key": "k"})
    assert second.data["messages"] == first["messages"]
    assert model.remaining == 0
    streamed = await web.listen("POST", "/v1/sessions/s/run", {**body, "stream": True})
    assert [each.type for each in await streamed.rest()][-1] == "turn_completed"


@pytest.mark.parametrize("decision", ["approve", "reject"])
async def test_a_call_waits_for_its_decision_and_the_turn_goes_on(
    web: Client, model: ScriptedModel, decision: str
) -> None:
    model.add(call("refund", amount=7), "Done.")
    await web.post("/v1/sessions", {"id": "s"})
    suspended = await web.post("/v1/sessions/s/run", {"input": "my money"})
    waiting = suspended["pending"][0]
    assert (waiting["name"], waiting["arguments"]) == ("refund", {"amount": 7})
    stands = await web.get("/v1/sessions/s")
    assert stands["suspended"] is True
    assert stands["pending"] == suspended["pending"]
    early = await web.ask("POST", "/v1/sessions/s/resume", {})
    assert (early.status, early.data["error"]["type"]) == (409, "ApprovalPending")
    unknown = await web.ask("POST", "/v1/sessions/s/approvals/none", {"decision": decision})
    assert unknown.status == 422
    path = f"/v1/sessions/s/approvals/{waiting['id']}"
    decided = await web.post(path, {"decision": decision, "reason": "why not"})
    assert decided["decision"] == {"approve": "approved", "reject": "rejected"}[decision]
    assert (await web.post("/v1/sessions/s/resume"))["text"] == "Done."
    result = (await web.get("/v1/sessions/s/messages"))["messages"][-2]["content"]
    assert ("refunded 7" in result) is (decision == "approve")
    idle = await web.ask("POST", "/v1/sessions/s/resume", {})
    assert (idle.status, idle.data["error"]["type"]) == (400, "UsageError")


async def test_a_fork_has_the_history_of_its_point(web: Client) -> None:
    lines = [{"role": "user", "content": word} for word in ("a", "b")]
    await web.post("/v1/sessions", {"id": "s", "messages": lines})
    first = (await web.get("/v1/sessions/s/messages"))["messages"][0]
    made = await web.ask("POST", "/v1/sessions/s/fork", {"id": "f", "at": first["seq"]})
    assert (made.status, made.headers["location"]) == (201, "/v1/sessions/f")
    assert (await web.get("/v1/sessions/f/messages"))["messages"] == [first]
    again = await web.ask("POST", "/v1/sessions/s/fork", {"id": "f"})
    assert (again.status, again.data["error"]["type"]) == (409, "SessionExists")
    assert (await web.post("/v1/sessions/s/fork"))["id"] not in ("s", "f")


async def test_an_ended_session_takes_no_more(web: Client) -> None:
    await web.post("/v1/sessions", {"id": "s"})
    assert (await web.post("/v1/sessions/s/end", {"reason": "done"}))["status"] == "ended"
    more = {"messages": [{"role": "user", "content": "hello?"}]}
    late = await web.ask("POST", "/v1/sessions/s/messages", more)
    assert (late.status, late.data["error"]["type"]) == (409, "SessionEnded")


async def test_a_deleted_session_leaves_a_receipt(web: Client) -> None:
    await web.post("/v1/sessions", {"id": "s"})
    gone = await web.ask("DELETE", "/v1/sessions/s")
    assert gone.status == 200
    assert gone.data["type"] == "session.deleted"
    assert gone.data["body"]["out_of_reach"] == ["backups", "exports"]
    assert (await web.ask("DELETE", "/v1/sessions/s")).status == 404


async def test_retention_refuses_a_deletion(web: Client) -> None:
    await web.post("/v1/sessions", {"id": "s", "retention": {"immutable": True}})
    refused = await web.ask("DELETE", "/v1/sessions/s")
    assert (refused.status, refused.data["error"]["type"]) == (409, "RetentionRefused")


async def test_a_server_without_an_agent_says_so(runtime: Runtime) -> None:
    async with serving(routes(runtime)) as web:
        await web.post("/v1/sessions", {"id": "s"})
        refused = await web.ask("POST", "/v1/sessions/s/run", {"input": "hi"})
        assert (refused.status, refused.data["error"]["type"]) == (422, "InvalidInput")
