"""SwarmNode: a node that lets a swarm answer in a live session.

What the client says is in the log before a node has it, and in the history. So the policies are
asked when a turn has begun, about all that was said before it and that they have not seen: nothing
more can come into the view of a model from then on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from tertulia import events, hiding
from tertulia.agents.context import RunContext
from tertulia.agents.oversight import Say
from tertulia.agents.response import StreamEvent
from tertulia.agents.streaming import AsyncStream
from tertulia.errors import InvalidInput, UsageError
from tertulia.live.agent import AgentNode
from tertulia.live.inbox import SIZE
from tertulia.messages import Message
from tertulia.policies import Verdict
from tertulia.session import Session
from tertulia.swarm.answer import COMMITTED, Outgoing, kind_of
from tertulia.swarm.client import ClientSession
from tertulia.swarm.connecting import Voice
from tertulia.swarm.desk import Desk
from tertulia.swarm.oversight import SwarmOversight
from tertulia.swarm.swarm import Swarm
from tertulia.wire.events import AgentLog, AgentSpeak, LLMRequest

PAGE = 50
"""Messages, or facts, that are read at once."""
NOTICE = "swarm.notice"
"""The name of the `agent.log` that tells a client what `notify` says."""


class SwarmNode(AgentNode):
    """Lets a swarm answer, with its policies and navigation: `AgentNode` otherwise.

    The client is the user who is connected, else the live session itself; `client` is its
    `ClientSession`, on this conversation, for as long as the live session lives. What input
    policies refuse is hidden before the next model is asked, and the ban message is the answer.
    What output policies have not accepted is not sent. A swarm that the runtime does not have yet
    is added to it. Raises InvalidInput.
    """

    def __init__(
        self,
        swarm: Swarm,
        name: str | None = None,
        *,
        greeting: str | None = None,
        is_interruptible: bool = True,
        inbox: int = SIZE,
    ) -> None:
        if not isinstance(swarm, Swarm):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidInput(f"SwarmNode needs a Swarm, not {swarm!r}")
        super().__init__(
            swarm.agent(swarm.default),
            name or swarm.name,
            greeting=greeting,
            is_interruptible=is_interruptible,
            inbox=inbox,
        )
        self.swarm = swarm
        self._desk: Desk | None = None
        self._voice: Voice | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._seen = 0
        """The policies have seen what the user said up to this position."""

    @property
    def client(self) -> ClientSession:
        """The client, from the start of the session on. Raises UsageError before that."""
        if self._desk is None:
            raise UsageError(f"node {self.name!r} has no client before its session has started")
        return self._desk.client

    # -- its life

    async def start(self) -> None:
        """Be the client's live half, and take up the turn that a dead process left open."""
        self._loop = asyncio.get_running_loop()
        self._seen = await _answered(self.session.conversation)
        await self._connect()
        await super().start()

    async def stop(self) -> None:
        """Let go of the client; whoever is the last one disposes it."""
        desk, self._desk = self._desk, None
        if desk is None:
            return
        if self._voice is not None:
            self._voice.close()
        if desk.life.let_go():
            await desk.life.dispose()

    async def _connect(self) -> Desk:
        """The desk of the client, a new one where it was disposed."""
        if self._desk is not None and self._desk.life.disposed is None:
            return self._desk
        live = self.session
        runtime: Any = live.conversation._host  # pyright: ignore[reportPrivateUsage]
        runtime.clients.add(self.swarm)
        client: ClientSession = runtime.clients.get(
            live.user_id or live.session_id, self.swarm, live.conversation
        )
        desk = self._desk = client._desk  # pyright: ignore[reportPrivateUsage]
        desk.life.hold()
        self._voice = desk.join(Voice(desk, self))
        await desk.seat.claim()
        self.agent = desk.driver
        await desk.begin()
        return desk

    # -- what goes out unasked

    async def say(self, message: Message) -> None:
        """Say what was emitted; it is in the history when this returns."""
        said = AgentSpeak(text=message.text, metadata=message.metadata)
        await self._here(self.session.send_event(said))

    async def tell(self, outgoing: Outgoing) -> None:
        """Tell the client of something that is no part of the conversation."""
        payload = {"text": outgoing.data, "agent": outgoing.agent}
        await self._here(self.session.send_event(AgentLog(name=NOTICE, payload=payload)))

    async def _here(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something on the loop of the session, from any other one too."""
        if self._loop is None or self._loop is asyncio.get_running_loop():
            await work
        else:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    # -- what comes in

    async def examine(self, context: RunContext, oversight: SwarmOversight) -> Say | None:
        """Ask the policies about what the user said before the turn that begins.

        What they refuse is hidden, and a turn that answers it gives the ban message. Raises
        PolicyError; then they are asked again in the next turn.
        """
        turn, desk = context.turn, oversight.desk
        newest = ""
        refused: Verdict | None = None
        for message in await self._unseen(context.session, turn.number):
            newest = message.text
            verdict = await desk.guard.check("input", newest, desk.agent)
            notes = desk.guard.notes(verdict, newest)
            if verdict.allowed:
                for kind, body in notes:
                    turn.note(kind, body)
            else:
                await self._hide(desk, message, notes)
                refused = refused or verdict
        self._seen = turn.number
        if turn.asked.messages:
            return None  # somebody else asks for it, with a request that was looked at
        if refused is None:
            told = {"message": newest, "mode": "user"}
            executed = desk.feed.event("session", "execute", input=told)
            await desk.life.call("on_execute", executed)
            return None
        oversight.verdict = refused
        return Say(refused.message, {"kind": "ban", "policy": refused.policy})

    async def _unseen(self, session: Session, turn: int) -> list[Message]:
        """What the user said before a turn and the policies have not seen, oldest first."""
        found: list[Message] = []
        before = turn
        while True:
            page = await session.history(limit=PAGE, before=before)
            found[:0] = [each for each in page if (each.seq or 0) > self._seen]
            before = page[0].seq or 0 if page else 0
            if before <= self._seen:
                break
        said = [each for each in found if each.role == "user" and kind_of(each) != COMMITTED]
        admitted = await self._admitted(session, said)
        return [each for each in said if each.seq not in admitted]

    async def _admitted(self, session: Session, said: list[Message]) -> set[int]:
        """Those that the client session executed, which has asked the policies about them.

        They stand in turns of their own, with the verdict.
        """
        if all("live" in (each.metadata or {}) for each in said):
            return set()
        types = [events.MESSAGE_ADDED, events.POLICY_CHECKED]
        logged = await session.events(since=self._seen, types=types)
        accepted = {
            each.turn
            for each in logged
            if each.type == events.POLICY_CHECKED
            and (each.body or {}).get("direction") == "input"
            and (each.body or {}).get("allowed")
        }
        in_turns = (each for each in logged if each.type == events.MESSAGE_ADDED)
        return {each.seq for each in in_turns if each.turn != each.seq and each.turn in accepted}

    async def _hide(
        self, desk: Desk, message: Message, notes: list[tuple[str, dict[str, Any]]]
    ) -> None:
        """No model sees it; the log has it, and why."""
        opening = desk.session._opening  # pyright: ignore[reportPrivateUsage]
        await hiding.hide(desk.conversation, opening, [message.seq or 0], "policy", notes)

    # -- its turns are the client's

    async def _give(
        self,
        stream: AsyncStream,
        first: StreamEvent | None = None,
        request: LLMRequest | None = None,
    ) -> None:
        life = (await self._connect()).life
        exchange: Any = stream._exchange  # pyright: ignore[reportPrivateUsage]
        oversight: Any = stream._plan.oversight  # pyright: ignore[reportPrivateUsage]
        life.enter(exchange, oversight)
        try:
            await super()._give(stream, first, request)
        finally:
            await life.leave(exchange)


async def _answered(session: Session) -> int:
    """Where the newest turn began in which a model answered, after the policies were asked."""
    found = await session.events(limit=PAGE, types=[events.MESSAGE_ADDED])
    of_turns = [each for each in found if each.turn != each.seq]
    said = [each.turn for each in of_turns if (each.body or {}).get("role") == "assistant"]
    return max(said, default=0)
