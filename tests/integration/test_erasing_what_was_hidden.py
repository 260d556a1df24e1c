"""What a sweep erases for good: what has been hidden for seven days, and nothing else."""

from __future__ import annotations

import pytest

from tertulia import Runtime, Session
from tertulia.errors import HistoryErased
from tertulia.testing import FrozenClock


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
