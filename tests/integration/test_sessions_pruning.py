"""Pruning and retention: what is hidden, what is refused, and what is due."""

from __future__ import annotations

from typing import Any

import pytest
from tests.integration.test_sessions_support import (
    Place,
    broken,
    calls,
    paired,
    result,
    say,
    texts,
    user,
)

from tertulia import Message, Runtime, Session
from tertulia.errors import ConfigurationError, InvalidInput, RetentionRefused

pytest_plugins = ("tests.integration.test_sessions_support",)


async def test_clear_hides_all_messages_and_keeps_the_rest(runtime: Runtime) -> None:
    session = runtime.session("s", metadata={"k": 1}, system="Be brief.")
    await say(session, "a", "b")
    await session.set_state("k", 1)
    before = await session.events()
    session.clear()
    assert await session.history() == []
    assert len(session.messages) == 0
    assert session.get_state("k") == 1
    assert session.metadata == {"k": 1}
    assert session.system == "Be brief."
    assert (await session.events())[: len(before)] == before
    await say(session, "c")
    assert texts(await session.history()) == ["c"]
    session.clear()
    session.clear()
    assert await session.history() == []


@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        ("keep_last_2", {}),
        ("keep_last_n", {"n": 2}),
        ("sliding_window", {"window_size": 2}),
    ],
)
async def test_a_window_keeps_the_newest(
    session: Session, strategy: str, options: dict[str, Any]
) -> None:
    await say(session, *"abcde")
    report = await session.prune(strategy, **options)
    assert report
    assert (report.hidden, report.kept, report.before, report.after) == (3, 2, 5, 2)
    assert texts(await session.history()) == ["d", "e"]
    again = await session.prune(strategy, **options)
    assert not again
    assert again.hidden == 0


async def test_pruning_a_session_that_is_short_enough_writes_nothing(session: Session) -> None:
    await say(session, "a")
    before = await session.events()
    assert not await session.prune("keep_last_50")
    assert await session.events() == before


async def test_pruning_keeps_metadata_state_and_the_audit(runtime: Runtime) -> None:
    session = runtime.session("s", metadata={"k": 1})
    await session.set_state("k", 1)
    await say(session, *"abc")
    before = await session.events()
    await session.prune("keep_last_1")
    assert session.metadata == {"k": 1}
    assert session.get_state("k") == 1
    assert (await session.events())[: len(before)] == before


async def test_pruning_cuts_between_turns_only(session: Session) -> None:
    for number in range(3):
        async with session.turn(f"question {number}") as turn:
            await turn.add_message(calls("x"))
            await turn.tool_called("x", "charge", effect="none")
            await turn.tool_returned("x", result("x"))
            await turn.add_message(Message.assistant(f"answer {number}"))
    report = await session.prune("keep_last_5")
    history = await session.history()
    assert texts(history)[0] == "question 2"
    assert len(history) == report.after == 4
    assert paired(history)
    await session.prune("keep_last_1")
    assert len(await session.history()) == 4


async def test_pruning_twice_and_saying_between_keeps_the_newest(session: Session) -> None:
    await say(session, *"abcdef")
    await session.prune("keep_last_4")
    await say(session, *"gh")
    report = await session.prune("keep_last_3")
    assert (report.before, report.after) == (6, 3)
    assert texts(await session.history()) == ["f", "g", "h"]


async def test_a_summary_stands_for_what_was_hidden(session: Session) -> None:
    await say(session, *"abcde")
    seen: list[str] = []

    async def summarize(messages: list[Message]) -> str:
        seen.extend(texts(messages))
        return "a to c were said"

    report = await session.prune("summarize_old", threshold=2, summarize=summarize)
    assert seen == ["a", "b", "c"]
    assert report.summary == "a to c were said"
    history = await session.history()
    assert texts(history) == ["a to c were said", "d", "e"]
    assert history[0].role == "system"
    assert len(history) == report.after
    assert texts(await session.history(limit=2)) == ["d", "e"]
    await say(session, "f")
    await session.prune("summarize_old", threshold=1, summarize=lambda old: " ".join(texts(old)))
    assert texts(await session.history()) == ["a to c were said d e", "f"]


async def test_a_summary_that_fails_hides_nothing(session: Session) -> None:
    await say(session, *"abc")

    def fails(_: list[Message]) -> str:
        raise RuntimeError("no model")

    with pytest.raises(RuntimeError, match="no model"):
        await session.prune("summarize_old", threshold=1, summarize=fails)
    assert texts(await session.history()) == ["a", "b", "c"]
    await say(session, "d")
    assert len(await session.history()) == 4


async def test_what_is_important_is_kept(session: Session) -> None:
    await say(session, "a!", "b", "c!", "d", "e", "f")
    report = await session.prune("keep_important", n=1, judge=lambda m: "!" in m.text)
    assert texts(await session.history()) == ["a!", "c!", "f"]
    assert (report.hidden, report.after) == (3, 3)
    assert texts(await session.history(limit=2)) == ["c!", "f"]
    await say(session, "g")
    await session.prune("keep_last_2")
    assert texts(await session.history()) == ["f", "g"]


async def test_a_strategy_without_its_callable_says_what_it_needs(session: Session) -> None:
    await say(session, *"abc")
    with pytest.raises(ConfigurationError, match="summarize="):
        await session.prune("summarize_old", threshold=1)
    with pytest.raises(ConfigurationError, match="judge="):
        await session.prune("keep_important")
    with pytest.raises(InvalidInput, match="keep_last_<N>"):
        await session.prune("newest")


# -- max_messages


async def test_max_messages_is_never_exceeded(runtime: Runtime) -> None:
    session = runtime.session("s", retention={"max_messages": 3, "auto_prune": True})
    for number in range(12):
        await say(session, str(number))
        assert len(await session.history()) <= 3
    assert texts(await session.history()) == ["9", "10", "11"]
    assert len(await session.events(types="message.added")) == 12


async def test_max_messages_is_not_exceeded_by_several_messages_at_once(
    runtime: Runtime,
) -> None:
    session = runtime.session("s", retention={"max_messages": 3, "auto_prune": True})
    await session.send_messages([user(str(number)) for number in range(8)])
    assert texts(await session.history()) == ["5", "6", "7"]


async def test_max_messages_is_not_exceeded_by_prepared_messages(runtime: Runtime) -> None:
    prepared = [Message.user(str(number)) for number in range(8)]
    session = runtime.session(
        "s", retention={"max_messages": 3, "auto_prune": True}, messages=prepared
    )
    await say(session, "8")
    assert texts(await session.history()) == ["6", "7", "8"]


async def test_max_messages_cuts_between_turns(runtime: Runtime) -> None:
    session = runtime.session("s", retention={"max_messages": 4, "auto_prune": True})
    for number in range(4):
        async with session.turn(f"q{number}") as turn:
            await turn.add_message(calls("x"))
            await turn.tool_called("x", "charge", effect="none")
            await turn.tool_returned("x", result("x"))
        history = await session.history()
        assert paired(history)
        assert texts(history)[0] == f"q{number}"
        assert len(history) <= 4


async def test_a_failed_turn_does_not_make_a_full_session_forget(runtime: Runtime) -> None:
    session = runtime.session("s", retention={"max_messages": 3, "auto_prune": True})
    await say(session, *"abc")
    async with broken(session, "hidden") as turn:
        await turn.add_message(Message.assistant("hidden"))
    assert texts(await session.history()) == ["a", "b", "c"]


async def test_keep_last_says_how_many_stay_when_max_messages_is_crossed(
    runtime: Runtime,
) -> None:
    policy = {"max_messages": 5, "auto_prune": True, "prune_strategy": "keep_last_2"}
    session = runtime.session("s", retention=policy)
    await say(session, *"abcdef")
    assert texts(await session.history()) == ["e", "f"]


async def test_max_messages_without_auto_prune_only_shows_in_a_dry_run(
    runtime: Runtime,
) -> None:
    session = runtime.session("s", retention={"max_messages": 2})
    await say(session, *"abc")
    assert len(await session.history()) == 3
    [due] = await runtime.sweep(dry_run=True)
    assert (due.action, due.acts, due.done) == ("prune", False, False)
    await runtime.sweep()
    assert len(await session.history()) == 3


async def test_a_fork_and_a_rewind_keep_max_messages(runtime: Runtime) -> None:
    session = runtime.session("s", retention={"max_messages": 3, "auto_prune": True})
    sent = await say(session, *"abcdef")
    fork = session.fork("f", at=sent[4].seq)
    assert len(await fork.history()) <= 3
    await say(fork, "x")
    assert texts(await fork.history()) == ["d", "e", "x"]
    assert sent[1].seq is not None
    await session.rewind(sent[1].seq)
    await say(session, "y", "z")
    assert texts(await session.history()) == ["b", "y", "z"]


async def test_tightening_max_messages_prunes_with_the_next_message(runtime: Runtime) -> None:
    await say(runtime.session("s"), *"abcdef")
    session = runtime.session("s", retention={"max_messages": 2, "auto_prune": True})
    await say(session, "g")
    assert texts(await session.history()) == ["f", "g"]


# -- what is refused


@pytest.mark.parametrize("policy", [{"immutable": True}, {"legal_hold": True}])
async def test_immutable_and_a_hold_refuse_every_change_to_what_was_said(
    runtime: Runtime, policy: dict[str, Any]
) -> None:
    session = runtime.session("s", retention=policy)
    sent = await say(session, "a", "b")
    assert sent[0].seq is not None
    with pytest.raises(RetentionRefused):
        await session.prune("keep_last_1")
    with pytest.raises(RetentionRefused):
        session.clear()
    with pytest.raises(RetentionRefused):
        await session.rewind(sent[0].seq)
    with pytest.raises(RetentionRefused) as refused:
        await session.delete()
    assert refused.value.session_id == "s"
    assert texts(await session.history()) == ["a", "b"]
    await say(session, "c")
    assert len(await session.history()) == 3


async def test_neither_metadata_nor_retention_can_weaken_immutable(runtime: Runtime) -> None:
    await say(runtime.session("s", retention={"immutable": True, "ttl_days": 30}), "a")
    for weaker in ({"ttl_days": 1}, {"immutable": True, "ttl_days": 1}):
        with pytest.raises(RetentionRefused):
            await say(runtime.session("s", retention=weaker), "b")
    await say(runtime.session("s", retention={"immutable": True, "ttl_days": 60}), "c")
    assert runtime.session("s").retention is not None
    assert texts(await runtime.session("s").history()) == ["a", "c"]


async def test_a_hold_is_set_and_released(session: Session) -> None:
    await say(session, "a", "b")
    await session.hold("case 7")
    with pytest.raises(RetentionRefused, match="hold"):
        await session.delete()
    await session.release_hold()
    await session.prune("keep_last_1")
    kinds = [event.type for event in await session.events()]
    assert kinds.count("hold.set") == kinds.count("hold.released") == 1
    with pytest.raises(InvalidInput, match="reason"):
        await session.hold("  ")


async def test_an_immutable_session_is_not_moved_by_a_saved_form_of_it(runtime: Runtime) -> None:
    session = runtime.session("s", retention={"immutable": True})
    await say(session, "a")
    saved = session.to_dict()
    await say(session, "b")
    with pytest.raises(RetentionRefused):
        Session.from_dict(saved, runtime=runtime)
    assert texts(await session.history()) == ["a", "b"]


async def test_a_hold_on_a_fork_keeps_what_it_inherits(place: Place, runtime: Runtime) -> None:
    session = runtime.session("s")
    await say(session, "evidence")
    fork = session.fork("f")
    await fork.hold("case 7")
    with pytest.raises(RetentionRefused):
        await session.delete()
    assert texts(await fork.history()) == ["evidence"]


# -- what is due


async def test_a_session_is_deleted_when_its_days_are_over_also_after_a_restart(
    place: Place,
) -> None:
    first = place.open(stopped=True)
    await say(first.session("short", retention={"ttl_days": 2, "auto_prune": True}), "a")
    await say(first.session("long", retention={"ttl_days": 9, "auto_prune": True}), "b")
    await say(first.session("listed", retention={"ttl_days": 2}), "c")
    place.clock.advance(days=1.5)
    await say(first.session("short"), "activity")
    place.clock.advance(days=1.5)
    assert (
        await first.sweep() == []
        or [swept.session_id for swept in await first.sweep() if swept.done] == []
    )
    again = place.open(stopped=True)
    place.clock.advance(days=1)
    dry = await again.sweep(dry_run=True)
    assert {(swept.session_id, swept.action, swept.acts) for swept in dry} == {
        ("short", "delete", True),
        ("listed", "delete", False),
    }
    assert not any(swept.done for swept in dry)
    done = [swept.session_id for swept in await again.sweep() if swept.done]
    assert done == ["short"]
    assert [info.id for info in await again.sessions()] == ["long", "listed"]


async def test_an_immutable_session_is_deleted_when_its_days_are_over(place: Place) -> None:
    runtime = place.open(stopped=True)
    policy = {"immutable": True, "ttl_days": 10, "auto_prune": True}
    session = runtime.session("s", retention=policy)
    await say(session, "a")
    place.clock.advance(days=9)
    assert await runtime.sweep() == []
    with pytest.raises(RetentionRefused, match="until"):
        await session.delete()
    place.clock.advance(days=2)
    assert [swept.done for swept in await runtime.sweep()] == [True]
    assert await runtime.sessions() == []


async def test_a_held_session_is_never_swept(place: Place) -> None:
    runtime = place.open(stopped=True)
    session = runtime.session("s", retention={"ttl_days": 1, "auto_prune": True})
    await say(session, "a")
    await session.hold("case 7")
    place.clock.advance(days=5)
    assert not any(swept.done for swept in await runtime.sweep())
    assert texts(await session.history()) == ["a"]


async def test_an_idle_session_is_ended_once(place: Place) -> None:
    runtime = place.open(stopped=True)
    session = runtime.session("s", retention={"idle_days": 1, "auto_prune": True})
    await say(session, "a")
    await session.set_state("k", 1)
    place.clock.advance(days=2)
    assert [swept.action for swept in await runtime.sweep()] == ["end"]
    assert session.get_state("k") is None
    place.clock.advance(days=2)
    assert await runtime.sweep() == []


@pytest.mark.parametrize(
    "policy",
    [
        {"ttl": 5},
        {"ttl_days": 0},
        {"ttl_days": -1},
        {"ttl_days": float("nan")},
        {"ttl_days": "30"},
        {"max_messages": 0},
        {"max_messages": 2.5},
        {"immutable": "yes"},
        {"immutable": True, "max_messages": 5},
        {"auto_prune": True},
        {"prune_strategy": "keep_important", "max_messages": 5},
        5,
    ],
)
def test_a_retention_that_cannot_be_is_an_error_at_construction(
    runtime: Runtime, policy: Any
) -> None:
    with pytest.raises(InvalidInput, match="retention"):
        runtime.session("s", retention=policy)
