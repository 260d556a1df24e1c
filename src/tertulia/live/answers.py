"""The answers that are being given in a live session, as far as the client got them."""

from __future__ import annotations

from typing import Any

from tertulia.wire.events import LiveEvent, ResponseChunk, ResponseEnd, ResponseStart, fill

MOST = 100
"""Answers that may be under way at once; of more, the oldest are forgotten."""
LATE = 20
"""Answers that are remembered until the client got all of them."""


class Answer:
    """One answer on its way: all its text so far, and how much of it the client got."""

    __slots__ = (
        "_parts",
        "delivered",
        "ended",
        "given",
        "heard",
        "length",
        "metadata",
        "request_id",
        "settled",
    )

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self._parts: list[str] = []
        self.length = 0
        self.delivered = 0
        """Characters that were written to the client's connection."""
        self.heard: str | None = None
        """What the client says that was heard of it, where it says so."""
        self.metadata: dict[str, Any] | None = None
        """That of its start."""
        self.ended = False
        self.given = False
        """Whether a client that came back has got it whole, out of the log."""
        self.settled = 0
        """Characters that are in the log already, as part of earlier messages."""

    @property
    def text(self) -> str:
        """All of it so far."""
        if len(self._parts) > 1:
            self._parts = ["".join(self._parts)]
        return self._parts[0] if self._parts else ""

    def add(self, text: str) -> None:
        """A piece more."""
        self._parts.append(text)
        self.length += len(text)

    def got(self) -> str:
        """What the client got of what is not in the log yet."""
        if self.heard is not None:
            return self.heard.removeprefix(self.text[: self.settled])
        return self.text[self.settled : max(self.delivered, self.settled)]


class Answers:
    """All answers that are being given, in the order in which they began."""

    def __init__(self) -> None:
        self._running: dict[str, Answer] = {}
        self._late: dict[str, Answer] = {}
        self._ended: dict[str, None] = {}

    @property
    def running(self) -> list[Answer]:
        """Those that have not ended."""
        return list(self._running.values())

    def find(self, request_id: str | None) -> Answer | None:
        """The answer with an id; without one, the newest."""
        if request_id is not None:
            return self._running.get(request_id)
        return next(reversed(self._running.values()), None)

    def may_be_cut(self, request_id: str) -> bool:
        """Whether some of an answer may yet be on its way to the client."""
        return request_id not in self._ended or self.late(request_id) is not None

    def late(self, request_id: str) -> Answer | None:
        """An answer that was given whole, and that the client has not got all of."""
        answer = self._late.get(request_id)
        return None if answer is None or answer.delivered >= answer.length else answer

    def forget(self, request_id: str) -> None:
        """An answer that the client will not get the rest of."""
        self._late.pop(request_id, None)

    def begin(self, request_id: str) -> Answer:
        """A new answer."""
        answer = self._running[request_id] = Answer(request_id)
        self._ended.pop(request_id, None)
        if len(self._running) > MOST:
            del self._running[next(iter(self._running))]
        return answer

    def end(self, request_id: str | None) -> Answer | None:
        """An answer that is given, whole or in part."""
        answer = self.find(request_id)
        if answer is not None:
            answer.ended = True
            self._running.pop(answer.request_id, None)
            if answer.delivered < answer.length:
                self._late[answer.request_id] = answer
                if len(self._late) > LATE:
                    del self._late[next(iter(self._late))]
        return answer

    def passed(self, event: LiveEvent) -> None:
        """Take note of an event on its way to the client, before it goes out."""
        if isinstance(event, ResponseChunk):
            answer = self.find(event.request_id)
            if answer is None:
                return
            if event.request_id is None:
                fill(event, "request_id", answer.request_id)
            if event.offset is None:
                fill(event, "offset", answer.length)
            answer.add(event.text)
        elif isinstance(event, ResponseStart):
            if event.request_id is None:
                fill(event, "request_id", event.id)
            if event.request_id is not None and event.request_id not in self._running:
                self.begin(event.request_id).metadata = event.metadata
        elif isinstance(event, ResponseEnd):
            self.end(event.request_id)
            self._ended[event.request_id or ""] = None
            if len(self._ended) > MOST:
                del self._ended[next(iter(self._ended))]

    def delivered(self, event: LiveEvent) -> None:
        """Take note of an event that is written to the client's connection."""
        if not isinstance(event, ResponseChunk) or event.request_id is None:
            return
        answer = self._running.get(event.request_id) or self._late.get(event.request_id)
        if answer is None:
            return
        answer.delivered = max(answer.delivered, (event.offset or 0) + len(event.text))
        if answer.ended and answer.delivered >= answer.length:
            self._late.pop(event.request_id, None)
