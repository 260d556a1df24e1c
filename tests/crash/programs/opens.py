"""Opens a store when it is told to, writes one message, and answers "ok" or the error.

python opens.py FILE
"""

import os
import sys

from tertulia import Message, Runtime
from tertulia.doors import call
from tertulia.errors import AgentError

runtime = Runtime(f"sqlite:///{sys.argv[1]}")
session = runtime.session(str(os.getpid()))
print("ready", flush=True)
sys.stdin.readline()
try:
    session.add_message(Message.user("hello"))
except AgentError as error:
    print(f"{type(error).__name__}: {error}", flush=True)
else:
    print("ok", flush=True)
call(runtime.close())
