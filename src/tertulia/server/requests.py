"""What requests of the HTTP API carry: their queries and bodies."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from tertulia.messages import Part, Role
from tertulia.retention import Retention
from tertulia.server.operations import Query

Limit = Annotated[int, Meta(ge=1, le=500)]
Position = Annotated[int, Meta(ge=0, le=2**53)]
Seconds = Annotated[float, Meta(ge=0, le=86_400)]


class Given(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A body; fields that it does not know are refused."""


class ToolCallGiven(Given, frozen=True):
    """One call that a model asked for; `arguments` is a JSON object."""

    id: str
    name: str
    arguments: dict[str, Any] = {}


class MessageGiven(Given, frozen=True, omit_defaults=True):
    """A message to store; `role` decides which of the other fields it may have."""

    role: Role
    content: str | list[Part] = ""
    tool_calls: list[ToolCallGiven] | None = None
    tool_call_id: str | None = None
    name: str | None = None
    agent: str | None = None
    metadata: dict[str, Any] | None = None
    id: str | None = None


class RetentionGiven(Retention, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long a session is kept, how long it may grow, and what nobody may do to it."""


# -- queries


class OfSession(Query, frozen=True):
    """The app that the session belongs to; without it the default one."""

    app_name: str | None = None


class Listing(Query, frozen=True):
    """A page of sessions; `after` is `next` of the page before."""

    app_name: str | None = None
    """Those of one app; without it those of all."""
    limit: Limit = 100
    after: Position = 0


class HistoryAsked(OfSession, frozen=True):
    """The newest `limit` messages, as of the position `at`, before the message at `before`."""

    limit: Limit = 100
    before: Position | None = None
    at: Position | None = None


class EventsAsked(OfSession, frozen=True):
    """The last `limit` events from `since` on: a seq, or a time in ISO 8601."""

    since: str | None = None
    limit: Limit = 100
    types: str | None = None
    """Names of types with commas between them."""


class FollowAsked(OfSession, frozen=True):
    """The events after a seq; without it those from now on."""

    after: Position | None = None


class Unbanning(Query, frozen=True):
    """The policy whose ban is lifted; without it all bans are."""

    policy: str | None = None


class BusAsked(Query, frozen=True):
    """Whose events, and of which topics: a pattern with ``*`` for any text."""

    client_id: str | None = None
    """Without it one's own; for trusted code those of all, as ``*``."""
    topic: str = "*"


# -- bodies


class NewSession(Given, frozen=True):
    """A session to make; without an id it gets one that cannot be guessed."""

    id: str | None = None
    app_name: str | None = None
    system: str | None = None
    metadata: dict[str, Any] | None = None
    messages: list[MessageGiven] = []
    retention: RetentionGiven | None = None


class NewMessages(Given, frozen=True):
    """Messages to append, all of them or none."""

    messages: Annotated[list[MessageGiven], Meta(min_length=1)]
    idempotency_key: str | None = None


class Run(Given, frozen=True):
    """A turn to run: what the user said, and how it is to be answered."""

    input: str | MessageGiven
    agent: str | None = None
    """Who answers; without it whoever has the floor."""
    stream: bool | None = None
    """Whether the answer comes as server-sent events; without it the header `accept` decides."""
    idempotency_key: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    metadata: dict[str, Any] | None = None
    busy: Literal["queue", "reject", "interrupt"] | None = None
    """What to do where a turn is running."""
    timeout: Seconds | None = None
    """How long to wait for it, in seconds."""


class Resume(Given, frozen=True):
    """Who goes on with the turn; without it whoever has the floor."""

    agent: str | None = None


class NewFork(Given, frozen=True):
    """The id of the branch, and the position that it branches off at."""

    id: str | None = None
    at: Position | None = None


class Decision(Given, frozen=True):
    """What a person decided about a tool call that waits."""

    decision: Literal["approve", "reject"]
    reason: str | None = None


class Ending(Given, frozen=True):
    """Why the conversation ends."""

    reason: str | None = None


class Nothing(Given, frozen=True):
    """A body that says nothing."""


class Execution(Given, frozen=True):
    """What a client says to a swarm; `mode` is ``tool`` for what code says in its name."""

    message: str | MessageGiven
    mode: Literal["user", "tool"] = "user"
    stream: bool | None = None
    """Whether the answer comes as server-sent events; without it the header `accept` decides."""
    idempotency_key: str | None = None
    metadata: dict[str, Any] | None = None
    timeout: Seconds | None = None
    """How long to wait for a turn that is running, in seconds."""


class Saying(Given, frozen=True):
    """What is said to a client."""

    text: str


class Banning(Given, frozen=True):
    """A ban for a policy, or without one from the whole swarm."""

    policy: str | None = None
    until: str | float | None = None
    """When it is over, in ISO 8601, or after how many seconds; without it never."""
    reason: str = ""
