"""A process is killed in the middle of a turn; the next one goes on where it was acknowledged."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile

from tertulia import Runtime


async def work(path: str) -> None:
    """The child: one turn that ends, and one that is cut off by SIGKILL."""
    session = Runtime(f"sqlite:///{path}").session("job")
    async with session.turn("Count to three.") as turn:
        await turn.add_message({"role": "assistant", "content": "One, two, three."})
    async with session.turn("Count to a million.") as turn:
        await turn.add_message({"role": "assistant", "content": "One, two, th"})
        os.kill(os.getpid(), signal.SIGKILL)


async def resume(path: str) -> None:
    """The parent: look at what is left, and go on."""
    async with Runtime(f"sqlite:///{path}") as runtime, runtime.session("job") as session:
        print("there is:", [message.text for message in await session.history()])
        async with session.turn("Where were we?") as turn:
            await turn.add_message({"role": "assistant", "content": "At a million, nearly."})
        print("then:", [message.text for message in await session.history()])
        print("in the audit:", [e.type for e in await session.events(types="turn.abandoned")])
        print("proved:", bool(await session.verify()))


if len(sys.argv) > 1:
    asyncio.run(work(sys.argv[1]))
with tempfile.TemporaryDirectory() as folder:
    died = subprocess.run([sys.executable, __file__, f"{folder}/job.db"], check=False)
    print("the child ended with", signal.Signals(-died.returncode).name)
    asyncio.run(resume(f"{folder}/job.db"))
