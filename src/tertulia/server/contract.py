"""The contract of live events, made from their classes: AsyncAPI 3.0 and JSON Schema."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from tertulia.wire.events import OWN, AgentEvent, LiveEvent, SystemEvent, TranscriptUpdate

Sender = Literal["client", "server", "both"]

BASES = (LiveEvent, SystemEvent, AgentEvent)
"""Classes that others derive from; no frame has their types."""

_SESSION = {"type": "string", "description": "The session to come back to."}
_AFTER = {
    "type": "integer",
    "minimum": 0,
    "description": "The highest seq that the client has seen; what comes after it is sent again.",
}
_TOKEN = {
    "type": "string",
    "description": "Who the client is; better in system.init or in an Authorization header, "
    "which are in no log of requests.",
}
_QUERY = {
    "type": "object",
    "properties": {"session_id": _SESSION, "after": _AFTER, "token": _TOKEN},
}


def event_schema(classes: Iterable[type[LiveEvent]] = OWN) -> dict[str, Any]:
    """A JSON Schema (2020-12) that a frame of any of these classes matches, and nothing else.

    It lists the package's own classes, or those of an application: ``event_types().values()``.
    """
    chosen = _concrete(classes)
    references, components = msgspec.json.schema_components(chosen, ref_template="#/$defs/{name}")
    mapping = {
        each.type: reference["$ref"] for each, reference in zip(chosen, references, strict=True)
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "LiveEvent",
        "description": "One frame of a live session.",
        "oneOf": list(references),
        "discriminator": {"propertyName": "type", "mapping": mapping},
        "$defs": components,
    }


def asyncapi(classes: Iterable[type[LiveEvent]] = OWN, *, address: str = "/ws") -> dict[str, Any]:
    """The AsyncAPI 3.0 document of the live protocol: who sends what at an address."""
    chosen = _concrete(classes)
    references, components = msgspec.json.schema_components(
        chosen, ref_template="#/components/schemas/{name}"
    )
    messages = {
        each.type: _message(each, reference)
        for each, reference in zip(chosen, references, strict=True)
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Tertulia live sessions",
            "version": "1",
            "description": "Events of one live session, one JSON object a frame. The client sends "
            "system.init first, and the server answers with agent.ready.",
        },
        "defaultContentType": "application/json",
        "channels": {"live": _channel(chosen, address)},
        "operations": {
            "receive": _operation(chosen, "client", "receive", "What the server takes."),
            "send": _operation(chosen, "server", "send", "What the server sends."),
        },
        "components": {"messages": messages, "schemas": components},
    }


def sender(cls: type[LiveEvent]) -> Sender:
    """Which side sends events of a class; what is neither of the system nor the agent's, both."""
    if cls is TranscriptUpdate or not issubclass(cls, SystemEvent | AgentEvent):
        return "both"
    return "client" if issubclass(cls, SystemEvent) else "server"


def meaning(cls: type[LiveEvent]) -> str:
    """What the docstring of a class says first, in one line."""
    return (inspect.getdoc(cls) or "").split("\n\n")[0].replace("\n", " ")


def _concrete(classes: Iterable[type[LiveEvent]]) -> list[type[LiveEvent]]:
    return [each for each in classes if each not in BASES]


def _message(cls: type[LiveEvent], payload: dict[str, Any]) -> dict[str, Any]:
    kept = "It is kept in the log." if cls.kept else "It is not kept."
    return {
        "name": cls.type,
        "title": cls.__name__,
        "summary": meaning(cls),
        "description": f"{inspect.getdoc(cls) or ''}\n\n{kept}",
        "payload": payload,
    }


def _channel(classes: list[type[LiveEvent]], address: str) -> dict[str, Any]:
    return {
        "address": address,
        "description": "A WebSocket; text and binary frames mean the same.",
        "messages": {each.type: {"$ref": f"#/components/messages/{each.type}"} for each in classes},
        "bindings": {"ws": {"method": "GET", "query": _QUERY, "bindingVersion": "0.1.0"}},
    }


def _operation(
    classes: list[type[LiveEvent]], side: Sender, action: str, summary: str
) -> dict[str, Any]:
    return {
        "action": action,
        "summary": summary,
        "channel": {"$ref": "#/channels/live"},
        "messages": [
            {"$ref": f"#/channels/live/messages/{each.type}"}
            for each in classes
            if sender(each) in (side, "both")
        ],
    }
