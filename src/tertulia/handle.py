"""The handle of a session: who it is, how it was opened, and what it holds for a turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol, cast

from tertulia import admission, doors, history
from tertulia import host as hosts
from tertulia import retention as retentions
from tertulia.asked import Asked, Busy
from tertulia.conversation import Conversation, nothing
from tertulia.drafting import messages_of
from tertulia.errors import TurnInterrupted
from tertulia.host import Host
from tertulia.messages import Message, parse
from tertulia.opening import Opening
from tertulia.stores.base import SessionRow
from tertulia.turns import Turn, own_turn
from tertulia.values import identifier, json_object, json_value, text
from tertulia.view import View, settle

MessageLike = Message | Mapping[str, Any]


class Driver(Protocol):
    """What `run`, `stream` and `json` of a session are handed to: its agent."""

    def drive(self, session: Any, how: str, request: Any, options: dict[str, Any]) -> Any:
        """Run one turn of the agent on a session."""
        ...


class Handle:
    """Identity and access of one session; `Session` adds what can be done with it."""

    def __init__(  # noqa: PLR0913 - the parameters are those of the published signature
        self,
        id: str | None = None,  # noqa: A002
        app_name: str | None = None,
        user_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        retention: Mapping[str, Any] | None = None,
        *,
        system: str | None = None,
        messages: Iterable[MessageLike] | None = None,
        runtime: Host | None = None,
        store: Any = None,
        agent: Driver | None = None,
        busy: Busy = "queue",
        turn_timeout: float | None = None,
    ) -> None:
        if runtime is None:
            runtime = hosts.current() if store is None else hosts.for_store(store)
        self._host = runtime
        self._id = runtime.ids.uid().hex() if id is None else identifier(id, "the session id")
        app = None if app_name is None else identifier(app_name, "app_name")
        policy = retentions.parse(retention)
        self._opening = Opening(
            user=None if user_id is None else identifier(user_id, "user_id"),
            metadata=None if metadata is None else json_object(metadata, "metadata"),
            retention=retentions.to_dict(policy),
            system=None if system is None else text(system, "system"),
            messages=tuple(messages_of(() if messages is None else messages)),
        )
        self._conversation = conversation_of(runtime, app, self._id)
        self._busy: Busy = admission.check_busy(busy)
        self._timeout = admission.check_timeout(turn_timeout)
        self._agent = agent

    # -- identity

    @property
    def id(self) -> str:
        """The public id."""
        return self._id

    @property
    def session_id(self) -> str:
        """The public id."""
        return self._id

    @property
    def app_name(self) -> str | None:
        """The app that the session belongs to; None is the default app."""
        return self._conversation.app

    @property
    def user_id(self) -> str | None:
        """The owner; None if the session has none."""
        row = doors.call(self._row())
        return row.user if row is not None else self._opening.user

    @property
    def metadata(self) -> dict[str, Any]:
        """A copy of the metadata, with what this object will merge into it."""
        row = doors.call(self._row())
        stored = row.details.metadata if row is not None else {}
        return json_value({**stored, **(self._opening.metadata or {})}, "metadata")

    @property
    def retention(self) -> dict[str, Any] | None:
        """The retention policy, with its defaults; None if there is none."""
        row = doors.call(self._row())
        said = self._opening.retention
        return json_value(said if said is not None or row is None else row.details.retention, "it")

    @property
    def system(self) -> str | None:
        """The system prompt that is stored with the session."""
        row = doors.call(self._row())
        if self._opening.system is not None or row is None:
            return self._opening.system
        return row.details.system

    def __repr__(self) -> str:
        return f"Session({self._id!r})"

    # -- turns

    @asynccontextmanager
    async def turn(
        self,
        message: MessageLike | str | None = None,
        *,
        busy: Busy | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - a deadline of the queue, in seconds
        agent: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> AsyncGenerator[Turn, None]:
        """Hold the session for one turn: ``async with session.turn("hello") as turn: …``

        The turn completes at the end of the block. An exception fails it: then the history is as
        if it had not happened, unless it did something in the world. A cancellation interrupts
        it, and what it did stays. Raises SessionBusy, TurnTimeout, SessionEnded, AccessDenied.
        """
        said = {"role": "user", "content": message} if isinstance(message, str) else message
        asked = Asked(
            messages=() if said is None else (parse(said),),
            busy=self._busy if busy is None else busy,
            timeout=self._timeout if timeout is None else admission.check_timeout(timeout),
            agent=agent,
            metadata=None if metadata is None else json_object(metadata, "metadata"),
        )
        turn = await admission.begin(self._conversation, self._opening, asked)
        self._opened()
        turn.enter_context()
        try:
            yield turn
            await turn.complete()
        except (asyncio.CancelledError, TurnInterrupted) as stopped:
            reason = str(stopped) or "cancelled"
            await doors.protected(lambda: turn.interrupt(reason))
            raise
        except BaseException as error:
            failure = error
            await doors.protected(lambda: turn.fail(failure))
            raise
        finally:
            turn.leave_context()

    async def flush(self) -> None:
        """Write what `set_state` left to be written. Raises what went wrong with it."""
        conversation = self._conversation
        if conversation.pending and own_turn(conversation) is None:
            await conversation.append(self._opening, nothing)

    # -- inside

    def _opened(self) -> None:
        """What was said at the opening is stored now; do not say it again."""
        opening = self._opening
        if opening.metadata or opening.retention or opening.system or opening.messages:
            self._opening = Opening(user=opening.user)

    async def _row(self) -> SessionRow | None:
        turn = own_turn(self._conversation)
        row = await self._conversation.row() if turn is None else turn.row
        if row is not None:
            self._conversation.check_access(row, self._opening)
        return row

    async def _view(self, at: int | None) -> View | None:
        if at is not None:
            history.check_position(at, "at")
        turn = own_turn(self._conversation)
        if turn is not None:
            self._conversation.check_access(turn.row, self._opening)
        if turn is not None and at is None:
            return await self._conversation.view(turn.row, turn.row.seq)
        await self.flush()
        await self._conversation.stopped()
        row = await self._row()
        if row is None and self._opening.messages:
            await self._conversation.append(self._opening, nothing)
            self._opened()
            row = await self._row()
        if row is None:
            return None
        if at is None:
            return await self._conversation.view(row)
        position = await settle(self._host.store, row, at)
        return await self._conversation.view(row, position)

    async def _pending_inputs(self) -> list[Message]:
        row = await self._row()
        if row is None:
            return []
        entries = await admission.left_behind(self._conversation, row)
        return [message for entry in entries for message in admission.messages_in(entry)]


def conversation_of(host: Host, app: str | None, session_id: str) -> Conversation:
    """The one conversation of this runtime with an id."""
    key = ("session", app, session_id)
    found = host.registry.get(key)
    if found is None:
        found = host.registry.setdefault(key, Conversation(host, app, session_id))
    return cast("Conversation", found)
