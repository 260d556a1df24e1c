"""What a model is shown of a conversation, and what may be made of its answer."""

from __future__ import annotations

import pytest

from tertulia.errors import SchemaValidationError
from tertulia.memory import facts
from tertulia.memory.facts import CHUNK, MAX_FACTS, Fact, Line
from tertulia.messages import Message

SHOWN = [Line(3, "user", "I moved to Oslo."), Line(4, "assistant", "Nice!")]
GOOD = '{"fact": "The user lives in Oslo.", "sources": [3]}'


@pytest.mark.parametrize(
    "answer",
    [
        f"[{GOOD}]",
        f"\n [{GOOD}]\n",
        f"```json\n[{GOOD}]\n```",
        f"```\n{GOOD}\n```",
        GOOD,
    ],
)
def test_an_answer_is_an_array_or_lines_fenced_or_not(answer: str) -> None:
    assert facts.parse(answer, SHOWN) == [Fact("The user lives in Oslo.", [3])]


def test_an_answer_may_be_that_there_is_nothing() -> None:
    assert facts.parse("[]", SHOWN) == []
    assert facts.parse("```json\n[]\n```", SHOWN) == []


@pytest.mark.parametrize(
    "answer",
    [
        "I have kept that.",
        f"Here they are: [{GOOD}]",
        f"[{GOOD}",
        '[{"fact": "x"}]',
        '[{"fact": "x", "sources": []}]',
        '[{"fact": "x", "sources": [9]}]',
        '[{"fact": "x", "sources": ["3"]}]',
        '[{"fact": " ", "sources": [3]}]',
        '[{"fact": 7, "sources": [3]}]',
        '["The user lives in Oslo."]',
        '[{"fact": "' + "x" * 70_000 + '", "sources": [3]}]',
        f"[{', '.join([GOOD] * (MAX_FACTS + 1))}]",
        "{}",
        "\ud800",
    ],
)
def test_any_other_answer_is_refused(answer: str) -> None:
    with pytest.raises(SchemaValidationError, match="no list of facts"):
        facts.parse(answer, SHOWN)


def test_a_model_is_shown_what_people_and_agents_said() -> None:
    messages = [
        Message(role="system", content="be kind", seq=1),
        Message(role="user", content="hello", seq=2),
        Message(role="assistant", content="", seq=3),
        Message(role="tool", content="42", tool_call_id="c", seq=4),
        Message(role="assistant", content='say "hi"\nagain', seq=5),
    ]
    shown = facts.lines(messages)
    assert shown == [Line(2, "user", "hello"), Line(5, "assistant", 'say "hi"\nagain')]
    assert facts.shown(shown).splitlines() == [
        '{"seq":2,"role":"user","text":"hello"}',
        '{"seq":5,"role":"assistant","text":"say \\"hi\\"\\nagain"}',
    ]


def test_a_long_conversation_is_shown_in_parts_and_nothing_is_left_out() -> None:
    messages = [Message(role="user", content="x" * 10_000, seq=n) for n in range(1, 8)]
    messages.append(Message(role="user", content="y" * (CHUNK + 1), seq=8))
    parts = facts.chunks(facts.lines(messages))
    assert all(sum(len(line.text) for line in part) <= CHUNK for part in parts)
    texts: dict[int, str] = {}
    for line in (line for part in parts for line in part):
        texts[line.seq] = texts.get(line.seq, "") + line.text
    assert texts == {message.seq: message.text for message in messages}


def test_the_key_of_a_fact_does_not_depend_on_how_it_is_written() -> None:
    one = facts.key_of(b"s", "Lives in  Köln\n")
    assert one == facts.key_of(b"s", "lives in K\N{LATIN SMALL LETTER O WITH DIAERESIS}LN")
    assert one != facts.key_of(b"t", "Lives in Köln")
    assert one != facts.key_of(b"s", "Lived in Köln")
    assert one.startswith("fact-")
