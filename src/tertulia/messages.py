"""What a model sees: messages, their parts and tool calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Literal, TypeGuard, cast, get_args

import msgspec

from tertulia.clock import to_datetime
from tertulia.errors import InvalidInput, InvalidMessage
from tertulia.values import json_value

Role = Literal["system", "developer", "user", "assistant", "tool"]
ROLES: tuple[str, ...] = get_args(Role)
Part = dict[str, Any]
Content = str | list[Part]

_PLAIN: frozenset[str] = frozenset(ROLES) - {"tool"}
_FIELDS = (
    "id",
    "seq",
    "timestamp",
    "role",
    "content",
    "tool_calls",
    "tool_call_id",
    "name",
    "agent",
    "metadata",
)
_ACCEPTED = frozenset(_FIELDS) - {"seq"}


class ToolCall(msgspec.Struct, frozen=True, omit_defaults=True):
    """One call that a model asked for; ``arguments`` is a JSON object."""

    id: str
    name: str
    arguments: dict[str, Any] = {}

    def __getitem__(self, key: str) -> Any:
        if key in self.__struct_fields__:
            return getattr(self, key)
        raise KeyError(key)


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message of a conversation, by attribute (``m.role``) and by key (``m["role"]``).

    ``id``, ``seq`` and ``time`` are given by the session when the message is stored.
    A message is a value: changing what it holds never changes what is stored.
    """

    role: Role
    content: Content = ""
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    name: str | None = None
    agent: str | None = None
    metadata: dict[str, Any] | None = None
    id: str | None = None
    seq: int | None = None
    time: int | None = None

    @classmethod
    def system(cls, content: Content, **fields: Any) -> Message:
        """An instruction to the model."""
        return parse({"role": "system", "content": content, **fields})

    @classmethod
    def user(cls, content: Content, **fields: Any) -> Message:
        """Something that a person said."""
        return parse({"role": "user", "content": content, **fields})

    @classmethod
    def assistant(cls, content: Content = "", **fields: Any) -> Message:
        """Something that a model said, with the tool calls it asks for."""
        return parse({"role": "assistant", "content": content, **fields})

    @classmethod
    def tool(cls, content: Content, tool_call_id: str, **fields: Any) -> Message:
        """The result of one tool call."""
        return parse({"role": "tool", "content": content, "tool_call_id": tool_call_id, **fields})

    @property
    def text(self) -> str:
        """The text of the content; parts that are no text are left out."""
        if isinstance(self.content, str):
            return self.content
        return "".join(str(part.get("text", "")) for part in self.content)

    @property
    def timestamp(self) -> datetime | None:
        """When it was stored, in UTC; None before that."""
        return None if self.time is None else to_datetime(self.time)

    def __getitem__(self, key: str) -> Any:
        if key in _FIELDS:
            return getattr(self, key)
        raise KeyError(key)

    def get(self, key: str, default: Any = None) -> Any:
        """The field of that name, or ``default`` where there is no such field."""
        return getattr(self, key) if key in _FIELDS else default

    def keys(self) -> tuple[str, ...]:
        """The names of the fields, so that ``dict(message)`` works."""
        return _FIELDS

    def __iter__(self) -> Iterator[str]:
        return iter(_FIELDS)

    def __contains__(self, key: object) -> bool:
        return key in _FIELDS

    def to_dict(self) -> dict[str, Any]:
        """The message as JSON-able data, without what is empty."""
        data = cast("dict[str, Any]", msgspec.to_builtins(self))
        data.pop("time", None)
        if self.timestamp is not None:
            data["timestamp"] = self.timestamp.isoformat()
        return data


def parse(value: Message | Mapping[str, Any]) -> Message:
    """A message from a mapping, checked; a deep copy, so that nothing is shared with the caller.

    Raises InvalidMessage when a field is unknown, of the wrong type or missing.
    """
    if _is_plain(value):
        return Message(role=cast("Role", value["role"]), content=value["content"])
    data = _known_fields(value)
    _require(
        data.get("role") in ROLES,
        f"role {data.get('role')!r} does not exist; use one of {', '.join(ROLES)}",
    )
    calls = data.get("tool_calls")
    if calls is not None:
        data["tool_calls"] = [_tool_call(call) for call in _as_list(calls)] or None
    if data.get("content") is None:
        data["content"] = ""
    try:
        message = msgspec.convert(json_value(data, "the message"), Message)
    except (msgspec.ValidationError, InvalidInput) as error:
        raise InvalidMessage(f"this message cannot be stored: {error}") from None
    _check_shape(message)
    return message


def _is_plain(value: Any) -> TypeGuard[dict[str, str]]:
    """Whether it is just a role and a text, which need no further look."""
    if type(value) is not dict:
        return False
    plain = cast("dict[str, Any]", value)
    role, content = plain.get("role"), plain.get("content")
    return len(plain) == 2 and type(content) is str and type(role) is str and role in _PLAIN


def _known_fields(value: Message | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(value, Message):
        fields = {name: getattr(value, name) for name in _ACCEPTED if name != "timestamp"}
        return {name: field for name, field in fields.items() if field is not None}
    if not isinstance(value, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidMessage(
            f"a message is a mapping with role and content, not {type(value).__name__}"
        )
    unknown = sorted(str(key) for key in value if key not in _FIELDS)
    _require(not unknown, f"unknown fields {unknown}; put your own data into metadata")
    return {key: value[key] for key in value if key not in ("timestamp", "seq")}


def _as_list(calls: Any) -> list[Any]:
    _require(isinstance(calls, list | tuple), "tool_calls must be a list")
    return list(calls)


def _tool_call(call: Any) -> dict[str, Any]:
    """Accept our own shape and the OpenAI one (``function: {name, arguments: JSON text}``)."""
    if isinstance(call, ToolCall):
        return {"id": call.id, "name": call.name, "arguments": call.arguments}
    _require(isinstance(call, Mapping), "a tool call is a mapping with id, name and arguments")
    function = call.get("function", call)
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = msgspec.json.decode(arguments or "{}")
        except msgspec.DecodeError:
            raise InvalidMessage(
                f"the arguments of tool call {call.get('id')!r} are no JSON object"
            ) from None
    return {"id": call.get("id"), "name": function.get("name"), "arguments": arguments}


def _check_shape(message: Message) -> None:
    if message.role == "tool":
        _require(message.tool_call_id, "a tool message needs the tool_call_id that it answers")
    else:
        _require(
            message.tool_call_id is None, f"tool_call_id is for tool messages, not {message.role}"
        )
    if not message.tool_calls:
        return
    _require(
        message.role == "assistant", f"tool_calls are for assistant messages, not {message.role}"
    )
    ids = [call.id for call in message.tool_calls]
    _require(all(ids), "every tool call needs an id")
    _require(len(set(ids)) == len(ids), f"two tool calls have the same id in {ids}")


def _require(condition: object, text: str) -> None:
    if not condition:
        raise InvalidMessage(text)
