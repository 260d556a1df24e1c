"""The messages that a node hands to its model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

ChatMessage = dict[str, Any]
"""A message as OpenAI's chat completions have it."""


class ContextManager:
    """A list of messages as OpenAI's chat completions have them.

    It belongs to one node of one session. It is no copy of the conversation in the log, which is
    `session.conversation`.
    """

    def __init__(self) -> None:
        self._messages: list[ChatMessage] = []

    @property
    def messages(self) -> list[ChatMessage]:
        """The list itself: what is done to it is done to the context."""
        return self._messages

    def add_message(self, message_dict: ChatMessage) -> None:
        """Add a message at the end."""
        self._messages.append(message_dict)

    def add_messages(self, messages: Iterable[ChatMessage]) -> None:
        """Add messages at the end."""
        self._messages.extend(messages)

    def set_messages(self, messages: Iterable[ChatMessage]) -> None:
        """Put other messages in the place of all; the list given is not kept."""
        self._messages[:] = list(messages)


def synchronized(own: Iterable[ChatMessage], told: Iterable[ChatMessage]) -> list[ChatMessage]:
    """The context after a request that carries the conversation as the client knows it.

    The node's own system messages stay, or the client's where it has none; all else is the
    client's. Where the client tells of no turn, the context is left as it is.
    """
    own, told = list(own), list(told)
    turns = [message for message in told if not _is_system(message)]
    if not turns:
        return own
    system = [message for message in own if _is_system(message)]
    return [*(system or [message for message in told if _is_system(message)]), *turns]


def _is_system(message: ChatMessage) -> bool:
    return message.get("role") == "system"
