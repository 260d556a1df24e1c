"""The context of a live session: shared within it, by nobody else, and there after a restart."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import pytest
from tests.live.talking import Recorder, Tick, eventually, live, settled

from tertulia import Runtime
from tertulia.live import AgentSession
from tertulia.live.context import MOST
from tertulia.live.scribe import CONTEXT_KEY
from tertulia.wire.events import LiveEvent


def kept(session: AgentSession) -> Any:
    """What the state of the conversation has of the context."""
    return session.conversation.get_state(CONTEXT_KEY)


async def test_it_is_a_dictionary_for_nodes_hooks_and_setup_of_one_session() -> None:
    class Counting(Recorder):
        async def process_event(self, event: LiveEvent) -> None:
            context = self.session.context
            context["count"] = context.get("count", 0) + 1

    async with (
        Runtime("memory:") as runtime,
        live(Counting(), runtime=runtime, session_id="a") as (first, _),
        live(Counting(), runtime=runtime, session_id="b") as (second, _),
    ):

        @first.on_event("test.tick")
        def hook(session: AgentSession, event: Tick) -> None:
            session.context["seen"] = event.number

        first.context.update(name="ana", tags=["x"])
        await first.receive(Tick(number=5))
        await settled(first)
        assert dict(first.context) == {"name": "ana", "tags": ["x"], "count": 1, "seen": 5}
        assert dict(second.context) == {}
        assert "name" in first.context
        assert first.context.pop("name") == "ana"
        assert len(first.context) == 3
        with pytest.raises(KeyError):
            first.context["name"]


async def test_what_is_json_comes_back_after_a_restart_and_the_rest_does_not(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    values = {"text": "ü", "number": 2**60, "list": [1, {"a": None}], "yes": True, "part": 0.5}
    async with Runtime(url) as runtime, live(Recorder(), runtime=runtime) as (session, _):
        session.context.update(values)
        session.context["object"] = object()
        session.context["tuple"] = (1, 2)
        session.context["inside"] = {"a": {1, 2}}
    async with Runtime(url) as runtime, live(Recorder(), runtime=runtime) as (session, _):
        assert session.resumed
        assert dict(session.context) == values
        session.context["number"] = 1
        del session.context["text"]
    async with Runtime(url) as runtime, live(Recorder(), runtime=runtime) as (session, _):
        del values["text"]
        assert dict(session.context) == {**values, "number": 1}


async def test_what_was_set_is_kept_before_the_session_ends() -> None:
    async with live(Recorder()) as (session, _):
        session.context["a"] = 1
        await eventually(lambda: kept(session) == {"a": 1})
        session.context["b"] = collections.defaultdict(list, {"x": [1]})
        del session.context["a"]
        await eventually(lambda: kept(session) == {"b": {"x": [1]}})


async def test_what_was_changed_within_a_value_is_kept_at_the_end(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    async with Runtime(url) as runtime, live(Recorder(), runtime=runtime) as (session, _):
        session.context["cart"] = []
        await eventually(lambda: kept(session) == {"cart": []})
        session.context["cart"].append("apple")
    async with Runtime(url) as runtime, live(Recorder(), runtime=runtime) as (session, _):
        assert session.context["cart"] == ["apple"]


async def test_a_context_too_large_is_kept_in_part_and_the_session_goes_on() -> None:
    async with live(Recorder()) as (session, _):
        session.context["small"] = "x"
        session.context["large"] = "y" * MOST
        await eventually(lambda: kept(session) == {"small": "x"})
        assert len(session.context["large"]) == MOST


async def test_a_value_that_contains_itself_is_not_kept() -> None:
    around: list[Any] = []
    around.append(around)
    async with live(Recorder()) as (session, _):
        session.context["around"] = around
        session.context["a"] = 1
        await eventually(lambda: kept(session) == {"a": 1})


class Name(str):
    """Text of a class of its own."""

    __slots__ = ()


@pytest.mark.parametrize(
    "value",
    [
        Name("ana"),
        "\udc80",
        {"\udc80": 1},
        2**200,
        {1: 2},
    ],
    ids=["subclass", "surrogate", "surrogate-key", "large", "number-key"],
)
async def test_no_value_keeps_the_session_from_its_end_nor_the_others_from_being_kept(
    value: Any,
) -> None:
    async with Runtime("memory:") as runtime:
        async with live(Recorder(), runtime=runtime, ends_in=1) as (session, _):
            session.context["odd"] = value
            session.context["a"] = 1
            await settled(session)
        assert kept(session)["a"] == 1


async def test_a_float_that_is_no_number_does_not_keep_the_others_from_being_kept() -> None:
    async with Runtime("memory:") as runtime:
        async with live(Recorder(), runtime=runtime) as (session, _):
            session.context["nan"] = float("nan")
            session.context["a"] = 1
            await settled(session)
        assert kept(session) == {"a": 1}


async def test_what_setup_set_before_start_is_kept_too() -> None:
    async with live(Recorder(), build=lambda session: session.context.update(plan="gold")) as (
        session,
        _,
    ):
        await settled(session)
        assert kept(session) == {"plan": "gold"}
