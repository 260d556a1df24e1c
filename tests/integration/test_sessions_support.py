"""What the tests of sessions share: places where sessions are kept, and a clock that stands."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tertulia import MemoryStore, Message, Runtime, Session, SessionStore, SQLiteStore, admission
from tertulia.asked import Asked
from tertulia.doors import call
from tertulia.errors import AgentError
from tertulia.loop_thread import LoopThread
from tertulia.opening import Opening
from tertulia.stores import PostgresStore
from tertulia.stores.base import LogStore
from tertulia.stores.postgres import driver
from tertulia.testing import FrozenClock
from tertulia.testing.servers import drop_database, new_database
from tertulia.turns import Turn

START = 1_800_000_000_000_000


class Documents(SessionStore):
    """Four methods on texts, as a user writes them."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}

    def save(self, session_id: str, data: dict[str, Any]) -> None:
        self.kept[session_id] = json.dumps(data)

    def load(self, session_id: str) -> dict[str, Any] | None:
        data = self.kept.get(session_id)
        return json.loads(data) if data else None

    def delete(self, session_id: str) -> bool:
        return self.kept.pop(session_id, None) is not None

    def list_sessions(self) -> list[str]:
        return list(self.kept)


class Place:
    """Where sessions are kept: opened again, it is what a process finds that starts later."""

    def __init__(self, kind: str, folder: Path, address: str = "") -> None:
        self.kind = kind
        self.address = address
        self.file = folder / "sessions.db"
        self.clock = FrozenClock(START)
        self.proved = True
        """Whether every session must verify at the end of the test."""
        self.documents = Documents()
        self._memory = MemoryStore()
        self._open: list[Runtime] = []

    def open(self, *, stopped: bool = False) -> Runtime:
        """A runtime of its own on this place; with `stopped` on the stopped clock."""
        runtime = Runtime(self._store(), clock=self.clock if stopped else None)
        self._open.append(runtime)
        return runtime

    def _store(self) -> LogStore | SessionStore:
        match self.kind:
            case "memory":
                return self._memory
            case "sqlite":
                return SQLiteStore(self.file)
            case "postgres":
                return PostgresStore(self.address)
            case _:
                return self.documents

    def kill(self, runtime: Runtime) -> None:
        """What a process leaves that dies: no turn is closed, and its worker is gone."""
        self._open.remove(runtime)
        call(runtime.store.close())

    def end(self) -> None:
        """Prove every session, and close."""
        try:
            if self.proved and self._open:
                call(prove(self._open[-1]))
        finally:
            for runtime in self._open:
                self._close(runtime)

    def _close(self, runtime: Runtime) -> None:
        try:
            call(runtime.close())
        except AgentError:
            if self.proved:
                raise


async def prove(runtime: Runtime) -> None:
    """Fail where the chain of a session, or what is derived from its log, does not fit."""
    for info in await runtime.sessions(limit=None):
        verified = await runtime.session(info.id, app_name=info.app_name).verify()
        assert verified, f"{info.id}: {verified.reason} at {verified.first_bad}"


CLEAR = """
DO $$ DECLARE name text; BEGIN
    FOR name IN
        SELECT tablename FROM pg_tables WHERE schemaname = 'tertulia' AND tablename <> 'meta'
    LOOP EXECUTE format('DELETE FROM tertulia.%I', name); END LOOP;
END $$
"""


@pytest.fixture(scope="session")
def tables(postgres_server: str) -> Iterator[Callable[[], str]]:
    """Gives a database whose tables are there, and empty: faster than one without any."""
    thread = LoopThread("tables")
    address = new_database(postgres_server)

    async def clear() -> None:
        connection = await driver.connect(address)
        try:
            await connection.execute(CLEAR)
        finally:
            await connection.close()

    def cleared() -> str:
        thread.submit(clear()).wait()
        return address

    yield cleared
    thread.stop()
    drop_database(address)


@pytest.fixture(params=["memory", "sqlite", "documents", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A place of each kind."""
    address = request.getfixturevalue("tables")() if request.param == "postgres" else ""
    made = Place(request.param, tmp_path, address)
    yield made
    made.end()


@pytest.fixture
def lasting(tmp_path: Path) -> Iterator[Place]:
    """A place that outlives a process and that several may use."""
    made = Place("sqlite", tmp_path)
    yield made
    made.end()


@pytest.fixture
def runtime(place: Place) -> Runtime:
    """A runtime on a place of each kind."""
    return place.open()


@pytest.fixture
def session(runtime: Runtime) -> Session:
    """A new session in a place of each kind."""
    return runtime.session("talk")


class Broken(Exception):
    """What goes wrong in a turn of these tests."""


@asynccontextmanager
async def broken(session: Session, text: str) -> AsyncGenerator[Turn]:
    """A turn that does what the block says and then fails."""
    with pytest.raises(Broken):  # noqa: PT012
        async with session.turn(text) as turn:
            yield turn
            raise Broken


async def begin(session: Session, text: str) -> Turn:
    """A turn that nobody will close."""
    conversation = session._conversation  # pyright: ignore[reportPrivateUsage]
    return await admission.begin(conversation, Opening(), Asked(messages=(Message.user(text),)))


def user(text: str) -> dict[str, Any]:
    """Something that a user says."""
    return {"role": "user", "content": text}


def calls(*ids: str) -> dict[str, Any]:
    """An assistant's message that calls tools."""
    made: list[Any] = [{"id": name, "name": "charge", "arguments": {}} for name in ids]
    return {"role": "assistant", "content": "", "tool_calls": made}


def result(call_id: str, text: str = "done") -> dict[str, Any]:
    """What a tool gave."""
    return {"role": "tool", "tool_call_id": call_id, "content": text}


async def say(session: Session, *said: str) -> list[Message]:
    """Send some messages of a user one by one."""
    return [await session.send_message(user(text)) for text in said]


def texts(messages: Iterable[Message]) -> list[str]:
    """What some messages say."""
    return [message.text for message in messages]


def paired(messages: Iterable[Message]) -> bool:
    """Whether every tool call is followed by its result and every result follows its call."""
    due: set[str | None] = set()
    for message in messages:
        if message.role == "tool":
            if message.tool_call_id not in due:
                return False
            due.discard(message.tool_call_id)
        elif due:
            return False
        else:
            due = {call.id for call in message.tool_calls or ()}
    return not due
