"""Opens a store at the moment that it is told, writes one message, and answers "ok" or the error.

python opens.py FILE
"""

import os
import sys
import time

from tertulia import Message, Runtime
from tertulia.doors import call
from tertulia.errors import AgentError

runtime = Runtime(f"sqlite:///{sys.argv[1]}")
session = runtime.session(str(os.getpid()))
print("ready", flush=True)
moment = float(sys.stdin.readline())
while time.monotonic() < moment:
    pass
try:
    session.add_message(Message.user("hello"))
except AgentError as error:
    print(f"{type(error).__name__}: {error}", flush=True)
else:
    print("ok", flush=True)
call(runtime.close())
