"""The conversations that every system stores: the same words for all, about 200 bytes a message."""

from __future__ import annotations

import random
from collections.abc import Sequence

Message = dict[str, str]
Turn = list[Message]

WORDS = (
    "the order left our warehouse yesterday and should reach you on Friday before noon; "
    "would you like me to change the address, add a note for the courier or send the invoice "
    "again? I have found three earlier conversations about this customer and kept the refund open"
).split()
_random = random.Random(7)
_TEXT = " ".join(_random.choice(WORDS) for _ in range(40_000))


def text(size: int, number: int) -> str:
    """Exactly `size` characters of plain words, different for each number."""
    start = (number * 131) % (len(_TEXT) - size)
    return f"{number} {_TEXT[start : start + size]}"[:size]


def message(number: int, size: int = 170) -> Message:
    """Message `number` of a conversation: users and assistants take turns."""
    role = "assistant" if number % 2 else "user"
    return {"role": role, "content": text(size, number)}


def conversation(count: int, size: int = 170, start: int = 0) -> list[Message]:
    """`count` messages in a row."""
    return [message(number, size) for number in range(start, start + count)]


def turns(count: int, messages_per_turn: int) -> list[Turn]:
    """`count` turns of one or two messages each, made before any clock runs."""
    every = conversation(count * messages_per_turn)
    return [every[i : i + messages_per_turn] for i in range(0, len(every), messages_per_turn)]


def chunks(messages: Sequence[Message], size: int = 500) -> list[list[Message]]:
    """The messages in batches that one commit can take."""
    return [list(messages[i : i + size]) for i in range(0, len(messages), size)]
