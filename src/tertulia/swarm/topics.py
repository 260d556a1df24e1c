"""The topics of the bus that a client has, and the events of the log that they tell of."""

from __future__ import annotations

from typing import Final

from tertulia import events

FACTS: Final[dict[str, tuple[str, str]]] = {
    events.TURN_STARTED: ("execution", "begin"),
    events.TURN_RESUMED: ("execution", "begin"),
    events.TURN_COMPLETED: ("execution", "end"),
    events.TURN_FAILED: ("execution", "end"),
    events.TURN_INTERRUPTED: ("execution", "end"),
    events.TURN_ABANDONED: ("execution", "end"),
    events.TURN_SUSPENDED: ("execution", "end"),
    events.TOOL_CALLED: ("tool", "call"),
    events.TOOL_RETURNED: ("tool", "return"),
    events.TOOL_FAILED: ("tool", "error"),
    events.HANDOFF: ("navigation", "change"),
    events.STATE_SET: ("state", "set"),
    events.STATE_DELETED: ("state", "delete"),
    events.RESCUE: ("rescue", "rescue"),
    events.SESSION_CLEARED: ("session", "commit-flush"),
}
"""Source and type of what is told one to one: by the type of the log's event."""
COMMITS: Final = {
    "user": "commit-user-message",
    "assistant": "commit-assistant-message",
    "system": "commit-system-message",
    "tool": "commit-tool-output",
}
"""The type of a message that code put into the history: by its role."""
BUS_NAMES: Final[tuple[str, ...]] = (
    *("session.connect", "session.execute", "session.emit", "session.notify", "session.cancel"),
    "session.dispose",
    *(f"session.{kind}" for kind in COMMITS.values()),
    *("agent.output", "history.push"),
    *("policy.validate-input", "policy.validate-output", "policy.ban-client"),
    "policy.unban-client",
    *dict.fromkeys(".".join(fact) for fact in FACTS.values()),
)
"""Every topic that a client session publishes."""
