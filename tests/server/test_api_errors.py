"""What is wrong with a request is told in one shape, and nothing of it reaches the logs."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.server.web import Client, serving

from tertulia import Agent, MemoryStore, Runtime, errors
from tertulia.agents.protocol import ModelRequest
from tertulia.server import problems
from tertulia.server.api import OPERATIONS, routes
from tertulia.testing import ScriptedModel

SESSIONS = "/v1/sessions"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.InvalidInput("x"), 422),
        (errors.InvalidMessage("x"), 422),
        (errors.UsageError("x"), 400),
        (errors.ConfigurationError("x"), 500),
        (errors.MissingExtra("server", "x"), 500),
        (errors.SessionNotFound("x"), 404),
        (errors.AccessDenied("x"), 404),
        (errors.SessionExists("x"), 409),
        (errors.SessionEnded("x"), 409),
        (errors.SessionBusy("x"), 409),
        (errors.ApprovalPending("x"), 409),
        (errors.TurnTimeout("x"), 504),
        (errors.TurnInterrupted("x"), 409),
        (errors.IdempotencyConflict("x"), 409),
        (errors.RetentionRefused("x"), 409),
        (errors.HistoryErased("x"), 410),
        (errors.CursorExpired("x"), 410),
        (errors.Unauthorized("x"), 401),
        (errors.StoreUnavailable("x"), 503),
        (errors.StoreClosed("x"), 503),
        (errors.StoreCorrupt("x"), 500),
        (errors.ModelError("x"), 502),
        (errors.SchemaValidationError("x"), 502),
        (errors.ToolError("x"), 500),
        (ValueError("x"), 500),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, Exception) else "",
)
def test_every_error_has_its_status(error: Exception, status: int) -> None:
    assert problems.status_of(error) == status


def test_another_owner_s_session_is_told_of_as_one_that_does_not_exist() -> None:
    denied = errors.AccessDenied("session 's' belongs to alice", session_id="s")
    missing = errors.SessionNotFound("there is no session 's'", session_id="s")
    assert problems.shown(denied) == problems.shown(missing)


@pytest.mark.parametrize(
    ("raw", "headers", "status", "kind"),
    [
        (b"{", {}, 400, "MalformedBody"),
        (b"\xff\xfe", {}, 400, "MalformedBody"),
        (b"[" * 100_000, {}, 400, "MalformedBody"),
        (b'{"id": "\\ud800"}', {}, 400, "MalformedBody"),
        (b'{"metadata": {"n": 1e999}}', {}, 400, "MalformedBody"),
        (b"[]", {}, 422, "InvalidInput"),
        (b"null", {}, 422, "InvalidInput"),
        (b'{"id": 7}', {}, 422, "InvalidInput"),
        (b'{"id": ""}', {}, 422, "InvalidInput"),
        (b'{"id": "a\\nb"}', {}, 422, "InvalidInput"),
        (b'{"messages": [{"role": "user"}, {"role": "king"}]}', {}, 422, "InvalidInput"),
        (b'{"messages": [{"role": "tool", "content": "x"}]}', {}, 422, "InvalidMessage"),
        (b'{"messages": [{"role": "user", "seq": 4}]}', {}, 422, "InvalidInput"),
        (b'{"retention": {"ttl_days": -1}}', {}, 422, "InvalidInput"),
        (b'{"retention": {"days": 1}}', {}, 422, "InvalidInput"),
        (b"{}", {"content-type": "text/plain"}, 415, "UnsupportedMediaType"),
        (b"", {"content-type": ""}, 415, "UnsupportedMediaType"),
        (b" " * 1_000_001, {}, 413, "BodyTooLarge"),
    ],
)
async def test_a_body_that_cannot_be_is_refused(
    web: Client, raw: bytes, headers: dict[str, str], status: int, kind: str
) -> None:
    refused = await web.ask("POST", SESSIONS, raw=raw, headers=headers)
    assert (refused.status, refused.data["error"]["type"]) == (status, kind)
    assert set(refused.data) == {"error"}
    assert set(refused.data["error"]) == {"type", "message"}
    assert (await web.get(SESSIONS))["sessions"] == []


async def test_a_body_of_unknown_length_is_limited_too(web: Client) -> None:
    def pieces() -> Any:
        yield from (b" " * 100_000 for _ in range(11))

    refused = await web.ask("POST", SESSIONS, raw=pieces())
    assert refused.status == 413


async def test_unknown_fields_are_refused_with_all_their_names(web: Client) -> None:
    refused = await web.ask("POST", SESSIONS, {"id": "s", "usr": 1, "colour": "red"})
    assert refused.status == 422
    assert "['colour', 'usr']" in refused.data["error"]["message"]
    asked = await web.ask("GET", f"{SESSIONS}?limt=3")
    assert (asked.status, "['limt']" in asked.data["error"]["message"]) == (422, True)


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=501", "limit=x", "after=-1", "limit=1&limit=2"]
)
async def test_a_query_that_cannot_be_is_refused(web: Client, query: str) -> None:
    assert (await web.ask("GET", f"{SESSIONS}?{query}")).status == 422


async def test_a_method_that_a_path_does_not_have_is_refused_with_those_that_it_has(
    web: Client,
) -> None:
    refused = await web.ask("PUT", SESSIONS, {})
    assert (refused.status, refused.headers["allow"]) == (405, "GET, POST")
    assert refused.data["error"]["type"] == "MethodNotAllowed"


async def test_a_path_that_is_none_is_told_in_the_same_shape(web: Client) -> None:
    missing = await web.ask("GET", "/v1/nothing")
    assert (missing.status, missing.data["error"]["type"]) == (404, "NotFound")


async def test_what_nobody_expected_is_a_500_without_its_text_and_is_logged(
    web: Client, model: ScriptedModel, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(request: ModelRequest) -> str:
        raise RuntimeError("a secret of the program")

    model.add(fail)
    await web.post(SESSIONS, {"id": "private-id"})
    failed = await web.ask("POST", f"{SESSIONS}/private-id/run", {"input": "private text"})
    assert failed.status == 500
    assert failed.data["error"] == {
        "type": "InternalError",
        "message": "the server failed; its log says more",
    }
    logged = [record for record in caplog.records if record.name == "tertulia.server.problems"]
    assert [record.getMessage() for record in logged] == ["POST /v1/sessions/{id}/run failed"]
    assert logged[0].exc_info is not None
    ours = [record for record in caplog.records if not record.name.startswith("uvicorn")]
    assert all("private" not in record.getMessage() for record in ours)


async def test_a_store_that_is_closed_is_a_503_without_its_address(clerk: Agent) -> None:
    runtime = Runtime(MemoryStore())
    async with serving(routes(runtime, agent=clerk)) as web:
        await runtime.close()
        refused = await web.ask("GET", f"{SESSIONS}/s")
    assert refused.status == 503
    assert refused.data["error"]["type"] == "StoreClosed"


async def test_nothing_of_a_request_is_logged(
    web: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    body = {"id": "private-id", "system": "private text"}
    await web.post(SESSIONS, body)
    await web.ask("POST", SESSIONS, body)
    await web.ask("GET", f"{SESSIONS}/private-id?private=1")
    ours = [each for each in caplog.records if each.name != "uvicorn.access"]
    assert "private" not in "\n".join(each.getMessage() for each in ours)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
POSTS = [each for each in OPERATIONS if each.body is not None]


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(junk=JUNK, values=st.lists(JUNK, min_size=10, max_size=10))
async def test_no_body_makes_the_server_fail(web: Client, junk: Any, values: list[Any]) -> None:
    await web.ask("POST", SESSIONS, {"id": "s"})
    for operation in POSTS:
        fields = operation.body.__struct_encode_fields__ if operation.body else ()
        path = operation.path.format(id="s", call_id="c", swarm="shop", client_id="c")
        for body in (junk, dict(zip(fields, values, strict=False))):
            answered = await web.ask("POST", path, raw=json.dumps(body).encode())
            good = answered.status < 500 or answered.data["error"]["type"] == "ModelError"
            assert good, (operation.name, body, answered)
