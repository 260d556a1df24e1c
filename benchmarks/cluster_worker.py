"""One worker of the benchmarks of clusters: a real server, which also does what it is told.

    python -m benchmarks.cluster_worker SETTINGS

SETTINGS is JSON: store, bus (or null), port, max_turns (or null). Its agent `clerk` answers HTTP
requests, and its swarm `shop` those of clients. Each line on its standard input is a JSON object
with what to do, `op`; the answer is a line of JSON. It ends when its standard input does.

What is said decides the answer: "slow 0.2 …" is answered after so many seconds, "never …" is not,
and all else at once.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from typing import Any

import asyncpg

from benchmarks.child import allow_many_files
from benchmarks.live_settings import UVICORN, here, loop_of_the_server, resident
from tertulia import Agent, AgentApp, Runtime, Swarm
from tertulia.agents.protocol import Finished, ModelEvent, ModelRequest, TextDelta, UsageReport
from tertulia.bus.nats_bells import NatsBells
from tertulia.server.asgi import Receive, Scope, Send
from tertulia.stores.postgres import sql
from tertulia.swarm import ClientSession

ANSWER_BYTES = 500
ANSWER = ("Your order left our warehouse yesterday. " * ANSWER_BYTES)[:ANSWER_BYTES]
ALWAYS = sql.queries("workers.sql")
IDLE_SECONDS = 600
"""For which a connection is kept: none is made anew while something is measured."""
KINDS = {ALWAYS["renew"]: "heartbeat", ALWAYS["notify"]: "notify"}
asked: Counter[str] = Counter()
"""How often the database was asked for what, each one round trip; and bells over NATS."""

clock = time.monotonic


class Scripted:
    """A model that does what the last message says; `begun` are those it will not answer."""

    name = "scripted"

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.asked = 0

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        last = request.messages[-1].text
        self.asked += 1
        verb, _, rest = last.partition(" ")
        if verb == "slow":
            await asyncio.sleep(float(rest.partition(" ")[0]))
        elif verb == "never":
            self.begun.append(last)
            await asyncio.Event().wait()
        yield TextDelta(ANSWER)
        yield UsageReport(100, 100)
        yield Finished("stop")


class Served(AgentApp):
    """Says which loop it is on."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        here()
        await super().__call__(scope, receive, send)


class Worker:
    """What it can be told to do; each method is an `op`."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.model = Scripted()
        self.clerk = Agent("clerk", self.model)
        bus = {} if settings["bus"] is None else {"bus": settings["bus"]}
        self.runtime = Runtime(settings["store"], max_turns=settings["max_turns"], **bus)
        self.clients: dict[str, ClientSession] = {}
        self.tasks: set[asyncio.Task[Any]] = set()
        self.seen: dict[str, float] = {}

    def app(self) -> AgentApp:
        """The server."""
        swarm = Swarm("shop", [Agent("seller", self.model)])
        return Served(agent=self.clerk, swarms=[swarm], runtime=self.runtime, auth="off")

    async def who(self) -> str:
        """Its uid."""
        return self.runtime.store.worker.hex()

    async def counts(self) -> dict[str, int]:
        """How often the database was asked, for what; the model; the memory of this process."""
        return {**asked, "model": self.model.asked, "resident": resident(os.getpid())}

    async def hold(self, prefix: str, many: int, at_once: int) -> int:
        """Begin a turn that does not end in so many sessions; how many have begun."""
        for start in range(0, many, at_once):
            stop = min(many, start + at_once)
            for number in range(start, stop):
                session = self.clerk.session(session_id=f"{prefix}{number}", runtime=self.runtime)
                self._keep(session.run_async(f"never {number}"))
            while len(self.model.begun) < stop:
                await asyncio.sleep(0.005)
        return len(self.model.begun)

    async def execute(self, client: str, times: int) -> list[float]:
        """The seconds that each of some calls of a client took."""
        if client not in self.clients:
            self.clients[client] = await self.runtime.client_session(client, "shop")
        found: list[float] = []
        for _ in range(times):
            began = clock()
            await self.clients[client].execute("where is my order?")
            found.append(clock() - began)
        return found

    async def watch(self, sessions: list[str]) -> int:
        """Follow some sessions from their ends, and note when each message was seen."""
        for name in sessions:
            session = self.runtime.session(name)
            self._keep(self._note(name, await session.cursor()))
        await asyncio.sleep(0.2)
        return len(sessions)

    async def commit(self, sessions: list[str], many: int, pause: float) -> dict[str, float]:
        """Add messages, and say when each was acknowledged."""
        found: dict[str, float] = {}
        for number in range(many):
            text = f"message {number}"
            session = self.runtime.session(random.choice(sessions))
            await session.send_message({"role": "user", "content": text})
            found[text] = clock()
            await asyncio.sleep(pause)
        return found

    async def sightings(self) -> dict[str, float]:
        """When which message was seen here, since the last time that this was asked."""
        found, self.seen = self.seen, {}
        return found

    async def _note(self, name: str, cursor: str) -> None:
        async for event in self.runtime.session(name).follow(cursor):
            if event.type == "message.added":
                self.seen[event.body["content"]] = clock()

    def _keep(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


def count_round_trips() -> None:
    """Count what is asked of the database, wherever in this process."""

    def counted(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(connection: Any, text: str, *values: Any, **options: Any) -> Any:
            asked[KINDS.get(text, "work")] += 1
            return method(connection, text, *values, **options)

        return call

    for name in ("fetch", "execute"):
        setattr(asyncpg.Connection, name, counted(getattr(asyncpg.Connection, name)))


def count_bells() -> None:
    """Count the bells that this process rings over NATS: one for each session of each message."""
    carry = NatsBells._carry  # pyright: ignore[reportPrivateUsage]

    def carried(bells: NatsBells, sessions: Collection[int]) -> bool:
        asked["bells"] += len(sessions)
        asked["bell_messages"] += 1
        return carry(bells, sessions)

    NatsBells._carry = carried  # pyright: ignore[reportPrivateUsage]


def obey(worker: Worker) -> None:
    """Do what the one who started this process says, until that one goes away."""
    for line in sys.stdin:
        order = json.loads(line)
        doing = getattr(worker, order.pop("op"))(**order)
        found = asyncio.run_coroutine_threadsafe(doing, loop_of_the_server())
        try:
            answer: dict[str, Any] = {"found": found.result(120)}
        except Exception as error:
            answer = {"error": repr(error)[:300]}
        print(json.dumps(answer), flush=True)
    os._exit(0)


def main() -> None:
    """Serve until the end of the input."""
    settings: dict[str, Any] = json.loads(sys.argv[1])
    allow_many_files()
    count_round_trips()
    count_bells()
    worker = Worker(settings)
    threading.Thread(target=obey, args=(worker,), daemon=True).start()
    options = {name: value for name, value in UVICORN.items() if name != "ws"}
    worker.app().run(port=settings["port"], timeout_keep_alive=IDLE_SECONDS, **options)


if __name__ == "__main__":
    main()
