"""Turns that end in spite of what they said, of the store, and of where they ran."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.agents.histories import said

from tertulia import Agent, Runtime, Session, SQLiteStore, tool
from tertulia.errors import InvalidInput, ModelError, StoreUnavailable
from tertulia.testing.models import ScriptedModel, call


@tool
def note(text: str) -> str:
    """Write something down."""
    return "noted"


ANSWERS: dict[str, list[Any]] = {
    "an answer": ["x" * 600_000],
    "an answer that is long in JSON": ["\x07" * 90_000],
    "arguments": [call("note", text="y" * 300_000) for _ in range(4)] + ["Done."],
}


@pytest.mark.parametrize("case", ANSWERS)
async def test_what_can_be_stored_can_be_repeated(tmp_path: Path, case: str) -> None:
    address = f"sqlite:///{tmp_path / 'x.db'}"
    async with Runtime(address) as here, Runtime(address) as elsewhere:
        agent = Agent("ann", ScriptedModel(*ANSWERS[case]), tools=[note], runtime=here)
        session = agent.session("s")
        response = await session.run_async("Go", idempotency_key="k")
        assert (await session.run_async("Go", idempotency_key="k")).text == response.text
        theirs = elsewhere.session("s")
        agent = Agent("ben", ScriptedModel("Next."))
        assert (await agent.run("More", theirs, busy="reject")).text == "Next."


async def test_a_turn_by_hand_of_another_session_inside_a_tool_keeps_what_is_said(
    runtime: Runtime,
) -> None:
    @tool
    async def delegate() -> str:
        """Let another conversation have a turn."""
        other = runtime.session("other")
        async with other.turn("By hand"):
            return (await Agent("ben", ScriptedModel("Ben.")).run("Go", other)).text

    model = ScriptedModel(call("delegate"), "Done.")
    await Agent("ann", model, tools=[delegate], runtime=runtime).session("s").run_async("Go")
    other = runtime.session("other")
    assert said(await other.history()) == [
        ("user", "By hand"),
        ("user", "Go"),
        ("assistant", "Ben."),
    ]
    assert other.floor == "ben"


class Hiccup(SQLiteStore):
    """A store that cannot read marks for a while."""

    broken = False

    async def marks(self, *args: Any, **options: Any) -> Any:
        if self.broken:
            raise StoreUnavailable("the disk hiccups")
        return await super().marks(*args, **options)


@pytest.fixture
def store(tmp_path: Path) -> Hiccup:
    return Hiccup(tmp_path / "x.db")


async def test_a_store_that_fails_while_a_turn_is_closed_does_not_hold_the_session_for_ever(
    store: Hiccup,
) -> None:
    async with Runtime(store) as runtime:
        model = ScriptedModel(ModelError("broken"), "Here.")
        session = Agent("ann", model, runtime=runtime).session("s")
        with pytest.raises(ModelError):
            await session.run_async("Go")

        async def fail() -> None:
            async with session.turn("By hand"):
                store.broken = True
                raise ModelError("broken too")

        with pytest.raises((StoreUnavailable, ModelError)):
            await fail()
        store.broken = False
        assert (await session.run_async("More", timeout=5)).text == "Here."


async def test_a_turn_by_hand_is_as_strict_as_an_agent(runtime: Runtime) -> None:
    session = Session("s", runtime=runtime)
    with pytest.raises(InvalidInput, match="busy="):
        async with session.turn("Go", busy=""):  # pyright: ignore[reportArgumentType]
            pass


async def test_a_timeout_that_is_no_float_is_refused(runtime: Runtime) -> None:
    session = Session("s", runtime=runtime)
    with pytest.raises(InvalidInput, match="a timeout of"):
        async with session.turn("Go", timeout=10**400):
            pass
