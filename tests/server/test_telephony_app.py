"""An app that answers phone calls beside its other clients."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Generator
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree

import pytest
import uvicorn
from tests.server.web import Client
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tertulia import Agent, AgentApp, Telephony, Token
from tertulia.errors import ConfigurationError, ConnectionDenied
from tertulia.testing import ScriptedModel, SimulatedCaller
from tertulia.wire.voice import signature

SECRET = "an-auth-token"
PUBLIC = "wss://calls.example.com"
RELAY = f"{PUBLIC}/voice/relay"


class Server(uvicorn.Server):
    """One that leaves the signals of the tests alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


@contextlib.asynccontextmanager
async def serving(app: AgentApp) -> AsyncGenerator[int]:
    """The port of a server of an app, bound to loopback."""
    app.bind("127.0.0.1")
    config = uvicorn.Config(app, ws="websockets-sansio", log_config=None, access_log=False)  # pyright: ignore[reportArgumentType]
    server = Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task


def clerk(*steps: Any) -> Agent:
    return Agent("clerk", model=ScriptedModel(*steps))


async def test_a_call_goes_from_the_voice_url_to_the_agent() -> None:
    telephony = Telephony(PUBLIC, auth_token=SECRET, parameters={"shop": "Lisbon"})
    app = AgentApp(agent=clerk("We open at nine."), store="memory:", telephony=telephony)
    form = {"CallSid": "CA1", "From": "+15550100", "To": "+15550101"}
    headers = {
        "host": "calls.example.com",
        "content-type": "application/x-www-form-urlencoded",
        "x-twilio-signature": signature(SECRET, "https://calls.example.com/voice", form),
    }
    async with serving(app) as port:
        answered = await Client(port).ask("POST", "/voice", None, headers, urlencode(form).encode())
        assert answered.status == 200, answered
        [[relay]] = ElementTree.fromstring(answered.data)
        assert relay.attrib["url"] == RELAY
        async with SimulatedCaller(
            f"ws://127.0.0.1:{port}/voice/relay", auth_token=SECRET, signed_url=RELAY
        ) as caller:
            await caller.says("When do you open?")
            assert await caller.hears() == "We open at nine."
            session = await app.runtime.get(caller.session_id)
        with pytest.raises(ConnectionDenied) as no:
            await SimulatedCaller(f"ws://127.0.0.1:{port}/voice/relay").connect()
    assert no.value.code == 403
    assert session.id == f"call-{caller.call_id}"


async def test_calls_are_signed_where_other_clients_need_a_token() -> None:
    app = AgentApp(
        agent=clerk("Hello."),
        store="memory:",
        auth=Token("a-token-of-ours"),
        telephony=Telephony(PUBLIC, auth_token=SECRET),
    )
    async with (
        serving(app) as port,
        SimulatedCaller(
            f"ws://127.0.0.1:{port}/voice/relay", auth_token=SECRET, signed_url=RELAY
        ) as caller,
    ):
        await caller.says("Hello?")
        assert await caller.hears() == "Hello."


async def test_a_web_page_cannot_pretend_to_be_an_unsigned_call() -> None:
    app = AgentApp(agent=clerk(), store="memory:", telephony=Telephony())
    async with serving(app) as port:
        url = f"ws://127.0.0.1:{port}/voice/relay"
        with pytest.raises(InvalidStatus) as no:
            await connect(url, origin="https://elsewhere.example", proxy=None)  # pyright: ignore[reportArgumentType]
        assert no.value.response.status_code == 403
        answered = await Client(port).ask("POST", "/voice", None, {"host": "rebound.example"}, b"")
        assert answered.status == 403


def test_an_app_with_unsigned_calls_is_not_bound_to_other_addresses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TERTULIA_AUTH", raising=False)
    app = AgentApp(
        agent=clerk(), store="memory:", auth=Token("a-token-of-ours"), telephony=Telephony()
    )
    with pytest.raises(ConfigurationError, match="must be signed"):
        app.bind("0.0.0.0")
