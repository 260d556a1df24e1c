"""Sends messages as fast as it can, and says how often, and how long one took at most.

python is_busy.py FILE SESSION SECONDS
"""

import asyncio
import json
import os
import sys
import time

from tertulia import Message, Runtime


async def main() -> None:
    file, name, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    async with Runtime(f"sqlite:///{file}") as runtime:
        session = runtime.session(name.replace("own", f"own{os.getpid()}"))
        await session.send_message(Message.user("begin"))
        print("ready", flush=True)
        sys.stdin.readline()
        sent: list[tuple[int | None, str]] = []
        end, longest = time.monotonic() + seconds, 0.0
        while (start := time.monotonic()) < end:
            text = f"{os.getpid()} {len(sent)}"
            message = await session.send_message(Message.user(text))
            sent.append((message.seq, text))
            longest = max(longest, time.monotonic() - start)
    print(json.dumps([longest, session.id, sent]), flush=True)


asyncio.run(main())
