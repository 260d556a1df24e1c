"""Takes turns on one session, from several tasks of several threads at once.

python contends.py FILE_OR_ADDRESS THREADS TASKS TURNS
"""

import sys

from tests.crash.contention import contend
from tests.crash.workload import address_of

from tertulia import Runtime

file, *numbers = sys.argv[1:]
threads, tasks, turns = map(int, numbers)
print("ready", flush=True)
name = sys.stdin.readline().strip()
contend(Runtime(address_of(file)), name, threads=threads, tasks=tasks, turns=turns)
