"""One session, many at once: tasks, threads and processes take turns, and old writers none."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import anyio
import pytest
from msgspec.structs import replace
from tests.crash.children import children
from tests.crash.contention import (
    SESSION,
    check_all_answered_in_order,
    check_nothing_interleaved,
    contend,
)

from tertulia import Message, Runtime, Session
from tertulia.errors import AgentError, StaleWriter
from tertulia.stores.base import Change, SessionRow

pytestmark = pytest.mark.slow_crash


async def check(file: Path, names: set[str], turns: int) -> None:
    async with Runtime(f"sqlite:///{file}") as runtime:
        session = runtime.session(SESSION)
        check_all_answered_in_order(await session.history(), names, turns)
        check_nothing_interleaved(await session.events())
        assert session.pending_inputs == []
        assert await session.verify()


def names_of(processes: str, threads: int, tasks: int) -> set[str]:
    return {
        f"{name}.{thread}.{task}"
        for name in processes
        for thread in range(threads)
        for task in range(tasks)
    }


@pytest.mark.parametrize(("threads", "tasks"), [(1, 2), (2, 1), (2, 2)])
@pytest.mark.parametrize("turns", [20, pytest.param(300, marks=pytest.mark.soak)])
def test_turns_at_once_from_tasks_and_threads_are_all_answered_in_order(
    tmp_path: Path, threads: int, tasks: int, turns: int
) -> None:
    file = tmp_path / "x.db"
    contend(Runtime(f"sqlite:///{file}"), "a", threads=threads, tasks=tasks, turns=turns)
    asyncio.run(check(file, names_of("a", threads, tasks), turns))


@pytest.mark.parametrize(("threads", "tasks"), [(1, 1), (2, 2)])
@pytest.mark.parametrize("turns", [8, pytest.param(100, marks=pytest.mark.soak)])
async def test_turns_at_once_from_two_processes_are_all_answered_in_order(
    tmp_path: Path, threads: int, tasks: int, turns: int
) -> None:
    file = tmp_path / "x.db"
    async with Runtime(f"sqlite:///{file}") as runtime:
        await runtime.session("other").send_message(Message.user("the file is made"))
    with children("contends", file, threads, tasks, turns, count=2) as contenders:
        for child in contenders:
            assert child.hear() == "ready"
        for child, name in zip(contenders, "ab", strict=True):
            child.tell(name)
        for child in contenders:
            assert child.end() == []
    await check(file, names_of("ab", threads, tasks), turns)


class Elsewhere:
    """A thread with a loop of its own, which can be made to stand still."""

    def __init__(self, runtime: Runtime) -> None:
        self._session = runtime.session(SESSION)
        self.stands_still = threading.Event()
        self.go_on = threading.Event()
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            asyncio.run(self._wait_for_a_turn())
        except AgentError as error:
            self.error = error

    async def _wait_for_a_turn(self) -> None:
        turn = asyncio.create_task(self._take_turn())
        await asyncio.sleep(0)
        self.stands_still.set()
        self.go_on.wait(20)
        await turn

    async def _take_turn(self) -> None:
        async with self._session.turn("b") as turn:
            await turn.add_message(Message.assistant("answer to b"))

    def start(self) -> None:
        self._thread.start()
        assert self.stands_still.wait(20)

    def end(self) -> None:
        self.go_on.set()
        self._thread.join()


async def test_an_input_that_waits_is_not_taken_from_its_waiter_who_has_no_time_to_look(
    tmp_path: Path,
) -> None:
    async with Runtime(f"sqlite:///{tmp_path / 'x.db'}") as runtime:
        session = runtime.session(SESSION)
        elsewhere = Elsewhere(runtime)
        async with session.turn("a1") as turn:
            elsewhere.start()
            with anyio.fail_after(20):
                while not await runtime.store.inputs(turn.row.key):
                    await asyncio.sleep(0)
        turns = asyncio.create_task(take_turn(session, "a2"))
        with anyio.move_on_after(1):  # whether it may go first or has to wait for b
            await asyncio.shield(turns)
        await asyncio.to_thread(elsewhere.end)
        await turns
        assert elsewhere.error is None
        said = [message.text for message in await session.history()]
        assert sorted(said) == ["a1", "a2", "answer to b", "b"]
        assert said.index("answer to b") == said.index("b") + 1


async def take_turn(session: Session, text: str) -> None:
    async with session.turn(text):
        pass


def forms(row: SessionRow) -> list[SessionRow]:
    """The row as it is believed to be by writers that are behind in one thing each."""
    return [
        replace(row, epoch=row.epoch - 1),
        replace(row, seq=row.seq - 1),
        replace(row, digest=bytes(32)),
        replace(row, holder=b"somebody else..."),
        replace(row, holder=None),
    ]


async def test_a_writer_that_is_behind_in_anything_writes_nothing(tmp_path: Path) -> None:
    async with Runtime(f"sqlite:///{tmp_path / 'x.db'}") as runtime:
        session = runtime.session("s")
        async with session.turn("question") as turn:
            before = await session.events()
            for old in forms(turn.row):
                change = Change(before=old, after=replace(turn.row, epoch=99))
                with pytest.raises(StaleWriter):
                    await runtime.store.commit(change)
            assert await runtime.store.find(None, "s") == turn.row
            assert await session.events() == before
            await turn.add_message(Message.assistant("answer"))
        assert await session.verify()


async def test_a_writer_of_an_older_epoch_is_refused_in_a_batch_that_writes_the_others(
    tmp_path: Path,
) -> None:
    async with Runtime(f"sqlite:///{tmp_path / 'x.db'}") as runtime:
        session = runtime.session("s")
        async with session.turn("question") as turn:
            old = replace(turn.row, epoch=turn.row.epoch - 1)
            stale = runtime.store.commit(Change(before=old, after=turn.row))
            others = [
                runtime.session(f"other{number}").send_message(Message.user("x"))
                for number in range(5)
            ]
            results = await asyncio.gather(stale, *others, return_exceptions=True)
        assert [isinstance(result, StaleWriter) for result in results] == [True] + [False] * 5
        for number in range(5):
            assert len(await runtime.session(f"other{number}").history()) == 1
        assert await session.verify()
