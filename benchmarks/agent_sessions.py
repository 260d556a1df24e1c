"""What the measuring process of `agents` does with many sessions at once, and what it counts.

A request says what its turn is to be: see `Obedient`.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks.agent_models import TOOLS, Obedient
from benchmarks.agent_talkers import Ours
from benchmarks.child import Opened
from benchmarks.media import syncs as syncs_so_far
from benchmarks.ours import DATABASE
from benchmarks.workloads import Options, Result, milliseconds
from tertulia import Agent, Event, Message, Runtime, Session

Line = tuple[str, str]
"""The role and the text of a message."""

QUICK, BLOCKING, SLOW = "look_up", "look_up_blocking", "look_up_slowly"
SHAPES = {
    "turn": (0, 0, QUICK),
    "one_round": (1, 1, QUICK),
    "three_rounds": (3, 1, QUICK),
    "parallel_tools": (1, 8, QUICK),
    "blocking_tools": (1, 8, BLOCKING),
    "uneven_tools": (1, 2, SLOW),
}
"""Rounds of tools, calls in each, and the tool."""

clock = time.perf_counter


class Obeying(Ours):
    """Our agent with tools."""

    model = Obedient

    async def open(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.agent = Agent(model=self.model(), tools=TOOLS, runtime=runtime)


# -- syncs


async def syncs(systems: Opened, options: Options) -> list[Result]:
    """The syncs of each shape of a turn, the most of any; and of many turns, with checkpoints."""
    found: Result = {}
    async with Runtime(f"sqlite:///{systems[0][1] / DATABASE}") as runtime:
        talker = Obeying()
        await talker.open(runtime)
        for name, (rounds, calls, tool) in SHAPES.items():
            for how in (False, True):
                talker.begin(f"{name}-{how}")
                each = [
                    await _counted(talker, f"{name}-{n} {rounds} {calls} {tool}", streams=how)
                    for n in range(options["turns"] + 1)
                ]
                extra = [(count - 2) / rounds for count in each[1:]] if rounds else each[1:]
                found[f"{name}.streamed" if how else name] = max(extra)
        talker.begin("many")
        before = syncs_so_far()
        for number in range(options["many"]):
            await talker.turn(f"many-{number} 0 0 {QUICK}")
            if number % 20 == 0:
                talker.begin(f"many-{number}")
        found["with_checkpoints"] = (syncs_so_far() - before) / options["many"]
    return [found | {"value": found["turn"]}]


async def _counted(talker: Obeying, text: str, *, streams: bool) -> int:
    before = syncs_so_far()
    if streams:
        async for _ in talker.pieces(text):
            pass
    else:
        await talker.turn(text)
    return syncs_so_far() - before


# -- many sessions


async def sessions(systems: Opened, options: Options) -> list[Result]:
    """Many sessions at once, a round with two tools in each fifth turn; then every log is read."""
    folder = systems[0][1]
    names = [f"conversation-{number}" for number in range(options["sessions"])]
    asked = {name: _requests(name, options["turns"]) for name in names}
    taken: list[float] = []
    errors: Counter[str] = Counter()
    async with Runtime(f"sqlite:///{folder / DATABASE}") as runtime:
        agent = Agent(model=Obedient(), tools=TOOLS, runtime=runtime)
        await agent.session("warm-up").run_async(f"warm-up 1 2 {QUICK}")
        opened = {name: agent.session(name) for name in names}
        started = clock()
        await asyncio.gather(
            *(_talk(session, asked[name], taken, errors) for name, session in opened.items())
        )
        elapsed = clock() - started
    found: Result = {"value": len(taken) / elapsed, "turns": len(taken), **milliseconds(taken)}
    found |= {"errors": sum(errors.values()), "error_kinds": dict(errors)}
    return [found | await _read_back(folder, asked)]


def _requests(name: str, turns: int) -> list[str]:
    return [
        f"{name}/{number} {int(number % 5 == 4)} {2 * int(number % 5 == 4)} {QUICK}"
        for number in range(turns)
    ]


async def _talk(
    session: Session, requests: Sequence[str], taken: list[float], errors: Counter[str]
) -> None:
    for request in requests:
        started = clock()
        try:
            await session.run_async(request)
        except Exception as error:
            errors[f"{type(error).__name__}: {error}"[:120]] += 1
        else:
            taken.append(clock() - started)


async def _read_back(folder: Path, asked: dict[str, list[str]]) -> Result:
    """Read every log through a new opening: what is missing, and what is out of its place."""
    lost = interleaved = 0
    async with Runtime(f"sqlite:///{folder / DATABASE}") as runtime:
        for name, requests in asked.items():
            session = runtime.session(name)
            expected = [line for request in requests for line in lines_of(request)]
            got = [line_of(message) for message in await session.history()]
            missing = Counter(expected) - Counter(got)
            lost += missing.total()
            strange = (Counter(got) - Counter(expected)).total()
            interleaved += strange or int(not missing and got != expected)
            interleaved += misplaced(await session.events())
    return {"lost_messages": lost, "interleaved": interleaved}


def line_of(message: Message) -> Line:
    """A message, as far as it is compared."""
    calls = " ".join(call.id for call in message.tool_calls or ())
    return message.role, f"{message.text}{calls}{message.tool_call_id or ''}"


def lines_of(request: str) -> list[Line]:
    """What one turn leaves in the history."""
    name, rounds, calls, _ = request.split()
    lines = [("user", request)]
    for number in range(int(rounds)):
        ids = [f"{name}-{number}-{call}" for call in range(int(calls))]
        lines.append(("assistant", " ".join(ids)))
        lines += [("tool", f"order {call} is there{made}") for call, made in enumerate(ids)]
    return [*lines, ("assistant", f"{request}: done")]


def misplaced(events: Sequence[Event]) -> int:
    """Events that break the order: no gap in `seq`, each turn whole before the next begins."""
    wrong, running = 0, 0
    for place, event in enumerate(events, 1):
        wrong += event.seq != place
        if event.type == "turn.started":
            wrong += running != 0
            running = event.turn
        elif event.type.startswith("turn."):
            wrong += event.type != "turn.completed" or event.turn != running
            running = 0
        elif event.type != "session.created":
            wrong += event.turn != running
    return wrong + int(running != 0)
