"""The client of live sessions in Python: `LiveClient`, which comes back by itself."""

from __future__ import annotations

from tertulia.client.asking import AnswerStream, Piece, Reply
from tertulia.client.client import LiveClient, State
from tertulia.client.policy import Reconnect
from tertulia.client.unknown import UnknownEvent

__all__ = ["AnswerStream", "LiveClient", "Piece", "Reconnect", "Reply", "State", "UnknownEvent"]
