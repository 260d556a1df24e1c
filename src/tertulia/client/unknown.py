"""Events of a type that this process has no class for."""

from __future__ import annotations

import json
from typing import Any, cast

import msgspec

from tertulia.wire.events import LiveEvent, _EventMeta  # pyright: ignore[reportPrivateUsage]

_BASE: dict[str, type] = {
    "id": str,
    "timestamp": str,
    "session_id": str,
    "seq": int,
    "direction": str,
    "metadata": dict,
}


class _Unlisted(_EventMeta):
    """Makes a class that no type on the wire leads to."""

    def __new__(
        mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **config: Any
    ) -> Any:
        return msgspec.StructMeta.__new__(mcs, name, bases, namespace, tag=False, **config)


class UnknownEvent(LiveEvent, metaclass=_Unlisted, frozen=True, kw_only=True):  # pyright: ignore[reportGeneralTypeIssues, reportCallIssue]
    """An event whose class is not known here, or that its class does not take.

    ``type`` is its real type, ``fields`` are its fields but those that every event has.
    """

    kind: str
    fields: dict[str, Any]

    @property
    def type(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Its type on the wire."""
        return self.kind


def unknown(data: bytes | str) -> UnknownEvent:
    """The event in a frame, which is a JSON object with a type."""
    fields = cast("dict[str, Any]", json.loads(data))
    kind = str(fields.pop("type"))
    base = {name: fields.pop(name, None) for name in _BASE}
    known = {name: value for name, value in base.items() if type(value) is _BASE[name]}
    return UnknownEvent(kind=kind, fields=fields, **known)
