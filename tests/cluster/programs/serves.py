"""One worker: a server whose agent and swarm answer as slowly as they are told to.

python serves.py SETTINGS

SETTINGS is JSON: store, bus (or null), host, port, skew (seconds that its clock is ahead). It ends
when its standard input does, so that it never outlives who started it.

What is said decides the answer: "slow 0.2 TEXT" is answered after so many seconds, "never TEXT"
begins and does not end, "count TEXT" calls a tool first, and all else is answered at once. It
writes "began: …" when its model is asked, and "stopped: …" when that was cut off.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

from tertulia import Agent, AgentApp, Message, RunContext, Runtime, Swarm, tool
from tertulia.agents.protocol import Finished, ModelEvent, ModelRequest, TextDelta, ToolCallMade
from tertulia.clock import MICROSECONDS, SystemClock
from tertulia.messages import ToolCall


class Skewed(SystemClock):
    """A clock that somebody set wrong; what it measures is right."""

    def __init__(self, seconds: float) -> None:
        self._ahead = round(seconds * MICROSECONDS)

    def now(self) -> int:
        return super().now() + self._ahead


class Obedient:
    """A model that does what the last message says."""

    name = "obedient"

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        last = request.messages[-1]
        if last.role == "tool":
            yield TextDelta(f"counted {last.text}")
            yield Finished("stop")
            return
        print(f"began: {last.text}", flush=True)
        try:
            async for event in self._answer(last):
                yield event
        except BaseException:
            print(f"stopped: {last.text}", flush=True)
            raise

    async def _answer(self, last: Message) -> AsyncIterator[ModelEvent]:
        verb, _, rest = last.text.partition(" ")
        if verb == "count":
            yield ToolCallMade(ToolCall(f"call-{last.id}", "count", {}))
            yield Finished("tool_calls")
            return
        if verb == "slow":
            seconds, _, rest = rest.partition(" ")
            yield TextDelta("heard ")
            await asyncio.sleep(float(seconds))
        elif verb == "never":
            yield TextDelta("heard ")
            await asyncio.Event().wait()
        yield TextDelta(rest)
        yield Finished("stop")


@tool
def count(context: RunContext) -> str:
    """Count in the state of the session."""
    context.state["count"] = context.state.get("count", 0) + 1
    return str(context.state["count"])


def agent(name: str) -> Agent:
    """An agent that counts, and does what it is told."""
    return Agent(name, Obedient(), tools=[count])


def end_with_parent() -> None:
    """End at once when nobody is there any more who could end us."""
    os.read(0, 1)
    os._exit(1)


def leave(*_: object) -> None:
    """Told by uvicorn, which hands on the signal when it has ended."""
    sys.exit(0)


def main() -> None:
    """Serve until SIGTERM."""
    settings: dict[str, Any] = json.loads(sys.argv[1])
    threading.Thread(target=end_with_parent, daemon=True).start()
    bus = {} if settings["bus"] is None else {"bus": settings["bus"]}
    runtime = Runtime(settings["store"], clock=Skewed(settings["skew"]), **bus)
    app = AgentApp(
        agent=agent("clerk"),
        swarms=[Swarm("shop", [agent("seller")])],
        runtime=runtime,
        auth="off",
        finish_in=2.0,
    )
    signal.signal(signal.SIGTERM, leave)
    try:
        app.run(settings["host"], settings["port"])
    finally:
        asyncio.run(runtime.close())


if __name__ == "__main__":
    main()
