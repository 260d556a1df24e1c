"""What a swarm decides inside of an agent's turn: policies, the route, and rescue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

import msgspec

from tertulia import events, hiding
from tertulia.agents.context import RunContext
from tertulia.agents.forms import TRANSFER
from tertulia.agents.oversight import Again, Oversight, Pass, Say, ToolFailure
from tertulia.agents.protocol import ToolCallMade
from tertulia.agents.rounds import described
from tertulia.agents.window import Budget, visible
from tertulia.codec import body_of
from tertulia.errors import (
    AgentError,
    NavigationError,
    SchemaValidationError,
    ToolError,
    UnusableAnswer,
    UsageError,
)
from tertulia.messages import Message
from tertulia.policies import Verdict
from tertulia.stores.base import Segment
from tertulia.swarm.checking import Screen
from tertulia.swarm.rescue import Failure, Retry
from tertulia.swarm.verdicts import MAX_TEXT
from tertulia.turns import Turn
from tertulia.values import storable

if TYPE_CHECKING:
    from tertulia.swarm.desk import Desk

_CALLS = (events.TOOL_CALLED, events.APPROVAL_REQUESTED)
inside: ContextVar[SwarmOversight | None] = ContextVar("tertulia_swarm", default=None)
"""What looks after the turn that the calling code is part of."""


class SwarmOversight(Oversight):
    """Looks after one turn of a client.

    `request` is what begins it where the input policies have not been asked about it.
    """

    def __init__(self, desk: Desk, request: Message | None = None) -> None:
        self.desk = desk
        self._request = request
        self.swarm = desk.swarm
        self.verdict: Verdict | None = None
        """The verdict that refused the answer."""
        self.route: list[str] = []
        """The agents of this turn, in the order in which they had the floor."""
        self.nested = 0
        """How many executions ran inside of this turn."""
        self.max_tool_calls = self.swarm.limits.max_tool_calls
        self.tool_timeout = self.swarm.limits.tool_timeout
        self.turn: Turn | None = None
        """The turn, once it has begun."""
        self._outer: SwarmOversight | None = None
        self._attempts = 0
        self._calls = 0
        self._screen: Screen | None = None
        self._blank: str | None = ""
        """The space that an answer begins with, until a word of it leaves."""

    @property
    def root(self) -> SwarmOversight:
        """What looks after the turn that this one is a part of."""
        return self if self._outer is None else self._outer

    # -- the route

    async def begin(self, context: RunContext, *, resumed: bool) -> Say | None:
        outer = inside.get()
        joined = outer is not None and outer.desk is self.desk and outer.turn is context.turn
        self._outer = outer.root if outer is not None and joined else None
        self.turn = context.turn
        inside.set(self)
        if resumed:
            await self._recall(context.turn)
            verdict = await self.desk.guard.banned(str(context.agent))
            if verdict is not None:
                return self._refused(verdict, "", context.turn)
        live = self.desk.live
        said = None
        if live is not None and self.root is self:
            said = await live.examine(context, self)
        if said is None and self._request is not None:
            said = await self._examine(self._request, context)
        return said

    async def _examine(self, request: Message, context: RunContext) -> Say | None:
        """Ask the input policies about a request; what they refuse is hidden."""
        desk, turn = self.desk, context.turn
        verdict = await desk.guard.check("input", request.text, str(context.agent))
        notes = desk.guard.notes(verdict, request.text)
        if verdict.allowed:
            for kind, body in notes:
                turn.note(kind, body)
            told = {"message": request.text, "mode": "user"}
            await desk.life.call("on_execute", desk.feed.event("session", "execute", input=told))
            return None
        newest = (await visible(context.session, turn.number, Budget(keep_last=1)))[-1:]
        asked = [each.seq or 0 for each in newest if each.role == "user"]
        if asked:
            opening = desk.session._opening  # pyright: ignore[reportPrivateUsage]
            await hiding.hide(desk.conversation, opening, asked, "policy", notes)
        else:  # it is said aside, inside of a tool
            for kind, body in notes:
                turn.note(kind, body)
        self.verdict = verdict
        return Say(verdict.message, {"kind": "ban", "policy": verdict.policy})

    async def _recall(self, turn: Turn) -> None:
        """The route and the calls of a turn that began before."""
        store = turn.conversation.host.store
        own = Segment(turn.row.key, turn.number - 1, turn.row.seq)
        found = await store.records([own], types=[events.HANDOFF, *_CALLS])
        bodies = [(record.type, body_of(record)) for record in found if record.body is not None]
        earlier = [body.get("from") for kind, body in bodies if kind == events.HANDOFF]
        self.route[:0] = [name for name in earlier if name and name not in self.route]
        calls = {body["call"]: body["name"] for kind, body in bodies if kind in _CALLS}
        self.called(sum(not name.startswith(TRANSFER) for name in calls.values()))

    def calls_left(self) -> int | None:
        limit = self.max_tool_calls
        return None if limit is None else max(limit - self.root._calls, 0)

    def called(self, number: int) -> None:
        self.root._calls += number

    def speaks(self, name: str | None, *, first: bool) -> None:
        if name is not None and (first or name not in self.route):
            self.route.append(name)

    def refuse_transfer(self, source: str | None, target: str) -> str | None:
        if target not in self.route:
            return None
        route = " -> ".join([*self.route, target])
        return f"the route {route} comes back to an agent in one turn, which is refused"

    def check_move(self, target: str) -> None:
        """Raise NavigationError where the floor was with an agent in this turn already."""
        reason = self.refuse_transfer(None, target)
        if reason is not None:
            raise NavigationError(f"{reason}; change the agent when the turn has ended")

    def enter_nested(self) -> None:
        """One execution more inside of this turn. Raises UsageError when there are too many."""
        self.nested += 1
        if self.nested > self.swarm.limits.max_nested:
            raise UsageError(
                f"more than {self.swarm.limits.max_nested} executions inside of one turn of client "
                f"{self.desk.client_id!r}: its tools call each other; end the turn, or raise "
                "max_nested= of the swarm"
            )

    # -- policies

    async def screen(self, text: str, context: RunContext) -> str | None:
        if self.swarm.validate is not None:
            return ""  # it looks at whole answers
        if self._screen is None:
            self._screen, self._blank = self.desk.guard.screen(str(context.agent)), ""
        leaving = await self._screen.feed(text)
        if self._screen.refused is not None:
            return None
        if self._blank is not None:  # an answer without any words is not taken
            leaving = self._blank + leaving
            self._blank = None if leaving.strip() else leaving
        return leaving if self._blank is None else ""

    async def review(
        self, text: str, calls: Sequence[ToolCallMade], context: RunContext
    ) -> Pass | Again | Say:
        screen, self._screen = self._screen, None
        stopped = screen is not None and screen.refused is not None
        if not calls and not stopped:
            ruling = await self._usable(text, context)
            if ruling is not None:
                return ruling
        if calls and not text:
            return Pass()
        if screen is None:
            verdict = await self.desk.guard.check("output", text, str(context.agent))
            rest = text if self.swarm.validate is not None else ""
        else:
            rest, verdict = await screen.finish()
            rest = (self._blank or "") + rest
        refused = self._refused(verdict, text, context.turn)
        if refused is not None:
            return refused
        if self.instead is not None and not calls:
            return self.instead  # a policy has emitted another answer
        return Pass(rest)

    def _refused(self, verdict: Verdict, text: str, turn: Turn) -> Say | None:
        """Note a verdict; the ban message where it refuses."""
        for kind, body in self.desk.guard.notes(verdict, text):
            turn.note(kind, body)
        if verdict.allowed:
            return None
        self.verdict = verdict
        return Say(verdict.message, {"kind": "ban", "policy": verdict.policy})

    # -- rescue

    async def _usable(self, text: str, context: RunContext) -> Again | Say | None:
        """What is done about an answer that cannot be used; None where it can."""
        if not text.strip():
            return await self._rescued("empty_answer", "the answer is empty", text, context)
        validate: Callable[[str], Any] | None = self.swarm.validate
        if validate is None:
            return None
        said = validate(text)
        said = await said if isawaitable(said) else said
        if said is None or said is True:
            return None
        told = isinstance(said, str) and bool(said.strip())
        reason = said if told else "the answer is not what it has to be"
        return await self._rescued("invalid_answer", reason, text, context)

    async def _rescued(
        self,
        problem: Any,
        reason: str,
        text: str,
        context: RunContext,
        error: BaseException | None = None,
    ) -> Again | Say:
        decided = await self._decide(problem, reason, text, context, error)
        if isinstance(decided, Say):
            return decided
        if decided is None:
            raise UnusableAnswer(
                f"{reason} (agent {context.agent!r}, {_attempts(self._attempts)}); give the swarm "
                'rescue="placeholder" to answer with a placeholder instead'
            )
        return Again(f"Your answer was not taken: {decided.reason}. Answer again.")

    async def model_failed(
        self, error: Exception, context: RunContext, *, shown: bool
    ) -> Again | Say | None:
        self._screen = None
        kind = "invalid_answer" if isinstance(error, SchemaValidationError) else "model_error"
        reason = str(error) if isinstance(error, AgentError) else described(error)
        decided = await self._decide(kind, reason[:1_000], "", context, error, again=not shown)
        if isinstance(decided, Retry):
            return Again("Your answer was cut off by an error. Answer again.")
        return decided

    async def tools_failed(
        self, failures: Sequence[ToolFailure], context: RunContext
    ) -> Say | None:
        failed = failures[0]
        kind = "tool_error" if failed.known else "unknown_tool"
        reason = f"the tool {failed.tool!r} failed: {failed.error}"
        decided = await self._decide(kind, reason, "", context, failed.cause)
        if isinstance(decided, Say):
            return decided
        if decided is None:
            raise ToolError(reason) from failed.cause
        return None

    async def _answered(self, context: RunContext) -> int:
        """How many failures were answered before, by what the newest of them says."""
        newest = await context.session.events(limit=1, types=[events.RESCUE])
        return int((newest[-1].body or {}).get("answered", 0)) if newest else 0

    async def _decide(
        self,
        problem: Any,
        reason: str,
        text: str,
        context: RunContext,
        error: BaseException | None,
        *,
        again: bool = True,
    ) -> Retry | Say | None:
        self._attempts += 1
        failure = Failure(
            problem=problem,
            reason=reason,
            agent=context.agent,
            text=text,
            attempt=self._attempts,
            error=error,
        )
        answered = await self._answered(context)
        decided = await self.swarm.rescue.decide(failure, again=again, answered=answered)
        done = "retry" if isinstance(decided, Retry) else "raise" if decided is None else "answer"
        body = msgspec.structs.asdict(failure)
        del body["error"]
        body["answered"] = answered + (done == "answer")
        body = {key: value for key, value in body.items() if value not in (None, "")}
        body["text"] = storable(text[:MAX_TEXT])
        noted = {**body, "reason": storable(reason), "strategy": self.swarm.rescue.name}
        context.turn.note(events.RESCUE, {**noted, "done": done})
        if not isinstance(decided, str):
            return decided
        verdict = await self.desk.guard.check("output", decided, str(context.agent))
        refused = self._refused(verdict, decided, context.turn)
        return refused or Say(decided, {"kind": "placeholder", "problem": problem})


def _attempts(number: int) -> str:
    return "1 attempt" if number == 1 else f"{number} attempts"
