"""The settings of a server as they were given, checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from tertulia.agents.runner import Runner
from tertulia.errors import InvalidInput
from tertulia.live.agent import AgentNode
from tertulia.live.session import AgentSession, Setup
from tertulia.server.limits import Limits
from tertulia.swarm import Swarm
from tertulia.swarm.node import SwarmNode


def setup_of(setup: Setup | None, agent: Runner | None, swarms: Sequence[Swarm]) -> Setup:
    """The setup handler that is meant. Raises InvalidInput."""
    if setup is not None:
        if not callable(setup):  # pyright: ignore[reportUnnecessaryComparison]
            raise InvalidInput(
                f"the setup handler is an async function, not {setup!r}{_hint(setup)}"
            )
        return setup
    if agent is None and len(swarms) != 1:
        raise InvalidInput(
            "the setup handler is an async function; give one, or agent=, or one swarm in swarms="
        )

    async def answered(session: AgentSession) -> None:
        session.add_node(SwarmNode(swarms[0]) if agent is None else AgentNode(agent))
        await session.start()
        await session.wait_until_complete()

    return answered


def _hint(given: Any) -> str:
    """Where something else than a setup handler goes."""
    if isinstance(given, Swarm):
        return "; write AgentApp(swarms=[…])"
    return "; write AgentApp(agent=…)" if isinstance(given, Runner) else ""


def limits(connections: int, frame: int, rate: float | None, init_in: float) -> Limits:
    """What a server lets a client do. Raises InvalidInput."""
    return Limits(
        connections=int(positive(connections, "max_connections")),
        frame=int(positive(frame, "max_frame")),
        rate=None if rate is None else positive(rate, "rate"),
        init_in=positive(init_in, "init_in"),
    )


def texts(value: Sequence[str] | str | None, name: str) -> tuple[str, ...] | str | None:
    """A list of texts, ``*``, or None. Raises InvalidInput."""
    if value is None or value == "*":
        return cast("str | None", value)
    if isinstance(value, str):
        raise InvalidInput(f"{name} is a list of texts, or '*': [{value!r}]")
    return tuple(value)


def positive(value: float, name: str, *, zero: bool = False) -> float:
    """A number above 0, or 0 too. Raises InvalidInput."""
    number = isinstance(value, int | float) and not isinstance(value, bool)  # pyright: ignore[reportUnnecessaryIsInstance]
    if not number or value != value or value < 0 or (value == 0 and not zero):  # noqa: PLR0124
        raise InvalidInput(f"{name} is {value!r}; it is a number above 0")
    return value
