"""Starts the measuring processes, in turns, and keeps what they found.

A repetition runs every system once, A B A B; a value is the median of its repetitions, and a
ratio the median of the ratios within each repetition, so that a slow minute of the computer
meets both sides.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, Target
from benchmarks.media import Medium
from benchmarks.systems import OURS, PEERS, Named
from benchmarks.workloads import Options, Result

ROOT = Path(__file__).parent.parent
PROCESS_LIMIT = 900.0

Group = Sequence[Named]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much to measure, and whom to tell about it."""

    quick: bool
    repetitions: int
    peers: bool
    report: Callable[[str], None]

    def groups(self, *ours: Group) -> list[Group]:
        """These processes, and one for each peer."""
        return [*ours, *([peer] for peer in (PEERS if self.peers else ()))]


@dataclass
class Samples:
    """All results of one workload: for each system, one in each repetition."""

    results: dict[str, list[Result]] = field(default_factory=dict[str, list[Result]])

    def add(self, found: dict[str, Result]) -> None:
        for name, result in found.items():
            self.results.setdefault(name, []).append(result)

    def error(self, name: str) -> str | None:
        errors = [result["error"] for result in self.results[name] if "error" in result]
        return errors[0] if errors else None

    def each(self, name: str, *keys: str) -> list[Any]:
        found: list[Any] = []
        for result in self.results[name]:
            value: Any = result
            for key in keys:
                value = value[key]
            found.append(value)
        return found

    def median(self, name: str, *keys: str) -> float:
        return float(statistics.median(self.each(name, *keys)))

    def ratio(self, name: str, other: str, *keys: str) -> float:
        pairs = zip(self.each(name, *keys), self.each(other, *keys), strict=True)
        return statistics.median(mine / theirs for mine, theirs in pairs)

    def best(self, named: Sequence[Named], *, highest: bool) -> Named | None:
        """Whoever of these was fastest, of those that could be measured."""
        able = [n for n in named if n.name in self.results and self.error(n.name) is None]
        choose = max if highest else min
        return choose(able, key=lambda n: self.median(n.name, "value")) if able else None


@dataclass(frozen=True)
class Bench:
    """One medium of one run."""

    plan: Plan
    medium: Medium
    work: Path
    """A folder of this run, for what is compiled."""

    def samples(
        self,
        title: str,
        workload: str,
        groups: Sequence[Group],
        options: Callable[[Named], Options],
    ) -> Samples:
        """Every group once in each repetition."""
        samples = Samples()
        for repetition in range(1, self.plan.repetitions + 1):
            for group in groups:
                names = " and ".join(named.name for named in group)
                of = f"{repetition}/{self.plan.repetitions}"
                self.plan.report(f"{title} · {self.medium.name} · {of} · {names}")
                samples.add(self._run(workload, group, options(group[-1])))
        return samples

    def _run(self, workload: str, group: Group, options: Options) -> dict[str, Result]:
        folder = Path(tempfile.mkdtemp(prefix="tertulia-bench-", dir=self.medium.folder))
        systems = {named.name: named.where for named in group}
        job = {"workload": workload, "systems": systems, "options": options}
        try:
            return self._start(job | {"folder": str(folder)})
        except (subprocess.SubprocessError, ValueError, IndexError) as error:
            return {name: {"error": f"the process failed: {error}"[:300]} for name in systems}
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _start(self, job: dict[str, Any]) -> dict[str, Result]:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.child", json.dumps(job)],
            cwd=ROOT,
            env=environment() | dict(self.medium.environment),
            stdout=subprocess.PIPE,
            timeout=PROCESS_LIMIT,
            text=True,
        )
        if done.returncode:
            raise ValueError(f"it ended with status {done.returncode}")
        return json.loads(done.stdout.strip().splitlines()[-1])

    def figure(self, name: str, system: str, samples: Samples, **more: Any) -> Figure:
        """A figure of this system on this medium; an error when it could not be measured."""
        figure = partial(
            Figure,
            figure=name,
            system=system,
            medium=self.medium.name,
            repetitions=self.plan.repetitions,
        )
        if (error := samples.error(system)) is not None:
            return figure(error=error)
        return figure(versions=samples.each(system, "versions")[-1], **more)

    def compared(
        self,
        name: str,
        samples: Samples,
        other: Named | None,
        unit: str,
        target: Target | None,
        mine: Named = OURS,
    ) -> Figure:
        """Ours against one other system, by `value`."""
        alone = self.alone(name, mine.name, samples, unit, mine.note)
        if alone.error is not None:
            return alone
        if other is None or samples.error(other.name) is not None:
            return replace(alone, error=f"no {other.name if other else 'peer'} to compare with")
        ratio = samples.ratio(mine.name, other.name, "value")
        return replace(alone, ratio_to=other.name, ratio=ratio, target=target)

    def alone(self, name: str, system: str, samples: Samples, unit: str, note: str = "") -> Figure:
        """A figure with nothing to reach."""
        if samples.error(system) is not None:
            return self.figure(name, system, samples)
        more = {"unit": unit, "note": note, "detail": details(samples, system)}
        return self.figure(name, system, samples, value=samples.median(system, "value"), **more)

    def others(
        self, name: str, samples: Samples, groups: Sequence[Group], unit: str
    ) -> Iterator[Figure]:
        """Everybody but us: lines without a target, or with the error that kept them out."""
        for group in groups:
            for named in group:
                if named is not OURS:
                    yield self.alone(name, named.name, samples, unit, named.note)


def details(samples: Samples, name: str) -> dict[str, Any]:
    """The rest of what the repetitions found: medians of times, sums of what went wrong."""
    results = samples.results[name]
    found: dict[str, Any] = {"values": [round(result["value"], 4) for result in results]}
    for key in ("turns", "p50_ms", "p99_ms", "max_ms"):
        if results[0].get(key) is not None:
            found[key] = statistics.median(samples.each(name, key))
    for key in ("errors", "lost_messages", "unacknowledged_messages"):
        if key in results[0]:
            found[key] = sum(samples.each(name, key))
    for key in ("error_kinds", "stopped_early"):
        if last := [result[key] for result in results if result.get(key)]:
            found[key] = last[-1]
    return found


def environment() -> dict[str, str]:
    """The environment of a measuring process: our source, no telemetry, no model keys."""
    kept = {k: v for k, v in os.environ.items() if not k.endswith("_API_KEY")}
    path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    quiet = {"OPENAI_AGENTS_DISABLE_TRACING": "1", "AGNO_TELEMETRY": "false"}
    quiet |= {"LANGSMITH_TRACING": "false", "OTEL_SDK_DISABLED": "true"}
    return kept | quiet | {"PYTHONPATH": path}
