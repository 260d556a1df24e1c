"""What agents and routers share: running turns, whole or as streams, with or without a loop."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Mapping
from typing import Any

from tertulia import admission
from tertulia import host as hosts
from tertulia.agents.loop import Plan
from tertulia.agents.oversight import Oversight
from tertulia.agents.response import Response
from tertulia.agents.speakers import Cast, Options, told
from tertulia.agents.streaming import AsyncStream, Stream, respond, respond_sync
from tertulia.asked import Asked
from tertulia.errors import InvalidInput, UsageError
from tertulia.host import Host
from tertulia.messages import Message, parse
from tertulia.session import MessageLike, Session
from tertulia.stores import MemoryStore
from tertulia.values import identifier, json_value

Request = str | MessageLike
_OF_TURN = ("metadata", "busy", "timeout", "idempotency_key")
_OPTIONS = (*Options.__struct_fields__, *_OF_TURN)


class Runner(ABC):
    """Answers in sessions: ``.session().run("hello")``, or ``await .run("hello")``."""

    _session: Session | None = None
    _runtime: Host | None = None

    def session(self, session_id: str | None = None, **options: Any) -> Session:
        """A session whose `run`, `stream` and `json` are answered here; takes what `Session`
        takes."""
        if self._runtime is not None and options.get("store") is None:
            options.setdefault("runtime", self._runtime)
        return Session(session_id, agent=self, **options)

    async def run(
        self, request: Request, session: Session | None = None, **options: Any
    ) -> Response:
        """One turn in `session`, else in the agent's own, else in one that is not kept.

        It gives the agent the floor. Options of this call: temperature, max_tokens, keep_last,
        max_context_tokens, output_type, metadata, busy, timeout (seconds to wait for the
        session), idempotency_key. Raises ModelError, SchemaValidationError, SessionBusy,
        TurnTimeout, ApprovalPending, TurnInterrupted, ConfigurationError, …
        """
        return await respond(self._plan(session or self._session, request, options))

    def run_sync(
        self, request: Request, session: Session | None = None, **options: Any
    ) -> Response:
        """As `run`, for synchronous code."""
        plan = self._plan(session or self._session, request, options)
        return respond_sync(plan, "agent.run", 2)

    def stream(
        self, request: Request, session: Session | None = None, **options: Any
    ) -> AsyncStream:
        """One turn as it happens: ``async for event in agent.stream(…)``. As `run` otherwise."""
        return AsyncStream(self._plan(session or self._session, request, options))

    async def resume(self, session: Session | None = None, **options: Any) -> Response:
        """Go on with the turn of a session that is suspended, or was left by a dead process."""
        return await respond(self._plan(session or self._session, None, options))

    def drive(self, session: Session, how: str, request: Any, options: dict[str, Any]) -> Any:
        """One turn on a session, as its `run`, `stream`, `json`, `resume` and their twins ask.

        The agent that has the floor answers.
        """
        if how in ("json", "json_async"):
            if "output_type" in options:
                raise InvalidInput("json takes schema=, which is the output_type of its answer")
            options = {"output_type": options.pop("schema"), **options}
        resuming = how in ("resume", "resume_async")
        if not resuming and request is None:
            raise InvalidInput(f"{how} needs a request: text, or a message of the user")
        plan = self._plan(session, None if resuming else request, options, floor=True)
        if how in ("run_async", "json_async", "resume_async"):
            return self._respond(plan)
        if how in ("run", "json", "resume"):
            return respond_sync(plan, f"{how}_async", 3)
        if how == "stream":
            return Stream(plan)
        if how == "stream_async":
            return AsyncStream(plan)
        raise UsageError(f"there is no {how!r}")

    def _respond(self, plan: Plan) -> Coroutine[Any, Any, Response]:
        return respond(plan)

    @abstractmethod
    def _cast(self, session: Session, request: Message | None, options: Options) -> Cast:
        """Who answers in this turn. Raises ConfigurationError."""

    @property
    @abstractmethod
    def name(self) -> str | None:
        """The name by which it takes the floor; None takes it from nobody."""

    def _plan(
        self,
        given: Session | None,
        request: Request | None,
        options: Mapping[str, Any],
        *,
        floor: bool = False,
        resuming: bool | None = None,
    ) -> Plan:
        """A turn as it was asked for; without a request it goes on with the open one, unless
        `resuming` is False: then it answers what the session holds."""
        unknown = sorted(name for name in options if name not in _OPTIONS)
        if unknown:
            raise InvalidInput(f"unknown options {unknown}; there are {', '.join(_OPTIONS)}")
        if given is None and request is None:
            raise UsageError("resume needs the session: agent.resume(session)")
        if given is not None and not isinstance(given, Session):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidInput(f"{given!r} is no session; pass agent.session({given!r})")
        message = None if request is None else _message(request)
        session = given or Session(runtime=_unkept(), agent=self)
        return Plan(
            session=session,
            passing=given is None,
            asked=_asked(session, message, options, None if floor else self.name),
            cast=self._cast(session, message, _options(options)),
            by_floor=floor,
            resuming=request is None if resuming is None else resuming,
            oversight=self._oversight(session, message),
        )

    def _oversight(self, session: Session, request: Message | None) -> Oversight | None:  # noqa: B027
        """What looks after the turn that is about to begin; nothing, unless one is made here."""


def answer(runner: Runner, session: Session, **options: Any) -> AsyncStream:
    """One turn, by whoever has the floor, that answers what the session holds already."""
    plan = runner._plan(session, None, options, floor=True, resuming=False)  # pyright: ignore[reportPrivateUsage]
    return AsyncStream(plan)


def go_on(runner: Runner, session: Session) -> AsyncStream:
    """The turn that a process left open which died, as it goes on."""
    return AsyncStream(runner._plan(session, None, {}, floor=True))  # pyright: ignore[reportPrivateUsage]


def _asked(
    session: Session, message: Message | None, options: Mapping[str, Any], agent: str | None
) -> Asked:
    metadata, key = options.get("metadata"), options.get("idempotency_key")
    busy, seconds = options.get("busy"), admission.check_timeout(options.get("timeout"))
    return Asked(
        messages=() if message is None else (message,),
        busy=session._busy if busy is None else busy,  # pyright: ignore[reportPrivateUsage]
        timeout=session._timeout if seconds is None else seconds,  # pyright: ignore[reportPrivateUsage]
        key=None if key is None else identifier(key, "the idempotency key"),
        agent=agent,
        metadata=None if metadata is None else json_value(metadata, "metadata"),
        options=told(_options(options)),
    )


def _options(options: Mapping[str, Any]) -> Options:
    return Options(
        temperature=check_temperature(options.get("temperature")),
        max_tokens=check_max_tokens(options.get("max_tokens")),
        keep_last=options.get("keep_last"),
        max_context_tokens=options.get("max_context_tokens"),
        output_type=options.get("output_type"),
    )


def check_temperature(value: Any) -> float | None:
    """A temperature. Raises InvalidInput."""
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0:
        raise InvalidInput(f"temperature is {value!r}; it is a number from 0 on")
    return value


def check_max_tokens(value: Any) -> int | None:
    """A limit of tokens for an answer. Raises InvalidInput."""
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise InvalidInput(f"max_tokens is {value!r}; it is a whole number from 1 on")
    return value


def _message(request: Request) -> Message:
    given = {"role": "user", "content": request} if isinstance(request, str) else request
    message = parse(given)
    if message.role != "user":
        raise InvalidInput(f"a turn begins with a user message, not with one of {message.role}")
    return message


_memory: list[tuple[int, MemoryStore, Host]] = []


def _unkept() -> Host:
    """A runtime in memory for sessions that are not kept; one a process."""
    if not _memory or _memory[0][0] != os.getpid():
        store = MemoryStore()
        _memory[:] = [(os.getpid(), store, hosts.for_store(store))]
    return _memory[0][2]
