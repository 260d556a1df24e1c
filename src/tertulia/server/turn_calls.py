"""What the HTTP API does with turns: run, stream, resume, approve."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from tertulia import approvals
from tertulia.agents.runner import Runner
from tertulia.agents.streaming import AsyncStream
from tertulia.approvals import Approval
from tertulia.errors import InvalidInput
from tertulia.server import requests, sse, views
from tertulia.server.operations import Call, Service
from tertulia.server.reaching import Reached, reach
from tertulia.server.session_calls import key_of, plain
from tertulia.server.sse import EventStream
from tertulia.server.views import Answer
from tertulia.session import Session

_OPTIONS = ("temperature", "max_tokens", "metadata", "busy", "timeout")


async def run(call: Call) -> Answer | EventStream:
    """The answer of a turn, or the turn as it happens."""
    body: requests.Run = call.body
    reached = await reach(call)
    given = body.input if isinstance(body.input, str) else plain(body.input)
    options = {name: getattr(body, name) for name in _OPTIONS}
    options["idempotency_key"] = key_of(call, body.idempotency_key)
    agent, session = _chosen(call, reached, body.agent)
    streamed = streams(call, body.stream)
    if not streamed and body.agent is not None:
        return views.answer(await agent.run(given, session, **options))
    if not streamed:
        return views.answer(await session.run_async(given, **options))
    if body.agent is not None:
        stream = agent.stream(given, session, **options)
    else:
        stream = session.stream_async(given, **options)
    return EventStream(_told(stream), call.place)


def streams(call: Call, said: bool | None) -> bool:
    """Whether the answer comes as server-sent events: where nothing is said, the header decides."""
    return "text/event-stream" in call.headers.get("accept", "") if said is None else said


async def _told(stream: AsyncStream) -> AsyncGenerator[bytes]:
    """A turn as bytes; what it raises at its end is for whoever sends them to tell."""
    async with stream:
        async for happened in stream:
            if happened.type != "error":
                seq = None if happened.message is None else happened.message.seq
                yield sse.event(happened.type, views.turn_event(happened), seq)


async def resume(call: Call) -> Answer:
    """The answer of the turn that was suspended, or left by a process that died."""
    body: requests.Resume = call.body
    agent, session = _chosen(call, await reach(call), body.agent)
    return views.answer(await agent.resume(session))


async def decide(call: Call) -> Approval:
    """A decision about a tool call that waits. Raises InvalidInput where no such call waits."""
    body: requests.Decision = call.body
    reached = await reach(call)
    decision = "approved" if body.decision == "approve" else "rejected"
    return await approvals.decide(
        reached.conversation, reached.opening, call.path["call_id"], decision, body.reason
    )


def _chosen(call: Call, reached: Reached, name: str | None) -> tuple[Runner, Session]:
    """Who answers, and the session in its hands. Raises InvalidInput where there is nobody."""
    agent = _agent(call.service, reached, name)
    session: Any = call.service.runtime.session(
        reached.session.id, app_name=reached.session.app_name, user_id=call.user, agent=agent
    )
    return agent, session


def _agent(service: Service, reached: Reached, name: str | None) -> Runner:
    """The agent of a name, else the one that has the floor, else the one for all else."""
    agents = service.agents
    found = agents.get(name or reached.row.details.agent or "")
    if found is None and name is None:
        found = service.agent or (next(iter(agents.values())) if len(agents) == 1 else None)
    if found is None:
        there = ", ".join(sorted(agents)) or "none"
        raise InvalidInput(f"no agent {name or ''!r} is served here; say agent=, one of: {there}")
    return found
