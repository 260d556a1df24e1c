"""What a live session writes into its log, with no code of the user's.

What was said becomes a message of the conversation. While a turn runs, nothing may come between
what it writes: what is said then is logged at once (`live.received`, `live.sent`), and becomes a
message when the turn has ended.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import msgspec

from tertulia import events as facts
from tertulia.branching import permit
from tertulia.conversation import USUAL, Conversation, How
from tertulia.drafting import Draft
from tertulia.errors import (
    AgentError,
    ApprovalPending,
    InvalidInput,
    RetentionRefused,
    SessionNotFound,
    StaleWriter,
    TurnTimeout,
    UsageError,
)
from tertulia.events import Event
from tertulia.live.ends import end_event, end_of
from tertulia.messages import Message, parse
from tertulia.scoped import StateWrite
from tertulia.scopes import check_value
from tertulia.session import Session
from tertulia.stores.base import Mark
from tertulia.turns import Turn
from tertulia.view import HOLES
from tertulia.wire.events import LiveEvent

T = TypeVar("T")

_log = logging.getLogger("tertulia.live")
_KEEPING = How(suspended="keep")
_LOOK_AGAIN = 0.01
"""Seconds to wait for the session before looking whether a turn has begun meanwhile."""
_BASE = frozenset(LiveEvent.__struct_fields__)
CONTEXT_KEY = "live.context"
"""The key of session state that keeps the context."""
_LOOK_BACK_FACTS = 200
"""Facts among which `recover` looks for what a process left undone."""
_LOOKED_AT = (
    facts.LIVE_RECEIVED,
    facts.LIVE_SENT,
    facts.LIVE_CONTEXT,
    facts.MESSAGE_ADDED,
    facts.TURN_STARTED,
    facts.STATE_SET,
)
_LOOK_BACK = 8
"""Messages among which an answer is looked for that the client corrects."""


class Said(msgspec.Struct, frozen=True):
    """An event for the log; with a message, if it is one."""

    event: LiveEvent
    message: Message | None = None
    heard: str | None = None
    """It is no message, but what the client heard of the last answer."""
    turn: int | None = None
    """It is the end of the answer that an agent gave in this turn."""
    context: StateWrite | None = None
    """It is no message, but the context as it is now."""


class Scribe:
    """Writes the log of one live session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._conversation: Conversation = session._conversation  # pyright: ignore[reportPrivateUsage]
        self._one_at_a_time = asyncio.Lock()
        self.context: dict[str, Any] | None = None
        """What `recover` found of the context that is newer than the state."""
        self._exists = False
        self._paid = 0
        self._owed: list[Said] = []
        """What was said in a turn, and is yet to become a message."""
        self._settling: asyncio.Task[None] | None = None
        self._stopped: str | None = None

    def stop(self, reason: str) -> None:
        """Write nothing more, and ask the turn that runs to stop. Whoever wants something written
        gets StaleWriter."""
        self._stopped = reason
        self._owed.clear()
        turn: Turn | None = self._conversation.turn
        if turn is not None:
            turn.request_stop(reason)

    async def note(self, kind: str, body: dict[str, Any]) -> int:
        """Log a fact about the connection, and return its position.

        A turn that a dead process left open stays as it is, so that it can be resumed.
        """

        async def build(draft: Draft) -> int:
            return draft.add(kind, body)

        return await self._append(build, _KEEPING)

    async def write(self, said: Sequence[Said], direction: str) -> list[int]:
        """Log what was said, in one commit; the position of each.

        Raises as `send_message`, and SessionNotFound once the session was deleted.
        """
        kind = facts.LIVE_RECEIVED if direction == "in" else facts.LIVE_SENT
        owed: list[Said] = []

        async def build(draft: Draft) -> list[int]:
            owed.clear()
            await self._pay(draft)
            return [await self._draft(draft, one, kind, owed) for one in said]

        return await self._append(build, owed=owed)

    async def keep_context(self, values: dict[str, Any]) -> None:
        """Keep the context in the state; while a turn runs, in the log until it has ended."""
        write = StateWrite("session", CONTEXT_KEY, check_value(values, CONTEXT_KEY)[1])
        owed: list[Said] = []

        async def build(draft: Draft) -> None:
            owed.clear()
            await self._pay(draft)
            if draft.turn is None:
                await write.draft(draft, self._conversation.host.store)
            else:
                draft.add(facts.LIVE_CONTEXT, {"values": values})
                owed.append(Said(LiveEvent(), context=write))

        await self._append(build, owed=owed)

    async def settle(self) -> None:
        """Make messages of what was said in turns that have ended."""
        if self._owed:
            await self._append(self._pay)

    async def recover(self) -> list[tuple[str, bool]]:
        """Find what was said in turns of a process that died, before it became a message.

        Returns the ids of the client's newest events, oldest first, and whether they are in the
        log; of requests for an answer only the turn is.
        """
        started = await self._session.events(limit=1, types=[facts.TURN_STARTED])
        told = await self._session.events(limit=_LOOK_BACK_FACTS, types=_LOOKED_AT)
        if started and told and started[0].seq < told[0].seq:
            told = await self._session.events(since=started[0].seq, types=_LOOKED_AT)
        paid = {live_of(event.body).get("of") for event in told}
        for event in told:
            body = event.body or {}
            if event.type != facts.MESSAGE_ADDED and "message" in body and event.seq not in paid:
                message = msgspec.convert(body["message"], Message)
                self._owed.append(Said(LiveEvent(seq=event.seq), message))
            elif event.type == facts.LIVE_CONTEXT and body:
                self.context = body["values"]
            elif event.type == facts.STATE_SET and body.get("key") == CONTEXT_KEY:
                self.context = None
        await self._append(self._pay, _KEEPING)
        await self._end_answers(told)
        said = [(_id_of(e.body), e.type) for e in told if e.type != facts.LIVE_SENT]
        return [(each, kind != facts.TURN_STARTED) for each, kind in said if each is not None]

    async def _end_answers(self, told: Sequence[Event]) -> None:
        """Give the answers of turns their end, where a process died between the two, or another
        closed the turn that it had left."""
        given = {(event.body or {}).get("turn") for event in told}
        said: list[Said] = []
        for event in told:
            asked = event.type == facts.TURN_STARTED and "request" in live_of(event.body)
            if not asked or event.turn in given:
                continue
            ended = await end_of(self._session, event.turn)
            if ended is not None:
                said.append(Said(end_event(ended), turn=event.turn))
        if said:
            await self.write(said, "out")

    async def close(self) -> None:
        """Settle what is owed, as far as no turn is in the way."""
        turn = self._conversation.turn
        if turn is None or turn.closed:
            await self.settle()
        elif self._settling is not None:
            _outliving.add(self._settling)
            self._settling.add_done_callback(_outliving.discard)

    # -- inside

    async def _append(
        self,
        build: Callable[[Draft], Awaitable[T]],
        how: How | None = None,
        owed: Sequence[Said] = (),
    ) -> T:
        """Commit in the turn that runs here, or by itself where none does.

        What was submitted is carried out, also where the caller is cancelled meanwhile.
        """

        async def append() -> T:
            async with self._one_at_a_time:
                self._paid = 0
                result = await self._appended(build, how)
                del self._owed[: self._paid]
                self._owe(owed)
                return result

        return await asyncio.shield(asyncio.get_running_loop().create_task(append()))

    def _owe(self, owed: Sequence[Said]) -> None:
        """These are yet to become messages, or the context; of that only the newest counts."""
        if any(said.context is not None for said in owed):
            self._owed = [said for said in self._owed if said.context is None]
        if owed:
            self._owed.extend(owed)
            self.settle_later()

    async def _appended(self, build: Callable[[Draft], Awaitable[T]], how: How | None) -> T:
        conversation = self._conversation
        while True:
            if self._stopped is not None:
                raise StaleWriter(self._stopped, session_id=self._session.id)
            turn: Turn | None = conversation.turn
            if turn is not None and not turn.closed:
                try:
                    return await turn.append(build)
                except UsageError:
                    if not turn.closed:
                        raise
                    continue  # it has ended meanwhile
            try:
                await conversation.enter(_LOOK_AGAIN)
            except TurnTimeout:
                continue  # a turn is about to begin, or another append is under way
            try:
                return await self._commit(build, how)
            finally:
                conversation.gate.leave()

    async def _commit(self, build: Callable[[Draft], Awaitable[T]], how: How | None) -> T:
        opening = self._session._opening  # pyright: ignore[reportPrivateUsage]

        async def build_if_there(draft: Draft) -> T:
            if draft.create and self._exists:
                said = f"session {self._session.id!r} was deleted"
                raise SessionNotFound(said, session_id=self._session.id)
            return await build(draft)

        try:
            result = await self._conversation.commit(opening, build_if_there, how or USUAL)
        except ApprovalPending:
            result = await self._conversation.commit(opening, build_if_there, _KEEPING)
        self._exists = True
        self._session._opened()  # pyright: ignore[reportPrivateUsage]
        return result

    async def _draft(self, draft: Draft, said: Said, kind: str, owed: list[Said]) -> int:
        actor = "user" if said.event.direction == "in" else "agent"
        if draft.turn is not None and (said.message or said.heard is not None):
            body: dict[str, Any] = {"event": _body(said.event)}
            if said.message is not None:
                body["message"] = said.message.to_dict()
            seq = draft.add(kind, body, actor=actor)
            owed.append(msgspec.structs.replace(said, event=LiveEvent(seq=seq)))
            return seq
        if said.message is not None:
            return draft.message(said.message).seq or draft.seq
        if said.heard is not None:
            await self._correct(draft, said.heard)
        body = {"event": _body(said.event)}
        if said.turn is not None:
            body["turn"] = said.turn
        return draft.add(kind, body, actor=actor)

    async def _pay(self, draft: Draft) -> None:
        """Draft the messages that are owed, where no turn is in the way."""
        if draft.turn is not None:
            return
        for said in self._owed:
            if said.message is not None:
                draft.message(_marked(said.message, of=said.event.seq))
            elif said.heard is not None:
                await self._correct(draft, said.heard)
            elif said.context is not None:
                await said.context.draft(draft, self._conversation.host.store)
        self._paid = len(self._owed)

    def settle_later(self) -> None:
        """Settle what is owed when the turn that runs has ended."""
        if not self._owed:
            return
        if self._settling is None or self._settling.done():
            self._settling = asyncio.get_running_loop().create_task(self._settle_after_turn())

    async def _settle_after_turn(self) -> None:
        while self._owed:
            turn = self._conversation.turn
            if turn is not None and not turn.closed:
                await turn.ended.within(None)
            try:
                await self.settle()
            except AgentError as error:
                _log.error("what was said in a turn is not in the history yet", exc_info=error)
                return  # it is in the log, and the next write tries again
            if self._conversation.turn is None:
                return

    async def _correct(self, draft: Draft, heard: str) -> None:
        """Let the history keep what the user really heard of the last answer."""
        view = await self._conversation.view(draft.row)
        newest = await view.messages(_LOOK_BACK)
        later: list[Message] = []
        while newest and newest[-1].role == "user":
            later.insert(0, newest.pop())
        answer = newest[-1] if newest else None
        said = [message.text.split() for message in newest if message.role == "assistant"]
        if heard.split() in said:
            return
        if answer is None or answer.role != "assistant" or answer.tool_calls:
            return
        if draft.messages or not self._may_hide(draft):
            return
        hidden = 1 + len(later)
        low = (answer.seq or 1) - 1
        body = {"strategy": "heard", "hidden": hidden, "stretches": [(low, draft.seq)]}
        seq = draft.add(facts.SESSION_PRUNED, body)
        draft.marks.append(Mark("hole", low, seq - 1, seq))
        draft.after["marks"] = draft.after.get("marks", draft.row.marks) | HOLES
        draft.count(-hidden)
        if heard:
            draft.message(_again(answer, heard))
        for message in later:
            draft.message(_again(message, message.text))

    def _may_hide(self, draft: Draft) -> bool:
        try:
            permit(self._conversation, draft.row, "prune", draft.now)
        except RetentionRefused:
            return False  # the log has what the client said, and the history what was generated
        return True


_outliving: set[asyncio.Task[None]] = set()
"""What waits for the end of a turn that runs on after the end of its live session."""


def live_of(body: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the live session noted in the metadata of a message."""
    metadata: dict[str, Any] = (body or {}).get("metadata") or {}
    found: Any = metadata.get("live")
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _id_of(body: Mapping[str, Any] | None) -> str | None:
    """The id that the client gave an event."""
    event: dict[str, Any] = (body or {}).get("event") or {}
    live = live_of(body)
    found = event.get("id") or live.get("id") or live.get("request") or live.get("request_id")
    return found if isinstance(found, str) else None


def _body(event: LiveEvent) -> dict[str, Any]:
    """An event as the body of a fact: its type, id and own fields."""
    own: dict[str, Any] = {"type": event.type, "id": event.id}
    for name in event.__struct_fields__:
        if name not in _BASE:
            own[name] = _plain(event, name)
    if event.metadata is not None:
        own["metadata"] = event.metadata
    return own


def _plain(event: LiveEvent, name: str) -> Any:
    try:
        return msgspec.to_builtins(getattr(event, name))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{name} of the event {event.type} is no JSON: {error}") from None


def _marked(message: Message, **live: Any) -> Message:
    live = {**live_of({"metadata": message.metadata}), **live}
    metadata = {**(message.metadata or {}), "live": live}
    return msgspec.structs.replace(message, metadata=metadata)


def _again(message: Message, content: str) -> Message:
    """A message that takes the place of an earlier one."""
    made = parse({"role": message.role, "content": content, "agent": message.agent})
    known = {key: value for key, value in (message.metadata or {}).items() if key != "live"}
    if message.role == "assistant":
        known["interrupted"] = True
    live = {**live_of({"metadata": message.metadata}), "corrects": message.seq}
    return msgspec.structs.replace(made, metadata={**known, "live": live})
