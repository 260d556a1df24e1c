"""Forks and rewinds: messages and state as of a point, with nothing copied and nothing lost."""

from __future__ import annotations

from typing import Any

import pytest
from tests.integration.test_sessions_support import (
    Place,
    begin,
    broken,
    calls,
    paired,
    result,
    say,
    texts,
    user,
)

from tertulia import Message, Runtime, Session
from tertulia.errors import HistoryErased, InvalidInput, SessionExists

pytest_plugins = ("tests.integration.test_sessions_support",)


async def _talk(session: Session) -> list[int]:
    """Four messages with state beside them; the position after each."""
    positions: list[int] = []
    for number, text in enumerate("abcd"):
        await session.set_state("step", number)
        sent = await session.send_message(user(text))
        positions.append(sent.seq or 0)
    return positions


# -- rewind


async def test_a_rewind_restores_messages_and_state(session: Session) -> None:
    positions = await _talk(session)
    assert await session.rewind(positions[1]) == positions[1]
    assert texts(await session.history()) == ["a", "b"]
    assert session.get_state("step") == 1
    await say(session, "e")
    assert texts(await session.history()) == ["a", "b", "e"]


async def test_a_rewind_can_be_undone_by_rewinding_to_a_later_position(session: Session) -> None:
    positions = await _talk(session)
    await session.rewind(positions[0])
    await say(session, "x")
    assert await session.rewind(positions[3]) == positions[3]
    assert texts(await session.history()) == list("abcd")
    assert session.get_state("step") == 3
    await say(session, "e")
    assert texts(await session.history()) == list("abcde")


async def test_a_rewind_to_the_beginning_hides_everything(session: Session) -> None:
    await _talk(session)
    assert await session.rewind(0) == 0
    assert await session.history() == []
    assert session.state_keys() == []
    await say(session, "new")
    assert texts(await session.history()) == ["new"]


async def test_many_rewinds_show_what_each_position_showed(session: Session) -> None:
    shown: dict[int, list[str]] = {}

    async def note() -> None:
        events = await session.events()
        shown[events[-1].seq] = texts(await session.history())

    positions = await _talk(session)
    await note()
    for to in (positions[2], positions[0], positions[3], positions[1]):
        await session.rewind(to)
        await note()
        await say(session, f"after {to}")
        await note()
    for position, expected in shown.items():
        assert texts(await session.history(at=position)) == expected, position
    for position, expected in shown.items():
        await session.rewind(position)
        assert texts(await session.history()) == expected, position


async def test_a_rewind_into_a_turn_goes_before_it(session: Session) -> None:
    [first] = await say(session, "before")
    async with session.turn("question") as turn:
        answer = await turn.add_message(Message.assistant("answer"))
        await turn.add_message(Message.assistant("more"))
    await say(session, "after")
    assert answer.seq is not None
    assert await session.rewind(answer.seq) == first.seq
    assert texts(await session.history()) == ["before"]


async def test_a_rewind_never_parts_a_call_from_its_result(session: Session) -> None:
    [first] = await say(session, "before")
    sent = await session.send_messages([calls("x", "y"), result("x"), result("y")])
    await say(session, "after")
    for message in sent[:-1]:
        assert message.seq is not None
        assert await session.rewind(message.seq) == first.seq
        assert paired(await session.history())
    assert sent[-1].seq is not None
    assert await session.rewind(sent[-1].seq) == sent[-1].seq
    assert paired(await session.history())


async def test_a_rewind_with_an_open_call_closes_it(session: Session) -> None:
    [first] = await say(session, "before")
    await session.send_message(calls("x"))
    assert first.seq is not None
    await session.rewind(first.seq)
    await say(session, "next")
    assert texts(await session.history()) == ["before", "next"]


async def test_a_rewind_brings_back_what_was_pruned_or_cleared_later(session: Session) -> None:
    positions = await _talk(session)
    await session.prune("keep_last_1")
    assert texts(await session.history()) == ["d"]
    await session.rewind(positions[3])
    assert texts(await session.history()) == list("abcd")
    session.clear()
    assert await session.history() == []
    await session.rewind(positions[2])
    assert texts(await session.history()) == list("abc")


async def test_a_failed_turn_stays_hidden_after_a_rewind(session: Session) -> None:
    await say(session, "a")
    async with broken(session, "hidden"):
        pass
    [later] = await say(session, "b")
    await say(session, "c")
    assert later.seq is not None
    await session.rewind(later.seq)
    assert texts(await session.history()) == ["a", "b"]
    async with broken(session, "hidden again"):
        pass
    assert texts(await session.history()) == ["a", "b"]


async def test_nothing_leaves_the_audit_by_a_rewind(session: Session) -> None:
    positions = await _talk(session)
    before = await session.events()
    await session.rewind(positions[0])
    after = await session.events()
    assert after[: len(before)] == before
    assert [event.type for event in after[len(before) :]] == ["session.rewound"]


# -- fork


async def test_a_fork_has_the_history_and_the_state_and_goes_its_own_way(
    runtime: Runtime,
) -> None:
    session = runtime.session("s", user_id="ann", metadata={"k": 1}, system="Be brief.")
    await _talk(session)
    fork = session.fork("f")
    assert texts(await fork.history()) == list("abcd")
    assert fork.get_state("step") == 3
    assert (fork.user_id, fork.metadata, fork.system) == ("ann", {"k": 1}, "Be brief.")
    await say(fork, "fork")
    await fork.set_state("step", "fork")
    await say(session, "parent")
    assert texts(await fork.history()) == [*"abcd", "fork"]
    assert texts(await session.history()) == [*"abcd", "parent"]
    assert session.get_state("step") == 3


async def test_a_fork_can_be_awaited_and_gets_an_id_of_its_own(session: Session) -> None:
    await say(session, "a")
    first = await session.fork()
    second = await session.fork()
    assert len({session.id, first.id, second.id}) == 3
    assert texts(await first.history()) == texts(await second.history()) == ["a"]


async def test_a_fork_at_a_position_has_the_state_of_it(session: Session) -> None:
    positions = await _talk(session)
    for number, position in enumerate(positions):
        fork = session.fork(f"f{number}", at=position)
        assert texts(await fork.history()) == list("abcd")[: number + 1]
        assert fork.get_state("step") == number


async def test_a_fork_at_the_beginning_is_empty(session: Session) -> None:
    await _talk(session)
    fork = session.fork("f", at=0)
    assert await fork.history() == []
    assert fork.state_keys() == []
    await say(fork, "new")
    assert texts(await fork.history()) == ["new"]


async def test_a_fork_of_a_session_that_was_never_used_is_empty(runtime: Runtime) -> None:
    fork = runtime.session("s", metadata={"k": 1}).fork("f")
    assert await fork.history() == []
    assert fork.metadata == {"k": 1}


async def test_a_fork_inside_a_turn_is_before_it(session: Session) -> None:
    await say(session, "before")
    async with session.turn("question") as turn:
        open_fork = session.fork("open")
        answer = await turn.add_message(Message.assistant("answer"))
        await turn.add_message(Message.assistant("more"))
    assert texts(await open_fork.history()) == ["before"]
    closed_fork = session.fork("closed", at=answer.seq)
    assert texts(await closed_fork.history()) == ["before"]


async def test_a_fork_never_parts_a_call_from_its_result(session: Session) -> None:
    await say(session, "before")
    sent = await session.send_messages([calls("x", "y"), result("x"), result("y")])
    for message in sent[:-1]:
        fork = session.fork(at=message.seq)
        assert texts(await fork.history()) == ["before"]
    assert paired(await session.fork(at=sent[-1].seq).history())


async def test_a_fork_with_an_open_call_is_before_it(session: Session) -> None:
    await say(session, "before")
    await session.send_message(calls("x"))
    fork = session.fork("f")
    assert texts(await fork.history()) == ["before"]
    await say(fork, "own way")
    await session.send_message(result("x"))
    assert paired(await session.history())
    assert texts(await fork.history()) == ["before", "own way"]


async def test_a_fork_of_an_id_that_exists_is_an_error(session: Session) -> None:
    await say(session, "a")
    session.fork("f")
    with pytest.raises(SessionExists):
        session.fork("f")
    with pytest.raises(SessionExists):
        session.fork(session.id)


async def test_forks_of_forks_see_the_whole_lineage(runtime: Runtime) -> None:
    session = runtime.session("0")
    await say(session, "0")
    for depth in range(1, 70):
        session = session.fork(str(depth))
        if depth % 7 == 0:
            await session.set_state(f"k{depth}", depth)
        await say(session, str(depth))
    assert texts(await session.history()) == [str(depth) for depth in range(70)]
    assert texts(await session.history(limit=3)) == ["67", "68", "69"]
    assert session.get_state("k7") == 7
    assert len(session.state_keys()) == 9
    assert texts(await session.history(at=3)) == ["0"]


async def test_a_fork_of_a_fork_at_an_inherited_position_stands_on_the_first(
    session: Session,
) -> None:
    positions = await _talk(session)
    fork = session.fork("f", at=positions[2])
    await say(fork, "e")
    again = fork.fork("g", at=positions[1])
    assert texts(await again.history()) == ["a", "b"]
    assert again.get_state("step") == 1
    await say(again, "own")
    assert texts(await fork.history()) == ["a", "b", "c", "e"]


async def test_a_fork_past_a_rewind_sees_what_its_parent_saw(session: Session) -> None:
    positions = await _talk(session)
    await session.rewind(positions[1])
    [after] = await say(session, "e")
    fork = session.fork("f")
    assert texts(await fork.history()) == ["a", "b", "e"]
    old = session.fork("old", at=positions[3])
    assert texts(await old.history()) == list("abcd")
    assert old.get_state("step") == 3
    assert after.seq is not None
    await say(session, "later")
    await fork.rewind(positions[0])
    assert texts(await fork.history()) == ["a"]
    await fork.rewind(after.seq)
    assert texts(await fork.history()) == ["a", "b", "e"]


async def test_a_fork_can_be_rewound_before_the_point_where_it_began(session: Session) -> None:
    positions = await _talk(session)
    fork = session.fork("f")
    await say(fork, "e")
    assert await fork.rewind(positions[0]) == positions[0]
    assert texts(await fork.history()) == ["a"]
    assert fork.get_state("step") == 0
    await say(fork, "own")
    assert texts(await fork.history()) == ["a", "own"]
    assert texts(await session.history()) == list("abcd")


async def test_what_a_fork_hides_stays_visible_to_its_parent(session: Session) -> None:
    await _talk(session)
    fork = session.fork("f")
    await fork.prune("keep_last_1")
    assert texts(await fork.history()) == ["d"]
    fork.clear()
    assert await fork.history() == []
    assert texts(await session.history()) == list("abcd")
    session.clear()
    again = session.fork("g")
    assert await again.history() == []


async def test_a_fork_inherits_what_was_hidden_before_it_and_not_what_is_hidden_later(
    session: Session,
) -> None:
    await _talk(session)
    await session.prune("keep_last_2")
    fork = session.fork("f")
    session.clear()
    assert texts(await fork.history()) == ["c", "d"]
    await say(fork, "e")
    await fork.prune("keep_last_2")
    assert texts(await fork.history()) == ["d", "e"]


async def test_a_fork_sees_the_summary_that_its_parent_made(session: Session) -> None:
    await _talk(session)
    await session.prune("summarize_old", threshold=2, summarize=lambda _: "a and b")
    fork = session.fork("f")
    assert texts(await fork.history()) == ["a and b", "c", "d"]
    assert texts(await session.history()) == ["a and b", "c", "d"]


async def test_a_fork_of_an_ended_session_is_open(session: Session) -> None:
    await say(session, "a")
    await session.end()
    fork = session.fork("f")
    await say(fork, "b")
    assert texts(await fork.history()) == ["a", "b"]


async def test_a_fork_of_a_session_with_a_running_turn_does_not_wait(lasting: Place) -> None:
    session = lasting.open().session("s")
    await say(session, "before")
    await begin(session, "running")
    other = lasting.open().session("s")
    assert texts(await other.fork("f").history()) == ["before"]


async def test_a_parent_with_forks_can_be_deleted_and_the_forks_go_on(
    place: Place, runtime: Runtime
) -> None:
    session = runtime.session("s")
    positions = await _talk(session)
    fork = session.fork("f")
    await say(fork, "e")
    grandchild = fork.fork("g")
    await session.delete()
    assert [info.id for info in await runtime.sessions()] == ["f", "g"]
    assert texts(await fork.history()) == ["e"]
    await say(fork, "more")
    assert texts(await fork.history()) == ["e", "more"]
    assert texts(await grandchild.history()) == ["e"]
    with pytest.raises(HistoryErased):
        await fork.history(at=positions[1])
    with pytest.raises(HistoryErased):
        await fork.rewind(positions[1])


async def test_a_fork_verifies_when_its_parent_was_deleted(place: Place, runtime: Runtime) -> None:
    session = runtime.session("s")
    await _talk(session)
    fork = session.fork("f")
    await say(fork, "e")
    await session.delete()
    assert await fork.verify()


async def test_state_that_a_fork_inherited_goes_with_its_parent(
    place: Place, runtime: Runtime
) -> None:
    session = runtime.session("s")
    await _talk(session)
    fork = session.fork("f")
    await fork.set_state("own", 1)
    await session.delete()
    assert fork.get_state("own") == 1
    assert fork.get_state("step") is None
    assert fork.state_keys() == ["own"]


async def test_an_idempotency_key_is_not_inherited_by_a_fork(session: Session) -> None:
    await session.send_message(user("a"), idempotency_key="k")
    fork = session.fork("f")
    await fork.send_message(user("b"), idempotency_key="k")
    assert texts(await fork.history()) == ["a", "b"]


@pytest.mark.parametrize("wrong", ["", "x" * 513, "a\0b", 5])
async def test_a_fork_with_a_wrong_id_is_refused(session: Session, wrong: Any) -> None:
    await say(session, "a")
    with pytest.raises(InvalidInput):
        session.fork(wrong)
