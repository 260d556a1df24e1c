"""How the `offline` model goes on after it was given the floor. Pure rules."""

from __future__ import annotations

import msgspec

from tertulia.agents import wishes
from tertulia.agents.forms import TRANSFER
from tertulia.agents.protocol import ModelRequest
from tertulia.messages import Message

WELCOME = "You are with me now. What can I do?"


def welcome(request: ModelRequest) -> str | None:
    """A word of welcome, where a transfer was all that was asked for."""
    name = _transferred(request)
    left = without_transfers(request)
    if name is None or left.messages[-1].role != "user":
        return None
    question = left.messages[-1].text
    only = name in question.lower() or not wishes.find(question, left.tools)
    return WELCOME if only else None


def _transferred(request: ModelRequest) -> str | None:
    """The words of the agent that was given the floor since the question."""
    for message in reversed(_since(request)):
        if message.role == "tool" and _is_transfer(message.name):
            return str(message.name).removeprefix(TRANSFER).replace("_", " ")
    return None


def without_transfers(request: ModelRequest) -> ModelRequest:
    """The request as it is for an agent that was just given the floor: the question is open."""
    if _transferred(request) is None:
        return request
    since = _since(request)
    left = [m for m in since if not _is_transfer(m.name) and not _calls_transfer(m)]
    return msgspec.structs.replace(
        request,
        messages=[*request.messages[: -len(since)], *left],
        tools=[each for each in request.tools if not _is_transfer(each.name)],
    )


def _since(request: ModelRequest) -> list[Message]:
    """What came after the question."""
    users = [place for place, each in enumerate(request.messages) if each.role == "user"]
    asked = users[-1] if users else -1
    return request.messages[asked + 1 :]


def _is_transfer(name: str | None) -> bool:
    return (name or "").startswith(TRANSFER)


def _calls_transfer(message: Message) -> bool:
    return any(_is_transfer(call.name) for call in message.tool_calls or ())
