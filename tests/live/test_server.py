"""The real server in a process of its own, over real WebSockets, by its raw protocol."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import signal
import subprocess
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.cli.program import PROGRAM, environment
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tertulia import Runtime

APP = """
import asyncio
from tertulia.live import OutputNode
from tertulia.server import AgentApp, Token

class Says(OutputNode):
    async def generate_response(self, messages):
        words = messages[-1].text.split() if messages else ["nothing"]
        for word in words:
            if word == "slowly":
                await asyncio.sleep(0.5)
            yield word + " "

async def setup(session):
    session.add_node(Says())
    await session.start()
    await session.wait_until_complete()
    print("after", session.reason, flush=True)

app = AgentApp(SETUP, **OPTIONS)
"""


class Server:
    """`tertulia serve` on a file."""

    def __init__(self, folder: Path, options: str, setup: str, *words: str, **env: str) -> None:
        app = folder / "served.py"
        app.write_text(APP.replace("OPTIONS", options).replace("SETUP", setup))
        self.store = f"sqlite:///{folder / 'store.db'}"
        self._file = folder / "server.log"
        command = [*PROGRAM, "serve", str(app), "--port", "0", "--store", self.store, *words]
        with self._file.open("wb") as log:
            self.process = subprocess.Popen(
                command, env=environment(folder, **env), stdout=log, stderr=log
            )
        self.port = 0

    def log(self) -> str:
        """What it printed."""
        return self._file.read_text()

    async def ready(self) -> None:
        """Wait until it serves, and learn its port."""
        while not (found := re.search(r"running on http://[\w.]+:(\d+)", self.log())):
            assert self.process.poll() is None, self.log()
            await asyncio.sleep(0.02)
        self.port = int(found[1])

    async def end(self, number: int) -> int:
        """End it by a signal; its exit status."""
        self.process.send_signal(number)
        return await asyncio.to_thread(self.process.wait)

    async def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON of a page."""
        return await asyncio.to_thread(self._get, path)

    def _get(self, path: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("GET", path)
        answered = connection.getresponse()
        found = answered.status, json.loads(answered.read())
        connection.close()
        return found

    @asynccontextmanager
    async def socket(self, query: str = "", **options: Any) -> AsyncGenerator[Socket]:
        """A connection, without a word."""
        url = f"ws://127.0.0.1:{self.port}/ws{query}"
        async with connect(url, proxy=None, max_size=None, **options) as connection:
            yield Socket(connection)


class Socket:
    """The client's end, as frames."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def send(self, frame: Mapping[str, Any] | str | bytes, *, text: bool = False) -> None:
        """Send a frame; an object as JSON."""
        if isinstance(frame, str | bytes):
            await self.connection.send(frame)
            return
        data = json.dumps(frame)
        await self.connection.send(data if text else data.encode())

    async def get(self, kind: str) -> dict[str, Any]:
        """The next frame of a type."""
        while True:
            frame = json.loads(await self.connection.recv())
            if frame["type"] == kind:
                return frame

    async def init(self, **fields: Any) -> dict[str, Any]:
        """Open the session; the `agent.ready`."""
        await self.send({"type": "system.init", **fields})
        return await self.get("agent.ready")

    async def says(self, content: str) -> None:
        """Say something and ask for an answer."""
        await self.send({"type": "agent.transcript.update", "role": "user", "content": content})
        await self.send({"type": "system.llm.request"})

    async def closed(self) -> tuple[int, str]:
        """Wait for the close: its code and reason."""
        with suppress(ConnectionClosed):
            while True:
                await self.connection.recv()
        return self.connection.close_code or 0, self.connection.close_reason or ""


@asynccontextmanager
async def serving(
    folder: Path, options: str = "{}", setup: str = "setup", *words: str, **env: str
) -> AsyncGenerator[Server]:
    """A server, to the end of the block."""
    server = Server(folder, options, setup, *words, **env)
    try:
        await server.ready()
        yield server
    finally:
        if server.process.poll() is None:
            await server.end(signal.SIGKILL)


async def test_pages_say_how_it_is_and_count_sessions_rightly(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        assert (await server.get("/ready"))[0] == 200
        async with server.socket() as first, server.socket() as second, server.socket() as mute:
            ready = await first.init()
            await second.init()
            for path in ("/", "/health", "/ready"):
                assert (await server.get(path))[1]["active_sessions"] == 2
            first.connection.transport.abort()
            while (await server.get("/health"))[1]["active_sessions"] != 1:
                await asyncio.sleep(0.01)
            async with server.socket() as back:
                assert (await back.init(session_id=ready["session_id"], after=0))["resumed"]
                assert (await server.get("/health"))[1]["active_sessions"] == 2
            del mute
        while (await server.get("/health"))[1]["active_sessions"]:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("text", [False, True])
async def test_bad_frames_are_answered_and_the_session_lives(tmp_path: Path, text: bool) -> None:
    async with serving(tmp_path) as server, server.socket() as socket:
        wrong: list[tuple[Any, str]] = [
            ({"type": "system.user.joined"}, "wrong_first_frame"),
            ({"type": "system.inti"}, "unknown_type"),
            ("{" if text else b"\xff", "bad_json"),
        ]
        for frame, code in wrong:
            await socket.send(frame, text=text)
            assert (await socket.get("agent.error"))["payload"]["code"] == code
        await socket.send({"type": "system.init"}, text=text)
        frame = await socket.connection.recv()
        assert isinstance(frame, str) == text
        ready = json.loads(frame)
        wrong = [
            ({"type": "system.init"}, "already_open"),
            ({"type": "system.user.dtmf", "digit": 5}, "invalid_field"),
            ({"type": "system.user.joined", "id": ""}, "invalid_field"),
            ({"type": "nobody.knows"}, "unknown_type"),
            ({"no": "type"}, "no_type"),
            ("[]" if text else b"[]", "bad_json"),
        ]
        for frame, code in wrong:
            await socket.send(frame, text=text)
            told = await socket.get("agent.error")
            assert (told["payload"]["code"], told["severity"]) == (code, "warning")
            assert told["id"]
            assert told["timestamp"]
            assert told["session_id"] == ready["session_id"]
        await socket.says("it lives")
        assert (await socket.get("agent.llm.response.end"))["interrupted"] is False


@pytest.mark.parametrize("opened", [False, True])
async def test_who_sends_only_bad_frames_is_closed_after_a_hundred(
    tmp_path: Path, opened: bool
) -> None:
    async with serving(tmp_path) as server, server.socket() as socket:
        if opened:
            await socket.init()
        with suppress(ConnectionClosed):
            for _ in range(150):
                await socket.send(b"?")
        assert (await socket.closed())[0] == 1008
        assert (await server.get("/health"))[0] == 200


async def test_a_frame_that_is_too_large_closes_and_the_client_may_come_back(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, "{'max_frame': 1000}") as server:
        async with server.socket() as socket:
            ready = await socket.init()
            await socket.send(b" " * 1_001)
            assert (await socket.closed())[0] == 1009
        async with server.socket(f"?session_id={ready['session_id']}&after=0") as socket:
            assert (await socket.init())["resumed"]


async def test_who_says_nothing_is_closed(tmp_path: Path) -> None:
    async with serving(tmp_path, "{'init_in': 0.05}") as server, server.socket() as socket:
        assert (await socket.closed())[0] == 4408


async def test_tokens_owners_and_origins_decide_who_comes_in(tmp_path: Path) -> None:
    options = "{'auth': Token({'alice-secret': 'alice', 'bob-secret-1': 'bob'})}"
    alice: Any = {"additional_headers": {"Authorization": "Bearer alice-secret"}}
    async with serving(tmp_path, options) as server:
        async with server.socket() as socket:
            await socket.send({"type": "system.init"})
            assert (await socket.closed())[0] == 4401
        async with server.socket("?token=wrong-secret") as socket:
            assert (await socket.closed())[0] == 4401
        async with server.socket(**alice) as socket:
            ready = await socket.init(session_id="hers")
            assert ready["session_id"] == "hers"
            async with server.socket("?token=bob-secret-1&session_id=hers&after=0") as other:
                await other.send({"type": "system.init"})
                code, reason = await other.closed()
                assert (code, "alice" in reason) == (4403, False)
            async with server.socket() as again:
                assert (await again.init(session_id="hers", token="alice-secret"))["resumed"]
            assert (await socket.closed())[0] == 4409
        for origin, good in [("http://evil.example", False), (None, True)]:
            if good:
                async with server.socket(**alice, origin=origin) as socket:
                    await socket.init()
            else:
                with pytest.raises(InvalidStatus, match="403"):
                    async with server.socket(**alice, origin=origin):
                        pass
        assert "alice-secret" not in server.log()
        assert "bob-secret-1" not in server.log()


async def test_beyond_this_machine_it_does_not_serve_without_a_token(tmp_path: Path) -> None:
    refused = Server(tmp_path, "{}", "setup", "--host", "0.0.0.0")
    assert await asyncio.to_thread(refused.process.wait, 30) != 0
    assert "token" in refused.log().lower()
    assert "Traceback" not in refused.log()
    async with serving(tmp_path, "{}", "setup", "--host", "0.0.0.0", TERTULIA_AUTH="off") as server:
        assert (await server.get("/health"))[0] == 200
        assert "auth" in server.log().lower()


@pytest.mark.parametrize("wrong", ["fails", "forgets"])
async def test_a_setup_that_cannot_be_is_not_ready(tmp_path: Path, wrong: str) -> None:
    setups = {"fails": "lambda session: 1 / 0", "forgets": "lambda session: asyncio.sleep(0)"}
    async with serving(tmp_path, "{}", setups[wrong]) as server:
        status, told = await server.get("/ready")
        assert status == 503
        says = {"fails": "ZeroDivisionError", "forgets": "start()"}[wrong]
        assert says in json.dumps(told)
        assert (await server.get("/health"))[0] == 200


RESUME = "waiting for the client ends before the answers were finished"


@pytest.mark.parametrize("resume_for", [30, 0.1])
async def test_a_server_that_is_told_to_stop_finishes_the_answer_and_keeps_it(
    tmp_path: Path, resume_for: float
) -> None:
    async with serving(tmp_path, f"{{'resume_for': {resume_for}}}") as server:
        async with server.socket() as socket:
            ready = await socket.init()
            await socket.says("one slowly slowly two")
            await socket.get("agent.llm.response.chunk")
            ending = asyncio.create_task(server.end(signal.SIGTERM))
            code, _ = await socket.closed()
            assert code == 1012
            await ending
        assert "after " in server.log()
        async with Runtime(server.store) as runtime:
            history = await runtime.session(ready["session_id"]).history()
            assert [message.text for message in history] == [
                "one slowly slowly two",
                "one slowly slowly two ",
            ]


async def test_an_interrupt_that_comes_right_behind_the_request_stops_the_answer(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as server, server.socket() as socket:
        await socket.init()
        await socket.says("one slowly slowly slowly two")
        await socket.send({"type": "system.control.interrupt"})
        ended = await socket.get("agent.llm.response.end")
        assert ended["interrupted"] is True
        await socket.says("again")
        assert (await socket.get("agent.llm.response.end"))["interrupted"] is False
