"""Forks in a turn; the child tries to go on with it, says what it was told, and stays.

The parent then does what it is told: "end" ends its turn. It says the process id of the child.

python forks_in_a_turn.py FILE
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable

from tertulia import Message, Runtime
from tertulia.errors import AgentError


async def told(attempt: Callable[[], Awaitable[object]]) -> str:
    try:
        await attempt()
    except AgentError as error:
        return type(error).__name__
    return "nothing"


async def main() -> None:
    runtime = Runtime(f"sqlite:///{sys.argv[1]}")
    async with runtime.session("s").turn("question") as turn:
        await turn.tool_called("x", "charge")
        if (child := os.fork()) == 0:
            message = Message.assistant("of the child")
            print(await told(lambda: turn.add_message(message)), flush=True)
            print(await told(turn.complete), flush=True)
            signal.pause()
        await asyncio.to_thread(sys.stdin.readline)
        print(child, flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await turn.add_message(Message.assistant("answer"))
    await runtime.close()
    print("ended", flush=True)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


asyncio.run(main())
