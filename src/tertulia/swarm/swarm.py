"""Swarm: agents that share a client's conversation, with policies on its way in and out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast
from weakref import WeakSet

import msgspec

from tertulia import doors
from tertulia import host as hosts
from tertulia.agents.agent import Agent
from tertulia.errors import ConfigurationError, InvalidInput, UnknownName, UsageError
from tertulia.host import Host
from tertulia.policies import EVERYTHING, Ban, Policy, check_policies, until_of
from tertulia.swarm.bans import Bans
from tertulia.swarm.rescue import Rescue, as_rescue
from tertulia.values import identifier

if TYPE_CHECKING:
    from tertulia.bus import BusEvent
    from tertulia.swarm.client import ClientSession

TOOL_TIMEOUT = 30.0
IDLE_TIMEOUT = 900.0
POLICY_TIMEOUT = 30.0
MAX_NESTED = 20
Callback = Callable[["ClientSession", "BusEvent"], Any]
Validate = Callable[[str], "bool | str | Awaitable[bool | str | None] | None"]


class Home(Protocol):
    """A runtime that has a swarm, as the swarm needs it."""

    @property
    def host(self) -> Host:
        """The runtime."""
        ...

    async def banned(self, swarm: Swarm, kind: str, client_id: str, ban: Ban) -> None:
        """Tell the bus and the client's log of a ban, or of its end."""
        ...


class Callbacks(msgspec.Struct, frozen=True):
    """What is called when something happens to a client: with the client and the bus event."""

    on_init: Callback | None = None
    on_connect: Callback | None = None
    on_execute: Callback | None = None
    on_emit: Callback | None = None
    on_agent_changed: Callback | None = None
    on_dispose: Callback | None = None


class Limits(msgspec.Struct, frozen=True):
    """What the turns of a swarm may take."""

    tool_timeout: float
    """Seconds for tools that have no timeout of their own."""
    max_tool_calls: int | None
    """Tool calls in one turn; None is any number, 0 offers no tools."""
    max_nested: int
    """Executions from inside of one turn."""
    idle_timeout: float | None
    """Seconds without use after which a client session that nobody holds is disposed."""
    policy_timeout: float = POLICY_TIMEOUT
    """Seconds that a policy may take for one text, or for its ban message."""


class Swarm:
    """Agents that share the conversation of each client: ``Swarm("shop", agents=[…])``.

    `default` is the name of the agent that a new client comes to (the first one). `handoffs` of
    the agents may be names of others here. `policies` look at every input and output, in their
    order. `rescue` is a `Rescue`, or its strategy. `validate` says whether an answer can be used:
    None or True is yes, False or a reason is no. `on_…` are called with the client and the bus
    event; they may be async, and one that raises is logged. `app_name` is the app of the clients'
    sessions, the swarm's name unless told otherwise. `tool_timeout`, `idle_timeout` and
    `policy_timeout` are in seconds; a policy that takes longer fails, and lets nothing through.

    Raises InvalidInput, ConfigurationError for names that are taken twice, UnknownName for a
    default or a handoff that is nobody here.
    """

    def __init__(  # noqa: PLR0913
        self,
        name: str,
        agents: Sequence[Agent],
        default: str | None = None,
        policies: Iterable[Policy | type[Policy]] = (),
        *,
        on_init: Callback | None = None,
        on_connect: Callback | None = None,
        on_execute: Callback | None = None,
        on_emit: Callback | None = None,
        on_agent_changed: Callback | None = None,
        on_dispose: Callback | None = None,
        rescue: Rescue | str | Callable[..., Any] | None = None,
        validate: Validate | None = None,
        tool_timeout: float = TOOL_TIMEOUT,
        max_tool_calls: int | None = None,
        max_nested: int = MAX_NESTED,
        idle_timeout: float | None = IDLE_TIMEOUT,
        policy_timeout: float = POLICY_TIMEOUT,
        app_name: str | None = None,
    ) -> None:
        self.name = identifier(name, "the name of a swarm")
        self.app_name = identifier(app_name or name, "app_name")
        self.agents = _agents(self.name, agents)
        self.default = self._default(default)
        self._check_handoffs()
        self.policies = check_policies(policies)
        callbacks = (on_init, on_connect, on_execute, on_emit, on_agent_changed, on_dispose)
        self.callbacks = Callbacks(*(_callable(each, "a callback") for each in callbacks))
        self.rescue = as_rescue(rescue)
        self.validate = _callable(validate, "validate")
        self.limits = Limits(
            tool_timeout=_seconds(tool_timeout, "tool_timeout"),
            max_tool_calls=None
            if max_tool_calls is None
            else _whole(max_tool_calls, "max_tool_calls", 0),
            max_nested=_whole(max_nested, "max_nested", 0),
            idle_timeout=None if idle_timeout is None else _seconds(idle_timeout, "idle_timeout"),
            policy_timeout=_seconds(policy_timeout, "policy_timeout"),
        )
        self._homes: WeakSet[Home] = WeakSet()

    def __repr__(self) -> str:
        return f"Swarm({self.name!r}, agents={sorted(self.agents)})"

    def agent(self, name: str) -> Agent:
        """The agent of a name. Raises UnknownName."""
        found = self.agents.get(name)
        if found is None:
            raise self._unknown(f"there is no agent {name!r}")
        return found

    # -- bans

    async def ban(
        self,
        client_id: str,
        policy: str | Policy | None = None,
        until: Any = None,
        *,
        reason: str = "",
    ) -> list[Ban]:
        """Let a client not talk to the swarm, because of a policy or (None) at all.

        It holds at once, also for a turn that runs, in every process on the store. `until` is a
        datetime, ISO text, a timedelta or seconds; None is for ever. The client hears the
        `ban_message` of the policy; where it is banned at all, that of the first policy, or the
        default text. Returns what is new of it. Raises UnknownName for a policy that is not here,
        InvalidInput, UsageError outside of a runtime.
        """
        home = self._home()
        end = until_of(until, home.host.clock.now())
        made = await self.bans_in(home.host).ban(client_id, [self._policy(policy)], end, reason)
        await self._tell(home, "ban-client", client_id, made)
        return made

    async def unban(self, client_id: str, policy: str | Policy | None = None) -> list[Ban]:
        """Lift the ban of a client under a policy, or (None) all of its bans; returns those."""
        home = self._home()
        names = None if policy is None else [self._policy(policy)]
        lifted = await self.bans_in(home.host).unban(client_id, names)
        await self._tell(home, "unban-client", client_id, lifted)
        return lifted

    async def bans(self, client_id: str) -> list[Ban]:
        """The bans of a client that stand."""
        host = self._home().host
        now = host.clock.now()
        return [ban for ban in await self.bans_in(host).read(client_id) if ban.stands(now)]

    def bans_in(self, host: Host) -> Bans:
        """The bans of the swarm in the store of a host."""
        return Bans(host, self.name)

    def _policy(self, policy: str | Policy | None) -> str:
        if policy is None or policy == EVERYTHING:
            return EVERYTHING
        name = policy.name if isinstance(policy, Policy) else policy
        known = [each.name for each in self.policies]
        if name not in known:
            there = ", ".join(known) or "none"
            raise UnknownName(f"swarm {self.name!r} has no policy {name!r}; there are: {there}")
        return name

    # -- where it lives

    def join(self, home: Home) -> None:
        """A runtime has the swarm."""
        self._homes.add(home)

    def leave(self, home: Home) -> None:
        """A runtime was closed."""
        self._homes.discard(home)

    def _home(self) -> Home:
        """The runtime that is meant: the enclosing one if it has the swarm, else the only one."""
        homes, enclosing = list(self._homes), hosts.enclosing()
        for home in homes:
            if home.host is enclosing or len(homes) == 1:
                return home
        where = "several runtimes have it" if homes else "no runtime has it"
        raise UsageError(
            f"swarm {self.name!r}: {where}; do this inside of `async with Runtime(…, swarms=[…])`"
        )

    async def _tell(self, home: Home, kind: str, client_id: str, bans: Iterable[Ban]) -> None:
        for ban in bans:
            await doors.protected(partial(home.banned, self, kind, client_id, ban))

    # -- checks

    def _default(self, default: str | None) -> str:
        if default is None:
            return next(iter(self.agents))
        if default not in self.agents:
            raise self._unknown(f"default={default!r} is no agent of the swarm")
        return default

    def _check_handoffs(self) -> None:
        for name, agent in self.agents.items():
            for handoff in agent.handoffs:
                target = handoff if isinstance(handoff, str) else handoff.name
                found = self.agents.get(target or "")
                if found is None or not (isinstance(handoff, str) or handoff is found):
                    raise self._unknown(f"agent {name!r} hands off to {target!r}, who is not here")
                if target == name:
                    raise ConfigurationError(f"agent {name!r} hands off to itself")

    def _unknown(self, what: str) -> UnknownName:
        return UnknownName(f"swarm {self.name!r}: {what}; agents: {', '.join(self.agents)}")


def _agents(swarm: str, given: Any) -> dict[str, Agent]:
    if isinstance(given, str | Agent) or not isinstance(given, Iterable):
        raise InvalidInput(f"agents of swarm {swarm!r} must be a list of agents, not {given!r}")
    agents = list(cast("Iterable[Any]", given))
    if not agents:
        raise InvalidInput(f"swarm {swarm!r} has no agents; give it one or more")
    for agent in agents:
        if not isinstance(agent, Agent):
            raise InvalidInput(f"{agent!r} is no Agent, so swarm {swarm!r} cannot have it")
        if agent.name is None:
            raise InvalidInput(f"an agent of swarm {swarm!r} has no name; give it name=")
    counted = Counter(agent.name for agent in agents)
    twice = sorted(str(name) for name, count in counted.items() if count > 1)
    if twice:
        raise ConfigurationError(f"swarm {swarm!r} has several agents named {', '.join(twice)}")
    return {str(agent.name): agent for agent in agents}


def _callable(given: Any, what: str) -> Any:
    if given is not None and not callable(given):
        raise InvalidInput(f"{what} is {given!r}, which cannot be called")
    return given


def _seconds(value: Any, name: str) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value <= 0:
        raise InvalidInput(f"{name} is {value!r}; it is seconds, more than 0")
    return float(value)


def _whole(value: Any, name: str, least: int) -> int:
    if type(value) is not int or value < least:
        raise InvalidInput(f"{name} is {value!r}; it is a whole number from {least} on")
    return value
