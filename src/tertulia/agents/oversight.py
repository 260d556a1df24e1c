"""What may decide, beside the model, how a turn of an agent goes: a swarm does so.

`Oversight` as it is changes nothing. One object is for one turn, and its methods are called by
the task that drives the turn, in the order in which things happen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from tertulia.agents.context import RunContext
from tertulia.agents.protocol import ToolCallMade


class Say(msgspec.Struct, frozen=True):
    """End the turn with this answer; `metadata` goes with its message."""

    text: str
    metadata: dict[str, Any]


class Again(msgspec.Struct, frozen=True):
    """Ask the model again, and tell it the reason."""

    reason: str


class Pass(msgspec.Struct, frozen=True):
    """Go on; `rest` is what was held back of the text until now, and may leave."""

    rest: str = ""


class ToolFailure(msgspec.Struct, frozen=True):
    """A tool call that gave no result: the tool failed, or there is none of that name."""

    tool: str
    call: str
    error: str
    known: bool
    cause: BaseException | None = None


class Oversight:
    """Looks after one turn of an agent. Made to be subclassed."""

    max_tool_calls: int | None = None
    """How many tool calls may run in the turn; none are offered where it is 0."""
    tool_timeout: float | None = None
    """Seconds for tools that have no timeout of their own."""
    instead: Say | None = None
    """Somebody gave the answer already: the turn ends with it."""

    async def begin(self, context: RunContext, *, resumed: bool) -> Say | None:
        """The turn begins, or goes on; what to answer without asking the model."""

    def speaks(self, name: str | None, *, first: bool) -> None:
        """An agent speaks from here on."""

    async def screen(self, text: str, context: RunContext) -> str | None:
        """The next piece of an answer that is made; what may leave now. None stops the answer,
        which `review` then judges."""
        return text

    async def review(
        self, text: str, calls: Sequence[ToolCallMade], context: RunContext
    ) -> Pass | Again | Say:
        """An answer is whole, or was stopped by `screen`; nothing of it is stored yet."""
        return Pass()

    async def model_failed(
        self, error: Exception, context: RunContext, *, shown: bool
    ) -> Again | Say | None:
        """The model gave no answer; None raises the error. `shown`: a part of it has left."""

    async def tools_failed(
        self, failures: Sequence[ToolFailure], context: RunContext
    ) -> Say | None:
        """Tool calls of a round failed; None goes on, and the model reads their errors."""

    def calls_left(self) -> int | None:
        """How many tool calls may still run in the turn; None is any number."""

    def called(self, number: int) -> None:
        """So many tool calls more are let run; a number below 0 takes back."""

    def refuse_transfer(self, source: str | None, target: str) -> str | None:
        """Why the floor may not go to an agent; None if it may."""
