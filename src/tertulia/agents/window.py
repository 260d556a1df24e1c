"""What a model is shown of a session: the running turn, and before it the newest that fits."""

from __future__ import annotations

from tertulia.budget import Budget, Room, first_shown
from tertulia.messages import Message
from tertulia.session import Session
from tertulia.view import View

PAGE = 64
"""Messages that are read at a time."""


async def visible(
    session: Session, turn: int, budget: Budget | None = None, system: str | None = None
) -> list[Message]:
    """The messages that a model is to see, oldest first; call it from inside the running turn.

    `turn` is the number of the running turn: its messages are shown whole, also where they alone
    are over the budget. Of those before it the newest that fit are shown, beginning with a
    question of the user, so that no tool call is parted from its result. A summary that a prune
    left comes first where it fits beside the running turn, and counts. `system` is the text that
    goes with the messages, and counts in tokens. Without a budget: everything.

    No more is read than is shown, and one page. Raises InvalidInput when the budget's own
    `count_tokens` gives no count.
    """
    view = await session._view(None)  # pyright: ignore[reportPrivateUsage]
    if view is None:
        return []
    if budget is None or budget.unlimited:
        return await view.messages()
    summary = await view.summary()
    pages = _Pages(view, budget, summary)
    running, page = await _running(pages, turn)
    head, room = _beside(budget.room(system, running), summary, budget)
    older, all_fit = await _fitting(pages, page, budget, room)
    asked = bool(running) and running[0].role == "user"
    start = 0 if all_fit else first_shown(older, asked=asked)
    return [*head, *older[start:], *running]


def _beside(room: Room, summary: Message | None, budget: Budget) -> tuple[list[Message], Room]:
    """The summary, where there is one and room for it, and the room that it leaves."""
    if summary is None:
        return [], room
    left = room.without(budget.cost(summary))
    return ([], room) if left.overdrawn else ([summary], left)


class _Pages:
    """The messages of a view a page at a time, from the newest back, without its summary."""

    def __init__(self, view: View, budget: Budget, summary: Message | None) -> None:
        self._view = view
        self._size = PAGE if budget.keep_last is None else min(PAGE, budget.keep_last + 1)
        self._summary = None if summary is None else summary.id
        self._before: int | None = None

    async def next(self) -> list[Message]:
        """The next older ones, oldest first; empty at the end."""
        page = await self._view.messages(self._size, self._before)
        if page and page[0].id == self._summary:
            page = page[1:]
        if page:
            self._before = page[0].seq
        return page


async def _running(pages: _Pages, turn: int) -> tuple[list[Message], list[Message]]:
    """The messages of the running turn, and the newest ones before it."""
    running: list[Message] = []
    while page := await pages.next():
        first = next((at for at, m in enumerate(page) if (m.seq or 0) >= turn), len(page))
        running[:0] = page[first:]
        if first > 0:
            return running, page[:first]
    return running, []


async def _fitting(
    pages: _Pages, page: list[Message], budget: Budget, room: Room
) -> tuple[list[Message], bool]:
    """The newest of a page and of those before it that there is room for; whether that is all."""
    newest_first: list[Message] = []
    while page:
        for message in reversed(page):
            room = room.without(budget.cost(message))
            if room.overdrawn:
                return newest_first[::-1], False
            newest_first.append(message)
        page = await pages.next()
    return newest_first[::-1], True
