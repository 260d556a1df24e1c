"""What a model is asked to make older messages shorter, and how its answer is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tertulia import Message
from tertulia.agents import prompts
from tertulia.agents.offline import answer
from tertulia.agents.protocol import ModelRequest
from tertulia.errors import ModelError
from tertulia.messages import ToolCall

NOTHING: set[int] = set()


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("[1, 4]", {1, 4}),
        ("[]", NOTHING),
        ("```json\n[2]\n```", {2}),
        ("The important ones are [1, 3].", {1, 3}),
        ("1, 3 and 5.", {1, 3, 5}),
        ("- 2\n- 4", {2, 4}),
        ("2\n4\n", {2, 4}),
        ("None.", NOTHING),
    ],
)
def test_a_list_of_numbers_is_read_in_any_common_shape(said: str, found: set[int]) -> None:
    assert prompts.numbers(said, 5) == found


@pytest.mark.parametrize("said", ["", "yes", "[1, 6]", "[0]", "1-3", "the first", "2.5 of them"])
def test_anything_else_is_an_error(said: str) -> None:
    with pytest.raises(ModelError, match="nothing was hidden"):
        prompts.numbers(said, 5)


@given(st.text(max_size=20_000), st.none() | st.text(max_size=50))
def test_what_was_said_comes_back_as_data_whatever_it_is(text: str, earlier: str | None) -> None:
    for lines in prompts.chunks([Message.user(text)]):
        asked = prompts.read(prompts.summarize(lines, earlier))
        assert asked is not None
        assert asked.kind == "summarize"
        assert asked.earlier == earlier
        assert "".join(entry.text for entry in asked.entries) in text
    judged = prompts.read(prompts.judge(next(prompts.batches([Message.user(text)]))))
    assert judged is not None
    assert [entry.text for entry in judged.entries] == [text[: prompts.GLANCE]]


@given(st.lists(st.integers(0, 30_000), max_size=12))
def test_nothing_is_left_out_of_a_summary_and_no_request_is_too_long(sizes: list[int]) -> None:
    messages = [Message.user(chr(97 + at) * size) for at, size in enumerate(sizes)]
    told = ""
    for lines in prompts.chunks(messages):
        request = prompts.summarize(lines, "x" * 1_000_000)
        assert len(request) < prompts.CHUNK + prompts.PIECE + prompts.MAX_SUMMARY + 2_000
        asked = prompts.read(request)
        assert asked is not None
        told += "".join(entry.text for entry in asked.entries)
    assert told == "".join(message.text for message in messages)


def test_calls_and_their_results_and_images_are_told_in_few_words() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    messages = [
        Message.user([{"type": "text", "text": "look"}, image]),
        Message.assistant(tool_calls=[ToolCall("c", "find", {"city": "Kyoto"})], agent="guide"),
        Message.tool("x" * 50_000, "c"),
    ]
    ((seen, called, found),) = list(prompts.chunks(messages))
    assert '"look\\n[image_url]"' in seen
    assert '"name":"guide"' in called
    assert "calls find with" in called
    assert len(found) < 2 * prompts.GLANCE


def test_the_messages_of_a_batch_are_numbered_from_one() -> None:
    batches = list(prompts.batches([Message.user(str(n)) for n in range(prompts.BATCH + 1)]))
    assert [len(batch) for batch in batches] == [prompts.BATCH, 1]
    assert '"number":1' in batches[1][0]


def test_an_ordinary_message_is_no_request_of_ours() -> None:
    assert prompts.read("Summarise this conversation, please") is None
    request = prompts.judge(["no JSON"])
    assert prompts.read(request) is None
    assert "rules" in offline(f"{request}?")


def offline(request: str) -> str:
    said = answer(ModelRequest(messages=[Message.user(request)]))
    assert isinstance(said, str)
    return said


def test_the_offline_model_summarises_what_the_user_said() -> None:
    messages = [
        Message.user("My name is Ana. I will tell you more."),
        Message.assistant("Nice to meet you, Ana."),
        Message.user("Where is\nKyoto?  I wonder."),
    ]
    (lines,) = prompts.chunks(messages)
    said = "The user said: My name is Ana.\nThe user said: Where is Kyoto?"
    assert offline(prompts.summarize(lines, None)) == said
    assert offline(prompts.summarize(lines, "The user said: Hi.")) == f"The user said: Hi.\n{said}"
    assert offline(prompts.summarize([], None)) == "The user said nothing."


def test_the_offline_model_keeps_facts_longest() -> None:
    messages = [Message.user(f"My item{n} is red.") for n in range(20)]
    messages += [Message.user(f"Well, that is number {n}.") for n in range(200)]
    (lines,) = prompts.chunks(messages)
    summary = offline(prompts.summarize(lines, None))
    assert len(summary) <= 2_000
    assert all(f"item{n} is red" in summary for n in range(20))
    assert "number 199" in summary
    assert "number 0." not in summary


def test_the_offline_model_finds_facts_important() -> None:
    said = ["My name is Ana.", "Well.", "What is my name?", "I live in Paris."]
    (batch,) = prompts.batches([*map(Message.user, said), Message.assistant("My name is Bot.")])
    assert offline(prompts.judge(batch)) == "[1, 4]"


def test_the_offline_model_knows_what_a_summary_says() -> None:
    summary = Message.system("The user said: My name is Ana.", metadata={"summary_of": [1, 9]})
    said = answer(ModelRequest(messages=[summary, Message.user("What is my name?")]))
    assert said == "Your name is Ana."
