"""The state of a session as its users see it: four scopes, copies only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

from tertulia import doors, scopes
from tertulia.codec import decode
from tertulia.conversation import MAX_RACES, Conversation
from tertulia.drafting import Draft
from tertulia.opening import Opening
from tertulia.scoped import (
    ABSENT,
    Pending,
    StateWrite,
    owner_of,
    pending_value,
    refuse_inside_update,
    stored_value,
    updated,
)
from tertulia.scopes import Scope
from tertulia.stores.base import SessionRow
from tertulia.turns import own_turn
from tertulia.values import json_value

if TYPE_CHECKING:
    from tertulia.session import Session


class ScopedState(MutableMapping[str, Any]):
    """One scope as a mapping; what is handed out and what is taken in are copies."""

    def __init__(
        self, session: Session, conversation: Conversation, opening: Opening, scope: Scope
    ) -> None:
        self._session = session
        self._conversation = conversation
        self._opening = opening
        self._scope: Scope = scope

    def set(self, key: str, value: Any) -> Pending:
        """Set a value. Raises InvalidInput, ScopeError, and UsageError inside of `change`."""
        scopes.check_key(key)
        refuse_inside_update(self._conversation)
        copy, data = scopes.check_value(value, key)
        if self._scope == "temp":
            self._temp()[key] = copy
            return self._done()
        return self._write(key, data)

    def delete(self, key: str) -> Pending:
        """Delete a value, if there is one. Raises UsageError inside of `change`."""
        scopes.check_key(key)
        refuse_inside_update(self._conversation)
        if self._scope == "temp":
            self._temp().pop(key, None)
            return self._done()
        return self._write(key, None)

    def get(self, key: str, default: Any = None) -> Any:
        """A copy of a value, or `default`."""
        value = self._value(key)
        return default if value is ABSENT else value

    async def change(self, key: str, fn: Callable[[Any], Any], default: Any) -> Any:
        """Atomically set a value to what `fn` makes of it.

        Raises UsageError where `fn` changes the session itself.
        """
        scopes.check_key(key)
        refuse_inside_update(self._conversation)
        turn = own_turn(self._conversation)
        if self._scope == "temp" or (turn is not None and self._scope == "session"):
            return await self._change_here(key, fn, default)

        async def build(draft: Draft) -> Any:
            data, version = await self._current(draft, key)
            old = default if data is None else decode(data, f"state {key!r}")
            made = await updated(self._conversation, fn, old)
            copy, data = scopes.check_value(made, key)
            write = StateWrite(self._scope, key, data, version)
            await write.draft(draft, self._conversation.host.store)
            return copy

        if turn is None:
            return await self._conversation.append(self._opening, build)
        result = await turn.append(build)
        turn.writes = [
            write for write in turn.writes if (write.scope, write.key) != (self._scope, key)
        ]
        return result

    def names(self) -> list[str]:
        """The keys that are set, in alphabetical order."""
        if self._scope == "temp":
            return sorted(self._temp())
        row = self._seen()
        scopes.require_owner(self._scope, row.user)
        stored = doors.call(self._stored_names(row))
        unwritten = self._unwritten(row.user)
        pending = {write.key for write in unwritten if write.scope == self._scope}
        return sorted(key for key in stored | pending if self._value(key) is not ABSENT)

    def __getitem__(self, key: str) -> Any:
        value = self._value(key)
        if value is ABSENT:
            raise KeyError(key)
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        self.set(key, value)

    def __delitem__(self, key: str) -> None:
        if self._value(key) is ABSENT:
            raise KeyError(key)
        self.delete(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())

    def __repr__(self) -> str:
        return f"<{self._scope} state of {self._session!r}>"

    # -- inside

    async def _change_here(self, key: str, fn: Callable[[Any], Any], default: Any) -> Any:
        """Change what only this process sees yet; again where it was set while `fn` waited."""
        for _ in range(MAX_RACES):
            old = self.get(key, ABSENT)
            given = default if old is ABSENT else self.get(key)
            value = await updated(self._conversation, fn, given)
            if self.get(key, ABSENT) == old:
                self.set(key, value)
                return json_value(value, key)
        raise self._conversation.outrun()

    def _temp(self) -> dict[str, Any]:
        turn = own_turn(self._conversation)
        return self._conversation.temp if turn is None else turn.temp

    def _write(self, key: str, data: bytes | None) -> Pending:
        conversation = self._conversation
        row = self._seen()
        scopes.require_owner(self._scope, row.user)
        write = StateWrite(self._scope, key, data)
        turn = own_turn(conversation)
        if turn is not None:
            turn.writes.append(write)
            return self._done()
        user = row.user if self._scope == "user" else None
        conversation.enqueue(write, user, self._opening)
        pending = Pending(write.outcome, self._session.flush)
        if doors.current_loop() is None:
            doors.call(self._session.flush())
        return pending

    def _done(self) -> Pending:
        return Pending(None, self._session.flush)

    def _seen(self) -> SessionRow:
        """The row as it is, or as it will be created. Raises AccessDenied."""
        turn = own_turn(self._conversation)
        if turn is not None:
            self._conversation.check_access(turn.row, self._opening)
            return turn.row
        row = doors.call(self._conversation.row())
        if row is None:
            return self._conversation.unborn(self._opening)
        self._conversation.check_access(row, self._opening)
        return row

    def _unwritten(self, user: str | None) -> Iterator[StateWrite]:
        """What is yet to be written in this scope and seen here, oldest first."""
        conversation = self._conversation
        if self._scope == "session":
            yield from conversation.pending
        else:
            yield from conversation.pending_everywhere(self._scope, user)
        turn = own_turn(conversation)
        if turn is not None:
            yield from turn.writes

    def _value(self, key: str) -> Any:
        scopes.check_key(key)
        if self._scope == "temp":
            found = self._temp().get(key, ABSENT)
            return found if found is ABSENT else json_value(found, key)
        row = self._seen()
        scopes.require_owner(self._scope, row.user)
        data = pending_value(self._unwritten(row.user), self._scope, key)
        if data is ABSENT:
            data = doors.call(stored_value(self._conversation, row, self._scope, key))
        return ABSENT if data is None else decode(data, f"state {key!r}")

    async def _current(self, draft: Draft, key: str) -> tuple[bytes | None, int | None]:
        """The stored value that a draft builds on, and its version where it is shared."""
        conversation = self._conversation
        version: int | None = None
        stored: bytes | None = None
        if self._scope != "session":
            owner = owner_of(draft.row, self._scope)
            shared = await conversation.host.store.shared(*owner, key)
            version = 0 if shared is None else shared.version
            stored = None if shared is None else shared.value
        elif draft.row.key:
            stored = await stored_value(conversation, draft.row, "session", key)
        turn = own_turn(conversation)
        unwritten = [*draft.writes, *(turn.writes if turn is not None else ())]
        data = pending_value(iter(unwritten), self._scope, key)
        return (stored if data is ABSENT else data), version

    async def _stored_names(self, row: SessionRow) -> set[str]:
        store = self._conversation.host.store
        if self._scope != "session":
            return {key for key, _ in await store.shared_keys(*owner_of(row, self._scope))}
        if not row.key:
            return set()
        return set(await (await self._conversation.view(row)).state_keys())


class State(ScopedState):
    """Session state as a mapping, with the other scopes beside it."""

    def __init__(self, session: Session, conversation: Conversation, opening: Opening) -> None:
        super().__init__(session, conversation, opening, "session")

    @property
    def user(self) -> ScopedState:
        """State of the session's user, shared by all of that user's sessions in the app."""
        return ScopedState(self._session, self._conversation, self._opening, "user")

    @property
    def app(self) -> ScopedState:
        """State of the app, shared by all of its sessions."""
        return ScopedState(self._session, self._conversation, self._opening, "app")

    @property
    def temp(self) -> ScopedState:
        """State of the running turn, or of the next one; never written."""
        return ScopedState(self._session, self._conversation, self._opening, "temp")
