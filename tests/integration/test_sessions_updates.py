"""update_state: its function runs alone, so what waits for it inside of it is refused at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from tests.integration.test_sessions_support import Place

from tertulia import Message, Runtime, Session
from tertulia.errors import SessionBusy, UsageError

pytest_plugins = ("tests.integration.test_sessions_support",)

SOON = 5.0
"""Seconds after which something hangs."""

Change = Callable[[Session], Awaitable[Any]]


async def update_the_same_key(session: Session) -> None:
    await session.update_state("k", lambda old: (old or 0) + 1)


async def update_another_key(session: Session) -> None:
    await session.update_state("other", lambda old: (old or 0) + 1)


async def update_the_user_state(session: Session) -> None:
    await session.update_state("k", lambda old: (old or 0) + 1, scope="user")


async def set_the_same_key(session: Session) -> None:
    await session.set_state("k", 5)


async def set_another_key(session: Session) -> None:
    await session.set_state("other", 5)


async def set_and_not_wait(session: Session) -> None:
    session.set_state("k", 5)


async def delete_the_same_key(session: Session) -> None:
    await session.delete_state("k")


async def send_a_message(session: Session) -> None:
    await session.send_message(Message.user("hello"))


async def change_in_a_task(session: Session) -> None:
    await asyncio.gather(update_another_key(session))


CHANGES = [
    update_the_same_key,
    update_another_key,
    update_the_user_state,
    set_the_same_key,
    set_another_key,
    set_and_not_wait,
    delete_the_same_key,
    send_a_message,
    change_in_a_task,
]
SCOPES = ["session", "user", "app"]
changing = pytest.mark.parametrize("change", CHANGES, ids=[each.__name__ for each in CHANGES])


def including(session: Session, change: Change) -> Callable[[Any], Awaitable[int]]:
    async def function(old: int | None) -> int:
        await change(session)
        return (old or 0) + 10

    return function


async def is_usable(session: Session, scope: str) -> None:
    """What was refused wrote nothing, and the next update is made."""
    assert session.get_state("k", scope=scope) == 1
    assert session.get_state("other") is None
    assert await session.update_state("k", lambda old: old + 1, scope=scope) == 2
    assert session.get_state("k", scope=scope) == 2


@changing
@pytest.mark.parametrize("scope", SCOPES)
async def test_a_change_inside_of_an_update_is_refused_at_once(
    runtime: Runtime, scope: str, change: Change
) -> None:
    session = runtime.session("s", user_id="kim")
    await session.set_state("k", 1, scope=scope)
    with anyio.fail_after(SOON), pytest.raises(UsageError, match="return the new value"):
        await session.update_state("k", including(session, change), scope=scope)
    await session.flush()
    await is_usable(session, scope)
    assert await session.verify()


@changing
@pytest.mark.parametrize("scope", [*SCOPES, "temp"])
async def test_a_change_inside_of_an_update_in_a_turn_is_refused_at_once(
    runtime: Runtime, scope: str, change: Change
) -> None:
    session = runtime.session("s", user_id="kim")
    with anyio.fail_after(SOON):
        async with session.turn("hello"):
            session.set_state("k", 1, scope=scope)
            if scope in ("user", "app"):
                await session.update_state("k", lambda _: 1, scope=scope)
            with pytest.raises(UsageError, match="return the new value"):
                await session.update_state("k", including(session, change), scope=scope)
            await is_usable(session, scope)
    assert await session.verify()


@pytest.mark.parametrize("scope", SCOPES)
async def test_the_function_of_an_update_may_read(runtime: Runtime, scope: str) -> None:
    session = runtime.session("s", user_id="kim")
    await session.set_state("factor", 3)

    async def function(old: int | None) -> int:
        return (old or 1) * session.get_state("factor")

    with anyio.fail_after(SOON):
        assert await session.update_state("k", function, scope=scope) == 3
        async with session.turn("hello"):
            assert await session.update_state("k", function, scope=scope) == 9
    assert session.get_state("k", scope=scope) == 9


async def test_the_function_of_an_update_may_change_another_session(runtime: Runtime) -> None:
    one, other = (runtime.session(name, user_id="kim") for name in ("one", "other"))
    with anyio.fail_after(SOON):
        assert await one.update_state("k", including(other, update_the_same_key)) == 10
        await one.update_state("k", including(other, update_the_same_key), scope="user")
    assert (one.get_state("k"), other.get_state("k")) == (10, 2)
    assert one.get_state("k", scope="user") == 10


@pytest.mark.parametrize("inside", [False, True], ids=["outside of turns", "inside of a turn"])
async def test_an_update_that_always_overtakes_itself_by_another_session_gives_up(
    monkeypatch: pytest.MonkeyPatch, runtime: Runtime, *, inside: bool
) -> None:
    for module in ("tertulia.turns", "tertulia.conversation"):
        monkeypatch.setattr(f"{module}.MAX_RACES", 5)
    one, other = (runtime.session(name, user_id="kim") for name in ("one", "other"))
    overtaking = including(other, update_the_user_state)
    with anyio.fail_after(SOON):
        if inside:
            async with one.turn("hello"):
                with pytest.raises(SessionBusy, match="5 times"):
                    await one.update_state("k", overtaking, scope="user")
        else:
            with pytest.raises(SessionBusy, match="5 times"):
                await one.update_state("k", overtaking, scope="user")
    assert other.get_state("k", scope="user") == 5


@pytest.mark.parametrize("scope", [*SCOPES, "temp"])
async def test_updates_at_once_in_a_turn_lose_nothing_where_their_functions_wait(
    runtime: Runtime, scope: str
) -> None:
    session = runtime.session("s", user_id="kim")

    async def function(old: int | None) -> int:
        for _ in range(3):
            await asyncio.sleep(0)
        return (old or 0) + 1

    with anyio.fail_after(SOON):
        async with session.turn("hello"):
            await asyncio.gather(
                *(session.update_state("k", function, scope=scope) for _ in range(16))
            )
            assert session.get_state("k", scope=scope) == 16
    assert session.get_state("k", scope=scope) == (None if scope == "temp" else 16)


async def test_what_a_task_of_the_function_does_after_the_update_is_not_refused(
    session: Session,
) -> None:
    go_on = asyncio.Event()
    started: list[asyncio.Task[Any]] = []

    async def later() -> Any:
        await go_on.wait()
        return await session.update_state("k", lambda old: old + 1)

    async def function(_: Any) -> int:
        started.append(asyncio.create_task(later()))
        return 1

    await session.update_state("k", function)
    go_on.set()
    assert await started[0] == 2


async def test_too_many_changes_of_a_turn_at_once_are_refused_with_a_typed_error(
    lasting: Place,
) -> None:
    session = lasting.open().session("s")
    async with session.turn("hello") as turn:
        made = await asyncio.gather(
            *(turn.record("app.x", {}) for _ in range(1_100)), return_exceptions=True
        )
    refused = [each for each in made if isinstance(each, BaseException)]
    assert {type(each) for each in refused} == {SessionBusy}
    assert len(await session.events(types="app.x", limit=None)) == len(made) - len(refused)
    assert await session.verify()
