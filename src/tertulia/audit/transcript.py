"""Exports for people: the messages as one JSON document, or as a transcript in Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from tertulia.clock import to_iso
from tertulia.messages import Message, Part

_TAG: Final = re.compile(r"<(?=[a-zA-Z/!?])")


def export_json(messages: Sequence[Message], session: Mapping[str, Any] | None = None) -> str:
    """One JSON document with what is known of the session and the messages it shows."""
    data = {**(session or {}), "messages": [message.to_dict() for message in messages]}
    return msgspec.json.format(msgspec.json.encode(data), indent=2).decode() + "\n"


def export_markdown(messages: Sequence[Message], session: Mapping[str, Any] | None = None) -> str:
    """A transcript to read. What somebody said is quoted, so that it cannot forge a heading."""
    facts = dict(session or {})
    blocks = [f"# {_plain(facts.pop('session_id', 'Conversation'))}"]
    known = [f"- {_plain(key)}: {_plain(value)}" for key, value in facts.items() if value]
    if known:
        blocks.append("\n".join(known))
    blocks.extend(_block(message) for message in messages)
    return "\n\n".join(blocks) + "\n"


def _block(message: Message) -> str:
    who = f"**{message.role}**"
    names = [name for name in (message.agent, message.name) if name]
    if names:
        who += f" ({', '.join(_plain(name) for name in names)})"
    if message.tool_call_id is not None:
        who += f" answers {_plain(message.tool_call_id)}"
    if message.time is not None:
        who += f" · {to_iso(message.time)}"
    lines = [f"### {who}"]
    said = _said(message.content)
    if said:
        lines += ["", _quoted(said)]
    for call in message.tool_calls or ():
        arguments = " ".join(_json(call.arguments).splitlines())
        lines += ["", f"calls {_plain(call.name)} ({_plain(call.id)}):"]
        lines += ["", f">     {arguments}"]
    return "\n".join(lines)


def _said(content: str | list[Part]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(
        str(part["text"]) if "text" in part else f"[{part.get('type', 'part')}]" for part in content
    )


def _quoted(text: str) -> str:
    text = _TAG.sub(r"\\<", text)
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines())


def _plain(value: object) -> str:
    """Text on one line, in which nothing means anything to Markdown."""
    text = value if isinstance(value, str) else _json(value)
    line = " ".join(text.split())
    return "".join(f"\\{char}" if char in "\\`*_[]<>#|!" else char for char in line)


def _json(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=0).decode()
