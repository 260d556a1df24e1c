"""One measurement in a process of its own: a job as JSON in, the results as the last line out."""

from __future__ import annotations

import asyncio
import json
import sys
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from benchmarks.systems import Measured, Named, load_name
from benchmarks.workloads import Options, Result

Opened = list[tuple[Measured, Path]]
Workload = Callable[[Opened, Options], Awaitable[list[Result]]]

WORKLOADS = {
    "append": "benchmarks.workloads:append",
    "concurrent": "benchmarks.workloads:concurrent",
    "last": "benchmarks.workloads:last",
    "fork": "benchmarks.workloads:fork",
    "flat_append": "benchmarks.flat_workloads:append",
    "flat_history": "benchmarks.flat_workloads:history",
    "flat_size": "benchmarks.flat_workloads:size",
    "agent_turns": "benchmarks.agent_turns:turns",
    "agent_tokens": "benchmarks.agent_turns:tokens",
    "agent_syncs": "benchmarks.agent_sessions:syncs",
    "agent_sessions": "benchmarks.agent_sessions:sessions",
    "bus": "benchmarks.bus_load:events",
    "swarm_turns": "benchmarks.swarm_load:turns",
    "swarm_visits": "benchmarks.swarm_load:visits",
    "live_graph": "benchmarks.live_chains:events",
    "live_echo": "benchmarks.live_load:echo",
    "live_idle": "benchmarks.live_load:idle",
    "live_churn": "benchmarks.live_load:churn",
    "live_interrupts": "benchmarks.live_load:interrupts",
}


def allow_many_files() -> None:
    """Some peers keep a connection for each session and thread: give them all they may have."""
    try:
        import resource
    except ImportError:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def failure(error: Exception) -> Result:
    """An error as a result, so that it is reported and never skipped."""
    traceback.print_exc()
    return {"error": f"{type(error).__name__}: {error}"[:300]}


def load(job: dict[str, Any]) -> tuple[dict[str, Measured], dict[str, Result]]:
    """The systems that can be imported, and the errors of those that cannot."""
    loaded: dict[str, Measured] = {}
    failed: dict[str, Result] = {}
    for name, where in job["systems"].items():
        try:
            loaded[name] = Named(name=name, where=where, kind="peer").load()
        except Exception as error:
            failed[name] = failure(error)
    return loaded, failed


async def measure(job: dict[str, Any], opened: Opened) -> list[Result]:
    """The workload of this job, on the systems that could be loaded."""
    workload: Workload = load_name(WORKLOADS[job["workload"]])
    return await workload(opened, job["options"])


def run(job: dict[str, Any]) -> dict[str, Result]:
    """A result for each system of the job, by name."""
    loaded, results = load(job)
    opened: Opened = []
    for number, system in enumerate(loaded.values()):
        folder = Path(job["folder"]) / str(number)
        folder.mkdir()
        opened.append((system, folder))
    try:
        measured = asyncio.run(measure(job, opened)) if opened else []
        for (name, system), result in zip(loaded.items(), measured, strict=True):
            results[name] = result | {"versions": system.versions()}
    except Exception as error:
        results |= dict.fromkeys(loaded, failure(error))
    return results


def main() -> None:
    allow_many_files()
    result = run(json.loads(sys.argv[1]))
    print(f"\n{json.dumps(result)}", flush=True)


if __name__ == "__main__":
    main()
