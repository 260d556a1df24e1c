"""Writes on several sessions at once until it is killed, and says what was acknowledged.

python writes.py FILE_OR_ADDRESS SEED
"""

import asyncio
import json
import random
import sys

from tests.crash.workload import Fact, Worker, address_of

from tertulia import Runtime


def say(fact: Fact) -> None:
    print(json.dumps(fact), flush=True)


async def write(runtime: Runtime, name: str, seed: str) -> None:
    worker = Worker(runtime, name, random.Random(name + seed), say)
    while True:
        await worker.step()


async def main() -> None:
    file, seed = sys.argv[1:]
    async with Runtime(address_of(file)) as runtime:
        await asyncio.gather(*(write(runtime, name, seed) for name in "abc"))


asyncio.run(main())
