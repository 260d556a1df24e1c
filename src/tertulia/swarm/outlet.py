"""The outlet of a client: what goes out unasked, and whoever is connected to get it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tertulia.agents.exchange import Exchange
from tertulia.agents.oversight import Say
from tertulia.errors import NotConnected
from tertulia.messages import Message
from tertulia.policies import Verdict
from tertulia.swarm.answer import EMITTED, Answer, Outgoing
from tertulia.swarm.connecting import Far, Live, Send, Voice, deliver
from tertulia.swarm.oversight import inside
from tertulia.turns import own_turn

if TYPE_CHECKING:
    from tertulia.swarm.desk import Desk


class Outlet:
    """Emits and notifies, for one client."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._conversation = desk.session._conversation  # pyright: ignore[reportPrivateUsage]
        self.sends: dict[Send, None] = {}

    @property
    def live(self) -> Live | None:
        """The live session that is connected, if one is."""
        return next((send.live for send in self.sends if isinstance(send, Voice)), None)

    @property
    def near(self) -> list[Send]:
        """Who is connected at this worker."""
        return [send for send in self.sends if not isinstance(send, Far)]

    def send_away(self) -> None:
        """Let other workers look for another one that serves the client."""
        for send in list(self.sends):
            if isinstance(send, Far):
                send.leave()

    def connect(self, send: Send) -> None:
        """Connect somebody."""
        desk = self._desk
        self.sends[send] = None
        event = desk.feed.event("session", "connect")
        desk.bus.publish(event)
        desk.life.later("on_connect", event)

    async def emit(self, text: str) -> Answer:
        """Say something: as the answer of the turn that runs, else into the history."""
        desk = self._desk
        async with desk.life.asking():
            verdict = await desk.guard.check("output", text, desk.agent)
            answer = self._outgoing(text, verdict)
            event = desk.feed.event("session", "emit", input={"message": str(answer)})
            await desk.life.call("on_emit", event)
            desk.life.check()
            await self._say(answer, verdict, text)
        await self._deliver(answer, heard=True)
        return answer

    async def notify(self, text: str) -> Answer:
        """Tell whoever is connected. Raises NotConnected where nobody is."""
        desk = self._desk
        if not self.sends:
            raise NotConnected(
                f"nobody is connected to client {desk.client_id!r}; connect(…) somebody, or emit",
                session_id=desk.session.id,
            )
        async with desk.life.asking():
            verdict = await desk.guard.check("output", text, desk.agent)
            desk.life.check()
        answer = self._outgoing(text, verdict)
        if not verdict.allowed:
            await desk.guard.record(verdict, text)
        told = {"message": str(answer), "kind": answer.kind}
        desk.bus.publish(desk.feed.event("session", "notify", input=told))
        await self._deliver(answer)
        return answer

    def _outgoing(self, text: str, verdict: Verdict) -> Answer:
        agent = self._desk.agent
        if verdict.allowed:
            return Answer(text, agent=agent, emitted=True)
        return Answer(verdict.message, "ban", agent=agent, verdict=verdict, emitted=True)

    async def _deliver(self, answer: Answer, *, heard: bool = False) -> None:
        """Tell who is connected; `heard`: a live client has it with the conversation."""
        outgoing = Outgoing(str(answer), answer.agent, self._desk.client_id)
        await self._desk.life.heard()
        told = [send for send in self.sends if not (heard and isinstance(send, Voice))]
        await deliver(told, outgoing)

    async def _say(self, answer: Answer, verdict: Verdict, text: str) -> None:
        """Put what is emitted into the history, as the answer of the turn if one runs."""
        desk = self._desk
        metadata: dict[str, Any] = {"kind": EMITTED}
        if not verdict.allowed:
            metadata = {"kind": "ban", "policy": verdict.policy, "emitted": True}
        said = Say(str(answer), metadata)
        own, turn = inside.get(), own_turn(self._conversation)
        if turn is not None and own is not None and own.desk is desk:
            await desk.guard.record(verdict, text)
            own.instead = own.root.instead = said
            return
        message = Message.assistant(str(answer), agent=answer.agent, metadata=metadata)
        if turn is None and await self._answer_instead(said, verdict, text):
            return
        live = self.live
        if turn is None and live is not None:
            await desk.guard.record(verdict, text)
            await live.say(message)
            return
        await desk.guard.record(verdict, text, message)

    async def _answer_instead(self, said: Say, verdict: Verdict, text: str) -> bool:
        """Whether a turn ran that now has ended with what was said."""
        desk, turn = self._desk, self._conversation.turn
        for exchange, oversight in list(desk.life.running.items()):
            if turn is None or exchange.turn is not turn or oversight.instead is not None:
                continue
            for kind, body in desk.guard.notes(verdict, text):
                turn.note(kind, body)
            oversight.instead = said
            exchange.stop("another answer was emitted")
            await exchange.outcome.within(None)
            return _ends_with(exchange, said)
        return False


def _ends_with(exchange: Exchange, said: Say) -> bool:
    """Whether a turn that has ended did so with what was said."""
    try:
        messages = exchange.outcome.result().messages
    except BaseException:  # whoever waits for the turn is told
        return False
    last = messages[-1] if messages else None
    return last is not None and (last.text, last.metadata) == (said.text, said.metadata)
