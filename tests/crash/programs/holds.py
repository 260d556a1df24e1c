"""Takes a turn, and goes on with it when it is told to; says what became of that.

python holds.py FILE_OR_ADDRESS SESSION
"""

import asyncio
import sys

from tests.crash.workload import USER, address_of

from tertulia import Message, Runtime
from tertulia.errors import AgentError


async def main() -> None:
    place, name = sys.argv[1:]
    async with Runtime(address_of(place)) as runtime:
        session = runtime.session(name, user_id=USER)
        try:
            async with session.turn("question") as turn:
                print("holds", flush=True)
                await asyncio.to_thread(sys.stdin.readline)
                await turn.add_message(Message.assistant("too late"))
        except AgentError as error:
            print(type(error).__name__, flush=True)
        else:
            print("wrote", flush=True)


asyncio.run(main())
