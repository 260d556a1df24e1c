"""A change in the making: events with their place in the chain, and what goes with them.

Here the invariant of the storage is kept that tool calls and their results are never parted: a
result is accepted only for a call that is open, and whatever else comes while calls are open
closes them first, with results that say that the outcome is unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import msgspec

from tertulia import events, telemetry
from tertulia.codec import encode, stamped
from tertulia.errors import InvalidMessage
from tertulia.events import Record
from tertulia.messages import Message, parse
from tertulia.stores.base import (
    Branch,
    Change,
    LogStore,
    Mark,
    Request,
    SessionRow,
    SharedWrite,
)

OUTCOME_UNKNOWN = "The outcome of this call is unknown: it was cut off before it answered."

_ACTORS: dict[str, str] = {
    "user": "user",
    "assistant": "agent",
    "tool": "tool",
    "system": "app",
    "developer": "app",
}


NOT_RUN = "This call did not run: nobody approved it."


def unknown_result(call_id: str) -> Message:
    """The typed result of a call that never answered."""
    return _typed_result(call_id, OUTCOME_UNKNOWN, "unknown")


def _typed_result(call_id: str, text: str, outcome: str) -> Message:
    return parse(
        {
            "role": "tool",
            "tool_call_id": call_id,
            "content": text,
            "metadata": {"outcome": outcome},
        }
    )


class Draft:
    """Collects what one commit will do to one session; `change` is what the store applies.

    `turn` is the number of the running turn that the events belong to; without it each event is
    a turn of its own, but for the results of tool calls, which belong to the turn of their calls:
    `group` is the number of that turn where the row has calls open.
    """

    def __init__(
        self,
        row: SessionRow,
        *,
        now: int,
        salt: Callable[[], bytes],
        turn: int | None = None,
        group: int | None = None,
        create: bool = False,
    ) -> None:
        self.row = row
        self.now = now
        self.turn = turn
        self.group = group
        self.records: list[Record] = []
        self.messages: list[Message] = []
        self.marks: list[Mark] = []
        self.state: list[tuple[str, int]] = []
        self.shared: list[SharedWrite] = []
        self.take: list[int] = []
        self.writes: list[Any] = []
        """The queued state writes that this change carries out."""
        self.request: Request | None = None
        self.branch: Branch | None = None
        self.extend_cut: tuple[int, int] | None = None
        self.after: dict[str, Any] = {}
        self.create = create
        self.quiet = False
        """Housekeeping: it is no activity, from which retention counts."""
        self._salt = salt
        self._digest = row.digest
        self.seq = row.seq
        self.open_calls = row.open_calls
        self.added = 0
        self.uncounted = 0
        """Messages of this change that count in the view, whatever it had before."""
        self.usage = row.usage
        """What the model requests of the session will have consumed."""
        self.visible = row.visible
        """How many messages the view will have; those of a running turn count at its end."""

    def add(
        self,
        kind: str,
        body: Mapping[str, Any] | bytes,
        *,
        actor: str = "runtime",
    ) -> int:
        """Append an event and return its position. Raises InvalidInput for a body too large."""
        if kind == events.USAGE and not isinstance(body, bytes):
            self.usage = self.usage.noted(body)
        data = body if isinstance(body, bytes) else encode(body, f"the {kind} event")
        seq = self.seq + 1
        turn = self.turn or self.group or seq
        salt = self._salt()
        header = events.header(self.row.uid, seq, kind, self.now, actor, turn)
        digest = events.link(self._digest, header, events.body_digest(salt, data))
        self.records.append(Record(seq, kind, self.now, actor, turn, data, salt, digest))
        self.seq, self._digest = seq, digest
        return seq

    def message(self, message: Message) -> Message:
        """Append a message and return it as it will be stored.

        Raises InvalidMessage for a tool result whose call is not open.
        """
        if message.role == "tool":
            self._answer(message)
        else:
            self.close_calls()
        seq = self.add(
            events.MESSAGE_ADDED, encode(message, "the message"), actor=_ACTORS[message.role]
        )
        if message.tool_calls:
            self.open_calls = tuple(call.id for call in message.tool_calls)
            self.group = seq
        elif not self.open_calls:
            self.group = None
        self.added += 1
        if self.turn is None:
            self.count(1)
        result = stamped(message, self._digest, seq, self.now)
        self.messages.append(result)
        return result

    def close_calls(self, unstarted: Collection[str] = ()) -> None:
        """Give every call that is still open a result: its outcome is unknown, or it did not run.

        `unstarted` are the calls that are known not to have run.
        """
        for call_id in self.open_calls:
            ran = call_id not in unstarted
            result = unknown_result(call_id) if ran else _typed_result(call_id, NOT_RUN, "not run")
            self.message(result)

    def count(self, messages: int) -> None:
        """So many messages more are in the view."""
        self.uncounted += messages
        if self.visible >= 0:
            self.visible += messages

    def remember(self, key: str, seq: int) -> None:
        """Index an event as the newest value of a key of session state."""
        self.state.append((key, seq))

    def change(self) -> Change:
        """The change, with the row as it will be."""
        after = msgspec.structs.replace(
            self.row,
            seq=self.seq,
            digest=self._digest,
            open_calls=self.open_calls,
            visible=self.visible,
            usage=self.usage,
            active=self.row.active if self.quiet else self.now,
            **self.after,
        )
        return Change(
            before=self.row,
            after=after,
            records=self.records,
            create=self.create,
            branch=self.branch,
            marks=self.marks,
            extend_cut=self.extend_cut,
            state=self.state,
            shared=self.shared,
            take=self.take,
            request=self.request,
        )

    def _answer(self, message: Message) -> None:
        call_id = message.tool_call_id or ""
        if call_id not in self.open_calls:
            known = f"open calls: {', '.join(self.open_calls)}" if self.open_calls else "none is"
            raise InvalidMessage(
                f"no tool call {call_id!r} is open ({known}); "
                "add the assistant message that calls it first"
            )
        self.open_calls = tuple(other for other in self.open_calls if other != call_id)


async def commit(store: LogStore, draft: Draft) -> SessionRow:
    """Let a store apply what a turn drafted; raises as `LogStore.commit`."""
    told = {"conversation": draft.row.id, "events": len(draft.records)}
    with telemetry.span("commit", told):
        return await store.commit(draft.change())


def messages_of(values: Iterable[Mapping[str, Any] | Message]) -> list[Message]:
    """Messages, checked one by one; raises InvalidMessage before anything is written."""
    if not isinstance(values, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidMessage(f"messages must be a list of them, not a {type(values).__name__}")
    return [parse(value) for value in values]
