"""Which tools a message asks for: words matched against names, descriptions, parameters. Pure.

A generic rule, no list of known tools: a tool is wanted when the message has enough of the words
that name it, and every argument that it needs can be read out of the message.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from tertulia.agents.models import ToolSpec

EXPRESSION = re.compile(r"[-(]*\d[\d\s().+*/%^x-]*[+*/%^x-][\d\s().+*/%^x-]*\d\)*")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_QUOTED = re.compile(r"[\"“']([^\"”']+)[\"”']")
_COMMON = frozenset(
    "a an and are as at be by call can current do for from get give given how i in is it its me "
    "my of on one or our please result return returns run some that the their them this to tool "
    "up use using value we what when which with work you your".split()
)
_SAME = {
    "calculator": {"calculate", "compute", "sum", "times", "plus", "minus", "divided"},
    "calculate": {"compute", "sum", "plus", "minus", "times", "divided"},
    "time": {"clock", "date", "today"},
    "roll": {"dice", "die"},
    "note": {"notes", "jot"},
    "remember": {"note", "jot"},
    "recall": {"notes"},
}


class Wish(msgspec.Struct, frozen=True):
    """A tool to call, with the arguments that were found."""

    tool: str
    arguments: dict[str, Any]


def find(text: str, tools: Sequence[ToolSpec]) -> list[Wish]:
    """The tools that a message asks for, best first; at most one unless several are as good."""
    said = _words(text)
    scored: list[tuple[int, Wish]] = []
    for tool in tools:
        score = _score(said, text, tool)
        if score < 2:
            continue
        arguments = _arguments(text, tool)
        if arguments is not None:
            scored.append((score, Wish(tool.name, arguments)))
    best = max((score for score, _ in scored), default=0)
    chosen = [wish for score, wish in scored if score == best]
    several = " and " in text.lower() or "," in text
    if several:
        chosen = [wish for score, wish in scored if score >= 3 or score == best]
    return chosen if several else chosen[:1]


def _score(said: set[str], text: str, tool: ToolSpec) -> int:
    """How much of what names a tool is in the message: a word of its name counts three."""
    named = _words(tool.name.replace("_", " ").replace("-", " "))
    score = 3 * len(said & named)
    score += 2 * sum(bool(said & _SAME.get(word, set())) for word in named)
    score += len(said & (_words(tool.description) - named))
    if _takes_expression(tool):
        score += 3 if EXPRESSION.search(text) else -3
    return score


def _takes_expression(tool: ToolSpec) -> bool:
    return "expression" in _properties(tool)


def _properties(tool: ToolSpec) -> dict[str, dict[str, Any]]:
    return tool.parameters.get("properties") or {}


def _arguments(text: str, tool: ToolSpec) -> dict[str, Any] | None:
    """The arguments that can be read out of a message; None where one that is needed cannot."""
    needed = tool.parameters.get("required") or []
    numbers = [_number(found) for found in _NUMBER.findall(text)]
    found: dict[str, Any] = {}
    for name, schema in _properties(tool).items():
        value = _argument(name, schema, text, numbers, tool, free=name in needed)
        if value is not None:
            found[name] = value
        elif name in needed:
            return None
    return found


def _argument(
    name: str,
    schema: dict[str, Any],
    text: str,
    numbers: list[int | float],
    tool: ToolSpec,
    *,
    free: bool,
) -> Any:
    kind = schema.get("type")
    if "enum" in schema:
        return next((each for each in schema["enum"] if str(each).lower() in text.lower()), None)
    if kind in ("integer", "number"):
        return _take(numbers, kind)
    if kind == "array":
        return list(numbers) or None
    if kind != "string":
        return None
    if name == "expression":
        found = EXPRESSION.search(text)
        return None if found is None else found[0].replace("x", "*").strip()
    return _text(name, text, tool) if free else None


def _take(numbers: list[int | float], kind: str) -> int | float | None:
    for place, number in enumerate(numbers):
        if kind == "number" or isinstance(number, int):
            return numbers.pop(place)
    return None


def _text(name: str, text: str, tool: ToolSpec) -> str | None:
    """A quoted text, an id like user-123, or what follows the words that name the tool."""
    quoted = _QUOTED.search(text)
    if quoted is not None:
        return quoted[1]
    if name.endswith("id"):
        found = re.search(r"\b\w+-\d[\w-]*\b|\b\d+\b", text)
        return None if found is None else found[0]
    known = _words(tool.name.replace("_", " ")) | {"note", "remember"}
    pattern = rf"\b(?:{'|'.join(sorted(known))})s?\b(?: (?:that|of|to|for|in|about|is))*[ :]+(.+)"
    found = re.search(pattern, text, re.IGNORECASE | re.DOTALL)
    return None if found is None else found[1].strip().rstrip(".!?") or None


def _number(text: str) -> int | float:
    return float(text) if "." in text else int(text)


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower())) - _COMMON
