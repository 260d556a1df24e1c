"""What an interruption does: it overtakes, stops what is being said, and loses nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tertulia.live.ends import answer_id
from tertulia.wire.events import LLMRequest, ResponseEnd, ResponseStart, UserInterrupt

if TYPE_CHECKING:
    from tertulia.live.session import AgentSession


def interrupt(session: AgentSession, event: UserInterrupt) -> None:
    """Stop what is being generated, in the order of the graph, and let everybody know."""
    session.hooks_get(event)
    for node in session.plan:
        node.interrupt(event)
    if any(node.is_interruptible for node in session.plan):
        for request in session.inlet.pull_requests():
            not_answered(session, request)
    if event.heard is not None and all(each.heard is None for each in session.answers.running):
        session.inlet.heard(event.heard)


def cut(session: AgentSession, request_id: str, heard: str | None = None) -> None:
    """No more text of an answer goes to the client, not even what waits for it already.

    Where the answer was given whole, the history keeps what the client got of it.
    """
    late = session.answers.late(request_id)
    if late is None:
        session.sink.cut(request_id)
    if session.presence.link is not None:
        session.presence.link.cut({request_id})
    if late is not None and heard is None:
        session.answers.forget(request_id)
        session.inlet.heard(late.text[late.settled : late.delivered])


def not_answered(session: AgentSession, request: LLMRequest) -> None:
    """A request for an answer came to nothing: for the client its answer begins and ends."""
    request_id, asked = answer_id(request), {"request": request.id}
    session.send_soon(ResponseStart(request_id=request_id, metadata=asked))
    session.send_soon(ResponseEnd(request_id=request_id, interrupted=True, metadata=asked))
