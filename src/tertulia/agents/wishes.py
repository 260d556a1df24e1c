"""Which tools a message asks for: words matched against names, descriptions, parameters. Pure.

A generic rule, no list of known tools: a tool is wanted when the message has enough of the words
that name it, and every argument that it needs can be read out of the message.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from tertulia.agents.protocol import ToolSpec

_COMMON = frozenset(
    "a about all an and are as at be by call can could current do does for from get give given "
    "have how i in is it its list make me my of on one or our please recent result return run "
    "show so some tell that the their them this times to tool two up use user using value was we "
    "what when where which who will with work would you your".split()
)
_SAME = {
    "calculator": {"calculate", "compute", "evaluate", "sum", "product"},
    "calculate": {"compute", "evaluate", "sum", "product"},
    "time": {"clock", "date", "today", "day"},
    "roll": {"dice", "die", "throw"},
    "note": {"jot"},
}
_SPOKEN = (
    (r"\bplus\b", "+"),
    (r"\bminus\b", "-"),
    (r"\b(?:times|multiplied by)\b|(?<=\d)\s*x\s*(?=\d)", "*"),
    (r"\bdivided by\b", "/"),
    (r"\bto the power of\b|\^", "**"),
)
_EXPRESSION = re.compile(r"[-(\s]*\d[\d\s().]*(?:(?:[+*/%]|\*\*| - |-)[-\s(]*\d[\d\s().]*)+")
_SERIES = re.compile(r"\b(sum|product) of ([\d., and]*\d)")
_DATE = re.compile(r"\b\d{4}-\d\d-\d\d\b")
_ASKS = re.compile(
    r"\?|=|\b(what|how much|calculate|compute|evaluate|sum|product|plus|minus|times)\b"
)
_QUESTION = re.compile(r"\?\s*$|^(what|which|who|where|when|how|show|list|tell|do|does|recall)\b")
_NUMBER = re.compile(r"(?<![\w.-])-?\d+(?:\.\d+)?|(?<=d)\d+")
_SPELLED: dict[str, int] = {
    str(word): number
    for number, word in enumerate("one two three four five six seven eight nine ten".split(), 1)
}
_QUOTED = re.compile(r"[\"“]([^\"”]+)[\"”]|(?<!\w)'([^']+)'(?!\w)")


class Wish(msgspec.Struct, frozen=True):
    """A tool to call, with the arguments that were found."""

    tool: str
    arguments: dict[str, Any]


def find(text: str, tools: Sequence[ToolSpec]) -> list[Wish]:
    """The tools that a message asks for: the best match, or several if it asks for several."""
    said = _words(text)
    scored: list[tuple[int, Wish]] = []
    for tool in tools:
        score = _score(said, text, tool)
        arguments = _arguments(text, tool) if score >= 2 else None
        if arguments is not None:
            scored.append((score, Wish(tool.name, arguments)))
    best = max((score for score, _ in scored), default=0)
    if re.search(r"\band\b|,|;", text):
        return [wish for score, wish in scored if score >= 3 or score == best]
    return [wish for score, wish in scored if score == best][:1]


def expression(text: str) -> str | None:
    """The arithmetic that a message asks for, in Python's signs."""
    lowered = _DATE.sub(" ", text.lower())
    series = _SERIES.search(lowered)
    if series is not None:
        sign = " + " if series[1] == "sum" else " * "
        return sign.join(re.findall(r"\d+(?:\.\d+)?", series[2]))
    for words, sign in _SPOKEN:
        lowered = re.sub(words, sign, lowered)
    found = _EXPRESSION.search(lowered)
    if found is None:
        return None
    alone = found[0].strip() == lowered.strip()
    return found[0].strip() if alone or _ASKS.search(text.lower()) else None


def _score(said: set[str], text: str, tool: ToolSpec) -> int:
    """How much of what names a tool is in the message: a word of its name counts three."""
    named = _words(tool.name.replace("_", " ").replace("-", " "))
    score = 3 * len(said & named)
    score += 2 * sum(bool(said & _SAME.get(word, set())) for word in named)
    score += len(said & (_words(tool.description) - named))
    if "expression" in _properties(tool):
        score += 3 if expression(text) is not None else -3
    return score


def _properties(tool: ToolSpec) -> dict[str, dict[str, Any]]:
    return tool.parameters.get("properties") or {}


def _arguments(text: str, tool: ToolSpec) -> dict[str, Any] | None:
    """The arguments that can be read out of a message; None where one that is needed cannot."""
    needed: list[str] = tool.parameters.get("required") or []
    numbers = _numbers(text)
    found: dict[str, Any] = {}
    properties = _properties(tool)
    for name, schema in sorted(properties.items(), key=lambda item: not _named(item[0], text)):
        kind = schema.get("type")
        value: Any = None
        if "enum" in schema:
            value = next((e for e in schema["enum"] if str(e).lower() in text.lower()), None)
        elif kind in ("integer", "number"):
            value = _take(name, text, numbers, kind)
        elif kind == "array":
            value = list(numbers) or None
        elif kind == "string":
            value = _string(name, text, tool, free=name in needed)
        if value is not None:
            found[name] = value
        elif name in needed:
            return None
    return {name: found[name] for name in properties if name in found}


def _string(name: str, text: str, tool: ToolSpec, *, free: bool) -> str | None:
    if name == "expression":
        return expression(text)
    if name.endswith("id"):
        found = re.search(r"\b[A-Za-z]\w*-\d[\w-]*\b|\b\d+\b", text)
        return None if found is None else found[0]
    return _text(text, tool) if free else None


def _text(text: str, tool: ToolSpec) -> str | None:
    """A quoted text; in a question the name after "in" or "for"; else what follows the words
    that name the tool."""
    quoted = _QUOTED.search(text)
    if quoted is not None:
        return quoted[1] or quoted[2]
    if _QUESTION.search(text.lower()):
        found = re.search(r"\b(?:in|for|of|about|at|to) ([A-Z][\w-]*(?: [A-Z][\w-]*)*)", text)
        return None if found is None else found[1]
    known = "|".join(sorted(_words(tool.name.replace("_", " "))))
    rest = rf"\b(?:{known})s?\b(?: (?:down|that|of|to|for|about))*\s*:?\s+(.+)"
    found = re.search(rest, text, re.IGNORECASE | re.DOTALL)
    return None if found is None else found[1].strip().rstrip(".!") or None


def _numbers(text: str) -> list[int | float]:
    spelled = re.sub(r"[a-z]+", lambda word: str(_SPELLED.get(word[0], word[0])), text.lower())
    spaced = re.sub(r"(\d)d(\d)", r"\1 d\2", spelled)
    return [float(each) if "." in each else int(each) for each in _NUMBER.findall(spaced)]


def _named(name: str, text: str) -> re.Match[str] | None:
    """A number with the name of a parameter beside it: ``20 sides``, ``20-sided``."""
    return re.search(rf"(\d+)[- ]{re.escape(name.rstrip('s'))}", text.lower())


def _take(name: str, text: str, numbers: list[int | float], kind: str) -> int | float | None:
    named = _named(name, text)
    if named is not None and int(named[1]) in numbers:
        return numbers.pop(numbers.index(int(named[1])))
    for place, number in enumerate(numbers):
        if kind == "number" or isinstance(number, int):
            return numbers.pop(place)
    return None


def _words(text: str) -> set[str]:
    """The words that mean something, without the s of the plural."""
    found = set(re.findall(r"[a-z]+", text.lower())) - _COMMON
    return {word[:-1] if len(word) > 3 and word.endswith("s") else word for word in found}
