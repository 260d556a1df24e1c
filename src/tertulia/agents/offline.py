"""The `offline` model: rules, and no language model.

It answers from the conversation that it is given and keeps nothing of its own, so that forks,
rewinds and restarts show in its answers.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence

from tertulia.agents import facts, forms, prompts, transferred, wishes
from tertulia.agents.protocol import (
    Finished,
    ModelEvent,
    ModelRequest,
    TextDelta,
    ToolCallMade,
    UsageReport,
)
from tertulia.agents.wishes import Wish
from tertulia.messages import Message, ToolCall

OFFLINE = "offline"
WHO = (
    "I am Tertulia's offline model: a handful of fixed rules, no language model. I remember what "
    "you tell me, answer questions about it, and call tools when your words match one."
)
_WORD = re.compile(r"\s*\S+\s*")


class OfflineModel:
    """The rule-based stand-in for a model: deterministic, and honest about it.

    `pause` is the time in seconds between two words, so that a person sees them come.
    """

    def __init__(self, pause: float = 0.0) -> None:
        self._pause = pause

    @property
    def name(self) -> str:
        """``offline``."""
        return OFFLINE

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """The answer, word by word."""
        reply = _reply(request)
        if isinstance(reply, str):
            for word in _WORD.findall(reply):
                await asyncio.sleep(self._pause)
                yield TextDelta(word)
            calls: list[Wish] = []
        else:
            calls = reply
        for number, wish in enumerate(calls):
            call_id = f"call_{len(request.messages)}_{number}"
            yield ToolCallMade(ToolCall(call_id, wish.tool, wish.arguments))
        yield UsageReport(_words(request.messages), _count(reply))
        yield Finished("tool_calls" if calls else "stop")


def _reply(request: ModelRequest) -> str | list[Wish]:
    if request.output is not None:
        return forms.fill(request.output, request.messages)
    welcome = transferred.welcome(request)
    return answer(transferred.without_transfers(request)) if welcome is None else welcome


def answer(request: ModelRequest) -> str | list[Wish]:
    """What the rules say to a conversation: text, or the tools to call."""
    asked = _last_question(request.messages)
    if asked is None:
        return "Nothing was asked."
    results = [message for message in request.messages[asked + 1 :] if message.role == "tool"]
    if results:
        return _report(results)
    question = request.messages[asked].text.strip()
    task = prompts.read(question)
    if task is not None:
        return _condense(task)
    wanted = wishes.find(question, request.tools) if _may_ask(question, request) else []
    if wanted:
        return wanted
    before = request.messages[:asked]
    return _small_talk(question) or facts.reply(question, before) or _echo(question)


def _condense(task: prompts.Asked) -> str:
    """A summary of what the user said, or the numbers of the messages with facts in them."""
    said = [entry for entry in task.entries if entry.role == "user"]
    if task.kind == "summarize":
        return facts.summary(task.earlier, [entry.text for entry in said])
    return str([entry.number for entry in said if facts.teaches(entry.text)])


def _may_ask(question: str, request: ModelRequest) -> bool:
    """Whether to look for tools: what a person says of themself is no order."""
    tells = re.match(r"(i|i'm|my|we|we're|our)\b", question.lower().replace("\u2019", "'"))
    return request.may_call and (tells is None or "?" in question)


def _last_question(messages: Sequence[Message]) -> int | None:
    places = [place for place, message in enumerate(messages) if message.role == "user"]
    return places[-1] if places else None


def _report(results: Sequence[Message]) -> str:
    """What the tools said, in a sentence each."""
    lines: list[str] = []
    for result in results:
        name = (result.name or "the tool").replace("_", " ")
        text = result.text.strip().strip('"')
        failed = (result.metadata or {}).get("error")
        told = text.removeprefix("Error: ")
        lines.append(f"The {name} tool failed: {told}" if failed else f"{name}: {text}")
    return "\n".join(lines)


def _small_talk(question: str) -> str | None:
    words = " ".join(re.findall(r"[a-z']+", question.lower()))
    if re.search(
        r"\b(who|what) (are|r) you\b|\byour name\b|\bare you (an? )?(ai|real|human|bot|robot|llm|"
        r"language model|gpt|chatgpt|claude)\b|\bwhat (model|can you)\b|\bhelp\b",
        words,
    ):
        return WHO
    if re.fullmatch(r"(hi|hello|hey|good (morning|evening|day|afternoon))( there)?", words):
        return "Hello! " + WHO
    if re.fullmatch(r"(thanks?|thank you)( you)?( very much| a lot)?", words):
        return "You are welcome."
    if re.fullmatch(r"(bye|goodbye|see you|exit|quit)", words):
        return "Goodbye. This conversation is kept."
    return None


def _echo(question: str) -> str:
    if question.endswith("?"):
        return (
            "My rules have no answer to that: I am the offline model, not a language model. "
            "Ask me about what you told me, or for something that one of my tools does."
        )
    return f"I have kept that: {question.rstrip('.!')}."


def _words(messages: Sequence[Message]) -> int:
    return sum(_count(message.text) for message in messages)


def _count(reply: str | list[Wish]) -> int:
    return len(reply.split()) if isinstance(reply, str) else len(reply)
