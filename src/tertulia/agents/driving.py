"""The life of an agent's turn: it begins, is driven to its end, and is closed whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable
from contextvars import ContextVar
from functools import partial
from typing import Any

import msgspec

from tertulia import admission, doors, ending, events, resuming, telemetry, turn_ends
from tertulia.agents.exchange import Exchange, cancel_soon
from tertulia.agents.loop import Loop, Plan
from tertulia.asked import Asked
from tertulia.doors import Outcome
from tertulia.drafting import Draft
from tertulia.errors import AgentError, StoreError, TurnInterrupted, UsageError
from tertulia.floor import floor_of, give_floor
from tertulia.resuming import OpenCall
from tertulia.turns import LISTEN_SECONDS, Turn, own_turn
from tertulia.usage import Usage

MAX_DEPTH = 8
"""Agents inside of tools of agents, on one session."""

LOOK_SECONDS = 30.0
"""Seconds after which a turn looks for requests of other processes even if no bell rang."""

_log = logging.getLogger(__name__)
_depths: ContextVar[dict[tuple[bytes, int], int]] = ContextVar("tertulia_depths", default={})  # noqa: B039
"""How deep agents run inside of each other, for each turn that the calling code is part of."""


class Begun(msgspec.Struct, frozen=True):
    """A turn under our hold, with the calls that are open in it."""

    turn: Turn
    calls: list[OpenCall] = []
    usage: Usage = Usage()
    """What it consumed before it was resumed."""
    joined: bool = False
    """It is the turn of the calling code, which closes it."""


async def begin(plan: Plan) -> Begun:
    """Take hold of the session, before anything is spent; inside a turn of its own, join that.

    Raises as `Session.turn`.
    """
    session = plan.session
    conversation, opening = session._conversation, session._opening  # pyright: ignore[reportPrivateUsage]
    running = own_turn(conversation)
    if running is not None and not plan.resuming:
        conversation.check_access(running.row, opening)
        return Begun(running, joined=True)
    if plan.resuming:
        resumed = await resuming.resume(conversation, opening, plan.asked.timeout, plan.cast.knows)
        try:
            plan.cast.restore(resumed.turn.asked.options or {})
        except UsageError:
            await doors.protected(resumed.turn.give_back)
            raise
        return Begun(resumed.turn, resumed.calls, resumed.usage)
    floor = plan.cast.floor if plan.by_floor else None
    turn = await admission.begin(conversation, opening, plan.asked, floor)
    session._opened()  # pyright: ignore[reportPrivateUsage]
    return Begun(turn)


async def drive(begun: Begun, plan: Plan, exchange: Exchange) -> None:
    """Run a turn that has begun to its end. Nothing is raised: the exchange gets the outcome.

    It must be the whole of its task, which is cancelled when the turn has to stop.
    """
    if begun.joined:
        await _join(begun.turn, plan, exchange)
        return
    turn = begun.turn
    exchange.attach(turn)
    turn.enter_context()
    _depths.set({**_depths.get(), _key(turn): 1})
    watcher = asyncio.ensure_future(_watch(turn, asyncio.current_task()))
    told = {"agent": turn.agent, "conversation": plan.session.id, "turn": turn.number}
    with telemetry.span("turn", told) as span:
        loop = Loop(turn, plan, exchange, watcher)
        try:
            response = await loop.run(turn.agent, begun.calls, begun.usage)
        except (asyncio.CancelledError, TurnInterrupted):
            if not await _said_instead(plan, loop, exchange):
                reason = turn.stop.result() if turn.stop.done else "cancelled"
                stopped = turn_ends.stopped(turn, reason)
                span.error(stopped)
                if turn.lost:
                    exchange.cut()
                    exchange.fail(stopped)  # before its end is written, which may take long
                if turn.lost and turn.asked.key is not None:
                    closing = turn.abandon()  # it is repeated, and would be there twice
                else:
                    closing = turn.interrupt(reason, exchange.cut() or None)
                await _end(turn, exchange, closing, stopped)
        except BaseException as error:
            span.error(error)
            await _end(turn, exchange, turn.fail(error), error)
        else:
            usage = response.usage
            span.set(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens)
            exchange.finish(response)
        finally:
            watcher.cancel()
            if plan.passing:
                session = plan.session
                await asyncio.shield(ending.discard(session._conversation, session._opening))  # pyright: ignore[reportPrivateUsage]


async def _said_instead(plan: Plan, loop: Loop, exchange: Exchange) -> bool:
    """Whether somebody gave the answer of a turn that was stopped, which is complete then."""
    said = None if plan.oversight is None else plan.oversight.instead
    if said is None:
        return False
    try:
        response = await asyncio.shield(loop.say(said, stopped=True))
    except (AgentError, asyncio.CancelledError):
        return False  # the turn is open still, or was closed by somebody else; then so it ends
    exchange.finish(response)
    return True


async def _join(turn: Turn, plan: Plan, exchange: Exchange) -> None:
    """Run an agent inside a turn of the calling code.

    Inside of another agent's turn, what it says is no part of the history, which the result of
    the tool will be; then several may run at once. Otherwise it goes into the turn, one at a time.
    """
    agent = plan.cast.first
    inside = turn.row.open_calls or _key(turn) in _depths.get()
    aside = [*plan.asked.messages] if inside else None
    loop = Loop(turn, plan, exchange, None, aside)
    task = asyncio.current_task()
    if task is not None:
        exchange.on_cancel(partial(cancel_soon, asyncio.get_running_loop(), task))
    try:
        if exchange.reason is not None:
            raise asyncio.CancelledError
        _go_deeper(turn)
        if aside is not None:
            response = await loop.run(agent)
        else:
            async with turn.joining:
                await turn.append(lambda draft: _enter(draft, plan.asked, agent))
                response = await loop.run(agent)
    except asyncio.CancelledError:
        exchange.cut()
        exchange.fail(TurnInterrupted("cancelled", session_id=plan.session.id))
    except BaseException as error:
        exchange.fail(error)
    else:
        exchange.finish(response)


def _key(turn: Turn) -> tuple[bytes, int]:
    return turn.row.uid, turn.number


def _go_deeper(turn: Turn) -> None:
    """Note that an agent runs inside another one's turn. Raises UsageError when it is too deep."""
    depth = _depths.get().get(_key(turn), 0) + 1
    if depth > MAX_DEPTH + 1:
        raise UsageError(f"agents run inside of each other's tools more than {MAX_DEPTH} deep")
    _depths.set({**_depths.get(), _key(turn): depth})


async def _enter(draft: Draft, asked: Asked, agent: str | None) -> None:
    """The request of an agent that joins a turn, which gives it the floor."""
    for message in asked.messages:
        draft.message(message)
    before = floor_of(draft)
    if agent is not None and agent != before:
        body = {"from": before or None, "to": agent, "reason": "it was run inside of the turn"}
        draft.add(events.HANDOFF, body, actor="agent")
        give_floor(draft, agent)


async def _end(
    turn: Turn, exchange: Exchange, closing: Awaitable[None], error: BaseException
) -> None:
    """Close a turn that did not complete; a second cancellation does not leave it open."""
    try:
        await asyncio.shield(closing)
    except BaseException as second:
        error.add_note(f"the turn could not be closed: {second!r}")
    if not exchange.outcome.done:
        exchange.fail(error)


async def _watch(turn: Turn, task: asyncio.Task[Any] | None) -> None:
    """Cancel the task of a turn when somebody asks the turn to stop.

    Who looks into the inbox may wait long for a store that does not answer; a request from here is
    seen meanwhile.
    """
    listening: asyncio.Task[None] | None = None
    try:
        if not await turn.stop.within(LISTEN_SECONDS):
            listening = asyncio.ensure_future(_listen(turn))
            listening.add_done_callback(partial(_note_deaf, turn))
            await turn.stop.within(None)
    finally:
        if listening is not None:
            listening.cancel()
    if task is not None:
        task.cancel()


def _note_deaf(turn: Turn, listening: asyncio.Task[None]) -> None:
    """Log why a turn hears no requests of other processes any more, but where it writes."""
    error = None if listening.cancelled() else listening.exception()
    if error is not None:
        text = "turn %d of session %r listens no more for requests to stop of other processes"
        _log.error(text, turn.number, turn.conversation.id, exc_info=error)


async def _listen(turn: Turn) -> None:
    """Look for requests of other processes, now and when the bell of the session has rung.

    Where the store fails, the next commit says so too. No bell is missed: it may ring while this
    looks or rests.
    """
    rung: Outcome[None] = Outcome()
    try:
        forget = turn.conversation.host.store.watch(turn.row.key, lambda: rung.set_result(None))
    except StoreError:
        return
    try:
        while True:
            rung = Outcome()
            with contextlib.suppress(StoreError):
                await turn.look()
            await rung.within(LOOK_SECONDS)
            await asyncio.sleep(LISTEN_SECONDS)
    finally:
        forget()
