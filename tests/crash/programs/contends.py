"""Takes turns on one session, from several tasks of several threads at once.

python contends.py FILE THREADS TASKS TURNS
"""

import sys

from tests.crash.contention import contend

from tertulia import Runtime

file, *numbers = sys.argv[1:]
threads, tasks, turns = map(int, numbers)
print("ready", flush=True)
name = sys.stdin.readline().strip()
contend(Runtime(f"sqlite:///{file}"), name, threads=threads, tasks=tasks, turns=turns)
