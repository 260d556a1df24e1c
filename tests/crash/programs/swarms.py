"""One client of a swarm, "ann", whose turn stands still where it is told to.

Says "inside TOOL" in a tool and waits there; says what a pause of a script is called, and waits.

python swarms.py FILE JSON, where JSON has the scripts of triage and sales
"""

import asyncio
import json
import sys
from typing import Any

from tests.crash.guild import Guild

from tertulia import Runtime


def pause(text: str) -> None:
    print(text, flush=True)
    sys.stdin.readline()


async def main() -> None:
    file, text = sys.argv[1:]
    given: dict[str, Any] = json.loads(text)
    guild = Guild(given, pause)
    async with Runtime(f"sqlite:///{file}", swarms=[guild.swarm]) as runtime:
        answer = await runtime.client_session("ann", "shop").execute("Money back")
        pause(f"ended {answer}")


asyncio.run(main())
