"""Run the benchmarks: ours, the limits and the peers, interleaved, in one run.

    python -m benchmarks [--only append,flat] [--medium ram] [--quick] [--write-results]

One JSON line a figure on standard output; progress and a table on standard error. The status
is 1 when anything could not be measured, and with `--gate` also when a target is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks import (
    agents,
    append,
    bus,
    cluster_bells,
    cluster_forward,
    cluster_takeover,
    cluster_turns,
    concurrent,
    flat,
    importtime,
    live_graph,
    live_socket,
    media,
    postgres_append,
    reads,
    results,
    scale,
    swarm,
)
from benchmarks.figures import Figure, table
from benchmarks.measure import Bench, Plan

ON_MEDIA: dict[str, Callable[[Bench], Iterator[Figure]]] = {
    "append": append.measure,
    "concurrent": concurrent.measure,
    "flat": flat.measure,
    "reads": reads.measure,
    "agents": agents.measure,
    "bus": bus.measure,
    "swarm": swarm.measure,
    "live_graph": live_graph.measure,
    "live_socket": live_socket.measure,
    "postgres_append": postgres_append.measure,
    "cluster_turns": cluster_turns.measure,
    "cluster_forward": cluster_forward.measure,
    "cluster_takeover": cluster_takeover.measure,
    "cluster_bells": cluster_bells.measure,
    "scale": scale.measure,
}
SYNC_DECIDES = {"append", "concurrent", "agents", "swarm"}
NAMES = (*ON_MEDIA, "importtime")


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """What to measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--only", help=f"some of {','.join(NAMES)}")
    parser.add_argument("--medium", choices=media.NAMES, help="only this one")
    parser.add_argument("--quick", action="store_true", help="small, once: does it still run?")
    parser.add_argument("--repetitions", type=int, help="3 unless told; 1 with --quick")
    parser.add_argument("--no-peers", action="store_true", help="leave the peers out, and say so")
    parser.add_argument("--gate", action="store_true", help="fail when a target is missed")
    parser.add_argument("--write-results", action="store_true", help="append to RESULTS.md")
    chosen = parser.parse_args(given)
    chosen.names = chosen.only.split(",") if chosen.only else list(NAMES)
    if unknown := set(chosen.names) - set(NAMES):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    return chosen


def reporter() -> Callable[[str], None]:
    """Progress on standard error, with the time since the start."""
    started = time.monotonic()

    def report(step: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - started), 60)
        print(f"[{minutes:3d}:{seconds:02d}] {step}", file=sys.stderr, flush=True)

    return report


def media_of(name: str, chosen: str | None) -> Sequence[str]:
    """All media where the sync decides, else the RAM disk, or the one that was asked for."""
    if chosen is not None:
        return [chosen]
    if name == "postgres_append":
        return postgres_append.MEDIA
    return media.NAMES if name in SYNC_DECIDES else ["ram"]


def figures(chosen: argparse.Namespace, plan: Plan, work: Path) -> Iterator[Figure]:
    """Everything that was asked for, one figure at a time."""
    for name in chosen.names:
        if name == "importtime":
            yield from importtime.measure(plan)
            continue
        for medium_name in media_of(name, chosen.medium):
            try:
                medium = media.find(medium_name, work)
            except media.NotMeasured as reason:
                yield Figure(
                    figure=name, system="", medium=medium_name, note=f"not measured: {reason}"
                )
            else:
                yield from ON_MEDIA[name](Bench(plan, medium, work))
    if not plan.peers:
        yield Figure(figure="peers", system="", medium="", note="left out by --no-peers")


def main(given: Sequence[str] | None = None) -> int:
    """Measure, print, and say with the status whether all was measured."""
    chosen = arguments(given)
    repetitions = chosen.repetitions or (1 if chosen.quick else 3)
    plan = Plan(
        quick=chosen.quick,
        repetitions=repetitions,
        peers=not chosen.no_peers,
        report=reporter(),
    )
    found: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="tertulia-bench-") as work:
        for figure in figures(chosen, plan, Path(work)):
            found.append(figure)
            print(figure.line(), flush=True)
    print(f"\n{table(found)}", file=sys.stderr)
    if chosen.write_results:
        results.write(found, quick=chosen.quick)
    failed = any(figure.error is not None for figure in found)
    missed = any(figure.ok is False for figure in found)
    return int(failed or (chosen.gate and missed))


if __name__ == "__main__":
    raise SystemExit(main())
