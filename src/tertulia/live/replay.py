"""What a client missed: events of the log, as the client would have seen them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from tertulia import events as facts
from tertulia import following
from tertulia.codec import event_of
from tertulia.events import Event
from tertulia.live.ends import ENDS, end_event, nature_of, turn_of
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
NOTHING: Mapping[str, Any] = MappingProxyType({})


class Replay:
    """Reads the log of a conversation from a position on, a page at a time."""

    def __init__(self, session: Session, after: int) -> None:
        self._session = session
        self._after = after
        self.position = after
        """The log was read up to here."""
        self.given: set[str] = set()
        """The ids of the answers that were given whole."""
        self._requests: dict[int, str | None] = {}

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
        if event.type in ENDS:
            return await self._turn(event)
        if body is None:
            return ()
        if event.type == facts.MESSAGE_ADDED:
            return self._message(event, body)
        if event.type == facts.LIVE_SENT:
            return await self._sent(event, body)
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
            return ()  # of a turn, whose end gives all of it
        metadata: dict[str, Any] = body.get("metadata") or {}
        request_id: str = live.get("request_id") or f"message-{event.seq}"
        cut = bool(metadata.get("interrupted"))
        end = ResponseEnd(request_id=request_id, interrupted=cut)
        return self._answer(end, text, event, live.get("request") or live.get("request_id"))

    async def _sent(self, event: Event, body: dict[str, Any]) -> Iterable[LiveEvent]:
        told = _sent(event, body)
        end = told[0] if told else None
        if not isinstance(end, ResponseEnd):
            return told
        if "turn" in body:
            return await self._of_turn(event, end)
        message: dict[str, Any] = body.get("message") or {}
        asked = (end.metadata or {}).get("request") or end.request_id
        return self._answer(end, _text(message), event, asked)

    async def _turn(self, event: Event) -> Iterable[LiveEvent]:
        """A turn has ended: its answer, unless a node gives it, which says when it has."""
        if await self._request(event.turn) is not None:
            return ()
        return await self._of_turn(event, end_event(event))

    async def _of_turn(self, event: Event, end: ResponseEnd) -> Iterable[LiveEvent]:
        """The whole answer of a turn, with its end at the position of `event`."""
        turn = turn_of(end.request_id) or event.turn
        asked: Any = (end.metadata or {}).get("request")
        request: str | None = asked if asked is not None else await self._request(turn)
        found = await self._read(turn - 1, PAGE, [facts.MESSAGE_ADDED])
        said = [each.body or {} for each in found if each.turn == turn and each.seq <= event.seq]
        given = [body for body in said if body.get("role") == "assistant"]
        if end.discarded or not given:
            return self._answer(end, "", event, request)
        text = "".join(_text(body) for body in given)
        return self._answer(end, text, event, request, nature_of(given[-1].get("metadata")))

    async def _request(self, turn: int) -> str | None:
        """The id of the request that a node answers in a turn."""
        if turn not in self._requests:
            found = await self._read(turn - 1, 1)
            self._requests[turn] = live_of(found[0].body).get("request") if found else None
        return self._requests[turn]

    def _answer(
        self,
        end: ResponseEnd,
        text: str,
        event: Event,
        request: str | None,
        nature: Mapping[str, Any] = NOTHING,
    ) -> Iterable[LiveEvent]:
        request_id = end.request_id or ""
        self.given.add(request_id)
        metadata = None if request is None else {"request": request}
        time = event.timestamp
        yield ResponseStart(request_id=request_id, resumed=True, metadata=metadata, timestamp=time)
        if text:
            yield ResponseChunk(text=text, request_id=request_id, offset=0, timestamp=time)
        told = {**(metadata or {}), **nature} or None
        yield msgspec.structs.replace(end, seq=event.seq, metadata=told, timestamp=time)


async def request_in(session: Session, turn: int) -> str | None:
    """The id of the request that is answered in a turn."""
    found = await session.events(since=turn, types=[facts.TURN_STARTED])
    return next((live_of(each.body).get("request") for each in found if each.turn == turn), None)


async def said_in(session: Session, turn: int) -> list[str]:
    """What an agent has said in a turn that is open, without its last message."""
    found = await session.events(since=turn, types=[facts.MESSAGE_ADDED])
    bodies = [event.body or {} for event in found if event.turn == turn]
    texts = [_text(body) for body in bodies if body.get("role") == "assistant"]
    return [text for text in texts if text]


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
