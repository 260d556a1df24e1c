"""Agent: a model, instructions and tools that drive the turns of sessions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tertulia.agents.models import ModelLike, check_name, model_for
from tertulia.agents.runner import Runner, check_max_tokens, check_temperature
from tertulia.agents.speakers import (
    Cast,
    Instructions,
    Member,
    Options,
    Speaker,
    check_handoffs,
    check_names,
    transfers,
)
from tertulia.agents.tools import tools_of
from tertulia.agents.window import Budget
from tertulia.budget import CountTokens
from tertulia.errors import ConfigurationError, InvalidInput
from tertulia.host import Host
from tertulia.messages import Message
from tertulia.session import Session


class Agent(Runner):
    """Answers in sessions: ``agent.session().run("hello")``, or ``await agent.run("hello")``.

    `model` is a name (``"openai:gpt-4o"``, or ``"gpt-4o"`` with ``provider="openai"``), a
    `Model`, or None for the configured default. `instructions` come after the session's system
    prompt; they may be a function of the `RunContext`. `tools` are functions, tools and nested
    lists of them. `session` is where `run` runs by default. `output_type` is the type of its
    answers; None is text. `handoffs` are agents, or names of agents, that it may give the floor
    to; `description` is what others are told of it. `keep_last` and `max_context_tokens` choose
    what the model is shown of a long conversation, with `count_tokens` to count by.

    Raises ConfigurationError for a model name that cannot be, InvalidInput for all else.
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
        output_type: Any = None,
        handoffs: Iterable[Member | str] | None = None,
        description: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        keep_last: int | None = None,
        max_context_tokens: int | None = None,
        count_tokens: CountTokens | None = None,
        runtime: Host | None = None,
    ) -> None:
        if name is not None and (not isinstance(name, str) or not name.strip()):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidInput(f"{name!r} cannot name an agent; use text, or leave it out")
        if session is not None and not isinstance(session, Session):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidInput(f"session={session!r} is no Session; pass Session({session!r})")
        if instructions is not None and not (
            isinstance(instructions, str) or callable(instructions)
        ):
            raise InvalidInput(f"instructions={instructions!r}: give text, or a function")
        self._name = name
        self.model = _named(model, provider)
        self.instructions = instructions
        self.tools = tools_of(tools)
        self.output_type = output_type
        self._handoffs = check_handoffs(handoffs)
        check_names(self.tools, self._handoffs, typed=output_type is not None)
        self.description = description
        self._session = session
        self._temperature = check_temperature(temperature)
        self._max_tokens = check_max_tokens(max_tokens)
        self._budget = Budget(
            keep_last=keep_last, max_context_tokens=max_context_tokens, count_tokens=count_tokens
        )
        self._runtime = runtime
        if session is not None:
            self._make_known(session)

    @property
    def name(self) -> str | None:
        """What its messages are signed with, and by which it has the floor."""
        return self._name

    @property
    def handoffs(self) -> Sequence[Member | str]:
        """Those that it may give the floor to."""
        return self._handoffs

    def __repr__(self) -> str:
        return f"Agent({self.name!r})"

    def speaker(self, options: Options, known: Mapping[str, Member]) -> Speaker:
        """What it asks its model with in a turn. Raises ConfigurationError."""
        output_type = _either(options.output_type, self.output_type)
        check_names(self.tools, self._handoffs, typed=output_type is not None)
        budget = self._budget
        if options.keep_last is not None or options.max_context_tokens is not None:
            budget = Budget(
                keep_last=_either(options.keep_last, budget.keep_last),
                max_context_tokens=_either(options.max_context_tokens, budget.max_context_tokens),
                count_tokens=budget.count_tokens,
            )
        return Speaker(
            name=self.name,
            model=model_for(self.model),
            instructions=self.instructions,
            tools=self.tools,
            transfers=transfers(self._handoffs, known),
            output_type=output_type,
            temperature=_either(options.temperature, self._temperature),
            max_tokens=_either(options.max_tokens, self._max_tokens),
            budget=budget,
        )

    def _cast(self, session: Session, request: Message | None, options: Options) -> Cast:
        self._make_known(session)
        cast = Cast(self, options, session._conversation.agents)  # pyright: ignore[reportPrivateUsage]
        cast.check()  # what is missing is said before the turn begins
        return cast

    def _make_known(self, session: Session) -> None:
        """Whoever has the floor in a session is found by name, as long as it lives."""
        key = self._name or f"{id(self)} has no name"
        session._conversation.agents[key] = self  # pyright: ignore[reportPrivateUsage]


def _either(said: Any, usual: Any) -> Any:
    return usual if said is None else said


def _named(model: ModelLike, provider: str | None) -> ModelLike:
    if isinstance(model, str):
        return check_name(model, provider)
    if provider is not None:
        raise ConfigurationError(
            f"provider={provider!r} needs the name of its model: Agent(provider=…, model=…)"
        )
    return model
