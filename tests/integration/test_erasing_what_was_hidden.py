"""What a sweep erases for good: what has been hidden for seven days, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tertulia import Agent, Message, Runtime, Session, tool
from tertulia.erasing import ERASABLE
from tertulia.errors import HistoryErased, ModelError
from tertulia.events import EVENT_TYPES
from tertulia.stores.base import Segment
from tertulia.testing import FrozenClock, ScriptedModel, call


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


async def talk(session: Session, count: int) -> None:
    for number in range(count):
        await session.send_message({"role": "user", "content": f"{number}"})


def keeps(runtime: Runtime, session_id: str) -> Session:
    return runtime.session(session_id, retention={"max_messages": 3, "auto_prune": True})


async def test_a_message_hidden_for_seven_days_is_erased_and_the_chain_still_verifies(
    clock: FrozenClock,
) -> None:
    async with Runtime("memory:", clock=clock) as runtime:
        session = keeps(runtime, "s")
        await talk(session, 6)
        assert [message.text for message in await session.history(at=4)] == ["0", "1", "2"]

        clock.advance(days=6)
        assert await runtime.sweep() == []
        assert len(await session.history(at=4)) == 3

        clock.advance(days=2)
        assert [swept.action for swept in await runtime.sweep(dry_run=True)] == ["erase"]
        assert [(swept.action, swept.done) for swept in await runtime.sweep()] == [("erase", True)]

        with pytest.raises(HistoryErased):
            await session.history(at=4)
        assert [message.text for message in await session.history()] == ["3", "4", "5"]
        assert await session.verify()


async def test_what_was_erased_is_not_erased_again(clock: FrozenClock) -> None:
    async with Runtime("memory:", clock=clock) as runtime:
        session = keeps(runtime, "s")
        await talk(session, 6)
        clock.advance(days=8)
        assert [swept.action for swept in await runtime.sweep()] == ["erase"]
        assert await runtime.sweep(dry_run=True) == []
        await talk(session, 2)
        clock.advance(days=8)
        assert [swept.action for swept in await runtime.sweep()] == ["erase"]
        assert await runtime.sweep() == []


async def test_what_a_fork_may_still_show_is_not_erased(clock: FrozenClock) -> None:
    async with Runtime("memory:", clock=clock) as runtime:
        session = keeps(runtime, "s")
        await talk(session, 3)
        fork = session.fork("f")
        await talk(session, 3)
        clock.advance(days=9)
        await runtime.sweep()
        assert [message.text for message in await fork.history()] == ["0", "1", "2"]


async def test_what_a_hold_covers_is_not_erased(clock: FrozenClock) -> None:
    async with Runtime("memory:", clock=clock) as runtime:
        session = keeps(runtime, "s")
        await talk(session, 6)
        await session.hold("case 7")
        clock.advance(days=9)
        assert await runtime.sweep() == []
        assert len(await session.history(at=4)) == 3


async def test_what_a_rewind_shows_again_is_not_erased(clock: FrozenClock) -> None:
    async with Runtime("memory:", clock=clock) as runtime:
        session = runtime.session("s", retention={"max_messages": 50, "auto_prune": True})
        await talk(session, 4)
        await session.prune("keep_last_1")
        await session.rewind(5)
        clock.advance(days=9)
        await runtime.sweep()
        assert [message.text for message in await session.history()] == ["0", "1", "2", "3"]


async def test_erasing_and_ending_by_a_sweep_are_no_activity(clock: FrozenClock) -> None:
    async with Runtime("memory:", clock=clock) as runtime:
        policy = {"idle_days": 7, "ttl_days": 30, "auto_prune": True}
        await talk(runtime.session("s", retention=policy), 1)
        clock.advance(days=8)
        assert [swept.action for swept in await runtime.sweep()] == ["end"]
        clock.advance(days=23)
        assert [swept.action for swept in await runtime.sweep()] == ["delete"]
        assert await runtime.sessions() == []


SECRETS = (
    "QUESTION ANSWER METADATA IDEMPOTENCY REASON ARGUMENT REJECTED SUMMARY FAILURE FAILOVER "
    "INTERRUPTED APPLICATION COMPLETED STAGED ERROR"
).split()
"""Words of people, models and tools, each in an event of another type."""


@tool(requires_approval=True)
def act(x: str) -> str:
    """Do something that has to be approved."""
    raise ValueError(f"ERROR {x}")


async def tell_secrets(runtime: Runtime, session: Session) -> None:
    """Have every type of event that carries words in the log."""
    bob = Agent("bob", ScriptedModel("ANSWER", "ANSWER"), runtime=runtime)
    transfer = call("transfer_to_bob", reason="REASON")
    ann = Agent("ann", ScriptedModel(transfer), handoffs=[bob], runtime=runtime)
    await ann.run("QUESTION", session, metadata={"note": "METADATA"}, idempotency_key="IDEMPOTENCY")
    steps = [call("act", x="ARGUMENT"), "done", call("act", x="ARGUMENT"), "done"]
    actor = Agent("actor", ScriptedModel(*steps), tools=[act], runtime=runtime)
    answer = await actor.run("QUESTION", session)
    await session.reject(answer.pending[0].id, "REJECTED")
    await actor.resume(session)
    answer = await actor.run("QUESTION", session)
    await session.approve(answer.pending[0].id)
    await actor.resume(session)
    broken = Agent("eve", ScriptedModel(ModelError("FAILURE")), runtime=runtime)
    with pytest.raises(ModelError):
        await broken.run("QUESTION", session)
    async with session.turn("QUESTION", metadata={"note": "METADATA"}) as turn:
        await turn.record("app.noted", {"text": "APPLICATION"})
        await turn.record("failover", {"from": "ann", "to": "bob", "error": "FAILOVER"})
        await turn.record("message.staged", {"content": "STAGED"})
        await turn.tool_called("c", "act")
        await turn.interrupt("INTERRUPTED")
    async with session.turn("QUESTION") as turn:
        await turn.complete({"text": "COMPLETED"})
    await bob.run("QUESTION", session)
    await session.prune("summarize_old", threshold=2, summarize=lambda _: "SUMMARY")


def found_in(parts: Iterable[Any]) -> set[str]:
    text = "".join(
        part.decode("latin-1") if isinstance(part, bytes) else str(part) for part in parts
    )
    return {secret for secret in SECRETS if secret in text}


def raw_files(folder: Path) -> bytes:
    """All bytes of a store that is open, read by another process, so that no lock is lost."""
    read = "import pathlib, sys\nfor path in pathlib.Path(sys.argv[1]).glob('x.db*'):\n"
    read += "    if path.is_file(): sys.stdout.buffer.write(path.read_bytes())"
    command = [sys.executable, "-c", read, str(folder)]
    return subprocess.run(command, capture_output=True, timeout=50, check=True).stdout


async def test_no_word_of_what_was_cleared_is_left_in_the_events_the_export_or_the_file(
    clock: FrozenClock, tmp_path: Path
) -> None:
    async with Runtime(f"sqlite:///{tmp_path / 'x.db'}", clock=clock) as runtime:
        session = runtime.session("s", retention={"max_messages": 1_000, "auto_prune": True})
        await tell_secrets(runtime, session)
        assert found_in(await session.events()) == set(SECRETS)
        assert found_in([raw_files(tmp_path)]) == set(SECRETS)
        session.clear()
        clock.advance(days=8)
        assert [(swept.action, swept.error) for swept in await runtime.sweep()] == [("erase", None)]

        assert found_in(await session.events()) == set()
        assert found_in([await session.export()]) == set()
        assert found_in([raw_files(tmp_path)]) == set()
        assert await session.verify()
        assert session.floor == "bob"
        assert await runtime.sweep(dry_run=True) == []
        assert (await Agent("bob", ScriptedModel("Hi.")).run("Hello", session)).text == "Hi."
        assert await session.verify()


async def test_every_type_of_event_is_erased_or_said_to_stay() -> None:
    stay = "usage state. session.created session.forked session.rewound session.cleared "
    stay += "session.erased session.ended session.reopened session.changed retention. hold. input. "
    stay += "turn.abandoned"
    kept = [kind for kind in EVENT_TYPES if kind.startswith(tuple(stay.split()))]
    kept.remove("state.staged")
    assert {*ERASABLE, *kept} == {*EVENT_TYPES, "app.*"}
    assert not {*ERASABLE} & {*kept}


async def test_the_floor_of_a_position_above_what_was_erased_is_still_known(
    clock: FrozenClock,
) -> None:
    async with Runtime("memory:", clock=clock) as runtime:
        session = runtime.session("s", retention={"max_messages": 1_000, "auto_prune": True})
        for name in ("ann", "bob"):
            await Agent(name, ScriptedModel("Hi."), runtime=runtime).run("Hello", session)
        broken = Agent("eve", ScriptedModel(ModelError("down")), runtime=runtime)
        with pytest.raises(ModelError):
            await broken.run("Hello", session)
        session.clear()
        position = (await session.events())[-1].seq
        await Agent("ann", ScriptedModel("Hi."), runtime=runtime).run("Hello", session)
        clock.advance(days=8)
        assert [swept.action for swept in await runtime.sweep()] == ["erase"]
        fork = await session.fork("f", at=position)
        assert (session.floor, fork.floor) == ("ann", "bob")
        session.clear()
        later = (await session.events())[-1].seq
        await Agent("bob", ScriptedModel("Hi."), runtime=runtime).run("Hello", session)
        await fork.delete()
        clock.advance(days=8)
        assert [swept.action for swept in await runtime.sweep()] == ["erase"]
        assert (await session.fork("g", at=later)).floor == "ann"
        assert (await session.fork("h", at=position)).floor == "bob"


async def test_a_summary_that_a_later_one_replaced_is_erased_although_it_lies_above_the_floor(
    clock: FrozenClock,
) -> None:
    async with Runtime("memory:", clock=clock) as runtime:
        session = runtime.session("s", retention={"max_messages": 1_000, "auto_prune": True})
        await talk(session, 9)
        before = (await session.events())[-1].seq
        await session.prune("summarize_old", threshold=6, summarize=lambda _: "the first")
        first = (await session.events())[-1].seq
        await session.prune("summarize_old", threshold=5, summarize=lambda _: "the second")
        clock.advance(days=8)
        assert [swept.action for swept in await runtime.sweep()] == ["erase"]
        text = str(await session.events())
        assert ("the first" in text, "the second" in text) == (False, True)
        assert [m.text for m in await session.history()] == ["the second", "4", "5", "6", "7", "8"]
        for position in (before, first):
            with pytest.raises(HistoryErased):
                await session.history(at=position)
            with pytest.raises(HistoryErased):
                await session.rewind(position)
        assert await session.verify()
        assert await runtime.sweep(dry_run=True) == []


async def test_what_keep_important_hid_goes_with_the_ends_of_its_turns(clock: FrozenClock) -> None:
    async with Runtime("memory:", clock=clock) as runtime:
        session = runtime.session("s", retention={"max_messages": 1_000, "auto_prune": True})
        for number in range(4):
            async with session.turn(
                f"question {number}", metadata={"of": f"note {number}"}
            ) as turn:
                await turn.record("app.noted", {"text": f"app {number}"})
                await turn.complete({"text": f"end {number}"})
        await session.prune("keep_important", n=1, judge=is_second)
        clock.advance(days=8)
        assert [swept.action for swept in await runtime.sweep()] == ["erase"]
        text = str(await session.events())
        for number in range(4):
            left = [f"{word} {number}" in text for word in ("question", "note", "app", "end")]
            assert left == [number in (1, 3)] * 4
        assert [m.text for m in await session.history()] == ["question 1", "question 3"]
        assert await session.verify()
        assert await runtime.sweep(dry_run=True) == []


def is_second(message: Message) -> bool:
    return message.text == "question 1"


async def test_what_lies_between_holes_is_erased_when_it_is_cleared_later(
    clock: FrozenClock,
) -> None:
    async with Runtime("memory:", clock=clock) as runtime:
        session = runtime.session("s", retention={"max_messages": 1_000, "auto_prune": True})
        for text in ("question 0", "question 1", "question 2"):
            await session.send_message({"role": "user", "content": text})
        await session.prune("keep_important", n=1, judge=is_second)
        clock.advance(days=8)
        await runtime.sweep()
        await session.prune("keep_important", n=1, judge=lambda _: False)
        session.clear()
        clock.advance(days=8)
        await runtime.sweep()
        assert "question" not in str(await session.events())


async def test_a_summary_in_a_hole_that_is_still_shown_stays(clock: FrozenClock) -> None:
    async with Runtime("memory:", clock=clock) as runtime:
        session = runtime.session("s", retention={"max_messages": 1_000, "auto_prune": True})
        await talk(session, 4)
        await session.prune("summarize_old", threshold=2, summarize=lambda _: "so far")
        await talk(session, 3)
        await session.prune("keep_important", n=1, judge=lambda message: message.text == "so far")
        clock.advance(days=8)
        assert [swept.action for swept in await runtime.sweep()] == ["erase"]
        assert [m.text for m in await session.history()] == ["so far", "2"]


async def test_a_turn_that_waits_is_not_touched_by_erasing(clock: FrozenClock) -> None:
    async with Runtime("memory:", clock=clock) as runtime:
        session = keeps(runtime, "s")
        await talk(session, 6)
        steps = [call("act", x="now"), "done"]
        actor = Agent("actor", ScriptedModel(*steps), tools=[act], runtime=runtime)
        answer = await actor.run("go on", session, metadata={"note": "waits"})
        clock.advance(days=8)
        assert [(swept.action, swept.error) for swept in await runtime.sweep()] == [("erase", None)]
        row = await runtime.store.find(None, "s")
        assert row is not None
        assert row.open_turn is not None
        open_turn = [Segment(row.key, row.open_turn - 1, row.seq)]
        assert all(record.body for record in await runtime.store.records(open_turn))
        await session.approve(answer.pending[0].id)
        assert (await actor.resume(session)).text == "done"
        assert await session.verify()
