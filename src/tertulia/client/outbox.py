"""What a client sent and may have to send again, in the order it was sent."""

from __future__ import annotations

from typing import Any

from tertulia.client.asking import Answer
from tertulia.client.merging import request_of
from tertulia.errors import LiveError
from tertulia.wire.events import (
    AgentErrorEvent,
    LiveEvent,
    LLMRequest,
    ResponseChunk,
    ResponseEnd,
    ResponseStart,
    UserInterrupt,
)

SIZE = 1_000
"""How many events are kept for sending them again; of more the oldest is forgotten, because the
server took it long ago: it holds fewer itself before it lets a client wait."""
OWN_IDS = 4_096
"""How many ids of what was sent are remembered, to tell apart what the server repeats of it."""

_NONE: Any = object()


class Sent:
    """One event that was sent; for a request also the answer it got, and who waits for that."""

    __slots__ = ("answer", "answer_to", "event", "repeated")

    def __init__(self, event: LiveEvent, answer_to: Answer | None = None) -> None:
        self.event = event
        self.answer_to = answer_to
        self.answer: str | None = _NONE
        self.repeated = False
        """It was sent again, and no answer was heard of since."""

    @property
    def asks(self) -> bool:
        """Whether it is a request."""
        return isinstance(self.event, LLMRequest)


class Outbox:
    """Keeps what was sent until the server is known to have it, and requests until the answer."""

    def __init__(self) -> None:
        self._sent: list[Sent] = []
        self._own: dict[str, None] = {}
        self._answers: dict[str | None, Sent] = {}
        """The requests whose answers are being given, by the id of the answer."""
        self._names = False
        """The server says which request an answer is for, so no other answer is for one of ours."""
        self._error_follows = False
        """An answer has just ended as failed, and why is still to be told."""

    def add(self, event: LiveEvent, answer_to: Answer | None = None) -> Sent:
        """Keep an event that is being sent, if it may be sent again.

        A mark of a moment may not: the server cannot tell that it had it already.
        """
        sent = Sent(event, answer_to)
        if not event.kept and not isinstance(event, LLMRequest | UserInterrupt):
            return sent
        if len(self._sent) >= SIZE:
            self._drop(self._sent.pop(0))
        self._sent.append(sent)
        if event.id is not None:
            if len(self._own) >= OWN_IDS:
                del self._own[next(iter(self._own))]
            self._own[event.id] = None
        return sent

    def is_own(self, event: LiveEvent) -> bool:
        """Whether an event that came was sent by this client."""
        return event.id is not None and event.id in self._own

    def confirm(self, event_id: str | None) -> None:
        """The server has this event, and all before it; requests wait for their answer."""
        places = [place for place, sent in enumerate(self._sent) if sent.event.id == event_id]
        if event_id is not None and places:
            before, after = self._sent[: places[0] + 1], self._sent[places[0] + 1 :]
            self._sent = [sent for sent in before if sent.asks] + after

    def again(self) -> list[LiveEvent]:
        """What to send on another connection."""
        for sent in self._sent:
            sent.repeated = sent.asks
        return [sent.event for sent in self._sent]

    def begin(self, start: ResponseStart) -> Sent | None:
        """The request that an answer is for, if it is one of ours.

        It is the one that the answer names. Of a server that never names one, it is the oldest
        without an answer; where none is without, the oldest that had to be sent again: its answer
        began anew. An answer that began earlier is for none that was not sent before it was lost.
        """
        known = start.request_id
        found = self._named(start)
        if found is None and not self._names:
            asked = [sent for sent in self._sent if sent.asks]
            asked = [sent for sent in asked if sent.repeated or not start.resumed]
            found = next((sent for sent in asked if sent.answer is _NONE), None) or next(
                (sent for sent in asked if sent.repeated), None
            )
        self._error_follows = False
        if found is not None:
            self._drop(found)
            found.answer, found.repeated = known, False
            self._answers[known] = found
        return found

    def end(self, event: ResponseEnd) -> Sent | None:
        """The answer has ended: its request, all before it, and what interrupted it are done."""
        found = self._answers.pop(event.request_id, None) or self._named(event)
        if found is None or found not in self._sent:
            return found
        place = self._sent.index(found)
        before, after = self._sent[:place], self._sent[place + 1 :]
        while after and isinstance(after[0].event, UserInterrupt):
            del after[0]
        self._sent = [sent for sent in before if sent.asks] + after
        return found

    def _named(self, event: ResponseStart | ResponseEnd) -> Sent | None:
        """The request of ours that an event of an answer names, or that has the answer already."""
        name = request_of(event)
        self._names = self._names or name is not None
        known = event.request_id if name is None else None
        if known is not None and known in self._answers:
            return self._answers[known]
        return self._asked(name or known)

    def _asked(self, name: str | None) -> Sent | None:
        """The request with an id."""
        return next((s for s in self._sent if s.asks and s.event.id == name and name), None)

    def _drop(self, sent: Sent) -> None:
        """The answer that it has is no longer for it."""
        if self._answers.get(sent.answer) is sent:
            del self._answers[sent.answer]

    def hear(self, event: LiveEvent) -> None:
        """Hand what belongs to an answer to whoever waits for it."""
        if isinstance(event, ResponseStart):
            sent = self.begin(event)
        elif isinstance(event, ResponseChunk):
            sent = self._answers.get(event.request_id)
        elif isinstance(event, ResponseEnd):
            sent = self.end(event)
        elif isinstance(event, AgentErrorEvent):
            sent = self._failed(event)
        else:
            return
        if sent is not None and sent.answer_to is not None:
            if isinstance(event, ResponseEnd):
                self._error_follows = event.discarded and not sent.answer_to.over
            sent.answer_to.take(event)

    def _failed(self, error: AgentErrorEvent) -> Sent | None:
        """What an error is about: the answer that it names.

        A fatal one that names none is about an answer that has begun, or one that was to begin. It
        may also come behind the end of the answer that failed, and then it is about none.
        """
        named = error.payload.get("request_id")
        if isinstance(named, str):
            return self._answers.get(named) or self._asked(named)
        if error.severity != "fatal":
            return None
        waiting = [sent for sent in self._sent if sent.answer_to is not None]
        begun = next((sent for sent in waiting if sent.answer is not _NONE), None)
        follows, self._error_follows = self._error_follows and begun is None, False
        if begun is not None or follows or not waiting:
            return begun
        self._sent.remove(waiting[0])  # it will have no answer
        return waiting[0]

    def forget(self, answer: Answer) -> None:
        """Nobody waits for this answer any more."""
        for sent in self._sent:
            if sent.answer_to is answer:
                sent.answer_to = None

    def fail(self, error: LiveError) -> None:
        """No answer will come."""
        for sent in self._sent:
            if sent.answer_to is not None:
                sent.answer_to.fail(error)
