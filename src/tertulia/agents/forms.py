"""Filling in a JSON Schema from what was said, for the `offline` model. Pure rules.

Facts that the user told go where the name of a property asks for them; where nothing is known the
value is the emptiest that the schema allows, and what may be left out is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from tertulia.agents import facts
from tertulia.agents.protocol import OutputSpec
from tertulia.messages import Message

TRANSFER = "transfer_to_"
MAX_ITEMS = 10
"""Texts in a list; the newest."""
MAX_DEPTH = 8
"""Objects in objects that are filled in; what lies deeper is left out."""

Schema = Mapping[str, Any]


def fill(output: OutputSpec, messages: Sequence[Message]) -> str:
    """An answer that fits a schema, as JSON text."""
    return json.dumps(_Form(output.parameters, messages).value(output.parameters, "", 0))


class _Form:
    """What is known, and the schema that the parts refer to."""

    def __init__(self, root: Schema, messages: Sequence[Message]) -> None:
        self._root = root
        self._known = facts.read(messages)
        asked = [message.text for message in messages if message.role == "user"]
        self._said = [text.strip() for text in asked[:-1]]
        self._results = [
            message.text
            for message in messages
            if message.role == "tool" and not (message.name or "").startswith(TRANSFER)
        ]

    def value(self, schema: Schema, name: str, depth: int) -> Any:
        """A value of one part of the schema."""
        schema = self._plain(schema)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._choice(cast("list[Any]", schema["enum"]))
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = cast("list[str]", kind)[0]
        if kind == "object":
            return self._object(schema, depth)
        if kind == "array":
            return self._list(schema)
        if kind in ("integer", "number"):
            return max(len(self._said), schema.get("minimum", 0))
        return {"boolean": False, "null": None}.get(str(kind), self._text(name))

    def _plain(self, schema: Schema) -> Schema:
        """The schema behind a reference, and the first of several."""
        for _ in range(MAX_DEPTH):
            if "$ref" in schema:
                schema = self._root["$defs"][str(schema["$ref"]).rpartition("/")[2]]
            elif "anyOf" in schema:
                schema = schema["anyOf"][0]
            else:
                break
        return schema

    def _object(self, schema: Schema, depth: int) -> dict[str, Any]:
        if depth == MAX_DEPTH:
            return {}
        parts: dict[str, Schema] = schema.get("properties") or {}
        needed: list[str] = schema.get("required") or []
        return {name: self.value(parts[name], name, depth + 1) for name in parts if name in needed}

    def _list(self, schema: Schema) -> list[Any]:
        """Texts: what is known and what tools said, else what was said. No other things."""
        items: Schema = self._plain(schema.get("items") or {})
        if items.get("type") != "string" or "enum" in items:
            return []
        found = [*facts.sentences(self._known), *self._results] or self._said
        return found[-MAX_ITEMS:]

    def _choice(self, values: list[Any]) -> Any:
        """The value that was mentioned last, else the first one."""
        for text in reversed([*self._said, *self._results]):
            for value in values:
                if str(value).lower() in text.lower():
                    return value
        return values[0]

    def _text(self, name: str) -> str:
        """The fact that a name asks for, else all that is known, else what was said last."""
        fact: Any = vars(self._known).get(name) or self._known.mine.get(name.replace("_", " "))
        if isinstance(fact, str):
            return fact
        told = facts.sentences(self._known)
        return "; ".join(told) if told else (self._said or [""])[-1]
