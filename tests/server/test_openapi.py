"""The OpenAPI document has every route, every operation in it answers, and answers as it says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.server.web import Client, misfit

from tertulia import Agent, Runtime, errors
from tertulia.server.api import OPERATIONS, routes
from tertulia.server.problems import STATUS, status_of
from tertulia.testing import ScriptedModel, call

PATH = "/openapi.json"
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "http.md"


async def document(web: Client) -> dict[str, Any]:
    return await web.get(PATH)


async def test_every_route_is_in_the_document(web: Client, runtime: Runtime) -> None:
    paths = (await document(web))["paths"]
    served = {route.path for route in routes(runtime)} - {"/v1/{rest:path}"}
    assert paths.keys() == served
    described = {(path, method) for path, there in paths.items() for method in there}
    assert described == {(each.path, each.method.lower()) for each in OPERATIONS}


def test_the_reference_has_every_operation_and_the_fields_of_its_body() -> None:
    rows = dict(re.findall(r"^\| `(\w+ /[^`]*)` \| (.*) \|$", PAGE.read_text(), re.MULTILINE))
    assert rows.keys() == {f"{each.method} {each.path}" for each in OPERATIONS}
    for each in OPERATIONS:
        fields = each.body.__struct_encode_fields__ if each.body else ()
        told = re.findall(r"`(\w+)`", rows[f"{each.method} {each.path}"])
        assert set(fields) - {"idempotency_key"} <= set(told), each.name


def test_the_reference_has_the_status_of_every_error_that_it_names() -> None:
    rows = re.findall(r"^\| (\d{3}) \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    for status, text in rows:
        for name in re.findall(r"`([A-Z]\w+)`", text):
            error = getattr(errors, name, None)
            if error is not None:
                assert status_of(error.__new__(error)) == int(status), name
    assert set(map(int, dict(rows))) >= set(STATUS.values())


async def test_what_it_refers_to_is_there_and_what_is_there_is_referred_to(web: Client) -> None:
    said = await document(web)
    named = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(said)))
    queries = {each.query.__name__ for each in OPERATIONS}
    assert named == said["components"]["schemas"].keys() - queries


async def test_every_operation_has_a_name_of_its_own_and_its_parameters(web: Client) -> None:
    said = await document(web)
    names: list[str] = []
    for path, there in said["paths"].items():
        for operation in there.values():
            names.append(operation["operationId"])
            told = [each["name"] for each in operation["parameters"] if each["in"] == "path"]
            assert told == re.findall(r"{(\w+)}", path)
    assert len(set(names)) == len(names)


async def test_it_says_that_a_token_is_needed_where_one_is(web: Client, guarded: Client) -> None:
    said = (await document(guarded))["paths"]
    open_ = {
        path for path, there in said.items() for each in there.values() if "security" not in each
    }
    assert open_ == {PATH}
    assert "security" not in str(await document(web))


REQUESTS: list[tuple[str, str, Any]] = [
    (
        "createSession",
        "/v1/sessions",
        {"id": "s", "metadata": {"a": 1}, "retention": {"ttl_days": 9}},
    ),
    ("appendMessages", "/v1/sessions/s/messages", {"messages": [{"role": "user", "content": "a"}]}),
    ("runTurn", "/v1/sessions/s/run", {"input": "my money"}),
    ("readSession", "/v1/sessions/s", None),
    ("decideApproval", "/v1/sessions/s/approvals/call_1", {"decision": "reject", "reason": "no"}),
    ("resumeTurn", "/v1/sessions/s/resume", {}),
    ("listMessages", "/v1/sessions/s/messages", None),
    ("listEvents", "/v1/sessions/s/events", None),
    ("forkSession", "/v1/sessions/s/fork", {"id": "f"}),
    ("listSessions", "/v1/sessions", None),
    ("endSession", "/v1/sessions/s/end", {"reason": "done"}),
    ("deleteSession", "/v1/sessions/f", None),
    ("listSwarms", "/v1/swarms", None),
    ("executeMessage", "/v1/swarms/shop/clients/c/execute", {"message": "hi", "mode": "tool"}),
    ("listClients", "/v1/swarms/shop/clients", None),
    ("executeMessage", "/v1/swarms/shop/clients/c/execute", {"message": "my money"}),
    (
        "decideApproval",
        "/v1/sessions/c/approvals/call_2?app_name=shop",
        {"decision": "reject", "reason": "no"},
    ),
    ("resumeClient", "/v1/swarms/shop/clients/c/resume", {}),
    ("emitMessage", "/v1/swarms/shop/clients/c/emit", {"text": "we close"}),
    ("notifyClient", "/v1/swarms/shop/clients/c/notify", {"text": "we close"}),
    ("banClient", "/v1/swarms/shop/clients/c/bans", {"until": 60.0, "reason": "rude"}),
    ("listBans", "/v1/swarms/shop/clients/c/bans", None),
    ("unbanClient", "/v1/swarms/shop/clients/c/bans", None),
    ("disposeClient", "/v1/swarms/shop/clients/c", None),
    ("readDocument", PATH, None),
]


async def test_every_operation_answers_as_it_says(
    web: Client, model: ScriptedModel, runtime: Runtime
) -> None:
    said = await document(web)
    by_name = {
        each["operationId"]: (method.upper(), each)
        for there in said["paths"].values()
        for method, each in there.items()
    }
    assert {name for name, _, _ in REQUESTS} == by_name.keys() - {"followEvents", "followBus"}
    model.add(call("refund", amount=7), "No.", "Hi.", call("refund", amount=7), "No.")
    told_to_the_client: list[Any] = []
    runtime.client_session("c", "shop").connect(told_to_the_client.append)
    for name, path, body in REQUESTS:
        method, operation = by_name[name]
        if body is not None:
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            assert misfit(body, schema, said) is None
        answered = await web.ask(method, path, body)
        told = operation["responses"][str(answered.status)]
        schema = told["content"]["application/json"]["schema"]
        assert misfit(answered.data, schema, said) is None, name
        assert ("location" in answered.headers) <= ("headers" in told), name
    assert [each.data for each in told_to_the_client] == ["we close", "we close"]


async def test_every_event_of_a_stream_is_as_it_says(
    web: Client, model: ScriptedModel, clerk: Agent
) -> None:
    said = await document(web)
    model.add(["Once", " upon"], call("refund", amount=7))
    await web.post("/v1/sessions", {"id": "s"})
    run, follow = "/v1/sessions/{id}/run", "/v1/sessions/{id}/follow"
    for _ in range(2):
        stream = await web.listen("POST", "/v1/sessions/s/run", {"input": "hi", "stream": True})
        for told in await stream.rest():
            assert misfit(told.data, _data(said, run, "post"), said) is None, told
    log = await web.get("/v1/sessions/s/events")
    stream = await web.listen("GET", "/v1/sessions/s/follow?after=0")
    for _ in log["events"]:
        told = await stream.next()
        assert told is not None
        assert misfit(told.data, _data(said, follow, "get"), said) is None, told
    stream.hang_up()


def _data(said: dict[str, Any], path: str, method: str) -> dict[str, Any]:
    content = said["paths"][path][method]["responses"]["200"]["content"]
    return content["text/event-stream"]["schema"]["contentSchema"]


async def test_a_refusal_is_as_it_says(web: Client) -> None:
    said = await document(web)
    refused = await web.ask("GET", "/v1/sessions/none")
    told = said["paths"]["/v1/sessions/{id}"]["get"]["responses"]["default"]
    assert misfit(refused.data, told["content"]["application/json"]["schema"], said) is None


@pytest.mark.parametrize(
    ("value", "fits"),
    [({"a": 1}, True), ({"a": "1"}, False), ({}, False), ({"a": 1, "b": 2}, False), ([], False)],
)
def test_the_checker_of_schemas_finds_what_does_not_fit(value: Any, fits: bool) -> None:
    root = {
        "thing": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    }
    assert (misfit(value, {"$ref": "#/thing"}, root) is None) is fits
