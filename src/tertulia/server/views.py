"""What the HTTP API shows: sessions, messages, events and answers as JSON."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from tertulia.agents.response import EventType, HandoffMade, Response, StreamEvent
from tertulia.approvals import Approval
from tertulia.clock import to_iso
from tertulia.events import Event
from tertulia.messages import Content, Message, Role, ToolCall
from tertulia.runtime import SessionInfo
from tertulia.server.problems import ErrorShown
from tertulia.server.problems import shown as error_shown
from tertulia.stores.base import Receipt, SessionRow
from tertulia.usage import Usage

Status = Literal["open", "ended", "moved", "deleted"]

REFUSED = {"policy": ("message", "text"), "rescue": ("message", "text", "reason")}
"""Where events carry what a swarm has kept from its client, by their sources."""


class SessionShown(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a listing. `seq` is the position of the newest event; times are ISO 8601."""

    id: str
    app_name: str | None
    user_id: str | None
    status: Status
    messages: int
    """How many are visible; -1 when that is not known without counting."""
    created: str
    active: str
    metadata: dict[str, Any]
    seq: int
    running: bool
    """Whether a turn is open."""
    suspended: bool
    """Whether it waits for a person to approve a tool call."""


class SessionDetail(SessionShown, frozen=True, kw_only=True):
    """A session as it stands."""

    system: str | None
    retention: dict[str, Any] | None
    hold: str | None
    """Why there is a legal hold on it; None where there is none."""
    usage: Usage
    floor: str | None
    """The agent that answers next."""
    pending: list[Approval]
    """The tool calls that wait for a person."""


class SessionPage(msgspec.Struct, frozen=True):
    """A page of sessions; `next` is the `after` of the page that follows, None at the end."""

    sessions: list[SessionShown]
    next: int | None


class MessageShown(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message as it is stored; fields that it does not have are left out."""

    role: Role
    content: Content = ""
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    name: str | None = None
    agent: str | None = None
    metadata: dict[str, Any] | None = None
    id: str | None = None
    seq: int | None = None
    timestamp: str | None = None


class MessagePage(msgspec.Struct, frozen=True):
    """Messages, oldest first; `before` gives the page before this one, None at the beginning."""

    messages: list[MessageShown]
    before: int | None


class MessagesStored(msgspec.Struct, frozen=True):
    """Messages as they are stored now."""

    messages: list[MessageShown]


class EventShown(msgspec.Struct, frozen=True):
    """One fact of the log; `body` is None after erasure, `turn` the seq that opened its turn."""

    session_id: str
    seq: int
    type: str
    timestamp: str
    actor: str
    turn: int
    body: dict[str, Any] | None
    digest: str


class EventPage(msgspec.Struct, frozen=True):
    """Events of the log, oldest first."""

    events: list[EventShown]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of a turn. `latency` is in seconds; with `pending` calls it is none yet."""

    text: str
    output: Any
    messages: list[MessageShown]
    """All that the turn added, the request first."""
    tool_calls: list[ToolCall]
    usage: Usage
    turn: int
    latency: float
    agent: str | None
    pending: list[Approval]


class TurnEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that happens in a turn; which fields it has depends on its type."""

    type: EventType
    text: str = ""
    call: ToolCall | None = None
    message: MessageShown | None = None
    handoff: HandoffMade | None = None
    usage: Usage | None = None
    response: Answer | None = None
    error: ErrorShown | None = None
    turn: int | None = None


class ReceiptShown(msgspec.Struct, frozen=True):
    """What was removed, when, and what is out of reach."""

    type: str
    timestamp: str
    body: dict[str, Any]


def line(info: SessionInfo) -> SessionShown:
    """One line of a listing."""
    names = SessionShown.__struct_fields__
    return SessionShown(**{name: getattr(info, name) for name in names})


def detail(row: SessionRow, pending: list[Approval]) -> SessionDetail:
    """A session as it stands."""
    details = row.details
    return SessionDetail(
        id=row.id,
        app_name=row.app,
        user_id=row.user,
        status=row.status,
        messages=row.visible,
        created=to_iso(row.created),
        active=to_iso(row.active),
        metadata=details.metadata,
        seq=row.seq,
        running=row.open_turn is not None,
        suspended=row.suspended,
        system=details.system,
        retention=details.retention,
        hold=details.hold,
        usage=row.usage,
        floor=details.agent or None,
        pending=pending,
    )


def message(stored: Message) -> MessageShown:
    """A message as it is stored."""
    fields = {
        name: getattr(stored, name)
        for name in MessageShown.__struct_fields__
        if name != "timestamp"
    }
    time = None if stored.time is None else to_iso(stored.time)
    return MessageShown(timestamp=time, **fields)


def event(fact: Event, *, whole: bool) -> EventShown:
    """One fact of the log; not `whole`: without what a swarm has kept from its client."""
    hidden = () if whole else REFUSED.get(fact.type.partition(".")[0], ())
    body = fact.body
    if hidden and body is not None:
        body = {key: value for key, value in body.items() if key not in hidden}
    return EventShown(
        fact.session_id,
        fact.seq,
        fact.type,
        fact.timestamp,
        fact.actor,
        fact.turn,
        body,
        fact.digest,
    )


def answer(response: Response) -> Answer:
    """The answer of a turn."""
    return Answer(
        text=response.text,
        output=_jsonable(response.output),
        messages=[message(each) for each in response.messages],
        tool_calls=response.tool_calls,
        usage=response.usage,
        turn=response.turn,
        latency=response.latency,
        agent=response.agent,
        pending=response.pending,
    )


def turn_event(happened: StreamEvent) -> TurnEvent:
    """One thing that happens in a turn."""
    return TurnEvent(
        type=happened.type,
        text=happened.text,
        call=happened.call,
        message=None if happened.message is None else message(happened.message),
        handoff=happened.handoff,
        usage=happened.usage,
        response=None if happened.response is None else answer(happened.response),
        error=None if happened.error is None else error_shown(happened.error),
        turn=happened.turn,
    )


def receipt(given: Receipt) -> ReceiptShown:
    """What was removed."""
    return ReceiptShown(given.type, to_iso(given.time), msgspec.json.decode(given.body))


def _jsonable(output: Any) -> Any:
    """A structured answer as JSON values."""
    if output is None or isinstance(output, str):
        return output
    if isinstance(output, msgspec.Struct):
        return msgspec.to_builtins(output)
    from pydantic_core import to_jsonable_python

    return to_jsonable_python(output, fallback=msgspec.to_builtins)
