"""What a client missed: events of the log, as the client would have seen them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from tertulia import events as facts
from tertulia import following
from tertulia.codec import event_of
from tertulia.events import Event
from tertulia.live.scribe import live_of
from tertulia.session import Session
from tertulia.wire.events import (
    AgentErrorEvent,
    AgentSpeak,
    LiveEvent,
    ResponseChunk,
    ResponseEnd,
    ResponseStart,
    TranscriptUpdate,
    event_types,
)

PAGE = 200
_ENDS = {
    facts.TURN_COMPLETED: (False, False),
    facts.TURN_INTERRUPTED: (True, False),
    facts.TURN_FAILED: (True, True),
    facts.TURN_ABANDONED: (True, True),
}
"""How a turn ended: whether its answer was cut off, and whether it is no part of the history."""


def request_id_of(turn: int) -> str:
    """The id of the answer that an agent gives in a turn."""
    return f"turn-{turn}"


class Replay:
    """Reads the log of a conversation from a position on, a page at a time."""

    def __init__(self, session: Session, after: int) -> None:
        self._session = session
        self._after = after
        self.position = after
        """The log was read up to here."""
        self.given: set[str] = set()
        """The ids of the answers that were given whole."""
        self._texts: dict[int, list[str]] = {}

    async def page(self) -> list[LiveEvent]:
        """The next events for the client; `position` tells how far the log was read."""
        shown: list[LiveEvent] = []
        for event in await self._read(self.position, PAGE):
            shown.extend(await self._shown(event))
            self.position = event.seq
        return [self._stamped(each) for each in shown]

    async def _read(self, after: int, limit: int, types: list[str] | None = None) -> list[Event]:
        row = await self._session._row()  # pyright: ignore[reportPrivateUsage]
        if row is None:
            return []
        store = self._session._host.store  # pyright: ignore[reportPrivateUsage]
        segments = following.clip(await following.log(store, row), after)
        records = await store.records(segments, limit, types=types)
        return [event_of(record, row.id) for record in records]

    def _stamped(self, event: LiveEvent) -> LiveEvent:
        return msgspec.structs.replace(event, session_id=self._session.id, direction="out")

    async def _shown(self, event: Event) -> Iterable[LiveEvent]:
        body = event.body
        if event.type in _ENDS:
            return await self._turn(event)
        if body is None:
            return ()
        if event.type == facts.MESSAGE_ADDED:
            return self._message(event, body)
        if event.type == facts.LIVE_SENT:
            return self._sent(event, body)
        if event.type == facts.LIVE_RECEIVED and "message" in body:
            return _sent(event, body)
        return ()

    def _message(self, event: Event, body: dict[str, Any]) -> Iterable[LiveEvent]:
        live, role = live_of(body), body.get("role")
        if "of" in live or "corrects" in live:
            return ()
        text = _text(body)
        if role == "user":
            return [
                TranscriptUpdate(
                    role="user",
                    content=text,
                    id=live.get("id"),
                    seq=event.seq,
                    timestamp=event.timestamp,
                )
            ]
        if role != "assistant":
            return ()
        if "speak" in live:
            return [
                AgentSpeak(text=text, id=live["speak"], seq=event.seq, timestamp=event.timestamp)
            ]
        if event.turn != event.seq:
            self._texts.setdefault(event.turn, []).append(text)
            return ()
        metadata: dict[str, Any] = body.get("metadata") or {}
        cut = bool(metadata.get("interrupted"))
        return self._answer(live.get("request_id") or f"message-{event.seq}", text, event, cut)

    def _sent(self, event: Event, body: dict[str, Any]) -> Iterable[LiveEvent]:
        told = _sent(event, body)
        message: dict[str, Any] | None = body.get("message")
        if message is None or not told or not isinstance(told[0], ResponseEnd):
            return told
        end = told[0]
        return self._answer(end.request_id or "", _text(message), event, end.interrupted)

    async def _turn(self, event: Event) -> Iterable[LiveEvent]:
        texts = self._texts.pop(event.turn, [])
        if event.turn <= self._after:
            texts = [*await self._before(event.turn), *texts]
        cut, dropped = _ENDS[event.type]
        text = "" if dropped else "".join(texts)
        return self._answer(request_id_of(event.turn), text, event, cut, dropped)

    async def _before(self, turn: int) -> list[str]:
        """What an answer said in a turn up to where the client left."""
        found = await self._read(turn - 1, PAGE, [facts.MESSAGE_ADDED])
        said = [event for event in found if event.turn == turn and event.seq <= self._after]
        bodies = [event.body or {} for event in said]
        return [_text(body) for body in bodies if body.get("role") == "assistant"]

    def _answer(
        self,
        request_id: str,
        text: str,
        event: Event,
        cut: bool,
        dropped: bool = False,
    ) -> Iterable[LiveEvent]:
        self.given.add(request_id)
        yield ResponseStart(request_id=request_id, resumed=True, timestamp=event.timestamp)
        if text:
            yield ResponseChunk(
                text=text, request_id=request_id, offset=0, timestamp=event.timestamp
            )
        yield ResponseEnd(
            request_id=request_id,
            interrupted=cut,
            discarded=dropped,
            seq=event.seq,
            timestamp=event.timestamp,
        )


async def said_in(session: Session, turn: int) -> list[str]:
    """What an agent has said in a turn that is open, without its last message."""
    found = await session.events(since=turn, types=[facts.MESSAGE_ADDED])
    bodies = [event.body or {} for event in found if event.turn == turn]
    texts = [_text(body) for body in bodies if body.get("role") == "assistant"]
    return [text for text in texts if text]


async def end_of(session: Session, turn: int) -> Event | None:
    """How and where a turn ended, if it has."""
    found = await session.events(since=turn, types=list(_ENDS))
    return next((event for event in found if event.turn == turn), None)


def _text(body: dict[str, Any]) -> str:
    content = body.get("content")
    if isinstance(content, str):
        return content
    parts: list[dict[str, Any]] = content or []
    return "".join(str(part.get("text", "")) for part in parts if part.get("type") == "text")


def _sent(event: Event, body: dict[str, Any]) -> list[LiveEvent]:
    """An event that was logged as it is."""
    fields: dict[str, Any] = body.get("event") or {}
    made = event_types().get(str(fields.get("type")))
    if made is None:
        return []  # of an application that is not loaded any more
    try:
        told = msgspec.convert(fields, made)
    except msgspec.ValidationError as error:
        said = f"event {event.seq} is no {made.type} any more: {error}"
        payload = {"code": "cannot_be_read"}
        return [AgentErrorEvent(message=said, payload=payload, seq=event.seq)]
    return [msgspec.structs.replace(told, seq=event.seq, timestamp=event.timestamp)]
