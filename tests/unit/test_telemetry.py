"""Spans and metrics, with a real OpenTelemetry beside them, or none."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from contextvars import copy_context
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from tests.spans import exporter, tree

from tertulia import MemoryStore, Runtime, SQLiteStore, telemetry
from tertulia.errors import InvalidInput, ModelError
from tertulia.stores.base import StoreStats


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return exporter()


def only(spans: InMemorySpanExporter) -> ReadableSpan:
    [found] = spans.get_finished_spans()
    return found


def run(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        timeout=50,
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_turn_is_an_invocation_of_its_agent(spans: InMemorySpanExporter) -> None:
    about = {"agent": "clerk", "conversation": "s1", "turn": 7}
    with telemetry.span("turn", about) as turn:
        turn.set(input_tokens=10, output_tokens=0)
    span = only(spans)
    assert (span.name, span.kind) == ("invoke_agent clerk", SpanKind.INTERNAL)
    assert span.status.status_code is StatusCode.UNSET
    assert dict(span.attributes or {}) == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "clerk",
        "gen_ai.conversation.id": "s1",
        "tertulia.turn": 7,
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 0,
    }


def test_a_model_step_is_a_chat_with_its_provider_apart(spans: InMemorySpanExporter) -> None:
    about = {"model": "openai:gpt-4o", "temperature": 0, "max_tokens": None}
    with telemetry.span("chat", about) as chat:
        chat.set(finish_reasons=["stop"])
    span = only(spans)
    assert (span.name, span.kind) == ("chat gpt-4o", SpanKind.CLIENT)
    assert dict(span.attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.request.temperature": 0,
        "gen_ai.response.finish_reasons": ("stop",),
    }


def test_a_tool_call_has_the_name_of_the_tool_and_its_id(spans: InMemorySpanExporter) -> None:
    with telemetry.span("tool", {"tool": "look", "call": "c1", "effect": "none"}):
        pass
    span = only(spans)
    assert span.name == "execute_tool look"
    assert dict(span.attributes or {}) == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.type": "function",
        "gen_ai.tool.name": "look",
        "gen_ai.tool.call.id": "c1",
        "tertulia.tool.effect": "none",
    }


def test_a_commit_is_no_operation_of_a_model(spans: InMemorySpanExporter) -> None:
    with telemetry.span("commit", {"conversation": "s1", "events": 3}):
        pass
    span = only(spans)
    assert span.name == "tertulia.commit"
    assert dict(span.attributes or {}) == {"gen_ai.conversation.id": "s1", "tertulia.events": 3}


def test_without_the_name_that_it_ends_with_a_span_has_the_operation_alone(
    spans: InMemorySpanExporter,
) -> None:
    with telemetry.span("turn", {"agent": None}):
        pass
    assert only(spans).name == "invoke_agent"


def test_an_error_that_leaves_is_told_by_its_type_and_never_by_its_text(
    spans: InMemorySpanExporter,
) -> None:
    with pytest.raises(ModelError), telemetry.span("chat", {"model": "m"}):
        raise ModelError("the secret question was refused")
    span = only(spans)
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == "tertulia.errors.ModelError"
    assert span.events == ()
    assert "secret" not in span.to_json()


def test_an_error_that_was_told_is_not_replaced_by_the_one_that_leaves(
    spans: InMemorySpanExporter,
) -> None:
    def fails() -> None:
        with telemetry.span("turn") as turn:
            turn.error(ValueError("first"))
            raise KeyError("second")

    with pytest.raises(KeyError):
        fails()
    assert (only(spans).attributes or {})["error.type"] == "ValueError"


def test_an_error_that_stays_inside_is_told_by_hand(spans: InMemorySpanExporter) -> None:
    with telemetry.span("tool", {"tool": "look"}) as step:
        step.error(TimeoutError("late"))
    assert only(spans).status.status_code is StatusCode.ERROR
    assert (only(spans).attributes or {})["error.type"] == "TimeoutError"


def test_only_what_is_on_the_list_can_be_told(spans: InMemorySpanExporter) -> None:
    with pytest.raises(InvalidInput, match="does not tell 'content'"):
        telemetry.span("chat", {"content": "secret"})
    with telemetry.span("chat") as chat, pytest.raises(InvalidInput, match="'arguments'"):
        chat.set(arguments="secret")
    words = " ".join([*telemetry.ATTRIBUTES, *telemetry.ATTRIBUTES.values()])
    for forbidden in ("content", "message", "argument", "result", "state", "user", "key"):
        assert forbidden not in words


def test_attributes_are_bounded(spans: InMemorySpanExporter) -> None:
    with telemetry.span("tool", {"tool": "x" * 10_000}) as step:
        step.set(finish_reasons=("y" * 10_000 for _ in range(10_000)))
    attributes: Any = only(spans).attributes
    assert len(attributes["gen_ai.tool.name"]) == telemetry.MAX_TEXT
    reasons = attributes["gen_ai.response.finish_reasons"]
    assert len(reasons) == telemetry.MAX_ITEMS
    assert {len(reason) for reason in reasons} == {telemetry.MAX_TEXT}


async def test_a_span_is_the_parent_of_what_begins_in_its_tasks_and_threads(
    spans: InMemorySpanExporter,
) -> None:
    def tool(name: str) -> None:
        with telemetry.span("tool", {"tool": name}):
            assert trace.get_current_span().is_recording()

    async def step(name: str) -> None:
        with telemetry.span("tool", {"tool": name}):
            await asyncio.sleep(0)
            with telemetry.span("commit"):
                pass

    with telemetry.span("turn"):
        with telemetry.span("chat"):
            await asyncio.sleep(0)
        await asyncio.gather(step("a"), step("b"))
        thread = Thread(target=copy_context().run, args=(tool, "c"))
        thread.start()
        thread.join()
    with telemetry.span("turn"):
        pass
    found = tree(spans.get_finished_spans())
    assert found[""] == ["invoke_agent", "invoke_agent"]
    assert sorted(found["invoke_agent"]) == [
        "chat",
        "execute_tool a",
        "execute_tool b",
        "execute_tool c",
    ]
    assert found["execute_tool a"] == found["execute_tool b"] == ["tertulia.commit"]


def test_a_span_is_a_child_of_the_applications_own(spans: InMemorySpanExporter) -> None:
    with trace.get_tracer("app").start_as_current_span("request"), telemetry.span("turn"):
        pass
    assert tree(spans.get_finished_spans()) == {"": ["request"], "request": ["invoke_agent"]}


def test_a_sampled_out_span_is_silent_and_so_are_its_children() -> None:
    run("""
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
import sys
provider = TracerProvider(sampler=ALWAYS_OFF)
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=sys.stderr)))
trace.set_tracer_provider(provider)
from tertulia import telemetry
with telemetry.span("turn", {"agent": "a"}) as turn:
    turn.set(input_tokens=1)
    turn.error(ValueError("x"))
    with telemetry.span("chat"):
        pass
""")


def test_without_opentelemetry_nothing_is_imported_and_nothing_happens() -> None:
    run("""
import sys
import tertulia
from tertulia import telemetry
with telemetry.span("turn", {"agent": "a"}) as turn:
    turn.set(input_tokens=1)
    turn.error(ValueError("x"))
assert turn is telemetry.NOTHING
tertulia.Agent(model="offline").session().run("Hello")
assert not any(name.startswith("opentelemetry") for name in sys.modules)
""")


def test_with_opentelemetry_but_no_provider_nothing_happens_until_there_is_one() -> None:
    run("""
from opentelemetry import trace
from tertulia import telemetry
assert telemetry.span("turn") is telemetry.NOTHING
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider())
assert telemetry.span("turn") is not telemetry.NOTHING
""")


# -- metrics


def read(reader: InMemoryMetricReader) -> dict[str, dict[str, float]]:
    """The newest value of each metric, by the store that it is of."""
    data = reader.get_metrics_data()
    found: dict[str, dict[str, float]] = {}
    for resource in data.resource_metrics if data is not None else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    store = str((point.attributes or {})["tertulia.store"])
                    found.setdefault(store, {})[metric.name] = getattr(point, "value", -1)
    return found


def test_there_is_a_metric_for_every_number_of_a_store() -> None:
    fields = [metric.field for metric in telemetry.METRICS.values()]
    assert sorted(fields) == sorted(StoreStats.__struct_fields__)


def test_the_guide_tells_every_metric_and_every_attribute() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "how-to" / "telemetry.md").read_text()
    for name, metric in telemetry.METRICS.items():
        assert f"| `{name}` | `{metric.unit}` |" in guide
    untold = [name for name in telemetry.ATTRIBUTES.values() if f"`{name}`" not in guide]
    assert untold == []


async def test_the_numbers_of_several_stores_are_told_apart(tmp_path: Path) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    async with (
        Runtime(MemoryStore()) as memory,
        Runtime(SQLiteStore(tmp_path / "x.db")) as sqlite,
    ):
        telemetry.observe(memory, "scratch", provider=provider)
        telemetry.observe(sqlite, "chats", provider=provider)
        telemetry.observe(sqlite, "chats", provider=provider)
        for _ in range(3):
            await sqlite.session("s").send_message({"role": "user", "content": "Hi"})
        found = read(reader)
        assert found.keys() == {"scratch", "chats"}
        assert found["chats"].keys() == telemetry.METRICS.keys()
        assert found["chats"]["tertulia.store.changes"] == sqlite.stats().changes >= 3
        assert found["scratch"]["tertulia.store.changes"] == 0
        await sqlite.session("s").send_message({"role": "user", "content": "Hi"})
        assert read(reader)["chats"]["tertulia.store.changes"] == sqlite.stats().changes
    provider.shutdown()


async def test_observing_keeps_no_runtime_alive_and_tells_nothing_of_one_that_is_gone() -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    runtime = Runtime(MemoryStore())
    telemetry.observe(runtime, "passing", provider=provider)
    assert read(reader).keys() == {"passing"}
    await runtime.close()
    del runtime
    gc.collect()
    assert read(reader) == {}
    provider.shutdown()


def test_a_provider_that_is_set_later_is_told_too() -> None:
    run("""
import asyncio
from tertulia import Runtime, telemetry
runtime, other = Runtime("memory:"), Runtime("memory:")
telemetry.observe(runtime, "one")
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader]))
telemetry.observe(other, "two")
text = reader.get_metrics_data().to_json()
assert '"one"' in text and '"two"' in text, text
asyncio.run(runtime.close())
asyncio.run(other.close())
""")


def test_without_opentelemetry_observing_says_what_to_install() -> None:
    run("""
import sys
sys.modules["opentelemetry"] = None
from tertulia import Runtime, telemetry
from tertulia.errors import ConfigurationError
try:
    telemetry.observe(Runtime("memory:"))
except ConfigurationError as error:
    assert "pip install opentelemetry-sdk" in str(error)
else:
    raise AssertionError("it was observed")
""")
