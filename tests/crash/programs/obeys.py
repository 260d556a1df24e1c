"""Does with sessions what it is told, a line at a time, and answers "ok" or the error.

python obeys.py FILE
"""

import asyncio
import sys
from contextlib import AbstractAsyncContextManager

from tertulia import Message, Runtime
from tertulia.errors import AgentError
from tertulia.turns import Turn


class Obedient:
    """Has at most one turn open."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._turn: Turn | None = None
        self._block: AbstractAsyncContextManager[Turn] | None = None

    async def do(self, command: str, argument: str) -> None:
        if command == "send":
            await self._runtime.session(argument).send_message(Message.user("sent"))
        elif command == "send-much":
            await self._runtime.session(argument).send_message(Message.user("x" * 900_000))
        elif command == "begin":
            self._block = self._runtime.session(argument).turn("theirs")
            self._turn = await self._block.__aenter__()
        elif self._turn is None or self._block is None:
            raise AssertionError("there is no turn")
        elif command == "add":
            await self._turn.add_message(Message.assistant(argument))
        elif command == "call":
            call: list[dict[str, object]] = [{"id": argument, "name": "charge"}]
            await self._turn.add_message({"role": "assistant", "content": "", "tool_calls": call})
            await self._turn.tool_called(argument, "charge")
        elif command == "return":
            await self._turn.tool_returned(argument, Message.tool("charged", argument))
        elif command == "fail":
            await self._turn.fail(ValueError("it failed"))
        elif command == "end":
            await self._block.__aexit__(None, None, None)


async def main() -> None:
    async with Runtime(f"sqlite:///{sys.argv[1]}") as runtime:
        obedient = Obedient(runtime)
        for line in sys.stdin:
            command, _, argument = line.strip().partition(" ")
            try:
                await obedient.do(command, argument)
            except AgentError as error:
                print(type(error).__name__, flush=True)
            else:
                print("ok", flush=True)


asyncio.run(main())
