"""The client of live sessions in Python: `LiveClient`, which comes back by itself."""

from __future__ import annotations

from tertulia.client.asking import AnswerStream, Piece, Reply
from tertulia.client.client import LiveClient
from tertulia.client.policy import Reconnect

__all__ = ["AnswerStream", "LiveClient", "Piece", "Reconnect", "Reply"]
