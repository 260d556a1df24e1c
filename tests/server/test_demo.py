"""What `make demo-live` serves: a page, its graph, and a conversation that needs no key."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

from tests.nursery import Fork

from tertulia.client import LiveClient
from tertulia.server.demo import Command, NodeWorks
from tertulia.wire.events import LiveEvent

PHASES = ("start", "end")


@contextmanager
def demo(folder: Path, port: int) -> Generator[str]:
    """Run the demo, with nothing on its input; gives where it says that the page is."""
    command = ["-m", "tertulia.server.demo", "--port", str(port), "--store", "sqlite:///demo.db"]
    env = {**os.environ, "TERTULIA_OFFLINE_PAUSE": "0"}
    complaints = folder / "complaints"
    with complaints.open("wb") as stderr:
        running = Fork(command, cwd=folder, env=env, stderr=stderr)
    running.stdin.close()
    assert running.stdout is not None
    told = running.stdout.readline()
    try:
        yield re.sub(r"^Open +(\S+)/demo\n", r"\1", told)
    finally:
        running.send_signal(signal.SIGINT)
        status = running.wait(60)
        running.close()
    assert (status, complaints.read_text()) == (0, "")


async def talked(base: str, *lines: str, session_id: str | None = None) -> tuple[str, list[str]]:
    """Say some lines; the id of the session, and the answers."""
    async with LiveClient(f"{base.replace('http', 'ws')}/ws", session_id=session_id) as client:
        answers = [str(await client.say(line)) for line in lines]
        return client.session_id or "", answers


async def test_the_page_and_its_graph_are_where_it_says(tmp_path: Path) -> None:
    with demo(tmp_path, 0) as base, urlopen(f"{base}/demo") as page:
        assert page.url == f"{base}/static/demo.html"
        assert "default-src 'self'" in page.headers["content-security-policy"]
        assert page.headers["x-content-type-options"] == "nosniff"
        assert b"Tertulia" in page.read()
        with urlopen(f"{base}/graph.json") as graph:
            names = [node["name"] for node in json.load(graph)["nodes"]]
    assert names == ["commands", "agent", "words"]


async def test_words_are_counted_and_an_order_changes_the_agent(tmp_path: Path) -> None:
    with demo(tmp_path, 0) as base:
        lines = ("My name is Ada.", "order two coffees", "/words", "/cake")
        assert (await talked(base, *lines))[1] == [
            "Nice to meet you, Ada.",
            "place order: order 1 is placed: two coffees",
            "8 words of yours, 13 of mine.",
            "There is no /cake; try /words.",
        ]


async def test_words_that_were_counted_outlive_a_restart(tmp_path: Path) -> None:
    with demo(tmp_path, 0) as base:
        session_id, _ = await talked(base, "My name is Ada.", "order two coffees", "/words")
    with demo(tmp_path, 0) as base:
        _, answers = await talked(base, "What is my name?", "/words", session_id=session_id)
    assert answers == ["Your name is Ada.", "13 words of yours, 17 of mine."]


async def test_who_asks_is_told_which_node_works_and_nobody_else_is(tmp_path: Path) -> None:
    with demo(tmp_path, 0) as base:
        for variables in ({"lights": True}, {}):
            url = f"{base.replace('http', 'ws')}/ws"
            async with LiveClient(url, variables=variables) as client:
                await client.say("hello")
                await client.say("/words")
                seen: list[LiveEvent] = []
                async for event in client.events():
                    seen.append(event)
                    if isinstance(event, Command):
                        break
            told = {(each.name, each.phase) for each in seen if isinstance(each, NodeWorks)}
            wanted = {(node, at) for node in ("commands", "agent", "words") for at in PHASES}
            assert told == (wanted if variables else set())


async def test_a_port_that_is_taken_gives_way_to_a_free_one(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with demo(tmp_path, port) as base:
            assert not base.endswith(f":{port}")
            assert (await talked(base, "hello"))[1][0].startswith("Hello!")
