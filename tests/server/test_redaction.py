"""No token reaches the logs of a real uvicorn, at any level."""

from __future__ import annotations

import asyncio
import io
import logging
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.logging import TRACE_LOG_LEVEL, AccessFormatter
from websockets.asyncio.client import connect

from tertulia.server.auth import token_of
from tertulia.server.redaction import RedactTokens, redact_logs

NAMES = ("uvicorn", "uvicorn.access", "uvicorn.error", "uvicorn.asgi")
SECRET = "correct-horse-battery-staple"


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """All that uvicorn logs, from the lowest level on, in its own format."""
    text = io.StringIO()
    before = [(each, each.level, each.propagate) for each in map(logging.getLogger, NAMES)]
    access = logging.StreamHandler(text)
    access.setFormatter(AccessFormatter('%(client_addr)s "%(request_line)s" %(status_code)s'))
    for logger, _, _ in before:
        logger.setLevel(TRACE_LOG_LEVEL)
        logger.propagate = False
    for name in ("uvicorn.error", "uvicorn.asgi"):
        logging.getLogger(name).addHandler(logging.StreamHandler(text))
    logging.getLogger("uvicorn.access").addHandler(access)
    yield text
    for logger, level, propagate in before:
        logger.setLevel(level)
        logger.propagate = propagate
        logger.handlers.clear()
        logger.filters.clear()


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """An application that echoes on a WebSocket and answers any request."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"here"})
        return
    await send({"type": "websocket.accept"})
    await receive()
    message = await receive()
    await send({"type": "websocket.send", "text": message["text"]})
    await receive()


async def talk_to(server: uvicorn.Server, query: str) -> None:
    """Ask over HTTP and over a WebSocket, with the token in each of its three places."""
    address = f"127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    bearer = {"Authorization": f"Bearer {SECRET}"}
    request = urllib.request.Request(f"http://{address}/health?{query}", headers=bearer)
    body = await asyncio.to_thread(lambda: urllib.request.urlopen(request, timeout=10).read())
    assert body == b"here"
    frame = f'{{"type": "system.init", "token": "{SECRET}"}}'
    async with connect(f"ws://{address}/ws?{query}", additional_headers=bearer) as client:
        await client.send(frame)
        assert await client.recv() == frame


@pytest.mark.parametrize("spelled", ["token", "t%6Fken", "%54%4F%4B%45%4E"])
async def test_no_token_is_in_what_a_real_server_logs(logged: io.StringIO, spelled: str) -> None:
    redact_logs()
    config = uvicorn.Config(
        echo, host="127.0.0.1", port=0, log_config=None, lifespan="off", ws="websockets-sansio"
    )
    server = uvicorn.Server(config)
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0)
            assert not serving.done()
        try:
            await talk_to(server, f"session_id=s1&{spelled}={SECRET}&after=7")
        finally:
            server.should_exit = True
    lines = logged.getvalue()
    assert f"GET /health?session_id=s1&{spelled}=***&after=7 HTTP/1.1" in lines
    assert f'"WebSocket /ws?session_id=s1&{spelled}=***&after=7" [accepted]' in lines
    assert "uthorization: Bearer ***" in lines
    assert "<Frame>" in lines
    assert "Started scope=<dict>" in lines
    assert not [part for part in SECRET.split("-") if part in lines]


def test_uvicorn_keeps_the_filter_when_it_sets_up_its_loggers(logged: io.StringIO) -> None:
    redact_logs()
    redact_logs()
    uvicorn.Config(echo).configure_logging()
    for name in NAMES[1:]:
        kept = logging.getLogger(name).filters
        assert [type(each) for each in kept] == [RedactTokens]


def redacted(message: Any, *arguments: Any, level: int = logging.INFO) -> str:
    """What is logged of a message."""
    record = logging.LogRecord("uvicorn.access", level, "", 0, message, arguments, None)
    assert RedactTokens().filter(record)
    return record.getMessage()


@given(
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=8, max_size=40),
    st.lists(st.booleans(), min_size=5, max_size=5),
)
def test_whatever_is_read_as_a_token_is_hidden(token: str, coded: list[bool]) -> None:
    name = "".join(
        f"%{ord(each):02X}" if code else each for each, code in zip("token", coded, strict=True)
    )
    value = quote(token, safe="")
    query = f"after=1&{name}={value}&a=b"
    assert token_of([], query.encode()) == token
    shown = redacted('%s - "%s %s HTTP/%s" %d', "127.0.0.1:1", "GET", f"/ws?{query}", "1.1", 200)
    assert shown == f'127.0.0.1:1 - "GET /ws?after=1&{name}=***&a=b HTTP/1.1" 200'


def test_a_token_is_hidden_in_the_message_and_in_named_arguments() -> None:
    assert redacted("asked for /ws?token=secret&a=b") == "asked for /ws?token=***&a=b"
    assert redacted("%(path)s", {"path": "/ws?token=secret"}) == "/ws?token=***"


@given(st.text("abcdefghijklmnopqrstuvwxyz/?&=%0123456789 ", max_size=40))
def test_what_has_no_token_is_logged_as_it_is(text: str) -> None:
    if "token" not in text and "bearer" not in text and "%" not in text:
        assert redacted("%s", text) == text


def test_only_details_below_information_lose_what_is_no_text() -> None:
    error = ValueError("why")
    assert redacted("it failed: %s", error) == "it failed: why"
    assert redacted("%s %d %.1f", error, 1, 2.0, level=logging.DEBUG) == "<ValueError> 1 2.0"
