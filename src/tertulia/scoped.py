"""Scoped state of a session: writes in order, reads that see them at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator
from contextvars import ContextVar
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

import msgspec

from tertulia import scopes
from tertulia.codec import decode, encode
from tertulia.doors import Outcome
from tertulia.drafting import Draft
from tertulia.errors import UsageError
from tertulia.events import STATE_DELETED, STATE_SET, STATE_STAGED, Record
from tertulia.scopes import Scope
from tertulia.stores.base import LogStore, SessionRow, SharedScope, SharedWrite

if TYPE_CHECKING:
    from tertulia.conversation import Conversation

ABSENT: Any = object()
"""What a read gives for a key that is not set."""


class StateWrite:
    """One change of one key, checked, encoded and waiting to be durable."""

    __slots__ = ("expect", "key", "outcome", "said_by", "scope", "staged", "user", "value")

    def __init__(
        self, scope: Scope, key: str, value: bytes | None, expect: int | None = None
    ) -> None:
        self.scope: Scope = scope
        self.key = key
        self.value = value
        self.expect = expect
        """The version of the shared value that this one was made from; None for any."""
        self.user: str | None = None
        """Whose user state it is."""
        self.said_by: str | None = None
        """The user that the writing code said it is."""
        self.staged = False
        """Whether the log of the running turn has it, for whoever takes the turn over."""
        self.outcome: Outcome[None] = Outcome()

    def body(self) -> dict[str, Any]:
        """What its event says: scope, key and, unless it deletes, the value."""
        body: dict[str, Any] = {"scope": self.scope, "key": self.key}
        if self.value is not None:
            body["value"] = msgspec.Raw(self.value)
        return body

    def stage(self, draft: Draft) -> None:
        """Note in the log of a running turn what it will write when it closes."""
        draft.add(STATE_STAGED, encode(self.body(), self.key), actor="tool")

    async def draft(self, draft: Draft, store: LogStore) -> None:
        """Add the event, and the index entry or the shared write that goes with it."""
        kind = STATE_DELETED if self.value is None else STATE_SET
        body = self.body()
        if self.scope == "session":
            draft.remember(self.key, draft.add(kind, encode(body, self.key), actor="app"))
            return
        write = await self._shared(draft, store)
        draft.shared.append(write)
        body["version"] = (write.expect or 0) + 1
        draft.add(kind, encode(body, self.key), actor="app")

    async def _shared(self, draft: Draft, store: LogStore) -> SharedWrite:
        scope, app, user = owner_of(draft.row, self.scope)
        mine = [w for w in draft.shared if (w.scope, w.key) == (scope, self.key)]
        if mine:
            expect = (mine[-1].expect or 0) + 1
        elif self.expect is not None:
            expect = self.expect
        else:
            stored = await store.shared(scope, app, user, self.key)
            expect = stored.version if stored is not None else 0
        return SharedWrite(
            scope=scope, app=app, user=user, key=self.key, value=self.value, expect=expect
        )


def owner_of(row: SessionRow, scope: Scope) -> tuple[SharedScope, str | None, str | None]:
    """Whose shared state a scope means in a session: (scope, app, user). Raises ScopeError."""
    scopes.require_owner(scope, row.user)
    if scope == "user":
        return "user", row.app, row.user
    return "app", row.app, None


def pending_value(writes: Iterator[StateWrite], scope: Scope, key: str) -> Any:
    """The newest of some writes to a key: bytes, None for deleted, or ABSENT."""
    found: Any = ABSENT
    for write in writes:
        if write.scope == scope and write.key == key:
            found = write.value
    return found


def value_of(data: bytes | None, what: str, default: Any) -> Any:
    """The JSON value in stored bytes, anew each time; `default` where it is deleted."""
    return default if data is None else decode(data, what)


class Pending:
    """What `set_state` returns: await it, and the write is durable."""

    __slots__ = ("_flush", "_outcome")

    def __init__(self, outcome: Outcome[None] | None, flush: Callable[[], Awaitable[None]]) -> None:
        self._outcome = outcome
        self._flush = flush

    @property
    def done(self) -> bool:
        """Whether it is durable (or temporary, or part of a turn that will write it)."""
        return self._outcome is None or self._outcome.done

    def __await__(self) -> Generator[Any, Any, None]:
        if not self.done:
            yield from self._flush().__await__()


async def applied(fn: Callable[[Any], Any], value: Any) -> Any:
    """What a function, plain or asynchronous, makes of a value."""
    result = fn(value)
    return await result if isawaitable(result) else result


class _Update:
    """An update whose function runs now."""

    __slots__ = ("conversation",)

    def __init__(self, conversation: Conversation) -> None:
        self.conversation: Conversation | None = conversation


_updates: ContextVar[tuple[_Update, ...]] = ContextVar("tertulia_updates", default=())


async def updated(conversation: Conversation, fn: Callable[[Any], Any], value: Any) -> Any:
    """What the function of an update makes of a value; it cannot change the session meanwhile.

    Raises UsageError where it tries to: what waits for the update would wait for itself, and the
    function may be called more than once.
    """
    update = _Update(conversation)
    token = _updates.set((*_updates.get(), update))
    try:
        return await applied(fn, value)
    finally:
        update.conversation = None
        _updates.reset(token)


def refuse_inside_update(conversation: Conversation) -> None:
    """Raise UsageError where the calling code is the function of an update of this session."""
    if any(update.conversation is conversation for update in _updates.get()):
        raise UsageError(
            f"the function of update_state changes session {conversation.id!r} itself, which "
            "would have to wait for it: return the new value, and make other changes before "
            "or after update_state"
        )


async def stored_value(
    conversation: Conversation, row: SessionRow, scope: Scope, key: str
) -> bytes | None:
    """The stored JSON of a key in session, user or app scope; None when it is not set."""
    store = conversation.host.store
    if scope != "session":
        shared = await store.shared(*owner_of(row, scope), key)
        return None if shared is None else shared.value
    if not row.key:
        return None
    record = await (await conversation.view(row)).state(key)
    if record is None or record.type == STATE_DELETED or record.body is None:
        return None
    return bytes(msgspec.json.decode(record.body, type=_StateBody).value)


class _StateBody(msgspec.Struct):
    value: msgspec.Raw


def staged_writes(records: Iterable[Record]) -> list[StateWrite]:
    """The writes that an open turn noted and has not made yet, from its log."""
    writes: dict[tuple[str, str], StateWrite] = {}
    for record in records:
        if record.type not in (STATE_STAGED, STATE_SET, STATE_DELETED) or record.body is None:
            continue
        said = msgspec.json.decode(record.body, type=_Staged)
        writes.pop((said.scope, said.key), None)
        if record.type == STATE_STAGED:
            value = None if said.value is msgspec.UNSET else bytes(said.value)
            write = StateWrite(said.scope, said.key, value)
            write.staged = True
            writes[said.scope, said.key] = write
    return list(writes.values())


class _Staged(msgspec.Struct):
    scope: Scope
    key: str
    value: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
