"""Two workers of one database: a client is served by one, then by the other when it is killed."""

import asyncio
import os
from contextlib import ExitStack, closing
from multiprocessing import Pipe, connection
from multiprocessing.context import SpawnProcess

from tertulia import Agent, Runtime, Swarm
from tertulia.testing import ScriptedModel, servers


def work(name: str, ann: str, pipe: connection.Connection) -> None:
    """A worker on TERTULIA_STORE and TERTULIA_BUS: what comes through its pipe, ann says."""
    shop = Swarm("shop", [Agent("clerk", model=ScriptedModel(*[f"{name} answers"] * 9))])

    async def talk() -> None:
        async with Runtime(swarms=[shop]) as runtime, runtime.client_session(ann, "shop") as client:
            while said := await asyncio.to_thread(pipe.recv):
                pipe.send(f"{said} - {await client.execute(said, idempotency_key=said)}")

    asyncio.run(talk())


if __name__ == "__main__":
    with ExitStack() as stack:
        needed = {"TERTULIA_STORE": servers.PostgresServer, "TERTULIA_BUS": servers.NatsServer}
        for name in needed.keys() - os.environ.keys():  # servers that end with this program
            os.environ[name] = stack.enter_context(closing(needed[name]())).url
        (one, at_one), (two, at_two), ann = Pipe(), Pipe(), f"ann-{os.getpid()}"
        first = SpawnProcess(target=work, args=("one", ann, at_one))
        for worker in first, SpawnProcess(target=work, args=("two", ann, at_two)):
            worker.start()
            stack.callback(worker.kill)
        for pipe, said in (one, "Hello!"), (two, "Are you there?"), (two, "And now?"):
            pipe.send(said)
            print(pipe.recv())
            if pipe is two:
                first.kill()
