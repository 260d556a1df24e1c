"""A model that says what a test tells it to."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable

from tertulia.agents.protocol import (
    Finished,
    ModelEvent,
    ModelRequest,
    TextDelta,
    ToolCallMade,
    UsageReport,
)
from tertulia.errors import ModelError
from tertulia.messages import ToolCall

Item = str | ToolCall | ModelEvent | BaseException
Step = Item | list[Item] | Callable[[ModelRequest], AsyncIterator[ModelEvent]]


class ScriptedModel:
    """Answers one request after another with the steps of a script, and keeps the requests.

    A step is text (streamed word by word), a `ToolCall`, an error to raise, a model event, a list
    of these, or an asynchronous generator function of the request. A request after the last step
    raises ModelError.
    """

    def __init__(self, *steps: Step, name: str = "scripted") -> None:
        self.requests: list[ModelRequest] = []
        """What the model was asked with, oldest first."""
        self._steps = list(steps)
        self._name = name

    @property
    def name(self) -> str:
        """The name that was given."""
        return self._name

    def add(self, *steps: Step) -> None:
        """Go on with more steps."""
        self._steps.extend(steps)

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """The next step of the script."""
        self.requests.append(request)
        if not self._steps:
            raise ModelError("the script has ended; give the ScriptedModel more steps")
        step = self._steps.pop(0)
        if callable(step):
            async for event in step(request):
                yield event
            return
        for item in step if isinstance(step, list) else [step]:
            for event in _events(item):
                yield event
        yield Finished("stop")


def _events(item: Item) -> list[ModelEvent]:
    if isinstance(item, BaseException):
        raise item
    if isinstance(item, str):
        words = re.findall(r"\s*\S+\s*", item)
        return [*(TextDelta(word) for word in words), UsageReport(1, len(words))]
    if isinstance(item, ToolCall):
        return [ToolCallMade(item)]
    return [item]
