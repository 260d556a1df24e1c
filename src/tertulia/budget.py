"""The context budget: which part of a history a model is shown. Pure rules.

What a budget leaves out stays stored and visible to everybody else; it only is not sent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from tertulia.errors import InvalidInput
from tertulia.messages import Message

PER_MESSAGE: Final = 4
"""Tokens that a message costs besides what it says: its role and the marks around it."""
PER_CALL: Final = 8
"""Tokens that a tool call costs besides its name and arguments: its id and the marks around it."""
PER_MEDIA: Final = 1_000
"""Tokens of an image, or of another part that is no text."""
BYTES_PER_TOKEN: Final = 4

CountTokens = Callable[[Message], int]


def estimate(message: Message) -> int:
    """About how many tokens a message is, without asking any model.

    4, and one for every 4 bytes (UTF-8, rounded up) of its text, its name, and the names and
    arguments (as JSON) of its tool calls; 8 more for each call, and 1,000 for each part that is
    no text. Right to about a third for English; too high for languages outside of Latin letters.
    """
    size = len(message.text.encode()) + len((message.name or "").encode())
    extra = 0
    for call in message.tool_calls or ():
        size += len(call.name.encode()) + len(msgspec.json.encode(call.arguments))
        extra += PER_CALL
    if not isinstance(message.content, str):
        extra += PER_MEDIA * sum("text" not in part for part in message.content)
    return PER_MESSAGE + extra - (-size // BYTES_PER_TOKEN)


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a conversation a model is shown; nothing set means all of it.

    Raises InvalidInput at construction for what is no whole number of at least 1.
    """

    keep_last: int | None = None
    """At most so many messages, those of the running turn included."""
    max_context_tokens: int | None = None
    """At most so many tokens, of the system prompt and the messages together."""
    count_tokens: CountTokens | None = None
    """Counts the tokens of a message; None is `estimate`."""

    def __post_init__(self) -> None:
        _check("keep_last", self.keep_last, "how many messages the model sees")
        _check("max_context_tokens", self.max_context_tokens, "how many tokens the model sees")
        if self.count_tokens is not None and not callable(self.count_tokens):
            raise InvalidInput(
                f"count_tokens is {self.count_tokens!r}; give a function of a message that "
                "returns its tokens"
            )

    @property
    def unlimited(self) -> bool:
        """Whether everything is shown."""
        return self.keep_last is None and self.max_context_tokens is None

    def cost(self, message: Message) -> int:
        """The tokens of a message; 0 where tokens do not count.

        Raises InvalidInput when `count_tokens` gives what is no count.
        """
        if self.max_context_tokens is None:
            return 0
        if self.count_tokens is None:
            return estimate(message)
        counted: Any = self.count_tokens(message)
        if isinstance(counted, bool) or not isinstance(counted, int) or counted < 0:
            raise InvalidInput(
                f"count_tokens gave {counted!r}; it must give a whole number, not negative"
            )
        return counted

    def room(self, system: str | None, running: Sequence[Message]) -> Room:
        """What is left for older messages beside the system prompt and the running turn."""
        room = Room(self.keep_last, self.max_context_tokens)
        if system:
            room = Room(room.messages, _less(room.tokens, self.cost(_as_message(system))))
        for message in running:
            room = room.without(self.cost(message))
        return room


class Room(msgspec.Struct, frozen=True):
    """What is left of a budget; None where there is no limit, negative where it is overdrawn."""

    messages: int | None
    tokens: int | None

    def without(self, tokens: int) -> Room:
        """What is left after one more message of so many tokens."""
        return Room(_less(self.messages, 1), _less(self.tokens, tokens))

    @property
    def overdrawn(self) -> bool:
        """Whether more was taken than there was."""
        return any(left is not None and left < 0 for left in (self.messages, self.tokens))


def first_shown(fitting: Sequence[Message], *, asked: bool) -> int:
    """Where to begin to show, in those of the older messages that fit, when not all of them do.

    `fitting` are the newest that fit, oldest first. The cut lies before a user message, so that
    no answer is shown without its question and no tool call without its result. Where there is
    none: nothing older when the running turn begins with a question (`asked`), else the cut lies
    after the tool group that it would part.
    """
    question = next((at for at, message in enumerate(fitting) if message.role == "user"), None)
    if question is not None:
        return question
    if asked:
        return len(fitting)
    start = 0
    while start < len(fitting) and fitting[start].role == "tool":
        start += 1
    return start


def _less(left: int | None, taken: int) -> int | None:
    return None if left is None else left - taken


def _as_message(system: str) -> Message:
    return Message(role="system", content=system)


def _check(name: str, value: object, what: str) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidInput(f"{name} is {value!r}; write {what}, a whole number")
    if value < 1:
        raise InvalidInput(f"{name} is {value}; write at least 1, or leave it out for no limit")
