"""Session: the place where one conversation lives."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Mapping
from datetime import datetime
from hashlib import sha256
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import msgspec

from tertulia import (
    admission,
    branching,
    doors,
    ending,
    following,
    hiding,
    history,
    pruning,
    scopes,
    snapshot,
)
from tertulia.asked import Asked
from tertulia.codec import encode
from tertulia.conversation import nothing
from tertulia.drafting import Draft, messages_of
from tertulia.driven import Driven
from tertulia.errors import ScopeError
from tertulia.events import Event
from tertulia.handle import Driver, MessageLike
from tertulia.hiding import Judge, Summarize
from tertulia.host import Host
from tertulia.messages import Message
from tertulia.proof import Proof
from tertulia.pruning import PruneReport
from tertulia.scoped import Pending
from tertulia.state import ScopedState, State
from tertulia.stores.base import Receipt
from tertulia.turns import own_turn
from tertulia.values import identifier

if TYPE_CHECKING:
    from tertulia.audit import Verification
    from tertulia.memory import Memory

Moment = int | str | datetime


class Session(Driven):
    """One durable conversation: ordered, with one writer at a time, watched by many.

    Making a session does no I/O; it is opened by its first use. Two objects with one id (in one
    app, in one runtime) are the same conversation. `metadata` is merged into what is stored,
    `retention` and `system` replace it; None means: as stored. Without `user_id` the code is
    trusted and opens any session; one that differs from the owner's raises AccessDenied.

    Raises InvalidInput for an id, metadata or retention that cannot be.
    """

    # -- messages

    async def send_message(
        self, message: MessageLike, *, idempotency_key: str | None = None
    ) -> Message:
        """Append one message; returns it as stored once it is in the history and durable.

        Raises InvalidMessage, SessionEnded, AccessDenied, SessionBusy, IdempotencyConflict.
        """
        sent = await self.send_messages((message,), idempotency_key=idempotency_key)
        return sent[0]

    async def send_messages(
        self, messages: Iterable[MessageLike], *, idempotency_key: str | None = None
    ) -> list[Message]:
        """Append several messages in one commit; all of them or none. Raises as `send_message`."""
        checked = messages_of(messages)
        if idempotency_key is not None:
            identifier(idempotency_key, "the idempotency key")
        if not checked:
            return []
        conversation = self._conversation
        turn = own_turn(conversation)
        if turn is not None:
            conversation.check_access(turn.row, self._opening)
            return await turn.add_messages(checked)
        busy = "reject" if self._busy == "reject" else "queue"
        asked = Asked(messages=tuple(checked), busy=busy, timeout=self._timeout)
        place = admission.Place(conversation, asked)
        await place.enter()
        try:
            return await self._send(checked, place, idempotency_key)
        finally:
            conversation.gate.leave()

    async def _send(
        self, messages: list[Message], place: admission.Place, key: str | None
    ) -> list[Message]:
        conversation = self._conversation
        digest = b"" if key is None else sha256(encode(messages, "the request")).digest()

        async def build(draft: Draft) -> list[Message]:
            place.take(draft)
            found = await admission.earlier(conversation, draft.row, key, digest)
            if found is not None:
                return msgspec.json.decode(found.result or b"[]", type=list[Message])
            sent = [draft.message(message) for message in messages]
            if key is not None:
                draft.request = admission.request_done(conversation, key, digest, sent)
            return sent

        try:
            sent = await conversation.commit(self._opening, build, place.how())
        except BaseException:
            await place.withdraw()
            raise
        place.admitted()
        self._opened()
        return sent

    async def history(
        self, limit: int | None = None, at: int | None = None, before: int | None = None
    ) -> list[Message]:
        """The messages that are visible, oldest first; with `limit` the newest so many.

        `at` is a position (`seq`): the history as it was then. `before` is the `seq` of a
        message: those before it, for paging backwards. Tool calls and their results are never
        parted: a group that `limit` would cut is left out, but the newest is always whole.
        Raises InvalidInput, AccessDenied, HistoryErased.
        """
        history.check_limit(limit)
        if before is not None:
            history.check_position(before, "before")
        view = await self._view(at)
        return [] if view is None else await view.messages(limit, before)

    @property
    def messages(self) -> list[Message]:
        """All visible messages, as a list of its own."""
        return doors.call(self.history())

    def add_message(self, message: MessageLike) -> Message:
        """Append one message, synchronously; durable when it returns."""
        return doors.call(self.send_message(message))

    async def events(
        self,
        since: Moment | None = None,
        limit: int | None = None,
        types: str | Iterable[str] | None = None,
    ) -> list[Event]:
        """The audit: every event of the log, oldest first, also of what is hidden.

        `since` is a `seq`, a date, ISO text or a datetime (no zone means UTC), and inclusive.
        `limit` keeps the last so many. Raises InvalidInput, AccessDenied.
        """
        wanted = following.Wanted.parse(since, limit, types)
        await self.flush()
        row = await self._row()
        return [] if row is None else await following.events(self._host.store, row, wanted)

    def follow(self, after: int | str | None = None) -> AsyncIterator[Event]:
        """The events as they come, after a position or a cursor; by default from now on.

        It ends when the session is deleted. Raises CursorExpired for a cursor of a log that was
        re-created or restored.
        """
        return following.follow(self._conversation, self._opening, after)

    async def cursor(self) -> str:
        """A cursor for `follow(after=…)` at the end of the log as it is now."""
        return await following.cursor(self._conversation, self._opening)

    @property
    def pending_inputs(self) -> list[Message]:
        """Inputs in the inbox that nobody waits for any more; the next turn takes them."""
        return doors.call(self._pending_inputs())

    # -- state

    @property
    def state(self) -> State:
        """The state as a mapping: ``state["k"]``, ``state.user["k"]``, ``.app``, ``.temp``."""
        return State(self, self._conversation, self._opening)

    def set_state(self, key: str, value: Any, scope: str = "session") -> Pending:
        """Set a value; visible at once to every object of this process.

        Outside of an event loop it returns when the value is durable. Inside one it is written
        before any later awaited call on this session; await what it returns to know it durable.
        Raises InvalidInput and ScopeError.
        """
        return self._scoped(scope).set(key, value)

    def get_state(self, key: str, default: Any = None, scope: str = "session") -> Any:
        """A copy of a value, or `default`. Raises InvalidInput and ScopeError."""
        return self._scoped(scope).get(key, default)

    def delete_state(self, key: str, scope: str = "session") -> Pending:
        """Delete a value; nothing happens if there is none. As `set_state` otherwise."""
        return self._scoped(scope).delete(key)

    def state_keys(self, scope: str = "session") -> list[str]:
        """The keys that are set, in alphabetical order."""
        return self._scoped(scope).names()

    async def update_state(
        self, key: str, fn: Callable[[Any], Any], scope: str = "session", default: Any = None
    ) -> Any:
        """Set a value to what `fn` makes of it, atomically; returns the new value.

        `fn` gets a copy of the value (or `default`), may be asynchronous, and may be called
        again when somebody else was faster. It may read, and raises UsageError where it changes
        the session itself.
        """
        return await self._scoped(scope).change(key, fn, default)

    @property
    def memory(self) -> Memory:
        """What is remembered of the session's user in its app, across all sessions.

        Raises ScopeError for a session without a user.
        """
        user = self.user_id
        if user is None:
            raise ScopeError(
                "this session has no user_id to remember something of; pass one, or use "
                "Memory(app_name=…) for what the whole app may know"
            )
        return self._host.memory(user, self.app_name)

    # -- branches and hiding

    async def rewind(self, to: int) -> int:
        """Go back to a position: messages and state are as they were there; returns it.

        A position inside a turn means the position before that turn. Nothing leaves the audit,
        and rewinding to a later position undoes it.
        """
        history.check_position(to, "to")
        return await branching.rewind(self._conversation, self._opening, to)

    def fork(self, session_id: str | None = None, at: int | None = None) -> Session:
        """Branch off a new session, from here or from the position `at`; can also be awaited.

        It has the history and the state as of that point, the owner and the retention. Raises
        SessionExists, SessionNotFound, InvalidInput.
        """
        if at is not None:
            history.check_position(at, "at")
        branch = Session(
            session_id,
            app_name=self.app_name,
            runtime=self._host,
            agent=self._agent,
            busy=self._busy,
            turn_timeout=self._timeout,
        )
        doors.call(self._fork(branch, at))
        return branch

    async def _fork(self, branch: Session, at: int | None) -> None:
        if await self._row() is None:
            await self._conversation.append(self._opening, nothing)
            self._opened()
        await self.flush()
        await branching.fork(self._conversation, branch._conversation, self._opening, at)

    def __await__(self) -> Generator[Any, Any, Session]:
        yield from self.flush().__await__()
        return self

    def clear(self) -> None:
        """Hide all messages; state, system prompt and metadata stay. Durable when it returns."""
        doors.call(hiding.clear(self._conversation, self._opening))

    async def prune(
        self,
        strategy: str,
        *,
        n: int | None = None,
        window_size: int | None = None,
        threshold: int | None = None,
        summarize: Summarize | None = None,
        judge: Judge | None = None,
    ) -> PruneReport:
        """Hide older messages: `keep_last_<N>`, `keep_last_n` (n=), `sliding_window`
        (window_size=), `summarize_old` (threshold=), `keep_important` (n=).

        The last two ask the model of the session's agent, else the configured default one, or
        what you give as `summarize=` and `judge=`: a callable or an agent. Turns go on meanwhile.
        It cuts only between turns; metadata, state and the audit are untouched. Raises
        InvalidInput, RetentionRefused, ConfigurationError where there is no model, ModelError,
        and SessionBusy where others hid or brought back messages again and again.
        """
        chosen = pruning.parse(strategy, n=n, window_size=window_size, threshold=threshold)
        if await self._row() is None:
            await self._conversation.append(self._opening, nothing)
            self._opened()
        return await hiding.prune(
            self._conversation,
            self._opening,
            chosen,
            strategy,
            hiding.Callables(summarize, judge, self._agent),
        )

    # -- life

    async def end(self, reason: str | None = None) -> None:
        """End the conversation: session state is cleared, writes are refused until `reopen`."""
        await self.flush()
        await ending.end(self._conversation, self._opening, reason)

    async def reopen(self) -> None:
        """Go on with a conversation that was ended."""
        await ending.reopen(self._conversation, self._opening)

    async def unlock(self) -> int | None:
        """Take the session away from a process that holds it and is stuck.

        Its turn is closed as if it had died, and what it still tries to write is refused.
        Returns the number of that turn, or None where none was open.
        """
        return await ending.unlock(self._conversation, self._opening)

    async def hold(self, reason: str) -> None:
        """Set a legal hold: nothing is pruned, rewound, erased or deleted until its release."""
        await ending.hold(self._conversation, self._opening, reason)

    async def release_hold(self) -> None:
        """Release a legal hold."""
        await ending.hold(self._conversation, self._opening, None)

    async def delete(self) -> Receipt:
        """Remove the session and all that belongs to it. Raises RetentionRefused."""
        return await ending.delete(self._conversation, self._opening, "on request")

    async def close(self) -> None:
        """Write what is left to be written and release the handle."""
        await self.flush()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    # -- proof and copies

    @property
    def proof(self) -> Proof:
        """Verification, anchors and exports of this session."""
        return Proof(self._conversation, self._opening)

    async def verify(
        self, anchor: Mapping[str, Any] | None = None, key: bytes | None = None
    ) -> Verification:
        """Check the chain of digests and what is derived from the log; true when all fits."""
        await self.flush()
        return await self.proof.verify(anchor, key)

    async def anchor(self, key: bytes) -> dict[str, Any]:
        """Sign the head of the log with an Ed25519 key (PEM), to be kept outside of the store."""
        await self.flush()
        return await self.proof.anchor(key)

    async def export(
        self,
        format: Literal["jsonl", "json", "markdown"] = "jsonl",  # noqa: A002
        path: str | os.PathLike[str] | None = None,
    ) -> str:
        """The session as text: JSON lines of the whole log, JSON or Markdown of the history.

        With `path` it is written there too, whole or not at all.
        """
        await self.flush()
        return await self.proof.export(format, path)

    def to_dict(self) -> dict[str, Any]:
        """The session as JSON-able data: identity, visible messages, session state, head."""
        return doors.call(self.snapshot())

    async def snapshot(self) -> dict[str, Any]:
        """What `to_dict` gives."""
        await self.flush()
        return await snapshot.take(self._conversation, self._opening)

    @classmethod
    def from_dict(
        cls,
        data: Mapping[str, Any],
        agent: Driver | None = None,
        *,
        runtime: Host | None = None,
        store: Any = None,
    ) -> Session:
        """The session of some data: created if it is unknown, else brought to what the data says.

        Nothing is duplicated and nothing leaves the audit. Raises InvalidInput.
        """
        fields = snapshot.parse(data)
        session = cls(
            fields.session_id,
            app_name=fields.app_name,
            user_id=fields.user_id,
            metadata=fields.metadata,
            retention=fields.retention,
            system=fields.system,
            runtime=runtime,
            store=store,
            agent=agent,
        )
        doors.call(snapshot.restore(session, fields))
        return session

    def _scoped(self, scope: str) -> ScopedState:
        return ScopedState(self, self._conversation, self._opening, scopes.check_scope(scope))
