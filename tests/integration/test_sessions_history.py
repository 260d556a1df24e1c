"""The history: limits, pages, positions; tool calls and their results are never parted."""

from __future__ import annotations

import pytest
from tests.integration.test_sessions_support import (
    broken,
    calls,
    paired,
    result,
    say,
    texts,
)

from tertulia import Message, Runtime, Session
from tertulia.errors import InvalidInput, InvalidMessage

pytest_plugins = ("tests.integration.test_sessions_support",)


async def test_a_limit_gives_the_newest_messages(session: Session) -> None:
    await say(session, *"abcde")
    assert texts(await session.history(limit=2)) == ["d", "e"]
    assert texts(await session.history(limit=5)) == list("abcde")
    assert texts(await session.history(limit=99)) == list("abcde")


async def test_a_limit_of_zero_gives_nothing(session: Session) -> None:
    await say(session, "a")
    assert await session.history(limit=0) == []
    assert await session.history(limit=0, at=1) == []
    assert await session.history(limit=0, before=9) == []


@pytest.mark.parametrize("wrong", [-1, True, "5", 2.0])
async def test_a_limit_or_position_that_is_no_count_is_refused(
    session: Session, wrong: int
) -> None:
    await say(session, "a")
    with pytest.raises(InvalidInput, match="whole number"):
        await session.history(limit=wrong)
    with pytest.raises(InvalidInput, match="whole number"):
        await session.history(at=wrong)
    with pytest.raises(InvalidInput, match="whole number"):
        await session.history(before=wrong)
    with pytest.raises(InvalidInput, match="whole number"):
        await session.rewind(wrong)
    with pytest.raises(InvalidInput, match="whole number"):
        session.fork(at=wrong)
    with pytest.raises(InvalidInput, match="whole number"):
        await session.events(limit=wrong)


@pytest.mark.parametrize("wrong", [-1, True, "5", 2.0])
async def test_a_wrong_limit_is_refused_before_the_session_exists(
    session: Session, wrong: int
) -> None:
    with pytest.raises(InvalidInput):
        await session.history(at=wrong)
    with pytest.raises(InvalidInput):
        await session.events(limit=wrong)


async def test_a_position_shows_the_history_as_it_was_then(session: Session) -> None:
    sent = await say(session, "a", "b", "c")
    assert texts(await session.history(at=sent[1].seq)) == ["a", "b"]
    assert texts(await session.history(at=sent[2].seq, limit=2)) == ["b", "c"]
    assert await session.history(at=0) == []
    assert await session.history(at=1) == []


async def test_a_position_beyond_the_end_is_refused(session: Session) -> None:
    [sent] = await say(session, "a")
    assert sent.seq is not None
    with pytest.raises(InvalidInput, match="beyond the end"):
        await session.history(at=sent.seq + 1)
    with pytest.raises(InvalidInput, match="beyond the end"):
        await session.rewind(sent.seq + 1)
    with pytest.raises(InvalidInput, match="beyond the end"):
        session.fork(at=sent.seq + 1)


async def test_paging_backwards_gives_every_message_once(session: Session) -> None:
    await say(session, *"abcdefg")
    pages: list[list[str]] = []
    before = None
    while page := await session.history(limit=3, before=before):
        pages.append(texts(page))
        before = page[0].seq
    assert pages == [["e", "f", "g"], ["b", "c", "d"], ["a"]]


async def test_paging_skips_what_is_hidden(session: Session) -> None:
    await say(session, "a", "b")
    for _ in range(3):
        async with broken(session, "hidden"):
            pass
    await say(session, "c", "d")
    seen: list[str] = []
    before = None
    while page := await session.history(limit=1, before=before):
        seen = texts(page) + seen
        before = page[0].seq
    assert seen == ["a", "b", "c", "d"]


async def test_a_page_that_ends_inside_a_hidden_turn_shows_nothing_of_it(
    session: Session,
) -> None:
    await say(session, "a")
    inside = 0
    async with broken(session, "hidden") as turn:
        await turn.add_message(Message.assistant("hidden too"))
        last = await turn.add_message(Message.user("and this"))
        inside = last.seq or 0
    await say(session, "b")
    assert texts(await session.history(before=inside)) == ["a"]


# -- tool groups


async def _group(session: Session, *ids: str) -> None:
    await session.send_messages([calls(*ids), *(result(one) for one in ids)])


async def test_a_limit_never_begins_inside_a_tool_group(session: Session) -> None:
    await say(session, "a")
    await _group(session, "x", "y")
    await say(session, "b")
    for limit in range(1, 8):
        history = await session.history(limit=limit)
        assert paired(history), limit
        assert history[-1].text == "b"
        assert len(history) <= limit
    assert texts(await session.history(limit=3)) == ["b"]
    assert len(await session.history(limit=4)) == 4


@pytest.mark.parametrize("limit", [1, 2, 3, 4])
async def test_the_newest_tool_group_is_whole_and_alone_where_the_limit_is_smaller(
    session: Session, limit: int
) -> None:
    await say(session, "a", "b")
    await _group(session, "x", "y", "z")
    history = await session.history(limit=limit)
    assert [m.role for m in history] == ["assistant", "tool", "tool", "tool"]


async def test_a_page_never_ends_inside_a_tool_group(session: Session) -> None:
    await say(session, "a")
    await _group(session, "x", "y")
    await say(session, "b")
    for before in range(1, 9):
        assert paired(await session.history(before=before)), before


async def test_a_position_inside_a_tool_group_means_the_position_before_it(
    session: Session,
) -> None:
    [first] = await say(session, "a")
    assert first.seq is not None
    await _group(session, "x", "y")
    await say(session, "b")
    for position in (first.seq + 1, first.seq + 2):
        assert texts(await session.history(at=position)) == ["a"]
    assert len(await session.history(at=first.seq + 3)) == 4


async def test_an_open_call_is_not_shown_at_its_position_until_it_is_answered(
    session: Session,
) -> None:
    await say(session, "a")
    sent = await session.send_message(calls("x"))
    assert texts(await session.history(at=sent.seq)) == ["a"]
    await session.send_message(result("x"))
    assert len(await session.history()) == 3


async def test_a_call_that_was_never_answered_gets_a_result_that_says_so(
    session: Session,
) -> None:
    await session.send_message(calls("x", "y"))
    await session.send_message(result("y"))
    await say(session, "never mind")
    history = await session.history()
    assert paired(history)
    [unknown] = [m for m in history if m.tool_call_id == "x"]
    assert unknown.metadata == {"outcome": "unknown"}
    assert history[-1].text == "never mind"


async def test_a_result_without_its_call_is_refused(session: Session) -> None:
    with pytest.raises(InvalidMessage, match="add the assistant message that calls it first"):
        await session.send_message(result("x"))
    await _group(session, "x")
    with pytest.raises(InvalidMessage, match="no tool call 'x' is open"):
        await session.send_message(result("x"))
    assert len(await session.history()) == 2


async def test_a_message_has_one_id_wherever_it_is_read(runtime: Runtime) -> None:
    session = runtime.session("s")
    sent = await say(session, "a", "b")
    fork = session.fork("f")
    await say(fork, "c")
    ids = [m.id for m in sent]
    assert [m.id for m in await session.history(at=sent[1].seq)] == ids
    assert [m.id for m in await fork.history(at=sent[1].seq)] == ids
    assert [m.id for m in await fork.history()][:2] == ids


async def test_a_long_hidden_stretch_hides_nothing_else(session: Session) -> None:
    await say(session, "a")
    for number in range(70):
        async with broken(session, f"hidden {number}"):
            pass
        if number % 2:
            await say(session, f"shown {number}")
    shown = [f"shown {number}" for number in range(70) if number % 2]
    assert texts(await session.history()) == ["a", *shown]
    assert texts(await session.history(limit=3)) == shown[-3:]


async def test_more_cuts_than_one_page_are_all_hidden(session: Session) -> None:
    expected: list[str] = []
    for number in range(150):
        expected += texts(await say(session, f"shown {number}"))
        async with broken(session, f"hidden {number}"):
            pass
    assert texts(await session.history()) == expected
    assert texts(await session.history(limit=100)) == expected[-100:]
