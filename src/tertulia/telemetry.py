"""Spans and store metrics, for an application that has set up OpenTelemetry.

Nothing of OpenTelemetry is imported here: an application that wants spans has imported it and
set a provider, and only then are there any. Names follow OpenTelemetry's conventions for
generative AI. What a span may say is a closed list, in which there is no text of a message, no
argument, no state and no user.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from contextvars import Token
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self
from weakref import WeakKeyDictionary

import msgspec

from tertulia.errors import ConfigurationError, ForkedRuntimeError, InvalidInput, StoreError

if TYPE_CHECKING:
    from opentelemetry import metrics, trace
    from opentelemetry.context import Context

    from tertulia.stores.base import StoreStats

Kind = Literal["turn", "chat", "tool", "commit"]
Value = str | int | float | Iterable[str] | None

MAX_TEXT = 256
"""Characters of an attribute; the rest is cut off."""
MAX_ITEMS = 16
"""Items of an attribute that is a list."""

ATTRIBUTES: dict[str, str] = {
    "agent": "gen_ai.agent.name",
    "conversation": "gen_ai.conversation.id",
    "turn": "tertulia.turn",
    "provider": "gen_ai.provider.name",
    "model": "gen_ai.request.model",
    "temperature": "gen_ai.request.temperature",
    "max_tokens": "gen_ai.request.max_tokens",
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "finish_reasons": "gen_ai.response.finish_reasons",
    "tool": "gen_ai.tool.name",
    "call": "gen_ai.tool.call.id",
    "effect": "tertulia.tool.effect",
    "events": "tertulia.events",
}
"""All that a span may say: our word for it, and its name in OpenTelemetry."""


class Shape(msgspec.Struct, frozen=True):
    """What every span of a kind has: `named` is the attribute that its name ends with."""

    operation: str | None
    name: str
    named: str | None = None
    client: bool = False


SHAPES: dict[Kind, Shape] = {
    "turn": Shape("invoke_agent", "invoke_agent", "agent"),
    "chat": Shape("chat", "chat", "model", client=True),
    "tool": Shape("execute_tool", "execute_tool", "tool"),
    "commit": Shape(None, "tertulia.commit"),
}


class Span:
    """One step of the work, as a context: what begins inside of it is its child.

    This one does nothing. It is what there is without OpenTelemetry.
    """

    __slots__ = ()

    def set(self, **attributes: Value) -> None:
        """Say more of it, by the words of `ATTRIBUTES`; None is left out. Raises InvalidInput."""

    def error(self, error: BaseException) -> None:
        """Say that it failed: the type of the error is told, its text is not."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None


NOTHING = Span()


def span(kind: Kind, attributes: Mapping[str, Value] | None = None) -> Span:
    """A span to enter: ``with span("tool", {"tool": "look", "call": "c1"}) as step: …``.

    An error that leaves it is told as by `Span.error`. Without a provider it is `NOTHING`. The
    model may be named with its provider, as ``openai:gpt-4o``. Raises InvalidInput for an
    attribute that is not in `ATTRIBUTES`, but only where there is a provider.
    """
    tracer = _tracer()
    return NOTHING if tracer is None else _Recorded(tracer, kind, attributes or {})


class _Recorded(Span):
    """A span of OpenTelemetry's."""

    __slots__ = ("_attributes", "_failed", "_kind", "_span", "_token", "_tracer")

    _span: trace.Span
    _token: Token[Context]

    def __init__(self, tracer: trace.Tracer, kind: Kind, attributes: Mapping[str, Value]) -> None:
        self._tracer = tracer
        self._kind: Kind = kind
        self._attributes = _named(attributes)
        self._failed = False

    def set(self, **attributes: Value) -> None:
        self._span.set_attributes(_named(attributes))

    def error(self, error: BaseException) -> None:
        from opentelemetry.trace import Status, StatusCode

        self._failed = True
        self._span.set_attribute("error.type", _kind_of(error))
        self._span.set_status(Status(StatusCode.ERROR))

    def __enter__(self) -> Self:
        from opentelemetry import context, trace

        shape, attributes = SHAPES[self._kind], self._attributes
        if shape.operation is not None:
            attributes["gen_ai.operation.name"] = shape.operation
        if self._kind == "tool":
            attributes["gen_ai.tool.type"] = "function"
        about = attributes.get(ATTRIBUTES[shape.named]) if shape.named else None
        self._span = self._tracer.start_span(
            shape.name if about is None else f"{shape.name} {about}",
            kind=trace.SpanKind.CLIENT if shape.client else trace.SpanKind.INTERNAL,
            attributes=attributes,
        )
        self._token = context.attach(trace.set_span_in_context(self._span))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        from opentelemetry import context

        if error is not None and not self._failed:
            self.error(error)
        context.detach(self._token)
        self._span.end()


_tracers: list[tuple[Any, trace.Tracer]] = []
"""The tracer in use, with the provider that it is from."""


def _tracer() -> trace.Tracer | None:
    """The tracer of the provider that the application has set, if it has."""
    if "opentelemetry.trace" not in sys.modules:
        return None
    from opentelemetry import trace

    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider):
        return None
    for known, tracer in _tracers:
        if known is provider:
            return tracer
    tracer = provider.get_tracer("tertulia")
    _tracers[:] = [(provider, tracer)]
    return tracer


def _named(attributes: Mapping[str, Value]) -> dict[str, Any]:
    """The attributes by their names in OpenTelemetry, none longer than is allowed."""
    named: dict[str, Any] = {}
    for word, value in attributes.items():
        if word not in ATTRIBUTES:
            raise InvalidInput(f"a span does not tell {word!r}; it tells {', '.join(ATTRIBUTES)}")
        if value is not None:
            named[ATTRIBUTES[word]] = _bounded(value)
    provider, colon, model = named.get(ATTRIBUTES["model"], "").partition(":")
    if colon:
        named.update({ATTRIBUTES["provider"]: provider, ATTRIBUTES["model"]: model})
    return named


def _bounded(value: str | int | float | Iterable[str]) -> Any:
    if isinstance(value, str):
        return value[:MAX_TEXT]
    if isinstance(value, int | float):
        return value
    return [item[:MAX_TEXT] for item in list(value)[:MAX_ITEMS]]


def _kind_of(error: BaseException) -> str:
    kind = type(error)
    home = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return f"{home}{kind.__qualname__}"[:MAX_TEXT]


class Observed(Protocol):
    """What has numbers to tell: a `Runtime`."""

    def stats(self) -> StoreStats:
        """A snapshot. Raises StoreError once it is closed."""
        ...


class Instrument(msgspec.Struct, frozen=True):
    """A number of `StoreStats` as a metric."""

    field: str
    unit: str
    description: str
    rises: bool = False
    """Whether it counts since the store was opened; else it is how things are now."""


METRICS: dict[str, Instrument] = {
    "tertulia.store.commits": Instrument(
        "commits", "{commit}", "Transactions that were committed", rises=True
    ),
    "tertulia.store.changes": Instrument("changes", "{change}", "Changes in them", rises=True),
    "tertulia.store.refused": Instrument(
        "refused", "{change}", "Changes whose fence did not hold", rises=True
    ),
    "tertulia.store.queue": Instrument("queue_depth", "{change}", "Changes that wait"),
    "tertulia.store.batch.max": Instrument(
        "batch_size_max", "{change}", "Changes in the largest transaction"
    ),
    "tertulia.store.commit.p50": Instrument(
        "commit_seconds_p50", "s", "What half of the newest transactions took at most"
    ),
    "tertulia.store.commit.p99": Instrument(
        "commit_seconds_p99", "s", "What 99 of 100 of the newest transactions took at most"
    ),
    "tertulia.store.wal": Instrument("wal_bytes", "By", "The size of the write-ahead log"),
}
"""The metrics by their names in OpenTelemetry."""


class _Observers:
    """The runtimes that one provider of metrics asks, each with its name."""

    def __init__(self, meter: metrics.Meter) -> None:
        self._lock = threading.Lock()
        self._runtimes: WeakKeyDictionary[Observed, str] = WeakKeyDictionary()
        for name, instrument in METRICS.items():
            make = (
                meter.create_observable_counter
                if instrument.rises
                else meter.create_observable_gauge
            )
            make(name, [self._reader(instrument)], instrument.unit, instrument.description)

    def add(self, runtime: Observed, store: str) -> None:
        with self._lock:
            self._runtimes[runtime] = store

    def _reader(
        self, instrument: Instrument
    ) -> Callable[[metrics.CallbackOptions], list[metrics.Observation]]:
        from opentelemetry.metrics import Observation

        def read(_: metrics.CallbackOptions) -> list[metrics.Observation]:
            with self._lock:
                runtimes = list(self._runtimes.items())
            told = [(name, _stats(runtime)) for runtime, name in runtimes]
            return [
                Observation(getattr(stats, instrument.field), {"tertulia.store": name})
                for name, stats in told
                if stats is not None
            ]

        return read


def _stats(runtime: Observed) -> StoreStats | None:
    try:
        return runtime.stats()
    except (StoreError, ForkedRuntimeError):
        return None  # closed, or another process's: it has nothing to tell any more


_lock = threading.Lock()
_global: list[_Observers] = []
_observers: WeakKeyDictionary[Any, _Observers] = WeakKeyDictionary()


def observe(
    runtime: Observed,
    store: str = "default",
    *,
    provider: metrics.MeterProvider | None = None,
) -> None:
    """Tell the metrics of OpenTelemetry what `runtime.stats()` says, while the runtime lives.

    `store` is the value of the attribute ``tertulia.store``, which tells several runtimes apart.
    `provider` is the application's by default, also when it is set later. Raises
    ConfigurationError where OpenTelemetry is not installed.
    """
    try:
        import opentelemetry.metrics  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError as error:
        raise ConfigurationError(
            "OpenTelemetry is not installed; install it with: pip install opentelemetry-sdk"
        ) from error
    with _lock:
        _asked_by(provider).add(runtime, store[:MAX_TEXT])


def _asked_by(provider: metrics.MeterProvider | None) -> _Observers:
    """What a provider asks; there is one for each, and one for the application's."""
    from opentelemetry import metrics

    if provider is None:
        if not _global:
            _global.append(_Observers(metrics.get_meter("tertulia")))
        return _global[0]
    found = _observers.get(provider)
    if found is None:
        found = _observers[provider] = _Observers(provider.get_meter("tertulia"))
    return found
