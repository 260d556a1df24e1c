"""Seats of live sessions: at which worker one lives, where a store has many workers.

A seat only shows the way to a session. Who may write to its log is decided by the store.
"""

from __future__ import annotations

from tertulia.session import Session


class Elsewhere(Exception):
    """The session lives at another worker."""

    def __init__(self, worker: bytes) -> None:
        super().__init__("the session lives at another worker")
        self.worker = worker


def place_of(conversation: Session) -> str:
    """The place of the live session of a conversation."""
    return f"live:{conversation.app_name or ''}:{conversation.id}"


async def take_seat(conversation: Session, *, by_force: bool = False) -> None:
    """Let the live session of a conversation be found here; `by_force` also where another has it.

    Does nothing where the store has one worker. Raises Elsewhere, and what the store raises.
    """
    cluster = conversation._host.cluster  # pyright: ignore[reportPrivateUsage]
    if cluster is None:
        return
    place = place_of(conversation)
    found = await cluster.take_seat(place)
    if found is not None and by_force:
        found = await cluster.take_seat(place, over=found)
    if found is not None:
        raise Elsewhere(found)
    if not cluster.reachable:  # whoever was sent here would come in vain
        await cluster.leave_seat(place)


async def leave_seat(conversation: Session) -> None:
    """Give the seat back, if it is ours. Raises what the store raises."""
    cluster = conversation._host.cluster  # pyright: ignore[reportPrivateUsage]
    if cluster is not None:
        await cluster.leave_seat(place_of(conversation))
