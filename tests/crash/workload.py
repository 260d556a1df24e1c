"""Work on sessions of every kind that writes, and word of all that was acknowledged."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import Any

from tertulia import Message, Runtime, Session
from tertulia.closing import Effect

Fact = list[Any]
"""What was acknowledged, as data: what it is, of which session, and its value."""
Say = Callable[[Fact], None]

USER = "ann"
EFFECTS: list[Effect] = ["none", "idempotent", "unknown"]


def address_of(place: object) -> str:
    """The address of a store, of which a file may be named by its path."""
    return place if isinstance(place, str) and "://" in place else f"sqlite:///{place}"


class Broken(Exception):
    """What goes wrong in a turn that fails."""


class Worker:
    """Writes on some sessions that nobody else writes on, in random order."""

    def __init__(self, runtime: Runtime, name: str, luck: random.Random, say: Say) -> None:
        self._runtime = runtime
        self._luck = luck
        self._say = say
        self._forks: list[str] = []
        self._parents: set[str] = set()
        self._own = [f"{name}{number}" for number in range(2)]
        self._actions = (
            [self.send] * 3 + [self.send_several] * 2 + [self.answer] * 4 + [self.visit] * 2
        ) + [self.fail, self.note, self.fork, self.prune, self.regret, self.delete]

    async def step(self) -> None:
        """Do one thing, and say what is durable from now on."""
        session = self._session(self._luck.choice(self._own + self._forks))
        await self._luck.choice(self._actions)(session)
        if session.id in self._own + self._forks:
            await self._head(session)

    def _session(self, name: str) -> Session:
        return self._runtime.session(name, user_id=USER)

    async def _head(self, session: Session) -> None:
        row = await self._runtime.store.find(None, session.id)
        if row is not None:
            self._say(["head", session.id, row.seq, row.digest.hex()])

    # -- what can be done

    async def send(self, session: Session) -> None:
        await session.send_message(Message.user("word " * self._luck.randrange(200)))

    async def send_several(self, session: Session) -> None:
        await session.send_messages([Message.user("q"), Message.assistant("a")])

    async def answer(self, session: Session) -> None:
        """A turn with tool calls, which counts in the state of the session."""
        count = session.get_state("count", 0) + 1
        async with session.turn("question") as turn:
            await self._use_tools(session, self._luck.choice(EFFECTS))
            session.set_state("count", count)
            await turn.add_message(Message.assistant(f"answer {count}"))
            self._say(["head", session.id, turn.row.seq, turn.row.digest.hex()])
        self._say(["count", session.id, count])

    async def _use_tools(self, session: Session, effect: Effect) -> None:
        turn = session._conversation.turn  # pyright: ignore[reportPrivateUsage]
        if turn is None:
            raise AssertionError("tools are used in turns")
        ids = ["x", "y"][: self._luck.randrange(3)]
        if not ids:
            return
        made: list[Any] = [{"id": name, "name": "charge"} for name in ids]
        await turn.add_message({"role": "assistant", "content": "", "tool_calls": made})
        for name in ids:
            await turn.tool_called(name, "charge", effect=effect)
            self._say(["head", session.id, turn.row.seq, turn.row.digest.hex()])
            await turn.tool_returned(name, Message.tool("done", name))

    async def fail(self, session: Session) -> None:
        with contextlib.suppress(Broken):
            async with session.turn("fail"):
                await self._use_tools(session, self._luck.choice(EFFECTS))
                session.set_state("note", "of a turn that failed")
                raise Broken

    async def visit(self, session: Session) -> None:
        """State that all sessions of the user share."""
        visits = await session.update_state("visits", lambda old: old + 1, "user", 0)
        self._say(["visits", session.id, visits])

    async def note(self, session: Session) -> None:
        await session.set_state("note", "x" * self._luck.randrange(5_000))

    async def fork(self, session: Session) -> None:
        if len(self._forks) < 3:
            name = f"fork{self._luck.getrandbits(48):x}"
            await self._head(await session.fork(name))
            self._forks.append(name)
            self._parents.add(session.id)

    async def prune(self, session: Session) -> None:
        await session.prune("keep_last_6")

    async def regret(self, session: Session) -> None:
        """Say something and go back to before it."""
        await session.send_message(Message.user("here"))
        here = len(await session.events())
        await session.send_message(Message.user("regretted"))
        events = await session.events()
        await session.rewind(to=events[here - 1].seq)

    async def delete(self, session: Session) -> None:
        if session.id in self._forks and session.id not in self._parents:
            self._forks.remove(session.id)
            self._say(["going", session.id, 0])
            await session.delete()
            self._say(["gone", session.id, 0])
