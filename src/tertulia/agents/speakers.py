"""Who may speak in a turn: agents as a turn needs them, and how the next one is found."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

import msgspec

from tertulia.agents.context import RunContext
from tertulia.agents.protocol import FINAL_RESULT, Model, ToolSpec
from tertulia.agents.tools import AnyTool
from tertulia.agents.window import Budget
from tertulia.errors import ConfigurationError, InvalidInput, UsageError

Instructions = str | Callable[[RunContext], str | Awaitable[str]] | None


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What one call asks for in place of what its agents were made with; None: as they say."""

    temperature: float | None = None
    max_tokens: int | None = None
    keep_last: int | None = None
    max_context_tokens: int | None = None
    output_type: Any = None


def told(options: Options) -> dict[str, Any] | None:
    """What the log keeps of the options of a call, for whoever resumes its turn."""
    plain = {name: getattr(options, name) for name in _PLAIN}
    kind = options.output_type
    if kind is not None:
        plain["output_type"] = getattr(kind, "__name__", str(kind))
    return {name: value for name, value in plain.items() if value is not None} or None


class Speaker(msgspec.Struct, frozen=True, kw_only=True):
    """An agent within one turn: what it asks its model with."""

    name: str | None
    model: Model
    instructions: Instructions
    tools: Mapping[str, AnyTool]
    transfers: Mapping[str, Transfer]
    """The tools that give the floor to another agent, by their names."""
    output_type: Any
    temperature: float | None
    max_tokens: int | None
    budget: Budget


class Member(Protocol):
    """An agent as others need it."""

    @property
    def name(self) -> str | None:
        """Its name, by which the floor is given to it."""
        ...

    @property
    def description(self) -> str | None:
        """What it is there for, as others are told."""
        ...

    @property
    def handoffs(self) -> Sequence[Member | str]:
        """Those that it may give the floor to, or their names."""
        ...

    def speaker(self, options: Options, known: Mapping[str, Member]) -> Speaker:
        """What it asks its model with. Raises ConfigurationError."""
        ...


class Transfer(msgspec.Struct, frozen=True):
    """A tool that gives the floor to another agent."""

    tool: str
    target: str
    spec: ToolSpec


_PLAIN = ("temperature", "max_tokens", "keep_last", "max_context_tokens")

_REASON: dict[str, Any] = {
    "type": "object",
    "properties": {"reason": {"type": "string", "description": "Why, in a few words."}},
    "required": [],
}


def transfers(handoffs: Sequence[Member | str], known: Mapping[str, Member]) -> dict[str, Transfer]:
    """The transfer tools of an agent. Raises ConfigurationError for a name that nobody has."""
    made: dict[str, Transfer] = {}
    for handoff in handoffs:
        member = known.get(handoff) if isinstance(handoff, str) else handoff
        name = handoff if isinstance(handoff, str) else handoff.name
        if member is None or name is None:
            there = ", ".join(sorted(known)) or "none"
            raise ConfigurationError(
                f"handoffs=[{handoff!r}]: no agent of that name is known here (known: {there}); "
                "pass the Agent itself"
            )
        said = f"Give the conversation to {name}."
        if member.description:
            said = f"{said} {member.description}"
        tool = transfer_name(name)
        made[tool] = Transfer(tool, name, ToolSpec(tool, said, _REASON))
    return made


def check_names(tools: Iterable[str], handoffs: Sequence[Member | str], *, typed: bool) -> None:
    """Raise InvalidInput where a tool has the name of one of ours."""
    ours = {transfer_name(_name_of(handoff)) for handoff in handoffs}
    if typed:
        ours.add(FINAL_RESULT)
    taken = sorted(ours.intersection(tools))
    if taken:
        raise InvalidInput(
            f"the tool {taken[0]!r} has the name of one that Tertulia makes for handoffs and "
            "structured answers; rename it with @tool(name=…)"
        )


def _name_of(handoff: Member | str) -> str:
    return handoff if isinstance(handoff, str) else handoff.name or ""


def transfer_name(agent: str) -> str:
    """The name of the tool that gives the floor to an agent."""
    return f"transfer_to_{re.sub(r'[^A-Za-z0-9_-]+', '_', agent)}"[:64]


def check_handoffs(handoffs: Iterable[Any] | None) -> tuple[Member | str, ...]:
    """Handoffs as an agent keeps them. Raises InvalidInput."""
    if isinstance(handoffs, str):
        raise InvalidInput(f"handoffs takes a list, as in handoffs=[{handoffs!r}]")
    checked: dict[str, Member | str] = {}
    for handoff in handoffs or ():
        name = handoff if isinstance(handoff, str) else getattr(handoff, "name", None)
        if not isinstance(name, str) or not name:
            raise InvalidInput(f"handoffs takes agents that have a name, or names, not {handoff!r}")
        if checked.setdefault(transfer_name(name), handoff) is not handoff:
            raise InvalidInput(f"two handoffs go to {name!r}")
    return tuple(checked.values())


class Cast:
    """The agents of one turn: who was called, whom they may give the floor to, who stands in."""

    def __init__(
        self,
        first: Member,
        options: Options,
        known: Mapping[str, Member],
        stand_ins: Sequence[Member] = (),
        *,
        routed: Collection[str | None] = (),
        closed: bool = False,
    ) -> None:
        self._first = first
        self._options = options
        self._known = known
        self._closed = closed
        """Nobody is reached who is not known, and all handoffs were checked."""
        self._stand_ins = list(stand_ins)
        self._routed = routed
        """Those whose floor is not kept: the first one answers after them."""
        self._speakers: dict[int, Speaker] = {}

    @property
    def first(self) -> str | None:
        """The name of the agent that was called."""
        return self._first.name

    def knows(self, name: str | None) -> bool:
        """Whether the agent of a name is here; without a name, whether it is clear who is meant."""
        if name is not None:
            return name == self._first.name or name in self._members
        nameless = [each for each in (self._first, *self._stand_ins) if each.name is None]
        return len(nameless) < 2

    def restore(self, options: Mapping[str, Any]) -> None:
        """Take what a turn was asked for with, where nothing else was said since.

        Raises UsageError where the answer was to be of a type, and none is named now.
        """
        typed = options.get("output_type")
        if typed and self._options.output_type is None:
            raise UsageError(f"this turn was asked for a {typed}; say output_type= to resume it")
        said = {
            name: value
            for name in _PLAIN
            if (value := options.get(name)) is not None and getattr(self._options, name) is None
        }
        self._options = msgspec.structs.replace(self._options, **said)
        self._speakers.clear()

    def floor(self, stored: str | None) -> str | None:
        """Who speaks where `stored` has the floor: that agent, if it is known here."""
        if stored is None or stored == self._first.name or stored in self._routed:
            return self._first.name
        return stored if stored in self._members else self._first.name

    def speaker(self, name: str | None) -> Speaker:
        """The agent of a name, else the first one. Raises ConfigurationError."""
        own = name is None or name == self._first.name
        return self._made(self._first if own else self._members.get(name or "", self._first))

    def stand_in(self, spoken: Sequence[Speaker]) -> Speaker | None:
        """Whoever goes on where the model of the last of these failed; each is asked once."""
        if not self._stand_ins:
            return None
        order = (self._made(member) for member in (self._first, *self._stand_ins))
        return next((each for each in order if not any(each is other for other in spoken)), None)

    def check(self) -> None:
        """Raise ConfigurationError for an agent that cannot speak, or hand over to nobody."""
        self.speaker(None)
        firsts = [self._first, *self._stand_ins]
        if not self._closed and any(member.handoffs for member in firsts):
            for member in _reachable(firsts, {}).values():
                transfers(member.handoffs, self._members)

    def _made(self, member: Member) -> Speaker:
        found = self._speakers.get(id(member))
        if found is None:
            known: Mapping[str, Member] = self._members if member.handoffs else {}
            found = self._speakers[id(member)] = member.speaker(self._options, known)
        return found

    @cached_property
    def _members(self) -> Mapping[str, Member]:
        if self._closed:
            return self._known
        return _reachable([self._first, *self._stand_ins], self._known)


def _reachable(firsts: Sequence[Member], known: Mapping[str, Member]) -> dict[str, Member]:
    """Every agent that the floor can come to, by name."""
    found: dict[str, Member] = dict(known)
    left: list[Member] = [*firsts, *known.values()]
    seen: set[int] = set()
    while left:
        member = left.pop()
        if id(member) in seen:
            continue
        seen.add(id(member))
        if member.name is not None:
            found.setdefault(member.name, member)
        left.extend(each for each in member.handoffs if not isinstance(each, str))
    for member in firsts:
        if member.name is not None:
            found[member.name] = member
    return found
