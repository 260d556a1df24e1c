"""The feed: what is committed to a client's log, as events of the bus."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from tertulia import events
from tertulia.bus import Bus, BusEvent
from tertulia.codec import body_of
from tertulia.conversation import Conversation
from tertulia.drafting import Draft
from tertulia.events import Record
from tertulia.messages import Message
from tertulia.swarm.answer import COMMITTED, EMITTED, kind_of, was_emitted
from tertulia.swarm.topics import COMMITS, FACTS

_log = logging.getLogger("tertulia.swarm")

_ENDS: Final = {
    events.TURN_COMPLETED: "answer",
    events.TURN_FAILED: "error",
    events.TURN_INTERRUPTED: "cancelled",
    events.TURN_ABANDONED: "abandoned",
}
MAX_CHANGES = 100


class Feed:
    """Publishes what is committed for one client; nothing is made that nobody listens to."""

    def __init__(self, bus: Bus, client_id: str, swarm: str) -> None:
        self._bus = bus
        self._client_id = client_id
        self._swarm = swarm
        self._asked: Message | None = None
        self._said: Message | None = None
        self._agent: str | None = None
        self._ready: list[BusEvent] = []
        """The events of the change that is being looked at."""
        self._calls: dict[str, str] = {}
        """The names of the tools that the running turn has called, by their calls."""
        self.changes: deque[BusEvent] = deque(maxlen=MAX_CHANGES)
        """Changes of agent that the client's callback is yet to be told of."""
        self.tells_changes = False

    def event(
        self,
        source: str,
        kind: str,
        record: Record | None = None,
        *,
        input: dict[str, Any] | None = None,  # noqa: A002 - the name of the page
        output: dict[str, Any] | None = None,
        **context: Any,
    ) -> BusEvent:
        """An event of this client."""
        named = {key: value for key, value in context.items() if value is not None}
        return BusEvent(
            type=kind,
            source=f"{source}-bus",
            input=input or {},
            output=output or {},
            context={"swarm_name": self._swarm, **named},
            client_id=self._client_id,
            seq=None if record is None else record.seq,
            time=None if record is None else record.time,
        )

    def wants(self, source: str, kind: str) -> bool:
        """Whether somebody listens to an event of this client."""
        return self._bus.wants(self._client_id, f"{source}.{kind}")

    def attach(self, conversation: Conversation) -> None:
        """Be told of the changes of a conversation, in the place of an older feed of it."""
        others: list[Callable[[Draft], None]] = []
        for observer in conversation.observers:
            older = getattr(observer, "__self__", None)
            if isinstance(older, Feed):
                self._asked, self._said, self._agent = older._asked, older._said, older._agent
                self._calls.update(older._calls)
            else:
                others.append(observer)
        conversation.observers = (*others, self.observe)

    def detach(self, conversation: Conversation) -> None:
        """Be told of nothing more."""
        kept = (each for each in conversation.observers if each != self.observe)
        conversation.observers = tuple(kept)

    def observe(self, draft: Draft) -> None:
        """A change of the log was committed. What goes wrong here must not touch the turn."""
        try:
            self._observe(draft)
            ready, self._ready = self._ready, []
            if ready:
                self._bus.publish(*ready)
        except Exception:
            _log.exception("the bus could not be told of a change")

    def _observe(self, draft: Draft) -> None:
        messages = {message.seq: message for message in draft.messages}
        for record in draft.records:
            if record.type == events.MESSAGE_ADDED:
                self._message(record, messages.get(record.seq))
            elif record.type == events.POLICY_CHECKED:
                self._checked(record)
            elif record.type == events.POLICY_BANNED:
                self._banned(record)
            else:
                self._fact(record)

    # -- inside

    def _message(self, record: Record, message: Message | None) -> None:
        if message is None:
            return
        if record.turn == record.seq:
            pass  # it belongs to no turn
        elif message.role == "user":
            self._asked = message
        elif message.role == "assistant":
            self._said, self._agent = message, message.agent
            self._calls.update((call.id, call.name) for call in message.tool_calls or ())
        self._push("history", "push", record, message)
        kind = kind_of(message)
        if was_emitted(message):
            self._push("session", "emit", record, message)
        elif kind == COMMITTED and message.role in COMMITS:
            self._push("session", COMMITS[message.role], record, message)
        elif message.role == "assistant" and not message.tool_calls:
            self._push("agent", "output", record, message)

    def _push(self, source: str, kind: str, record: Record, message: Message) -> None:
        if not self.wants(source, kind):
            return
        said = {"message": message.text, "role": message.role}
        if "kind" in (message.metadata or {}):
            said["kind"] = kind_of(message)
        told = {"output": said} if source == "agent" else {"input": said}
        self._ready.append(self.event(source, kind, record, agent_name=message.agent, **told))

    def _checked(self, record: Record) -> None:
        body = body_of(record)
        kind = f"validate-{body['direction']}"
        text, policy = body.pop("text", None), body.get("policy")
        if self.wants("policy", kind):
            said = {} if text is None else {"message": text}
            event = self.event("policy", kind, record, input=said, output=body, policy_name=policy)
            self._ready.append(event)
        by_itself = record.turn == record.seq or body.get("beside")
        if by_itself and body["direction"] == "input" and not body["allowed"]:
            self._refused(record, body, text or "")

    def _refused(self, record: Record, body: dict[str, Any], text: str) -> None:
        """An execution ended before it began a turn."""
        if self.wants("session", "execute"):
            kind = "error" if "error" in body else "ban"
            event = self.event(
                "session",
                "execute",
                record,
                input={"message": text, "mode": body.get("mode", "user")},
                output={"message": body.get("message", ""), "kind": kind},
                agent_name=self._agent,
                policy_name=body.get("policy"),
            )
            self._ready.append(event)

    def _banned(self, record: Record) -> None:
        """A policy has banned the client; other bans are told of where they are set."""
        body = body_of(record)
        if body.get("auto") and self.wants("policy", "ban-client"):
            said = {"until": body.get("until"), "reason": body.get("reason")}
            policy = body.get("policy")
            event = self.event("policy", "ban-client", record, output=said, policy_name=policy)
            self._ready.append(event)

    def _fact(self, record: Record) -> None:
        if record.type == events.HANDOFF:
            self._moved(record)
        elif record.type == events.TURN_STARTED:
            self._asked = self._said = None
        source, kind = FACTS.get(record.type, ("", ""))
        if source and self.wants(source, kind):
            self._ready.append(self._of_fact(source, kind, record))
        if record.type in _ENDS:
            said = self._said
            ended = _ENDS[record.type]
            if ended == "answer" and said is not None and kind_of(said) != EMITTED:
                ended = kind_of(said)
            self._executed(record, ended)
            self._asked = self._said = None
            self._calls.clear()

    def _of_fact(self, source: str, kind: str, record: Record) -> BusEvent:
        body = body_of(record)
        if source == "tool":
            name = self._calls.get(str(body.get("call")), body.get("name"))
            agent = self._agent
            return self.event(source, kind, record, output=body, tool_name=name, agent_name=agent)
        if source == "execution":
            outcome = record.type.partition(".")[2]
            agent = body.get("agent")
            told = {} if kind == "begin" else {"outcome": outcome}
            return self.event(source, kind, record, output=told, agent_name=agent)
        if source == "navigation":
            return self.event(source, kind, record, output=body, agent_name=body.get("to"))
        if source == "state":
            return self.event(source, kind, record, input=body, state_name=body.get("key"))
        return self.event(source, kind, record, output=body, agent_name=body.get("agent"))

    def _moved(self, record: Record) -> None:
        if self.tells_changes:
            self.changes.append(self._of_fact("navigation", "change", record))

    def _executed(self, record: Record, kind: str) -> None:
        """A turn has ended."""
        if not self.wants("session", "execute"):
            return
        asked, said = self._asked, self._said
        mode = "user" if asked is None else (asked.metadata or {}).get("mode", "user")
        event = self.event(
            "session",
            "execute",
            record,
            input={"message": "" if asked is None else asked.text, "mode": mode},
            output={"message": "" if said is None else said.text, "kind": kind},
            agent_name=self._agent,
        )
        self._ready.append(event)
