"""Flat costs (promise 5): nothing gets slower because a session is long or has a past.

Append at 10, 1,000 and 100,000 messages in a file that holds 100,000 other events; the newest
20 messages in every situation where a reader might have to look far; a fork; and the bytes a
conversation takes.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from benchmarks.figures import Figure, Target
from benchmarks.measure import Bench, Samples
from benchmarks.systems import OURS
from benchmarks.workloads import Options

ME = OURS.name
FLAT_APPEND = Target("ratio", "<=", 1.3)
FLAT_READ = Target("ratio", "<=", 2)


def measure(bench: Bench) -> Iterator[Figure]:
    """Every flat cost on one medium."""
    yield from _lengths(bench)
    yield from _history(bench)
    for text, bound in ((1024, 2.0), (200, 3.0)):
        yield _size(bench, text, bound)


def _run(bench: Bench, title: str, workload: str, options: Options) -> Samples:
    return bench.samples(title, workload, [[OURS]], lambda _: options)


def _large(bench: Bench) -> int:
    return 10_000 if bench.plan.quick else 100_000


def _ratio(found: Samples, key: str, case: str, base: str) -> float:
    """One case over another, within each repetition."""
    return statistics.median(each[case] / each[base] for each in found.each(ME, key))


def _lengths(bench: Bench) -> Iterator[Figure]:
    """Appends and forks at three lengths."""
    sizes = [10, 1000, _large(bench)]
    options: Options = {"sizes": sizes, "other": sizes[-1], "times": 200}
    found = _run(bench, "append and fork at every length", "flat_append", options)
    if found.error(ME) is not None:
        yield bench.figure("flat.append", ME, found)
        return
    yield _spread(bench, found, "flat.append", "append_ms", "ms")
    yield _spread(bench, found, "flat.append.bytes", "append_bytes", "bytes")
    longest = str(sizes[-1])
    value = found.median(ME, "fork_ms", longest)
    common = {"value": value, "unit": "ms"}
    ratio = _ratio(found, "fork_ms", longest, "10")
    name = f"flat.fork.{longest}"
    yield bench.figure(
        name, ME, found, **common, ratio_to="a fork of 10", ratio=ratio, target=FLAT_READ
    )
    yield bench.figure(f"{name}.ms", ME, found, **common, target=Target("value", "<", 0.5))


def _spread(bench: Bench, found: Samples, name: str, key: str, unit: str) -> Figure:
    """The dearest length over the cheapest, within each repetition."""
    each = found.each(ME, key)
    if not all(value for result in each for value in result.values()):
        return bench.figure(name, ME, found, note="not measured: the kernel does not say")
    medians = {length: found.median(ME, key, length) for length in each[0]}
    return bench.figure(
        name,
        ME,
        found,
        value=max(medians.values()),
        unit=unit,
        ratio_to="the cheapest length",
        ratio=statistics.median(max(r.values()) / min(r.values()) for r in each),
        target=FLAT_APPEND,
        detail={"by_length": medians},
    )


def _history(bench: Bench) -> Iterator[Figure]:
    """Every case against the newest 20 of a session of 100; first reads against their like too."""
    failed = 1000 if bench.plan.quick else 10_000
    options: Options = {"small": 100, "large": _large(bench), "failed_turns": failed}
    options |= {"times": 200, "openings": 15}
    found = _run(bench, "history(limit=20) behind everything", "flat_history", options)
    if found.error(ME) is not None:
        yield bench.figure("flat.history20", ME, found)
        return
    for case in found.each(ME, "history_ms")[0]:
        if case in {"small", "first read of small after opening"}:
            continue
        base = "small"
        if "after opening" in case:
            base = "first read of small after opening"
        yield _case(bench, found, case, base)
        if "fork of" in case and case != "first read of a fork of small":
            yield _case(bench, found, case, "first read of a fork of small")


def _case(bench: Bench, found: Samples, case: str, base: str) -> Figure:
    sizes = {"small": "100", "large": f"{_large(bench):,}"}
    named, against = (
        " ".join(sizes.get(word, word) for word in text.split()) for text in (case, base)
    )
    return bench.figure(
        f"flat.history20: {named}" + ("" if base == "small" else ", against its like"),
        ME,
        found,
        value=found.median(ME, "history_ms", case),
        unit="ms",
        ratio_to=against if base != "small" else "history(20) of 100",
        ratio=_ratio(found, "history_ms", case, base),
        target=FLAT_READ,
    )


def _size(bench: Bench, text: int, bound: float) -> Figure:
    """The database and its log after a checkpoint, over the text that was said."""
    messages = 1000 if bench.plan.quick else 10_000
    options: Options = {"messages": messages, "text": text}
    name = f"flat.bytes.{text}"
    found = _run(bench, f"bytes of {messages:,} messages of {text} B", "flat_size", options)
    if found.error(ME) is not None:
        return bench.figure(name, ME, found)
    return bench.figure(
        name,
        ME,
        found,
        value=found.median(ME, "value"),
        unit="bytes",
        ratio_to="the text",
        ratio=statistics.median(r["value"] / r["text_bytes"] for r in found.results[ME]),
        target=Target("ratio", "<=", bound),
    )
