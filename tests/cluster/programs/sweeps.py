"""Sweeps a store, and says what it does; with `step` each page of what is due waits for a line.

python sweeps.py ADDRESS SECONDS [step]
"""

import asyncio
import sys
from typing import Any

from tertulia import Runtime
from tertulia.stores import open_store
from tertulia.sweeping import Sweeper


def say(text: str) -> None:
    print(text, flush=True)


def tapped(address: str, step: bool) -> Any:
    """A store that says what is asked of it by whoever sweeps."""
    store: Any = open_store(address)
    entity, rows, delete_session = store.entity, store.rows, store.delete_session
    asked: list[str] = []

    async def look(kind: str, key: str) -> Any:
        found = await entity(kind, key)
        if not asked:
            asked.append(kind)
            say(f"looked at {kind}")
        return found

    async def page(**wanted: Any) -> Any:
        found = await rows(**wanted)
        if step and wanted.get("due_before"):
            say(f"page of {len(found)}")
            await asyncio.to_thread(sys.stdin.readline)
        return found

    async def delete(row: Any, *rest: Any, **more: Any) -> Any:
        say(f"deletes {row.id}")
        return await delete_session(row, *rest, **more)

    store.entity, store.rows, store.delete_session = look, page, delete
    return store


async def main() -> None:
    address, every, *rest = sys.argv[1:]
    async with Runtime(tapped(address, "step" in rest)) as runtime:
        sweeper = Sweeper(runtime, every=float(every))
        sweeper.start()
        seen = None
        while True:
            last = sweeper.last
            if last is not None and last is not seen and (last.done or not last.whole):
                say(f"swept {sum(last.done.values())} {last.whole}")
            seen = last
            await asyncio.sleep(0.01)


asyncio.run(main())
