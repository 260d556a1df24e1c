"""The rules of the context budget."""

from __future__ import annotations

from typing import Any

import pytest

from tertulia import Message
from tertulia.budget import Budget, Room, estimate, first_shown
from tertulia.errors import InvalidInput
from tertulia.messages import ToolCall


def call(name: str = "find", **arguments: Any) -> Message:
    return Message.assistant(tool_calls=[ToolCall("c", name, arguments)])


@pytest.mark.parametrize("name", ["keep_last", "max_context_tokens"])
@pytest.mark.parametrize("value", [0, -1, 2.5, "20", True])
def test_a_limit_is_a_whole_number_of_at_least_one(name: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=name):
        Budget(**{name: value})


def test_what_counts_tokens_must_be_a_function_that_gives_counts() -> None:
    wrong: Any = 5
    with pytest.raises(InvalidInput, match="count_tokens"):
        Budget(max_context_tokens=10, count_tokens=wrong)


@pytest.mark.parametrize("given", [-1, 2.5, None, True])
def test_a_count_that_is_none_is_refused(given: Any) -> None:
    def broken(_: Message) -> Any:
        return given

    with pytest.raises(InvalidInput, match="count_tokens gave"):
        Budget(max_context_tokens=10, count_tokens=broken).cost(Message.user("hi"))


def test_nothing_set_is_no_limit() -> None:
    assert Budget().unlimited
    assert not Budget(keep_last=1).unlimited
    assert not Budget(max_context_tokens=1).unlimited


def test_the_estimate_counts_bytes_calls_and_images() -> None:
    assert estimate(Message.user("")) == 4
    assert estimate(Message.user("abcd")) == 5
    assert estimate(Message.user("abcde")) == 6
    assert estimate(Message.user("日本語")) == 4 + 3
    assert estimate(call()) == 4 + 8 + 2
    assert estimate(call("find", city="Kyoto")) == 4 + 8 + 5
    assert estimate(Message.tool("four", "c", name="find")) == 4 + 2
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    assert estimate(Message.user([{"type": "text", "text": "four"}, image])) == 5 + 1_000


def test_tokens_are_counted_only_where_they_count() -> None:
    def fails(_: Message) -> int:
        raise AssertionError("not to be called")

    assert Budget(keep_last=5, count_tokens=fails).cost(Message.user("hi")) == 0


def test_the_system_prompt_and_the_running_turn_take_their_room_first() -> None:
    budget = Budget(keep_last=5, max_context_tokens=100, count_tokens=lambda m: len(m.text))
    room = budget.room("x" * 30, [Message.user("y" * 20), Message.assistant("z")])
    assert room == Room(3, 49)
    assert budget.room(None, [Message.user("q" * 101)]).overdrawn
    assert not budget.room(None, [Message.user("q" * 100)]).overdrawn
    assert not Budget().room("x", [Message.user("y")]).overdrawn


def test_a_cut_lies_before_a_question() -> None:
    question, answer = Message.user("q"), Message.assistant("a")
    result = Message.tool("r", "c")
    assert first_shown([question, answer], asked=True) == 0
    assert first_shown([answer, question, answer], asked=True) == 1
    assert first_shown([result, answer], asked=True) == 2
    assert first_shown([], asked=True) == 0


def test_where_nobody_asks_a_cut_lies_after_the_group_that_it_would_part() -> None:
    answer, result = Message.assistant("a"), Message.tool("r", "c")
    assert first_shown([answer, answer], asked=False) == 0
    assert first_shown([result, result, answer], asked=False) == 2
    assert first_shown([result], asked=False) == 1
