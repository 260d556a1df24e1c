"""What a session does with an agent: turns, approvals, and what they consumed."""

from __future__ import annotations

from typing import Any

from tertulia import approvals, doors
from tertulia.approvals import Approval
from tertulia.errors import UsageError
from tertulia.handle import Driver, Handle
from tertulia.usage import Usage


class Driven(Handle):
    """The part of `Session` that needs an agent."""

    def run(self, request: Any, **options: Any) -> Any:
        """One turn of the agent, synchronously."""
        return self._driver().drive(self, "run", request, options)

    def run_async(self, request: Any, **options: Any) -> Any:
        """One turn of the agent; await it."""
        return self._driver().drive(self, "run_async", request, options)

    def stream(self, request: Any, **options: Any) -> Any:
        """One turn of the agent as an iterable of events, synchronously."""
        return self._driver().drive(self, "stream", request, options)

    def stream_async(self, request: Any, **options: Any) -> Any:
        """One turn of the agent as an asynchronous iterable of events."""
        return self._driver().drive(self, "stream_async", request, options)

    def json(self, request: Any, *, schema: Any, **options: Any) -> Any:
        """One turn of the agent, synchronously; the answer's `output` is a value of a type.

        `schema` is a pydantic model, a dataclass, or another type. Raises SchemaValidationError
        where the model gives no such answer, and then the turn has failed.
        """
        return self._driver().drive(self, "json", request, {"schema": schema, **options})

    def json_async(self, request: Any, *, schema: Any, **options: Any) -> Any:
        """As `json`; await it."""
        options = {"schema": schema, **options}
        return self._driver().drive(self, "json_async", request, options)

    def resume(self, **options: Any) -> Any:
        """Go on with the turn that is suspended, or that a dead process left open, synchronously.

        No tool whose result is in the log runs again. A tool that was running does so only if it
        is idempotent or only reads; else the model is told that its outcome is unknown. Raises
        UsageError where no turn is open, ApprovalPending while a call waits for its decision,
        SessionBusy while another process runs the turn.
        """
        return self._driver().drive(self, "resume", None, options)

    def resume_async(self, **options: Any) -> Any:
        """As `resume`; await it."""
        return self._driver().drive(self, "resume_async", None, options)

    @property
    def usage(self) -> Usage:
        """What the model requests of this session consumed, failed turns included; not those
        that a fork inherited."""
        row = doors.call(self._row())
        return Usage() if row is None else row.usage

    @property
    def floor(self) -> str | None:
        """The name of the agent that has the floor: the next `run` is answered by it."""
        row = doors.call(self._row())
        return None if row is None else row.details.agent or None

    @property
    def pending(self) -> list[Approval]:
        """The tool calls that wait for a person's decision, and suspend the turn."""
        return doors.call(approvals.pending(self._conversation, self._opening))

    def approve(self, call_id: str) -> Approval:
        """Allow a call that waits; `resume` runs it. Durable when it returns; can be awaited too.

        Raises InvalidInput where no such call waits, SessionNotFound, AccessDenied.
        """
        return doors.call(approvals.decide(self._conversation, self._opening, call_id, "approved"))

    def reject(self, call_id: str, reason: str | None = None) -> Approval:
        """Refuse a call that waits; `resume` tells the model so, with the reason. As `approve`."""
        return doors.call(
            approvals.decide(self._conversation, self._opening, call_id, "rejected", reason)
        )

    def _driver(self) -> Driver:
        """The agent of this handle; else the one of this process that has the floor."""
        if self._agent is not None:
            return self._agent
        known = self._conversation.agents
        found = known.get(self.floor or "") if known else None
        if found is None and len(known) == 1:
            found = next(iter(known.values()), None)
        if found is None:
            raise UsageError(
                f"session {self._id!r} has no agent; make it with agent.session(…), "
                "or call agent.run(…, session=session)"
            )
        return found
