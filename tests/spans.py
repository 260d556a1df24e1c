"""A real OpenTelemetry for tests: what is recorded is kept in memory. One a process."""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

_exporters: list[InMemorySpanExporter] = []


def exporter() -> InMemorySpanExporter:
    """What keeps the spans, empty; the provider is set at the first call and stays."""
    if not _exporters:
        made = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(made))
        trace.set_tracer_provider(provider)
        _exporters.append(made)
    _exporters[0].clear()
    return _exporters[0]


def tree(spans: tuple[ReadableSpan, ...]) -> dict[str, list[str]]:
    """The names of the spans, by the name of their parent ("" for none), in order of start."""
    names = {span.context.span_id: span.name for span in spans if span.context is not None}
    found: dict[str, list[str]] = {}
    for span in sorted(spans, key=lambda each: each.start_time or 0):
        parent = "" if span.parent is None else names.get(span.parent.span_id, "?")
        found.setdefault(parent, []).append(span.name)
    return found
