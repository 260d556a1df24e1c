"""A request that is repeated with the same idempotency key runs once."""

from __future__ import annotations

from typing import Any

import msgspec

from tertulia import admission
from tertulia.agents.exchange import Exchange
from tertulia.agents.loop import Plan
from tertulia.agents.outputs import prepare_output
from tertulia.agents.response import Response, StreamEvent
from tertulia.errors import (
    IdempotencyConflict,
    InvalidInput,
    SchemaValidationError,
    TurnInterrupted,
)
from tertulia.stores.base import Request
from tertulia.turns import own_turn


async def repeated(plan: Plan, exchange: Exchange) -> bool:
    """Whether the request ran before, or runs now: then the exchange gets what became of that.

    Otherwise later ones with its key attach to this one. A request that failed runs again.
    Raises IdempotencyConflict when the key was used for another request.
    """
    key = plan.asked.key
    if key is None or plan.resuming:
        return False
    session, digest = plan.session, plan.asked.digest()
    conversation = session._conversation  # pyright: ignore[reportPrivateUsage]
    if own_turn(conversation) is not None:
        raise InvalidInput("idempotency_key is for a turn of its own; this one joins a turn")
    row = conversation.known or await conversation.row()
    if row is not None:
        conversation.check_access(row, session._opening)  # pyright: ignore[reportPrivateUsage]
    while (running := conversation.requests.get(key)) is not None:
        if running[0] != digest:
            raise IdempotencyConflict(
                f"idempotency key {key!r} is in use in session {session.id!r} for another request",
                session_id=session.id,
            )
        try:
            _give(exchange, await running[1])
        except TurnInterrupted:
            continue  # who asked first went away, and we did not
        return True
    conversation.requests[key] = (digest, exchange.outcome)
    exchange.at_end(lambda: conversation.requests.pop(key, None))
    if row is None:
        return False
    found = await admission.earlier(conversation, row, key, digest)
    if found is None or found.status != "done":
        return False
    await give_earlier(plan, exchange, found)
    return True


async def give_earlier(plan: Plan, exchange: Exchange, request: Request) -> None:
    """The stored answer of a request that was carried out before."""
    response = msgspec.json.decode(request.result or b"{}", type=Response)
    kind = plan.cast.speaker(response.agent).output_type
    output: Any = response.text
    if kind is not None:
        try:
            output = (await prepare_output(kind)).read(response.text)
        except ValueError as error:
            raise SchemaValidationError(
                f"the answer that is stored for idempotency key {plan.asked.key!r} is of another "
                f"type: {error}"
            ) from error
    _give(exchange, msgspec.structs.replace(response, output=output))


def _give(exchange: Exchange, response: Response) -> None:
    """The answer of an earlier turn, as if it was given now."""
    exchange.offer(StreamEvent(type="turn_started", turn=response.turn))
    exchange.offer(StreamEvent(type="text_delta", text=response.text))
    for message in response.messages[-1:]:
        exchange.offer(StreamEvent(type="message", message=message))
    exchange.offer(StreamEvent(type="turn_completed", response=response, turn=response.turn))
    exchange.finish(response)
