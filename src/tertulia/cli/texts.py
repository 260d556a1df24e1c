"""What is printed: plain text of messages and events, columns, JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, cast

import click
import msgspec

from tertulia import events
from tertulia.approvals import Approval
from tertulia.clock import to_datetime
from tertulia.events import Event
from tertulia.messages import Message, ToolCall

WIDTH = 100
"""How much of a text fits where one line must do."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """Text that cannot command a terminal: what is stored is shown, and never obeyed."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))


def short(text: str, width: int = WIDTH) -> str:
    """The text on one line, cut where it is too long."""
    line = " ".join(plain(text).split())
    return line if len(line) <= width else f"{line[: width - 1]}…"


def moment(microseconds: int) -> str:
    """A time in UTC, to the second."""
    return to_datetime(microseconds).strftime("%Y-%m-%d %H:%M:%SZ")


def count(number: int, noun: str) -> str:
    """`1 message`, `2 messages`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def fields(struct: msgspec.Struct) -> dict[str, Any]:
    """The fields of a struct as JSON-able data."""
    return cast("dict[str, Any]", msgspec.to_builtins(struct))


def print_json(data: Any) -> None:
    """One JSON document, indented."""
    click.echo(json.dumps(msgspec.to_builtins(data), indent=2, ensure_ascii=False))


def print_json_line(data: Any) -> None:
    """One JSON document on one line."""
    click.echo(json.dumps(msgspec.to_builtins(data), ensure_ascii=False))


def print_columns(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Rows in aligned columns below their heads."""
    lines = [tuple(heads), *[tuple(plain(cell) for cell in row) for row in rows]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        click.echo("  ".join(cells).rstrip())


def print_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Names and values, one a line; without those that say nothing."""
    said = [(name, value) for name, value in facts if value not in (None, "", {}, [])]
    width = max((len(name) for name, _ in said), default=0)
    for name, value in said:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        click.echo(f"{name.ljust(width)}  {short(text, 400)}")


def call_text(call: ToolCall) -> str:
    """A tool call on one line."""
    arguments = ", ".join(
        f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in call.arguments.items()
    )
    return short(f"{call.name}({arguments})", 2 * WIDTH)


def wish_text(approval: Approval) -> str:
    """What a call that waits would do, on one line."""
    return call_text(ToolCall(approval.id, approval.name, approval.arguments))


def handoff_text(body: dict[str, Any]) -> str:
    """Who gave the floor to whom, and why."""
    reason = f": {body['reason']}" if body.get("reason") else ""
    return short(f"{body.get('from') or 'an agent without a name'} -> {body.get('to')}{reason}")


def message_text(message: Message) -> str:
    """A message to read, with its position: what it says, and which tools it calls."""
    place = f"[{message.seq}] " if message.seq is not None else ""
    if message.role == "tool":
        return f"{place}  <- {short(message.text, 2 * WIDTH)}"
    speaker = message.role if message.agent is None else f"{message.role} ({message.agent})"
    lines = [f"{place}{plain(speaker)}: {plain(_said(message))}".rstrip()]
    lines += [f"{place}  -> {call_text(call)}" for call in message.tool_calls or ()]
    if len(lines) > 1 and not _said(message):
        del lines[0]
    return "\n".join(lines)


def _said(message: Message) -> str:
    if isinstance(message.content, str):
        return message.content
    others = [part for part in message.content if "text" not in part]
    return message.text + "".join(f"[{part.get('type', 'part')}]" for part in others)


def event_text(event: Event) -> str:
    """An event on one line: position, time, type, and what it is about."""
    about = "(erased)" if event.body is None else _about(event.type, event.body)
    head = f"{event.seq:>6}  {moment(event.time)}  {event.type:<18}"
    return f"{head}  {short(about)}".rstrip()


def _about(kind: str, body: dict[str, Any]) -> str:
    if kind == events.MESSAGE_ADDED:
        return _about_message(body)
    if kind == events.HANDOFF:
        return handoff_text(body)
    if kind in (events.STATE_SET, events.STATE_DELETED, events.STATE_STAGED):
        value = f" = {json.dumps(body['value'], ensure_ascii=False)}" if "value" in body else ""
        return f"{body.get('scope', 'session')}:{body.get('key')}{value}"
    told = {name: value for name, value in body.items() if value not in (None, {}, [], "")}
    return json.dumps(told, ensure_ascii=False)[1:-1] if told else ""


def _about_message(body: dict[str, Any]) -> str:
    content = body.get("content") or ""
    text = content if isinstance(content, str) else f"[{len(content)} parts]"
    names = [str(call.get("name")) for call in body.get("tool_calls") or ()]
    calls = f" -> {', '.join(names)}" if names else ""
    return f"{body.get('role')}: {text}{calls}"
