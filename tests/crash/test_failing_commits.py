"""A commit that fails: who was refused has written nothing, not even after a recovery."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import threading
from collections import Counter
from collections.abc import Awaitable, Iterator
from pathlib import Path

import anyio
import apsw
import pytest
from tests.crash.promises import check_next_turn

from tertulia import Message, Runtime, Session, SQLiteStore
from tertulia.errors import OutcomeUnknown, StoreUnavailable
from tertulia.testing.faulty_vfs import FaultyVFS, Operation

pytestmark = pytest.mark.slow_crash

numbers = itertools.count()
PATIENCE = 20
SENDERS, SETTERS, TURNS = 6, 3, 3
TASKS = SENDERS + SETTERS + TURNS


class Fault:
    """Holds a commit at its first write, lets it pass, and fails operations of the next."""

    def __init__(self, operation: Operation, number: int, *, lasting: bool) -> None:
        self.held = threading.Event()
        self.go_on = threading.Event()
        self.hit = False
        self.over = False
        self._passed = False
        self._operation = operation
        self._left = number
        self._lasting = lasting

    def __call__(self, operation: Operation, file: str) -> bool:
        if not file.endswith("-wal") or self.over:
            return False
        if not self._passed:
            self.held.set()
            self.go_on.wait(PATIENCE)
            self._passed = operation == "sync"
            return False
        if operation != self._operation:
            return False
        self._left -= 1
        fails = self._left == 0 or (self._lasting and self._left < 0)
        self.hit = self.hit or fails
        return fails


class Batch:
    """What a dozen tasks want at once, each of a session of its own, and what they were told."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._close = asyncio.Event()
        self.answers: dict[str, str] = {}

    async def run(self, fault: Fault, vfs: FaultyVFS) -> None:
        """All of it in one commit, which waits behind one that the fault holds."""
        names = [f"s{number}" for number in range(TASKS)]
        for name in names:
            await self._runtime.session(name).send_message(Message.user("before"))
        async with anyio.create_task_group() as group:
            for name in names[SENDERS + SETTERS :]:
                await group.start(self._take_turn, name)
            vfs.fault = fault
            group.start_soon(self._note, "plug", send(self._runtime.session("plug")))
            assert await asyncio.to_thread(fault.held.wait, PATIENCE)
            for name in names[:SENDERS]:
                group.start_soon(self._note, name, send(self._runtime.session(name)))
            for name in names[SENDERS : SENDERS + SETTERS]:
                group.start_soon(self._note, name, set_state(self._runtime.session(name)))
            self._close.set()
            with anyio.fail_after(PATIENCE):
                while self._runtime.stats().queue_depth < TASKS:
                    await asyncio.sleep(0)
            fault.go_on.set()
        assert self.answers.pop("plug") == "acknowledged"

    async def _take_turn(
        self, name: str, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        async def close() -> None:
            async with self._runtime.session(name).turn("question") as turn:
                await turn.add_message(Message.assistant("new"))
                task_status.started()
                await self._close.wait()

        await self._note(name, close())

    async def _note(self, name: str, attempt: Awaitable[object]) -> None:
        try:
            await attempt
        except StoreUnavailable:
            self.answers[name] = "refused"
        except OutcomeUnknown:
            self.answers[name] = "unknown"
        else:
            self.answers[name] = "acknowledged"


async def send(session: Session) -> None:
    await session.send_messages([Message.user("q" * 3_000), Message.assistant("new")])


async def set_state(session: Session) -> None:
    await session.set_state("what", "new")


async def is_there(runtime: Runtime, name: str) -> bool:
    session = runtime.session(name)
    said = [message.text for message in await session.history()]
    return "new" in said or session.get_state("what") == "new"


async def check(runtime: Runtime, answers: dict[str, str]) -> None:
    """What was acknowledged is there, what was refused is not, and everything fits."""
    for name, answer in answers.items():
        if answer != "unknown":
            assert await is_there(runtime, name) == (answer == "acknowledged")
        assert await runtime.session(name).verify()


async def check_after_recovery(path: Path, answers: dict[str, str]) -> None:
    async with Runtime(f"sqlite:///{path}") as recovered:
        await check(recovered, answers)
        for name in answers:
            await check_next_turn(recovered, name)


def as_a_kill_would_leave_it(path: Path, folder: Path) -> Path:
    """A copy of the file and its journal, which the next opener recovers."""
    folder.mkdir()
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", folder)
    return folder / path.name


@pytest.fixture
def vfs() -> Iterator[FaultyVFS]:
    made = FaultyVFS(f"failing{next(numbers)}")
    yield made
    made.unregister()


async def fail_one_batch(folder: Path, vfs: FaultyVFS, fault: Fault) -> Counter[str]:
    """Run a batch into a fault and check what is promised; what its tasks were told."""
    folder.mkdir()
    path = folder / "x.db"
    async with Runtime(SQLiteStore(path, vfs=vfs.name)) as runtime:
        batch = Batch(runtime)
        await batch.run(fault, vfs)
        answers = batch.answers
        assert len(answers) == TASKS
        assert len(set(answers.values())) == 1  # they shared one transaction
        copy = as_a_kill_would_leave_it(path, folder / "recovered")
        fault.over = True
        await check_after_recovery(copy, answers)
        await check(runtime, answers)
        for name in answers:
            await check_next_turn(runtime, name)
        told = dict(answers)
    await check_after_recovery(path, told)
    return Counter(told.values())


SOME_AND_ALL = [pytest.param(3, id="some"), pytest.param(1, id="all", marks=pytest.mark.soak)]


@pytest.mark.parametrize("step", SOME_AND_ALL)
@pytest.mark.parametrize(("error", "lasting"), [("io", False), ("io", True), ("full", True)])
@pytest.mark.timeout(300)
async def test_wherever_the_writing_of_a_batch_fails_nothing_of_it_is_acknowledged(
    tmp_path: Path, vfs: FaultyVFS, error: str, lasting: bool, step: int
) -> None:
    vfs.error = apsw.FullError if error == "full" else apsw.IOError
    expected = "unknown" if error == "io" and lasting else "refused"
    number, hit = 1, True
    while hit:
        fault = Fault("write", number, lasting=lasting)
        told = await fail_one_batch(tmp_path / str(number), vfs, fault)
        hit = fault.hit
        assert told == {expected if hit else "acknowledged": TASKS}
        number += step
    assert number > 20  # a batch of so many tasks is written by many writes


@pytest.mark.parametrize("lasting", [False, True])
async def test_a_batch_whose_sync_fails_is_told_what_became_of_it_or_that_nobody_knows(
    tmp_path: Path, vfs: FaultyVFS, lasting: bool
) -> None:
    fault = Fault("sync", 1, lasting=lasting)
    told = await fail_one_batch(tmp_path / "x", vfs, fault)
    assert fault.hit
    assert set(told) <= ({"unknown"} if lasting else {"acknowledged", "refused"})
