"""A turn with tools that stands still after each of its commits, until it is told to go on.

Says what was committed. The effect of the tools is "none" or "unknown"; the driver "by hand",
"agent" (which uses one tool after the other) or "agent at once" (which uses both).

python steps.py FILE DRIVER EFFECT
"""

import asyncio
import sys
import threading
from collections.abc import Awaitable
from typing import Any, cast

from tertulia import Agent, Message, Runtime, SQLiteStore, ToolCall, tool
from tertulia.closing import Effect
from tertulia.stores.base import Change, SessionRow
from tertulia.testing.models import ScriptedModel

ONE_AT_A_TIME = threading.Lock()


def pause(said: str) -> None:
    with ONE_AT_A_TIME:
        print(said, flush=True)
    sys.stdin.readline()


class SteppedStore(SQLiteStore):
    """A store that waits after each commit to a session."""

    def commit(self, change: Change) -> Awaitable[SessionRow]:
        return self._step(super().commit(change), [record.type for record in change.records])

    async def _step(self, committed: Awaitable[SessionRow], types: list[str]) -> SessionRow:
        row = await committed
        pause(" ".join(types))
        return row


async def by_hand(runtime: Runtime, effect: Effect) -> None:
    calls: list[Any] = [{"id": name, "name": "charge"} for name in ("x", "y")]
    async with runtime.session("s").turn("question") as turn:
        await turn.add_message({"role": "assistant", "content": "", "tool_calls": calls})
        for name in ("x", "y"):
            await turn.tool_called(name, "charge", effect=effect)
            await turn.tool_returned(name, Message.tool(f"charged {name}", name))
        await turn.add_message(Message.assistant("answer"))


async def agent(runtime: Runtime, effect: Effect, *, at_once: bool) -> None:
    @tool(effect=effect)
    def charge(card: str) -> str:
        """Charge a card."""
        pause(f"inside {card}")
        return f"charged {card}"

    calls = [ToolCall(name, "charge", {"card": name}) for name in ("x", "y")]
    model = ScriptedModel([*calls], "answer") if at_once else ScriptedModel(*calls, "answer")
    session = Agent("ann", model, tools=[charge], runtime=runtime).session("s")
    await session.run_async("question")


async def main() -> None:
    file, driver, effect = sys.argv[1:]
    async with Runtime(SteppedStore(file)) as runtime:
        if driver == "by hand":
            await by_hand(runtime, cast("Effect", effect))
        else:
            await agent(runtime, cast("Effect", effect), at_once=driver == "agent at once")


asyncio.run(main())
