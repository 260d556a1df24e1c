"""Turns on one session by many at once, and whether each of them is whole and in its place."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from tertulia import Event, Message, Runtime

SESSION = "contended"


def contend(runtime: Runtime, name: str, *, threads: int, tasks: int, turns: int) -> None:
    """Take so many turns in each of so many tasks of each of so many threads; then close."""
    failed: list[BaseException] = []

    def run(thread: int) -> None:
        try:
            asyncio.run(in_tasks(runtime, f"{name}.{thread}", tasks=tasks, turns=turns))
        except BaseException as error:  # for the thread that joins
            failed.append(error)

    started = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    asyncio.run(runtime.close())
    if failed:
        raise failed[0]


async def in_tasks(runtime: Runtime, name: str, *, tasks: int, turns: int) -> None:
    await asyncio.gather(
        *(take_turns(runtime, f"{name}.{task}", turns) for task in range(tasks)),
    )


async def take_turns(runtime: Runtime, name: str, turns: int) -> None:
    session = runtime.session(SESSION)
    calls: list[Any] = [{"id": "x", "name": "look"}]
    for number in range(turns):
        said = f"{name} {number}"
        async with session.turn(said) as turn:
            await turn.add_message({"role": "assistant", "content": said, "tool_calls": calls})
            await turn.tool_called("x", "look", effect="none")
            await asyncio.sleep(0)
            await turn.tool_returned("x", Message.tool(said, "x"))
            await turn.add_message(Message.assistant(said))


def check_nothing_interleaved(events: Sequence[Event]) -> None:
    """The events of each turn lie together, from its start to its end."""
    events = [event for event in events if event.type != "session.created"]
    for _, group in groupby(events, key=lambda event: event.turn):
        types = [event.type for event in group]
        assert types[-1] == "turn.completed"
        assert types.count("turn.started") == types.count("turn.completed") == 1
    turns = [number for number, _ in groupby(events, key=lambda event: event.turn)]
    assert turns == sorted(set(turns))


def check_all_answered_in_order(messages: Sequence[Message], names: set[str], turns: int) -> None:
    """Each turn is question, call, result and answer; those of one task are in its order."""
    assert len(messages) == 4 * len(names) * turns
    orders: dict[str, list[str]] = {}
    for at in range(0, len(messages), 4):
        four = messages[at : at + 4]
        assert [message.role for message in four] == ["user", "assistant", "tool", "assistant"]
        assert len({message.text for message in four}) == 1
        name, _, number = four[0].text.partition(" ")
        orders.setdefault(name, []).append(number)
    assert orders == {name: [str(number) for number in range(turns)] for name in names}
