"""The models of the agents' benchmarks: they answer at once, always the same, and cost no tokens.

Two are ours, and two are the library's own, for tests. These say no reason of the end, as every
provider does, so they are given one: without it the answer counts as cut off.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pydantic_ai.messages import ModelMessage
from pydantic_ai.models import StreamedResponse
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.test import TestModel

from tertulia import ToolCall, tool
from tertulia.agents.protocol import (
    Finished,
    ModelEvent,
    ModelRequest,
    TextDelta,
    ToolCallMade,
    UsageReport,
)

ANSWER = "Your order left our warehouse yesterday."
DELTAS = 200


class OneWord:
    """The least that a model of ours has to do."""

    name = "one-word"

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        yield TextDelta(ANSWER)
        yield UsageReport(1, 1)
        yield Finished("stop")


class ManyWords:
    """Says 200 words, and lets others run between them, as a network would."""

    name = "many-words"

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        async for word in words():
            yield TextDelta(word)
        yield UsageReport(1, DELTAS)
        yield Finished("stop")


async def words() -> AsyncIterator[str]:
    """200 words, one after the other."""
    for _ in range(DELTAS):
        await asyncio.sleep(0)
        yield "word "


class Obedient:
    """Does what the newest request says: ``<name> <tool rounds> <calls in each> <tool>``.

    It keeps nothing, so that any number of sessions may use it at once.
    """

    name = "obedient"

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        asked = max(i for i, m in enumerate(request.messages) if m.role == "user")
        text = request.messages[asked].text
        name, rounds, calls, wanted = text.split()
        done = sum(m.role == "assistant" for m in request.messages[asked:])
        if done < int(rounds):
            for number in range(int(calls)):
                call_id = f"{name}-{done}-{number}"
                yield ToolCallMade(ToolCall(call_id, wanted, {"number": number}))
            yield Finished("tool_calls")
            return
        yield TextDelta(f"{text}: done")
        yield Finished("stop")


@tool
async def look_up(number: int) -> str:
    """Find an order."""
    return f"order {number} is there"


@tool
def look_up_blocking(number: int) -> str:
    """Find an order, on a thread."""
    return f"order {number} is there"


@tool
async def look_up_slowly(number: int) -> str:
    """Find an order; each takes a fifth of a second longer than the one before."""
    await asyncio.sleep(number / 5)
    return f"order {number} is there"


TOOLS = [look_up, look_up_blocking, look_up_slowly]


class EndingTestModel(TestModel):
    """The library's constant answer."""

    def __init__(self) -> None:
        super().__init__(custom_output_text=ANSWER)

    @asynccontextmanager
    async def request_stream(self, *args: Any, **more: Any) -> AsyncGenerator[StreamedResponse]:
        async with super().request_stream(*args, **more) as stream:
            stream.finish_reason = "stop"
            yield stream


class EndingFunctionModel(FunctionModel):
    """The library's model of a function that streams."""

    @asynccontextmanager
    async def request_stream(self, *args: Any, **more: Any) -> AsyncGenerator[StreamedResponse]:
        async with super().request_stream(*args, **more) as stream:
            stream.finish_reason = "stop"
            yield stream


async def at_once(_messages: list[ModelMessage], _info: AgentInfo) -> AsyncIterator[str]:
    """The same words as the other models, in the pieces that `TestModel` makes."""
    for word in ANSWER.split(" "):
        yield f"{word} "


async def in_pieces(_messages: list[ModelMessage], _info: AgentInfo) -> AsyncIterator[str]:
    """200 words."""
    async for word in words():
        yield word
