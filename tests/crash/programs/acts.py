"""One turn of an agent on session "s", begun or resumed, which stands still where it is told to.

Says "inside TOOL KEY" in its tools, and waits there if the tool is among those named; says what a
pause of the script is called, and waits; says how the turn ended, and waits.

python acts.py FILE run|resume|all JSON, where JSON has: script, theirs, wait (tools), key,
at_once (it says "ready" and waits), stepped (it says each of its commits and waits), queued (the
text of a second request, made while the first one runs)

"all" approves what waits, and resumes.
"""

import asyncio
import json
import sys
import threading
from collections.abc import Awaitable
from typing import Any

from tests.crash.crew import USER, Crew, steps

from tertulia import Runtime, Session, SQLiteStore
from tertulia.agents import Response
from tertulia.errors import AgentError
from tertulia.stores.base import Change, SessionRow

ONE_AT_A_TIME = threading.Lock()


def say(text: str) -> None:
    with ONE_AT_A_TIME:
        print(text, flush=True)


def pause(text: str) -> None:
    say(text)
    sys.stdin.readline()


class SteppedStore(SQLiteStore):
    """A store that waits after each commit to a session."""

    def commit(self, change: Change) -> Awaitable[SessionRow]:
        return self._step(super().commit(change), [record.type for record in change.records])

    async def _step(self, committed: Awaitable[SessionRow], types: list[str]) -> SessionRow:
        row = await committed
        pause(" ".join(types))
        return row


async def act(session: Session, verb: str, given: dict[str, Any]) -> Response:
    if verb == "resume":
        return await session.resume_async()
    options = {"metadata": {"who": "kim"}, "idempotency_key": given.get("key")}
    running = asyncio.ensure_future(session.run_async("Go", **options))
    if "queued" in given:
        while not await session.events():
            await asyncio.sleep(0)
        await asyncio.gather(running, session.run_async(given["queued"]))
    response = await running
    while verb == "all" and response.pending:
        for each in response.pending:
            await session.approve(each.id)
        response = await session.resume_async()
    return response


async def main() -> None:
    file, verb, text = sys.argv[1:]
    given: dict[str, Any] = json.loads(text)

    def inside(name: str, key: str) -> None:
        (pause if name in given.get("wait", ()) else say)(f"inside {name} {key}")

    crew = Crew(
        steps(given.get("script", ()), pause), steps(given.get("theirs", ()), pause), inside
    )
    async with Runtime((SteppedStore if given.get("stepped") else SQLiteStore)(file)) as runtime:
        session = crew.ann.session("s", user_id=USER, runtime=runtime)
        if given.get("at_once"):
            pause("ready")
        try:
            response = await act(session, verb, given)
        except AgentError as error:
            pause(f"failed {type(error).__name__}")
        else:
            ended = f"waits {len(response.pending)}" if response.pending else response.text
            pause(f"ended {ended}")


asyncio.run(main())
