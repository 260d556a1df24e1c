"""A place among the turns that a process runs at once, where these are limited."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar

from tertulia.conversation import TURN_TIMEOUT, Conversation
from tertulia.errors import SessionBusy, TurnTimeout
from tertulia.gate import GateFull, GateTimeout, Slots
from tertulia.turns import in_turn


class _Guest:
    """A call of a turn that runs at another worker, as long as it is open."""

    def __init__(self) -> None:
        self.open = True


_guest: ContextVar[_Guest | None] = ContextVar("tertulia_guest", default=None)


@contextmanager
def guest(inside: bool = True) -> Generator[None]:
    """What runs inside is, with `inside`, a part of a turn of another worker: it has a place there.

    So its turns take none here; two workers that are full would wait for each other.
    """
    made = _Guest()
    made.open = inside
    token = _guest.set(made)
    try:
        yield
    finally:
        made.open = False
        _guest.reset(token)


def placed() -> bool:
    """Whether the calling code is part of a turn, of whatever session, here or at another worker.

    Then it needs no place of its own.
    """
    found = _guest.get()
    return in_turn() or (found is not None and found.open)


async def _at_once() -> None:
    """Nothing is to be done before the wait."""


async def take(
    conversation: Conversation,
    seconds: float | None,
    before: Callable[[], Awaitable[None]] = _at_once,
) -> Slots | None:
    """Where to give the place back; None inside of another turn, which has one.

    Where it has to be waited for, `before` is awaited first. Raises SessionBusy when too many
    wait, and TurnTimeout after `seconds` (None: 600).
    """
    slots = conversation.host.slots
    if placed():
        return None
    if slots.try_enter():
        return slots
    await before()
    try:
        await slots.enter(TURN_TIMEOUT if seconds is None else seconds)
    except GateFull:
        raise SessionBusy(
            f"{slots.limit} turns run in this process and {slots.waiting} wait already; add a "
            "worker, or try again later",
            session_id=conversation.id,
        ) from None
    except GateTimeout:
        raise TurnTimeout(
            f"no turn of session {conversation.id!r} could begin in time: {slots.limit} run in "
            "this process, which is its max_turns",
            session_id=conversation.id,
        ) from None
    return slots
