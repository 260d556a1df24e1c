"""Tertulia, driven through its public names only; everything the benchmarks do to it is here."""

from __future__ import annotations

from pathlib import Path

import apsw

import tertulia
from benchmarks.messages import Message
from benchmarks.systems import System, distribution_versions
from tertulia import Runtime, Session

DATABASE = "tertulia.db"


class Failure(Exception):
    """What a failed turn fails with."""


class Tertulia(System):
    """One runtime on one SQLite file, with its defaults."""

    async def open(self, folder: Path) -> None:
        self.path = folder / DATABASE
        self.runtime = Runtime(store=f"sqlite:///{self.path}")
        self.sessions: dict[str, Session] = {}

    def session(self, name: str) -> Session:
        if name not in self.sessions:
            self.sessions[name] = self.runtime.session(name)
        return self.sessions[name]

    async def append(self, session: str, messages: list[Message]) -> None:
        if len(messages) == 1:
            await self.session(session).send_message(messages[0])
        else:
            await self.session(session).send_messages(messages)

    async def last(self, session: str, limit: int) -> int:
        return len(await self.session(session).history(limit=limit))

    async def count(self, session: str) -> int:
        return len(await self.session(session).history())

    async def fork(self, session: str, new: str) -> None:
        self.sessions[new] = await self.session(session).fork(session_id=new)

    async def close(self) -> None:
        self.sessions.clear()
        await self.runtime.close()

    def versions(self) -> dict[str, str]:
        found = distribution_versions("msgspec", "apsw") | {"sqlite": apsw.sqlite_lib_version()}
        return found | {"tertulia": tertulia.__version__}

    async def clear(self, session: str) -> None:
        """Hide everything so far."""
        self.session(session).clear()
        await self.session(session).flush()

    async def keep_last_10(self, session: str) -> None:
        """Hide everything but the newest 10 messages."""
        await self.session(session).prune("keep_last_10")

    async def fail_a_turn(self, session: str) -> None:
        """A turn that takes its input and then fails: nothing of it may be seen later."""
        try:
            async with self.session(session).turn("this turn will fail"):
                raise Failure
        except Failure:
            return

    async def remember(self, session: str, number: int) -> None:
        """A fact that is no message: something the reader has to step over."""
        await self.session(session).set_state("number", number)
