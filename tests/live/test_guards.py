"""What a server tells and takes of whoever connects, with and without a token."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from tests.live.serving import serving
from tests.live.talking import Card, Recorder
from tests.server.web import Client as Web
from websockets.exceptions import InvalidStatus

from tertulia import Telephony, Token
from tertulia.errors import ConfigurationError
from tertulia.live import AgentSession, Node
from tertulia.live import link as links
from tertulia.server import AgentApp
from tertulia.wire.events import AgentErrorEvent, LiveEvent

TOKEN = Token({"a-long-token": "alice"})
SHOWN: Any = {"additional_headers": {"Authorization": "Bearer a-long-token"}}
SECRET = "postgres://admin:hunter2@db"


async def quietly(session: AgentSession) -> None:
    """A setup handler of a graph that says nothing."""
    session.add_node(Recorder())
    await session.start()
    await session.wait_until_complete()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_calls_that_nobody_signs_are_refused_where_others_need_a_token(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TERTULIA_TELEPHONY_TOKEN", raising=False)
    app = AgentApp(quietly, store="memory:", auth=TOKEN, telephony=Telephony())
    with pytest.raises(ConfigurationError, match="TERTULIA_TELEPHONY_TOKEN"):
        app.bind(host)


@pytest.mark.parametrize("path", ["ws", "pages"])
async def test_without_authentication_the_names_of_the_server_still_count(path: str) -> None:
    app = AgentApp(quietly, store="memory:", auth="off", hosts=["ok.example"])
    async with serving(app) as server:
        if path == "pages":
            for host, status in [("evil.example", 403), ("ok.example", 200)]:
                answered = await Web(server.port).ask("GET", "/health", None, {"host": host})
                assert answered.status == status
            return
        with pytest.raises(InvalidStatus, match="403"):
            async with server.connected(
                additional_headers={"Host": "evil.example"}, origin="http://evil.example"
            ):
                pass
        async with server.connected(additional_headers={"Host": "ok.example"}) as wire:
            await wire.init("s")


class Fails(Node):
    """Tells in an exception what no client should know."""

    async def process_event(self, event: LiveEvent) -> None:
        raise RuntimeError(f"could not connect to {SECRET}")


async def failing(session: AgentSession) -> None:
    """In a node, in a hook, and in setup itself."""
    if session.session_id == "setup":
        raise RuntimeError(f"could not connect to {SECRET}")
    session.add_node(Fails())

    @session.on_event("system.user.joined")
    def hook(session: AgentSession, event: LiveEvent) -> None:
        raise RuntimeError(f"could not connect to {SECRET}")

    await session.start()
    await session.wait_until_complete()


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({}, True),
        ({"auth": TOKEN}, False),
        ({"auth": TOKEN, "show_errors": True}, True),
        ({"show_errors": False}, False),
    ],
)
async def test_texts_of_exceptions_are_for_loopback_without_a_token_only(
    options: Any, shown: bool
) -> None:
    async with serving(AgentApp(failing, store="memory:", **options)) as server:
        async with server.connected(**SHOWN) as wire:
            await wire.init("s")
            await wire.send("system.user.joined")
            await wire.until(AgentErrorEvent, 2)
            told = wire.of(AgentErrorEvent)
        async with server.connected(**SHOWN) as wire:
            await wire.send("system.init", session_id="setup")
            await wire.closed()
            told += wire.of(AgentErrorEvent)
        assert len(told) == 3
        for error in told:
            assert "RuntimeError" in error.message
            assert (SECRET in error.message) == shown
            assert shown or SECRET not in str(error)


async def test_texts_of_exceptions_are_not_shown_to_other_machines_without_a_token() -> None:
    app = AgentApp(failing, store="memory:", auth="off")
    app.bind("0.0.0.0")
    assert not app.hub._settings.show_errors
    app.bind("127.0.0.1")
    assert app.hub._settings.show_errors


@pytest.mark.parametrize("after", ["²", "-1", "1e3", "٣", "1" * 16, "x"])
async def test_a_seq_that_is_none_is_refused_and_closes_with_what_to_do(after: str) -> None:
    async with serving(AgentApp(quietly, store="memory:")) as server:
        async with server.connected(f"?session_id=a&after={quote(after)}") as wire:
            await wire.send("system.init")
            code, reason = await wire.closed()
            assert (code, "whole number" in reason) == (links.INVALID, True)
        assert server.app.hub.held == 0
        async with server.connected("?session_id=a&after=0") as wire:
            await wire.init()


async def test_a_type_as_long_as_a_frame_may_be_is_refused_in_few_words() -> None:
    async with serving(AgentApp(quietly, store="memory:")) as server, server.connected() as wire:
        await wire.send("system.inti" + "x" * 255_000)
        await wire.init("s")
        await wire.send("y" * 255_000)
        await wire.until(AgentErrorEvent, 2)
        for told in wire.of(AgentErrorEvent):
            assert told.payload == {"code": "unknown_type"}
            assert len(told.message) < 200
        await server.session("s").send_event(Card(title="it lives"))
        await wire.until(Card)
