"""A shop whose refunds need an approval, and a session that waits for one."""

from __future__ import annotations

from typing import Any

from tertulia import Agent, RunContext, Runtime, Session, tool
from tertulia.agents import Response
from tertulia.testing.models import ScriptedModel, call


class Shop:
    """Tools that keep what they did."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.keys: list[str] = []

    def tools(self) -> list[Any]:
        @tool(requires_approval=True)
        def refund(cents: int, context: RunContext) -> str:
            """Give money back."""
            self.done.append(f"refund {cents}")
            self.keys.append(context.key)
            return f"refunded {cents}"

        @tool
        def note(text: str, context: RunContext) -> str:
            """Write something down."""
            self.done.append(f"note {text}")
            context.state["noted"] = text
            context.state.temp["noted"] = text
            return f"noted {text}, before: {context.state.get('before')}"

        return [refund, note]


async def suspended(
    runtime: Runtime, shop: Shop, *more: Any, first: Any = None, **options: Any
) -> tuple[Session, ScriptedModel, Response]:
    """A session whose turn waits for the approval of a refund."""
    model = ScriptedModel(first or call("refund", cents=5), *more)
    agent = Agent("ann", model, tools=shop.tools(), runtime=runtime)
    session = agent.session("s", **options)
    return session, model, await session.run_async("My money!")
