"""A turn is closed whatever it said: the next one begins at once, here and in another process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.agents.histories import bodies, kinds

from tertulia import Agent, Runtime, Session, tool
from tertulia.errors import InvalidInput, ModelError
from tertulia.testing.models import ScriptedModel, call

TOO_LONG = "x" * 1_100_000
"""More than one event can have."""
HALF = "\ud83d"
"""Half of a pair: UTF-8 cannot say it."""


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'x.db'}"


@pytest.fixture
async def here(address: str) -> AsyncIterator[Runtime]:
    async with Runtime(address) as made:
        yield made


@pytest.fixture
async def elsewhere(address: str) -> AsyncIterator[Runtime]:
    async with Runtime(address) as made:
        yield made


@tool(read_only=True)
def fetch(length: int) -> str:
    """Fetch a long text."""
    return "x" * length


@tool
def note(text: str) -> str:
    """Write something down."""
    raise AssertionError(f"a call that is not in the log ran: {text[:10]!r}")


async def check_free(*runtimes: Runtime) -> None:
    """In each of them the next turn begins without waiting."""
    for runtime in runtimes:
        agent = Agent("next", ScriptedModel("Next."))
        response = await agent.run("More", runtime.session("s"), busy="reject")
        assert response.text == "Next."
        assert await runtime.session("s").verify()


async def test_messages_that_are_longer_than_an_event_together_are_answered(
    here: Runtime, elsewhere: Runtime
) -> None:
    calls = [call("fetch", length=250_000) for _ in range(5)]
    model = ScriptedModel(calls, "Done.")
    session = Agent("ann", model, tools=[fetch], runtime=here).session("s")
    assert (await session.run_async("Go", idempotency_key="k")).text == "Done."
    again = await session.run_async("Go", idempotency_key="k")
    assert (again.text, again.messages[-1].text) == ("Done.", "Done.")
    theirs = Agent("ann", model, tools=[fetch], runtime=elsewhere).session("s")
    assert (await theirs.run_async("Go", idempotency_key="k")).text == "Done."
    assert len(model.requests) == 2
    assert sum(len(message.text) for message in await session.history()) > 1_000_000
    await check_free(here, elsewhere)


FAILURES: dict[str, tuple[list[Any], type[Exception]]] = {
    "an answer that is too long": ([TOO_LONG], InvalidInput),
    "arguments that are too long": ([call("note", text=TOO_LONG), "Done."], InvalidInput),
    "arguments with half a pair": ([call("note", text=HALF), "Done."], InvalidInput),
    "an error with half a pair": ([ModelError(f"bad {HALF}")], ModelError),
    "an error that is too long": ([ModelError(TOO_LONG)], ModelError),
}


@pytest.mark.parametrize("key", [None, "k"], ids=["", "with a key"])
@pytest.mark.parametrize("case", FAILURES)
async def test_what_cannot_be_stored_fails_the_turn_and_leaves_the_session_free(
    here: Runtime, elsewhere: Runtime, case: str, key: str | None
) -> None:
    steps, error = FAILURES[case]
    agent = Agent("ann", ScriptedModel(*steps), tools=[note], runtime=here)
    session = agent.session("s")
    with pytest.raises(error):
        await session.run_async("Go", idempotency_key=key)
    assert (await kinds(session))[-1] == "turn.failed"
    [said] = await bodies(session, "turn.failed")
    assert said == {} or said["error"] == error.__name__
    await check_free(here, elsewhere)


async def test_half_a_pair_in_the_answer_is_a_question_mark(
    here: Runtime, elsewhere: Runtime
) -> None:
    session = Agent("ann", ScriptedModel(f"a {HALF}!"), runtime=here).session("s")
    assert (await session.run_async("Go", idempotency_key="k")).text == "a ?!"
    assert (await kinds(session))[-1] == "turn.completed"
    assert [message.text for message in await session.history()] == ["Go", "a ?!"]
    await check_free(here, elsewhere)


async def test_half_a_pair_in_the_answer_of_a_stream_is_no_end_of_it(
    here: Runtime, elsewhere: Runtime
) -> None:
    session = Agent("ann", ScriptedModel(f"a {HALF}!"), runtime=here).session("s")
    async with session.stream_async("Go") as stream:
        types = [event.type async for event in stream]
    assert types[-1] == "turn_completed"
    assert stream.response.text == "a ?!"
    await check_free(here, elsewhere)


async def test_a_turn_by_hand_that_cannot_be_completed_is_failed(
    here: Runtime, elsewhere: Runtime
) -> None:
    session = Session("s", runtime=here)
    with pytest.raises(InvalidInput, match="at most 1,000,000"):
        async with session.turn("Go") as turn:
            turn.note("app.report", {"text": TOO_LONG})
    assert await kinds(session) == [
        "session.created",
        "turn.started",
        "message.added",
        "turn.failed",
    ]
    assert await session.history() == []
    await check_free(here, elsewhere)


@pytest.mark.parametrize("text", [HALF, TOO_LONG], ids=["half a pair", "too long"])
async def test_a_turn_by_hand_is_failed_by_any_error(
    here: Runtime, elsewhere: Runtime, text: str
) -> None:
    session = Session("s", runtime=here)
    with pytest.raises(LookupError):
        async with session.turn("Go"):
            raise LookupError(text)
    [said] = await bodies(session, "turn.failed")
    assert said["error"] == "LookupError"
    await check_free(here, elsewhere)


async def test_a_note_that_cannot_be_stored_does_not_keep_a_failed_turn_open(
    here: Runtime, elsewhere: Runtime
) -> None:
    session = Session("s", runtime=here)

    async def go() -> None:
        async with session.turn("Go") as turn:
            turn.note("app.report", {"text": TOO_LONG})
            raise LookupError("gone")

    with pytest.raises(LookupError):
        await go()
    assert (await kinds(session))[-1] == "turn.failed"
    await check_free(here, elsewhere)
