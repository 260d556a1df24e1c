"""A model that says what a test tells it to."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from inspect import isawaitable
from itertools import count
from typing import Any, cast, get_args

import msgspec

from tertulia.agents.protocol import (
    Finished,
    ModelEvent,
    ModelRequest,
    TextDelta,
    ToolCallMade,
    UsageReport,
)
from tertulia.doors import Outcome
from tertulia.errors import InvalidInput, ModelError, UsageError
from tertulia.messages import ToolCall

Step = Callable[[ModelRequest], Any] | object
"""What a `ScriptedModel` takes as a step; its docstring lists what it may be."""
MODEL_EVENTS = get_args(ModelEvent)
PATIENCE = 30.0
"""Seconds that a test waits for a `Pause` to be reached."""
_SHOWN = 200
_WORD = re.compile(r"\s*\S+\s*|\s+")


def call(name: str, /, **arguments: Any) -> ToolCall:
    """A tool call as a step: ``call("charge", amount=7)``. The model gives it an id."""
    return ToolCall("", name, arguments)


class Pause:
    """A place in a script where the model waits until the test lets it go on.

    ``pause = Pause()``; ``ScriptedModel(["Once upon", pause, " a time"])``; the test awaits
    ``pause.reached()``, does what it wants to do meanwhile, and calls ``pause.release()``. It is
    for one place, and may be used from any thread or loop.
    """

    def __init__(self) -> None:
        self._reached: Outcome[None] = Outcome()
        self._released: Outcome[None] = Outcome()

    async def reached(self, timeout: float = PATIENCE) -> None:  # noqa: ASYNC109
        """Wait until the model is there. Raises UsageError after `timeout` seconds."""
        if not await self._reached.within(timeout):
            raise self._missed(timeout)

    def wait(self, timeout: float = PATIENCE) -> None:
        """As `reached`, for a thread."""
        if not self._reached.wait(timeout):
            raise self._missed(timeout)

    def release(self) -> None:
        """Let the model go on; also before it is there, and then it does not wait."""
        self._released.set_result(None)

    async def hold(self) -> None:
        """What the model does here."""
        self._reached.set_result(None)
        await self._released.within(None)

    def _missed(self, timeout: float) -> UsageError:
        return UsageError(
            f"no model came to this pause within {timeout} seconds; "
            "start the turn first, and look at the steps before the pause"
        )


class ScriptedModel:
    """Answers one request after another with the steps of a script, and keeps the requests.

    A step is

    - text, which is streamed word by word,
    - a mapping, a pydantic object, a dataclass or a struct: a structured answer, as JSON text,
    - a `ToolCall`, or ``call(name, **arguments)``; without an id it gets ``call_1``, ``call_2``, …
    - an error to raise,
    - a `Pause`, where the test decides when it goes on,
    - a model event: `TextDelta`, `ToolCallMade`, `UsageReport`, `Finished`,
    - a list of these, which are one answer,
    - a function of the request that returns any of these, or an asynchronous generator function
      of it that yields model events.

    Without a `UsageReport` one input token is reported and as many output tokens as words. A
    request after the last step raises ModelError, which says what was asked. Raises InvalidInput
    for what cannot be a step.
    """

    def __init__(self, *steps: Step, name: str = "scripted") -> None:
        self.requests: list[ModelRequest] = []
        """What the model was asked with, oldest first."""
        self._steps: deque[Step] = deque()
        self._name = name
        self._calls = count(1)
        self.add(*steps)

    @property
    def name(self) -> str:
        """The name that was given."""
        return self._name

    @property
    def last_request(self) -> ModelRequest:
        """What the model was asked with last. Raises UsageError when it was not asked yet."""
        if not self.requests:
            raise UsageError(f"the model {self._name!r} was not asked yet")
        return self.requests[-1]

    @property
    def remaining(self) -> int:
        """How many steps were not used yet; 0 when the whole script was played."""
        return len(self._steps)

    def add(self, *steps: Step) -> None:
        """Go on with more steps. Raises InvalidInput."""
        for step in steps:
            _check(step)
        self._steps.extend(steps)

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """The next step of the script. Raises ModelError after the last one."""
        self.requests.append(request)
        if not self._steps:
            raise ModelError(self._ended(request))
        step = self._steps.popleft()
        if _is_function(step):
            step = cast("Any", step)(request)
            if hasattr(step, "__aiter__"):
                async for event in cast("AsyncIterator[ModelEvent]", step):
                    yield event
                return
            step = await step if isawaitable(step) else step
            _check(step)
        async for event in self._answer(_items(step)):
            yield event

    async def _answer(self, items: list[object]) -> AsyncIterator[ModelEvent]:
        """One answer: its events, then the usage and the end where the script says none."""
        words, reason = 0, "stop"
        said: set[type[object]] = set()
        for item in items:
            if isinstance(item, Pause):
                await item.hold()
                continue
            for event in self._events(item):
                said.add(type(event))
                words += isinstance(event, TextDelta)
                reason = "tool_calls" if isinstance(event, ToolCallMade) else reason
                yield event
        if words and UsageReport not in said:
            yield UsageReport(1, words)
        if Finished not in said:
            yield Finished(reason)

    def _events(self, item: object) -> Iterator[ModelEvent]:
        if isinstance(item, BaseException):
            raise item
        if isinstance(item, ToolCall):
            yield ToolCallMade(self._with_id(item))
        elif isinstance(item, MODEL_EVENTS):
            yield cast("ModelEvent", item)
        else:
            text = _text(item)
            yield from (TextDelta(word) for word in _WORD.findall(text))

    def _with_id(self, made: ToolCall) -> ToolCall:
        return made if made.id else msgspec.structs.replace(made, id=f"call_{next(self._calls)}")

    def _ended(self, request: ModelRequest) -> str:
        last = request.messages[-1] if request.messages else None
        asked = "nothing" if last is None else f"{last.role}: {last.text[:_SHOWN]!r}"
        tools = ", ".join(tool.name for tool in request.tools) or "none"
        answered = len(self.requests) - 1
        return (
            f"the script of the model {self._name!r} has ended after {answered} requests, and it "
            f"was asked again; last message: {asked}; tools: {tools}; give it more steps"
        )


def _items(step: object) -> list[object]:
    return cast("list[object]", step) if isinstance(step, list) else [step]


def _is_function(step: object) -> bool:
    return callable(step) and not isinstance(step, type)


def _text(item: object) -> str:
    """Text as it is, all else as JSON. Raises TypeError for what JSON has not."""
    if isinstance(item, str):
        return item
    dump: Callable[[], str] | None = getattr(item, "model_dump_json", None)
    return msgspec.json.encode(item).decode() if dump is None else dump()


def _check(step: object) -> None:
    """Refuse what cannot be a step, where it is written and not where it is played."""
    for item in [] if _is_function(step) else _items(step):
        if isinstance(item, ToolCall | Pause | BaseException):
            continue
        try:
            _text(item)
            plain = item is None or isinstance(item, bool | int | float | list)
        except TypeError:
            plain = True
        if plain:
            raise InvalidInput(
                f"{item!r} is no step; a step is text, an object for a structured answer, a "
                "ToolCall, an error, a Pause, a model event, a list of these, or a function"
            )
