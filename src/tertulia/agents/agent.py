"""Agent: a model, instructions and tools that drive the turns of sessions."""

from __future__ import annotations

import os
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any

from tertulia import host as hosts
from tertulia.agents.loop import Instructions, Plan
from tertulia.agents.models import ModelLike, check_name, model_for
from tertulia.agents.response import Response
from tertulia.agents.streaming import AsyncStream, Stream, respond, respond_sync
from tertulia.agents.tools import tools_of
from tertulia.errors import ConfigurationError, InvalidInput, UsageError
from tertulia.host import Host
from tertulia.messages import Message, parse
from tertulia.session import MessageLike, Session
from tertulia.stores import MemoryStore
from tertulia.turns import Asked
from tertulia.values import identifier, json_value

Request = str | MessageLike
_OPTIONS = ("temperature", "max_tokens", "metadata", "busy", "timeout", "idempotency_key")


class Agent:
    """Answers in sessions: ``agent.session().run("hello")``, or ``await agent.run("hello")``.

    `model` is a name (``"openai:gpt-4o"``, or ``"gpt-4o"`` with ``provider="openai"``), a
    `Model`, or None for the configured default. `instructions` come after the session's system
    prompt; they may be a function of the `RunContext`. `tools` are functions, tools and nested
    lists of them. `session` is where `run` runs by default.

    Raises ConfigurationError for a model name that cannot be, InvalidInput for tools that cannot.
    """

    def __init__(  # noqa: PLR0913
        self,
        name: str | None = None,
        model: ModelLike = None,
        instructions: Instructions = None,
        tools: Iterable[Any] | None = None,
        session: Session | None = None,
        *,
        provider: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        runtime: Host | None = None,
    ) -> None:
        self.name = name
        self.model = _named(model, provider)
        self.instructions = instructions
        self.tools = tools_of(tools)
        self._session = session
        self._temperature = temperature
        self._max_tokens = max_tokens
        self._runtime = runtime

    def __repr__(self) -> str:
        return f"Agent({self.name!r})"

    def session(self, session_id: str | None = None, **options: Any) -> Session:
        """A session whose `run` and `stream` are this agent's; takes what `Session` takes."""
        if self._runtime is not None and options.get("store") is None:
            options.setdefault("runtime", self._runtime)
        return Session(session_id, agent=self, **options)

    async def run(
        self, request: Request, session: Session | None = None, **options: Any
    ) -> Response:
        """One turn in `session`, else in the agent's own, else in one that is not kept.

        Options of this call: temperature, max_tokens, metadata, busy, timeout (seconds to wait
        for the session), idempotency_key. Raises ModelError, SessionBusy, TurnTimeout,
        TurnInterrupted, ConfigurationError, …
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

    def drive(self, session: Session, how: str, request: Any, options: dict[str, Any]) -> Any:
        """One turn on a session, as `Session.run`, `run_async`, `stream`, `stream_async` ask."""
        if how == "run_async":
            return self._run_async(session, request, options)
        if how == "run":
            return respond_sync(self._plan(session, request, options), "run_async", 3)
        if how == "stream":
            return Stream(self._plan(session, request, options))
        if how == "stream_async":
            return AsyncStream(self._plan(session, request, options))
        raise UsageError(f"{how} needs structured output, which agents do not have yet; use run")

    def _run_async(
        self, session: Session, request: Request, options: dict[str, Any]
    ) -> Coroutine[Any, Any, Response]:
        return respond(self._plan(session, request, options))

    def _plan(self, given: Session | None, request: Request, options: Mapping[str, Any]) -> Plan:
        unknown = sorted(name for name in options if name not in _OPTIONS)
        if unknown:
            raise InvalidInput(f"unknown options {unknown}; there are {', '.join(_OPTIONS)}")
        session = given or Session(runtime=_unkept(), agent=self)
        metadata, key = options.get("metadata"), options.get("idempotency_key")
        asked = Asked(
            messages=(_message(request),),
            busy=options.get("busy") or session._busy,  # pyright: ignore[reportPrivateUsage]
            timeout=options.get("timeout") or session._timeout,  # pyright: ignore[reportPrivateUsage]
            key=None if key is None else identifier(key, "the idempotency key"),
            agent=self.name,
            metadata=None if metadata is None else json_value(metadata, "metadata"),
        )
        return Plan(
            session=session,
            passing=given is None,
            asked=asked,
            model=model_for(self.model),
            instructions=self.instructions,
            tools=self.tools,
            temperature=options.get("temperature", self._temperature),
            max_tokens=options.get("max_tokens", self._max_tokens),
        )


def _named(model: ModelLike, provider: str | None) -> ModelLike:
    if isinstance(model, str):
        return check_name(model, provider)
    if provider is not None:
        raise ConfigurationError(
            f"provider={provider!r} needs the name of its model: Agent(provider=…, model=…)"
        )
    return model


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
