"""One turn of an agent on session "s", begun or resumed, which stands still where it is told to.

Says "inside TOOL KEY" in its tools, and waits there if the tool is among those named; says what a
pause of the script is called, and waits; says how the turn ended, and waits.

python acts.py FILE run|resume JSON, where JSON has: script, theirs, wait (tools), key
"""

import asyncio
import json
import sys
import threading
from typing import Any

from tests.crash.crew import USER, Crew, steps

from tertulia import Runtime
from tertulia.errors import AgentError

ONE_AT_A_TIME = threading.Lock()


def say(text: str) -> None:
    with ONE_AT_A_TIME:
        print(text, flush=True)


def pause(text: str) -> None:
    say(text)
    sys.stdin.readline()


async def main() -> None:
    file, verb, text = sys.argv[1:]
    given: dict[str, Any] = json.loads(text)

    def inside(name: str, key: str) -> None:
        (pause if name in given.get("wait", ()) else say)(f"inside {name} {key}")

    crew = Crew(
        steps(given.get("script", ()), pause), steps(given.get("theirs", ()), pause), inside
    )
    async with Runtime(f"sqlite:///{file}") as runtime:
        session = crew.ann.session("s", user_id=USER, runtime=runtime)
        if given.get("at_once"):
            pause("ready")
        try:
            if verb == "run":
                options = {"metadata": {"who": "kim"}, "idempotency_key": given.get("key")}
                response = await session.run_async("Go", **options)
            else:
                response = await session.resume_async()
        except AgentError as error:
            pause(f"failed {type(error).__name__}")
        else:
            ended = f"waits {len(response.pending)}" if response.pending else response.text
            pause(f"ended {ended}")


asyncio.run(main())
