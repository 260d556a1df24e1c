"""The price of `import tertulia`: a command line tool pays it every time.

Fresh processes, in turns: nothing, the parts of the standard library that any such runtime
needs, us, and each peer. And a promise of the packaging: importing us imports no web framework
and no model SDK.
"""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from benchmarks.figures import Figure, Target
from benchmarks.measure import ROOT, Plan, environment

NOTHING = "python -c pass"
STANDARD = "asyncio, sqlite3 and json"
OURS = {
    "tertulia": "import tertulia\ntertulia.__version__",
    "tertulia: Runtime and Session": "from tertulia import Runtime, Session",
}
PEERS = {
    "openai-agents": "import agents",
    "google-adk": (
        "from google.adk.agents import Agent\n"
        "from google.adk.runners import Runner\n"
        "from google.adk.sessions.sqlite_session_service import SqliteSessionService"
    ),
    "agno": "from agno.agent import Agent\nfrom agno.db.sqlite import SqliteDb",
    "strands": "from strands import Agent",
    "langgraph": (
        "from langgraph.graph import StateGraph\n"
        "from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver"
    ),
}
FOREIGN = (
    "aiohttp anthropic boto3 cohere django fastapi flask google.genai groq httpx litellm "
    "mistralai openai pydantic pydantic_ai quart sanic starlette tornado uvicorn websockets"
).split()
LOADED = f"""
import json, sys
from tertulia import Runtime, Session
print(json.dumps([name for name in {FOREIGN!r} if name in sys.modules]))
"""


@dataclass(frozen=True)
class Started:
    """One process that imported something."""

    milliseconds: float
    error: str | None


def start(code: str) -> Started:
    """Run this code in a fresh interpreter, from start to end."""
    command = [sys.executable, "-c", code]
    started = time.perf_counter()
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    taken = (time.perf_counter() - started) * 1000
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return Started(taken, (lines or ["it failed"])[-1] if done.returncode else None)


def measure(plan: Plan) -> Iterator[Figure]:
    """Every import beside ours; this promise has no medium."""
    cases = {NOTHING: "pass", STANDARD: "import asyncio, sqlite3, json"} | OURS
    if plan.peers:
        cases |= PEERS
    found: dict[str, list[Started]] = {name: [start(code)] for name, code in cases.items()}
    times = 5 if plan.quick else 21
    for number in range(1, times + 1):
        plan.report(f"import · {number}/{times}")
        for name, code in cases.items():
            if found[name][0].error is None:
                found[name].append(start(code))
    for name, each in found.items():
        yield _figure(name, each, found[STANDARD], times)
    if found["tertulia"][0].error is None:
        yield _foreign()


def _figure(name: str, each: list[Started], standard: list[Started], times: int) -> Figure:
    figure = partial(Figure, figure="import", system=name, medium="")
    if each[0].error is not None:
        return figure(error=each[0].error)
    value = statistics.median(one.milliseconds for one in each[1:])
    base = statistics.median(one.milliseconds for one in standard[1:])
    return figure(
        value=value,
        unit="ms",
        ratio_to=STANDARD,
        ratio=value / base,
        target=Target("value", "<", 120) if name in OURS else None,
        repetitions=times,
        versions={"python": platform.python_version()},
    )


def _foreign() -> Figure:
    done = subprocess.run(
        [sys.executable, "-c", LOADED], cwd=ROOT, env=environment(), stdout=subprocess.PIPE
    )
    loaded: list[str] = json.loads(done.stdout)
    return Figure(
        figure="import.foreign_modules",
        system="tertulia",
        medium="",
        value=len(loaded),
        target=Target("value", "==", 0),
        repetitions=1,
        detail={"loaded": loaded, "looked_for": FOREIGN},
    )
