"""The client of a live session: it is there, is gone for a while, and comes back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tertulia import events as facts
from tertulia.live import link as links
from tertulia.live.link import Link
from tertulia.live.replay import Replay
from tertulia.wire.events import (
    AgentErrorEvent,
    AgentReady,
    LiveEvent,
    ResponseChunk,
    ResponseStart,
)

if TYPE_CHECKING:
    from tertulia.live.session import AgentSession


class Presence:
    """Which connection is the client's now, and what it has yet to get."""

    def __init__(self, session: AgentSession) -> None:
        self._session = session
        self._after = 0
        self._leaving: asyncio.TimerHandle | None = None
        self.link: Link | None = None
        """The connection; None while the client is gone."""

    @property
    def here(self) -> bool:
        """Whether a client is there now."""
        return self.link is not None and self.link.closed is None

    def note(self) -> dict[str, Any]:
        """What the log says of a connection."""
        begun = self._session.init.session_context
        kind = "chat" if begun is None else begun.conversation_type
        return {"kind": kind, "user": self._session.user_id}

    async def attach(self, link: Link, after: int | None, *, again: bool) -> None:
        """Let a connection be the client's: first what it missed, then the live stream."""
        session = self._session
        link.replaying = True
        link.delivers = session.answers.delivered
        if session.ending:
            link.close(links.RESTARTING, "the session has just ended: come back")
            return
        old, self.link = self.link, link
        if old is not None:
            old.close(links.REPLACED, "a newer connection took over")
        self.stay()
        try:
            if again:
                await session.scribe.note(facts.LIVE_CONNECTED, self.note())
            self._after = await session.head() if after is None else after
            if session.started:
                await self._catch_up(link, self._after, again=True)
        except BaseException:
            link.close(links.FAILED, "the session could not be opened: come back later")
            self.detach(link, "it could not be served", for_good=False)
            raise

    def detach(
        self, link: Link, reason: str, *, for_good: bool, seconds: float | None = None
    ) -> None:
        """The connection is gone; unless for good, the session waits for its client."""
        if self.link is not link:
            return
        self.link = None
        session = self._session
        if for_good or session.complete:
            session.finish(reason)
            return
        session.note_soon(facts.LIVE_DISCONNECTED, {"reason": reason, "final": False})
        loop = asyncio.get_running_loop()
        waits = session.settings.resume_for if seconds is None else seconds
        self._leaving = loop.call_later(waits, session.finish, "the client did not come back")

    def leave(self, code: int, reason: str) -> None:
        """Close the connection, if there is one, and know nothing of it any more."""
        self.close(code, reason)
        self.link = None

    def stay(self) -> None:
        """Nobody waits any more for the client to come back."""
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None

    def close(self, code: int, reason: str) -> None:
        """Close the connection, if there is one."""
        if self.link is not None:
            self.link.close(code, reason)

    def offer(self, event: LiveEvent) -> None:
        """Send an event to the client, if it is there."""
        if self.link is not None:
            self.link.offer(event)

    async def ready(self) -> None:
        """The session has started: say so, and give what was missed."""
        if self.link is not None:
            await self._catch_up(self.link, self._after, again=self._session.resumed)

    async def _catch_up(self, link: Link, after: int, *, again: bool) -> None:
        """Say `agent.ready`, give what was missed, and go live without a gap or a repetition."""
        session = self._session
        if link.greeted:
            return
        link.greeted = True
        head = await session.head()
        behind = after > head
        start = 0 if behind else after
        ready = AgentReady(
            seq=start,
            resume_for=session.settings.resume_for,
            resumed=again,
            received=session.inlet.newest,
        )
        session.stamp(ready, "out")
        link.push(ready)
        session.hooks_get(ready)
        if behind:
            said = f"the log ends at {head}, before {after}: it was created anew, or restored"
            link.push(AgentErrorEvent(message=said, payload={"code": "cursor_expired"}))
        replay = Replay(session.conversation, start)
        while link.closed is None:
            before = replay.position
            for event in await replay.page():
                await link.room()
                link.push(event)
            if replay.position == before and link.passed <= before:
                break
        self._go_live(link, replay)

    def _go_live(self, link: Link, replay: Replay) -> None:
        """From here on without waiting: the text so far, then what comes."""
        session = self._session
        for answer in session.answers.running:
            answer.given = answer.given or answer.request_id in replay.given
            if not answer.given:
                asked = answer.metadata
                start = ResponseStart(request_id=answer.request_id, resumed=True, metadata=asked)
                self._give(link, start)
                if answer.text:
                    text = answer.text
                    told = ResponseChunk(text=text, request_id=answer.request_id, offset=0)
                    self._give(link, told)
        given = {answer.request_id for answer in session.answers.running if answer.given}
        link.live(replay.position, given)

    def _give(self, link: Link, event: LiveEvent) -> None:
        self._session.stamp(event, "out")
        link.push(event)
