"""What the `offline` model understands of what it is told, and how it speaks of it. Pure rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from tertulia.messages import Message

SAID = "The user said: "
MAX_SUMMARY = 2_000
"""Characters of a summary."""

_END = r"(?=$|[.!?;\n]| but | and (?:i|my|we|please|what|how)\b)"
_PLACES = r"[A-Z][\w'-]+(?: [A-Z][\w'-]+)*"
_LIST = rf"{_PLACES}(?:(?:, and |, | and | & ){_PLACES})*"
_STATEMENTS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("name", re.compile(rf"\b(?:my name is|call me) ([\w' -]+?){_END}", re.I)),
    ("work", re.compile(rf"\bI(?: a|')m (?:working as )?(an? [\w' -]+?){_END}", re.I)),
    ("work", re.compile(rf"\bI work as (an? [\w' -]+?){_END}", re.I)),
    ("home", re.compile(rf"\bI (?:live in|am from|'m from|come from) ([\w', -]+?){_END}", re.I)),
    ("like", re.compile(rf"\bI (?:really |also )?(?:like|love|enjoy) ([\w', -]+?){_END}", re.I)),
    ("dislike", re.compile(rf"\bI (?:don't like|dislike|hate) ([\w', -]+?){_END}", re.I)),
    ("have", re.compile(rf"\bI have (an? [\w', -]+?){_END}", re.I)),
    ("mine", re.compile(rf"\bmy (?!name\b)([\w' -]+?) (?:is|are) ([\w'@.:/ -]+?){_END}", re.I)),
)
_PLAN = re.compile(rf"\b(?i:we(?:'re| are)|I(?:'m| am)) (?i:planning) (.+?){_END}")
_INSTEAD = re.compile(rf"\b(?:focus on|go to|visit|make it|choose) ({_LIST}) instead", re.I)
_VISIT = re.compile(
    rf"\b(?i:visit|visiting|see|go to|going to|fly to|travel to|add|stop in) ({_LIST})"
)
_TRIP = re.compile(rf"\b(?i:trip|journey|vacation|holiday|travel(?:l?ing)?) (?i:to) ({_LIST})")


class Known:
    """What the user has told, in the order of telling; what is said later wins."""

    def __init__(self) -> None:
        self.name: str | None = None
        self.work: str | None = None
        self.home: str | None = None
        self.have: list[str] = []
        self.likes: list[str] = []
        self.dislikes: list[str] = []
        self.mine: dict[str, str] = {}
        self.plan: str | None = None
        self.destination: str | None = None
        self.places: list[str] = []

    @property
    def anything(self) -> bool:
        """Whether anything is known."""
        return any(bool(value) for value in vars(self).values())


def read(messages: Sequence[Message]) -> Known:
    """What the user's messages say, and the summaries of earlier ones."""
    known = Known()
    for message in messages:
        if message.role == "user":
            _hear(known, message.text)
        elif message.role == "system" and "summary_of" in (message.metadata or {}):
            for line in message.text.splitlines():
                _hear(known, line.removeprefix(SAID))
    return known


def summary(earlier: str | None, said: Sequence[str]) -> str:
    """The first sentences of what the user said, a line each, after those of an earlier summary.

    Where they are too many the oldest lines without a fact go first.
    """
    lines = (earlier or "").splitlines()
    for text in said:
        line = SAID + _first_sentence(text)
        if text.strip() and line not in lines:
            lines.append(line)
    while len(lines) > 1 and sum(len(line) + 1 for line in lines) > MAX_SUMMARY:
        plain = (at for at, line in enumerate(lines) if not teaches(line.removeprefix(SAID)))
        lines.pop(next(plain, 0))
    return "\n".join(lines) or "The user said nothing."


def teaches(text: str) -> bool:
    """Whether a message of the user holds a fact."""
    learned = Known()
    _hear(learned, text)
    return learned.anything


def _first_sentence(text: str) -> str:
    line = " ".join(text.split())
    end = re.search(r"[.!?](?= |$)", line)
    return _short(line if end is None else line[: end.end()])


def _hear(known: Known, text: str) -> None:
    if not text.strip().endswith("?"):
        _learn(known, text.strip().replace("\u2019", "'"))


def reply(text: str, before: Sequence[Message]) -> str | None:
    """The answer to a question about what was told, or the acknowledgement of a fact."""
    known = read(before)
    words = " ".join(re.findall(r"[a-z']+", text.lower().replace("\u2019", "'")))
    for pattern, respond in _QUESTIONS:
        found = re.search(pattern, words)
        if found is not None:
            return respond(known, found, before)
    if text.endswith("?"):
        return None
    return _acknowledge(text)


def _learn(known: Known, text: str) -> None:
    for kind, pattern in _STATEMENTS:
        for found in pattern.finditer(text):
            _learn_one(known, kind, found)
    plan = _PLAN.search(text)
    if plan is not None:
        known.plan = plan[1].strip()
    trip = _TRIP.search(text)
    if trip is not None:
        known.destination = trip[1]
    instead = _INSTEAD.search(text)
    if instead is not None:
        known.places = _split(instead[1])
        return
    for visit in _VISIT.finditer(text):
        known.places.extend(place for place in _split(visit[1]) if place not in known.places)


def _learn_one(known: Known, kind: str, found: re.Match[str]) -> None:
    value = found[1].strip()
    if kind == "mine":
        known.mine[value.lower()] = found[2].strip()
    elif kind == "like":
        known.likes.extend(item for item in _split(value) if item not in known.likes)
    elif kind == "dislike":
        known.dislikes.extend(item for item in _split(value) if item not in known.dislikes)
    elif kind == "have":
        known.have.append(value)
    else:
        setattr(known, kind, value)


def _split(text: str) -> list[str]:
    return [item for item in re.split(r", and |, | and | & ", text.strip()) if item]


def _join(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def sentences(known: Known) -> list[str]:
    """Everything that is known, said to the user."""
    facts: list[str] = []
    if known.name:
        facts.append(f"your name is {known.name}")
    if known.work:
        facts.append(f"you are {known.work}")
    if known.home:
        facts.append(f"you live in {known.home}")
    if known.have:
        facts.append(f"you have {_join(known.have)}")
    if known.likes:
        facts.append(f"you like {_join(known.likes)}")
    if known.dislikes:
        facts.append(f"you do not like {_join(known.dislikes)}")
    facts.extend(f"your {thing} is {value}" for thing, value in known.mine.items())
    if known.plan:
        facts.append(f"you are planning {known.plan}")
    if known.places:
        facts.append(f"you want to visit {_join(known.places)}")
    return facts


Rule = Callable[[Known, re.Match[str], Sequence[Message]], str]


def _all(known: Known, found: re.Match[str], before: Sequence[Message]) -> str:
    facts = sentences(known)
    if not facts:
        return "You have not told me anything about yourself yet."
    return f"From our conversation I know that {_join(facts)}."


def _name(known: Known, found: re.Match[str], before: Sequence[Message]) -> str:
    return f"Your name is {known.name}." if known.name else "You have not told me your name yet."


def _work(known: Known, found: re.Match[str], before: Sequence[Message]) -> str:
    return f"You are {known.work}." if known.work else "You have not told me what you do yet."


def _home(known: Known, found: re.Match[str], before: Sequence[Message]) -> str:
    return f"You live in {known.home}." if known.home else "You have not told me where you live."


def _likes(known: Known, found: re.Match[str], before: Sequence[Message]) -> str:
    return f"You like {_join(known.likes)}." if known.likes else "You have not told me that yet."


def _places(known: Known, found: re.Match[str], before: Sequence[Message]) -> str:
    if known.places:
        where = f" in {known.destination}" if known.destination else ""
        return f"We are visiting {_join(known.places)}{where}."
    if known.destination:
        return f"We are going to {known.destination}; you have not named a city yet."
    return "You have not told me of any place to visit yet."


def _mine(known: Known, found: re.Match[str], before: Sequence[Message]) -> str:
    thing = found[1].strip()
    if thing in known.mine:
        return f"Your {thing} is {known.mine[thing]}."
    return f"You have not told me your {thing} yet."


def _where(known: Known, found: re.Match[str], before: Sequence[Message]) -> str:
    said = [message.text.strip() for message in before if message.role == "user"]
    if not said:
        return "We have only just begun; you have not told me anything yet."
    answered = [message.text.strip() for message in before if message.role == "assistant"]
    text = f'The last thing you said was: "{_short(said[-1])}"'
    if answered and answered[-1]:
        text += f' I answered: "{_short(answered[-1])}"'
    return text


def _count(known: Known, found: re.Match[str], before: Sequence[Message]) -> str:
    said = sum(message.role == "user" for message in before)
    return f"You have sent {said} message{'' if said == 1 else 's'} before this one."


_QUESTIONS: tuple[tuple[str, Rule], ...] = (
    (r"\bwhere were we\b|\bwhat (were|was) (we|i) (talking|saying)\b|\blast topic\b", _where),
    (r"\bwhat (do|did) (you|i) (know|remember|tell you|told)\b|\bwho am i\b", _all),
    (r"\b(summar\w+)\b.*\b(conversation|so far|we|this)\b", _all),
    (r"\bwhat(?:'s| is) my name\b|\bmy name\?*$|\bknow my name\b", _name),
    (r"\bwhat do i do\b|\bwhat(?:'s| is) my (job|work|profession|occupation)\b", _work),
    (r"\bwhere (do i live|am i from)\b", _home),
    (r"\bwhat do i (like|love|enjoy)\b", _likes),
    (
        r"\b(what|which) (cities|city|places|place)\b|\bwhere are (we|you) (going|visiting)\b",
        _places,
    ),
    (r"\bwhere (am i|are we) (going|travell?ing|flying)\b", _places),
    (r"\bhow many messages\b", _count),
    (r"^(?:and )?(?:what|who|where|when)(?:'s| is| are) my ([\w' ]+)$", _mine),
)


def _acknowledge(text: str) -> str | None:
    """A fact said back, so that one sees that it was understood."""
    learned = Known()
    _learn(learned, text.replace("\u2019", "'"))
    if not learned.anything:
        return None
    if learned.name and len(sentences(learned)) == 1:
        return f"Nice to meet you, {learned.name}."
    said = sentences(learned)
    if said:
        return f"Noted: {_join(said)}."
    return f"Noted: {learned.destination}."


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 120 else f"{line[:117]}…"
