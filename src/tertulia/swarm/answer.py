"""What a client session gives back: answers, and what goes out to whoever is connected."""

from __future__ import annotations

from typing import Any, Literal, Self

import msgspec

from tertulia.agents.response import Response
from tertulia.approvals import Approval
from tertulia.messages import Message
from tertulia.policies import Verdict

Kind = Literal["answer", "ban", "placeholder", "cancelled", "pending"]

KINDS = ("answer", "ban", "placeholder", "cancelled", "pending")
EMITTED = "emit"
"""The kind of a message that was not asked for."""
COMMITTED = "commit"
"""The kind of a message that code put into the history."""


class Answer(str):
    """The text that a client gets, which says what it is.

    `kind` is ``answer``, ``ban`` (a policy refused: the text is its ban message, and `verdict`
    says why), ``placeholder`` (the swarm's rescue gave it), ``cancelled`` (the turn was cancelled;
    no text) or ``pending`` (tool calls wait for a person: `pending` lists them; no text).
    """

    __slots__ = ("agent", "emitted", "kind", "pending", "turn", "verdict")

    kind: Kind
    agent: str | None
    turn: int | None
    verdict: Verdict | None
    pending: list[Approval]
    emitted: bool

    def __new__(  # noqa: PLR0913
        cls,
        text: str = "",
        kind: Kind = "answer",
        *,
        agent: str | None = None,
        turn: int | None = None,
        verdict: Verdict | None = None,
        pending: list[Approval] | None = None,
        emitted: bool = False,
    ) -> Self:
        made = super().__new__(cls, text)
        made.kind = kind
        made.agent = agent
        made.turn = turn
        made.verdict = verdict
        made.pending = pending or []
        made.emitted = emitted
        return made

    @property
    def text(self) -> str:
        """The text alone."""
        return str(self)

    def __repr__(self) -> str:
        return f"Answer({str(self)!r}, kind={self.kind!r}, agent={self.agent!r})"


class Outgoing(msgspec.Struct, frozen=True):
    """What a connector gets: ``data`` is the text that goes to the client."""

    data: str
    agent: str | None
    client_id: str


def kind_of(message: Message) -> str:
    """What a message is by its metadata: ``answer`` where it says nothing."""
    return str((message.metadata or {}).get("kind", "answer"))


def was_emitted(message: Message) -> bool:
    """Whether an agent's message was not asked for; also the ban message in the place of one."""
    told = message.metadata or {}
    return message.role == "assistant" and (told.get("kind") == EMITTED or "emitted" in told)


def answer_of(response: Response, verdict: Verdict | None) -> Answer:
    """The answer of a turn that ended, or waits."""
    kind: Any = "answer"
    if response.pending:
        kind = "pending"
    elif response.messages:
        kind = kind_of(response.messages[-1])
    if kind == "ban" and verdict is None:  # it was given before, and is repeated
        policy = (response.messages[-1].metadata or {}).get("policy")
        verdict = Verdict(allowed=False, direction="output", policy=policy, message=response.text)
    return Answer(
        response.text,
        kind if kind in KINDS else "answer",
        agent=response.agent,
        turn=response.turn,
        verdict=verdict,
        pending=response.pending,
        emitted=bool(response.messages) and was_emitted(response.messages[-1]),
    )
