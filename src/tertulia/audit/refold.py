"""Folding a log again, to compare what a store keeps beside it with what it should be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol, cast

import msgspec

from tertulia import events
from tertulia.audit.chain import ChainChecker, Verification
from tertulia.codec import decode
from tertulia.errors import StoreCorrupt
from tertulia.events import Record
from tertulia.usage import Usage

_CLOSING: Final = frozenset(
    (
        events.TURN_COMPLETED,
        events.TURN_FAILED,
        events.TURN_INTERRUPTED,
        events.TURN_ABANDONED,
    )
)


class RowFacts(Protocol):
    """What a session's row says about its log; `SessionRow` does."""

    @property
    def seq(self) -> int:
        """The position of the newest event."""
        ...

    @property
    def digest(self) -> bytes:
        """The digest of the newest event."""
        ...

    @property
    def open_turn(self) -> int | None:
        """The position that opened the running turn."""
        ...

    @property
    def open_calls(self) -> tuple[str, ...]:
        """Tool calls without a result."""
        ...

    @property
    def usage(self) -> Usage:
        """What the model requests consumed."""
        ...

    @property
    def status(self) -> str:
        """`open`, `ended`, `moved` or `deleted`."""
        ...


class Refold:
    """What the row of a session and its state index should say, from the session's own events.

    Feed it the records in the order of the log, from the first one after its base. `state` has
    the position of the newest event for each key of session state, of turns that were kept.
    `problem` is the first event that cannot have been written by a correct writer.
    """

    def __init__(self, digest: bytes, seq: int = 0) -> None:
        self.seq = seq
        self.digest = digest
        self.open_turn: int | None = None
        self.ended = False
        self.usage: Usage | None = Usage()
        """None where that is unknown, because a body was erased."""
        self.state: dict[str, int] = {}
        self.problem: tuple[int, str] | None = None
        self._calls: tuple[str, ...] | None = ()
        """None where an erased message may have had calls."""
        self._group: int | None = None
        self._in_turn: dict[str, int] = {}
        self._erased_state: set[int] = set()

    @property
    def open_calls(self) -> tuple[str, ...] | None:
        """Tool calls without a result; None where that is unknown, because a body was erased."""
        return self._calls

    def feed(self, record: Record) -> bool:
        """Fold one more record; False from the first one on that does not fit."""
        if self.problem is not None:
            return False
        self.seq, self.digest = record.seq, record.digest
        try:
            body = None if record.body is None else decode(record.body, f"event {record.seq}")
        except StoreCorrupt as error:
            return self._refuse(record, str(error))
        if body is not None and not isinstance(body, dict):
            return self._refuse(record, f"the body of event {record.seq} is no object")
        return (
            self._fold_turn(record)
            and self._fold_body(record, cast("dict[str, Any] | None", body))
            and self._fold_end(record, cast("dict[str, Any]", body or {}))
        )

    def differs(self, row: RowFacts) -> str | None:
        """The first thing in a row that is not what the log says, or None."""
        facts: list[tuple[str, Any, Any]] = [
            ("seq", self.seq, row.seq),
            ("digest", self.digest.hex(), row.digest.hex()),
            ("open_turn", self.open_turn, row.open_turn),
        ]
        if row.status != "moved":
            facts.append(("status", "ended" if self.ended else "open", row.status))
        if self.usage is not None:
            facts.append(("usage", self.usage, row.usage))
        if self._calls is not None:
            facts.append(("open_calls", self._calls, tuple(row.open_calls)))
        for name, folded, stored in facts:
            if folded != stored:
                return f"the row says {name} {stored!r}, and the log gives {folded!r}"
        return None

    def state_differs(self, stored: Iterable[tuple[str, int]]) -> str | None:
        """The first entry of the state index (own events only) that the log does not give."""
        index = dict(stored)
        for key, seq in sorted(index.items()):
            if self.state.get(key) != seq and seq not in self._erased_state:
                return (
                    f"the state index has {key!r} at {seq}, and the log gives "
                    f"{self.state.get(key, 'nothing')}"
                )
        missing = sorted(set(self.state) - set(index))
        return f"the state index has no entry for {missing[0]!r}" if missing else None

    def _fold_turn(self, record: Record) -> bool:
        opens = record.type == events.TURN_STARTED
        if self.open_turn is not None and (opens or record.turn != self.open_turn):
            return self._refuse(
                record, f"event {record.seq} lies inside the turn that began at {self.open_turn}"
            )
        if self.open_turn is None:
            own = record.turn == record.seq or self._calls is None or record.turn == self._group
            if not own or record.type in _CLOSING:
                return self._refuse(
                    record, f"event {record.seq} belongs to turn {record.turn}, which is not open"
                )
        if opens:
            self.open_turn = record.seq
        return True

    def _fold_body(self, record: Record, body: Mapping[str, Any] | None) -> bool:
        if record.type == events.MESSAGE_ADDED:
            return self._fold_message(record, body)
        if record.type == events.USAGE:
            spent = self.usage
            self.usage = None if body is None or spent is None else spent.noted(body)
        if record.type in (events.STATE_SET, events.STATE_DELETED):
            if body is None:
                self._erased_state.add(record.seq)
            elif body.get("scope", "session") == "session":
                target = self.state if self.open_turn is None else self._in_turn
                target[str(body.get("key"))] = record.seq
        return True

    def _fold_message(self, record: Record, body: Mapping[str, Any] | None) -> bool:
        if body is None:
            self._calls, self._group = None, None
            return True
        if body.get("role") == "tool":
            return self._fold_result(record, str(body.get("tool_call_id")))
        if self._calls:
            return self._refuse(
                record, f"event {record.seq} parts the tool call {self._calls[0]!r} from its result"
            )
        self._calls = tuple(str(call.get("id")) for call in body.get("tool_calls") or ())
        self._group = record.turn if self._calls else None
        return True

    def _fold_result(self, record: Record, call_id: str) -> bool:
        if self._calls is None:
            return True
        if call_id not in self._calls:
            return self._refuse(
                record, f"event {record.seq} answers the tool call {call_id!r}, which is not open"
            )
        self._calls = tuple(other for other in self._calls if other != call_id)
        self._group = self._group if self._calls else None
        return True

    def _fold_end(self, record: Record, body: Mapping[str, Any]) -> bool:
        if record.type in _CLOSING:
            if body.get("outcome", _OUTCOMES[record.type]) != "hidden":
                self.state.update(self._in_turn)
            self._in_turn = {}
            self.open_turn, self._calls, self._group = None, (), None
        elif record.type == events.SESSION_REWOUND:
            self._calls, self._group = (), None
        elif record.type == events.SESSION_ENDED:
            self.ended = True
        elif record.type == events.SESSION_REOPENED:
            self.ended = False
        return True

    def _refuse(self, record: Record, reason: str) -> bool:
        self.problem = (record.seq, reason)
        return False


_OUTCOMES: Final = {
    events.TURN_COMPLETED: "kept",
    events.TURN_INTERRUPTED: "kept",
    events.TURN_FAILED: "hidden",
    events.TURN_ABANDONED: "hidden",
}
"""What became of a turn whose closing event does not say it."""


def verdict(
    chain: ChainChecker,
    fold: Refold,
    row: RowFacts,
    state: Iterable[tuple[str, int]] | None = None,
) -> Verification:
    """The first thing that does not fit: in the chain, in the events, in the row, in the index."""
    found = chain.finish()
    if not found:
        return found
    if fold.problem is not None:
        return _failed(found, *fold.problem)
    found = chain.finish(row.seq, row.digest)
    reason = found.reason or fold.differs(row)
    if reason is None and state is not None:
        reason = fold.state_differs(state)
    return found if reason is None else _failed(found, found.first_bad, reason)


def _failed(found: Verification, seq: int | None, reason: str) -> Verification:
    return msgspec.structs.replace(found, ok=False, first_bad=seq, reason=reason)
