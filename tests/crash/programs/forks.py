"""Uses a runtime, forks, and tries every kind of call in the child and then in the parent.

Prints the names of the calls that the child was not refused, and what the parent has then.

python forks.py FILE
"""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any, cast

from tertulia import Agent, Message, Runtime, Session
from tertulia.entity import Entity, query
from tertulia.errors import ForkedRuntimeError
from tertulia.testing.models import ScriptedModel

Call = Callable[[], Any]


class Counter(Entity):
    async def add(self) -> int:
        self.state["count"] = self.state.get("count", 0) + 1
        return self.state["count"]

    @query
    async def count(self) -> int:
        return self.state.get("count", 0)


def reading(session: Session) -> dict[str, Call]:
    async def follow() -> None:
        await anext(session.follow(after=0))

    return {
        "history": session.history,
        "messages": lambda: session.messages,
        "events": session.events,
        "follow": follow,
        "cursor": session.cursor,
        "pending_inputs": lambda: session.pending_inputs,
        "get_state": lambda: session.get_state("k"),
        "state_keys": session.state_keys,
        "user state": lambda: session.get_state("k", scope="user"),
        "verify": session.verify,
        "export": session.export,
        "to_dict": session.to_dict,
        "snapshot": session.snapshot,
        "metadata": lambda: session.metadata,
        "user_id": lambda: session.user_id,
        "retention": lambda: session.retention,
        "system": lambda: session.system,
    }


def writing(session: Session) -> dict[str, Call]:
    message = Message.user("x")

    async def turn() -> None:
        async with session.turn("x"):
            pass

    return {
        "send_message": lambda: session.send_message(message),
        "send_messages": lambda: session.send_messages([message]),
        "add_message": lambda: session.add_message(message),
        "set_state": lambda: session.set_state("k", 1),
        "delete_state": lambda: session.delete_state("k"),
        "update_state": lambda: session.update_state("k", lambda _: 1),
        "rewind": lambda: session.rewind(to=1),
        "fork": session.fork,
        "clear": session.clear,
        "prune": lambda: session.prune("keep_last_1"),
        "end": session.end,
        "reopen": session.reopen,
        "unlock": session.unlock,
        "hold": lambda: session.hold("why"),
        "release_hold": session.release_hold,
        "delete": session.delete,
        "turn": turn,
    }


def of_the_runtime(runtime: Runtime) -> dict[str, Call]:
    agent = Agent(model=ScriptedModel("yes"), runtime=runtime)
    counter = Counter(key="k", runtime=runtime)
    saved: dict[str, Any] = {"session_id": "s", "messages": []}
    return {
        "from_dict": lambda: Session.from_dict(saved, runtime=runtime),
        "run": lambda: agent.session("s").run("x"),
        "run_async": lambda: agent.session("s").run_async("x"),
        "another session": lambda: runtime.session("t").send_message(Message.user("x")),
        "a call of an entity": counter.add,
        "a query of an entity": counter.count,
        "get": lambda: runtime.get("s"),
        "sessions": runtime.sessions,
        "sweep": runtime.sweep,
        "erase_user": lambda: runtime.erase_user("ann"),
        "export_user": lambda: runtime.export_user("ann"),
        "stats": runtime.stats,
        "a new runtime on the file": lambda: Runtime(f"sqlite:///{sys.argv[1]}").sessions(),
    }


async def outcome(call: Call) -> None:
    result = call()
    if hasattr(result, "__await__"):
        await cast("Awaitable[object]", result)


def is_refused(call: Call, *, in_a_loop: bool) -> bool:
    try:
        if in_a_loop:
            asyncio.run(outcome(call))
        else:
            result = call()
            if hasattr(result, "__await__"):
                asyncio.run(outcome(lambda: result))
    except ForkedRuntimeError:
        return True
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    return False


def in_child(runtime: Runtime, session: Session) -> list[str]:
    every = {**reading(session), **writing(session), **of_the_runtime(runtime)}
    allowed = [
        f"{name}, {'in a loop' if in_a_loop else 'without a loop'}"
        for name, call in every.items()
        for in_a_loop in (False, True)
        if not is_refused(call, in_a_loop=in_a_loop)
    ]
    with contextlib.suppress(ForkedRuntimeError):
        asyncio.run(runtime.close())
    elsewhere = Runtime(f"sqlite:///{sys.argv[1]}.other").session("s")
    elsewhere.add_message(Message.user("in the child"))
    if [message.text for message in elsewhere.messages] != ["in the child"]:
        allowed.append("a file of its own is not usable")
    return allowed


def main() -> None:
    runtime = Runtime(f"sqlite:///{sys.argv[1]}")
    session = runtime.session("s", user_id="ann")
    session.add_message(Message.user("before"))
    session.set_state("k", 0, scope="user")
    if (child := os.fork()) == 0:
        print(json.dumps(in_child(runtime, session)), flush=True)
        sys.exit(0)  # and whatever runs at the end of a process
    _, status = os.waitpid(child, 0)
    session.add_message(Message.user("after"))
    proved = bool(asyncio.run(session.verify()))
    said = [message.text for message in session.messages]
    print(json.dumps([os.waitstatus_to_exitcode(status), said, proved]), flush=True)
    asyncio.run(runtime.close())


main()
