"""`tertulia chat`, with lines from a pipe."""

from __future__ import annotations

import re
import shlex

import pytest
from tests.cli.program import Program, interrupt, read_until

LONG = "remember " + "word " * 20_000
"""So long that the answer, which repeats it, does not fit into a pipe that nobody reads."""


def session_of(printed: str) -> str:
    found = re.search(r"^session +(\S+)", printed, re.MULTILINE)
    assert found, printed
    return found[1]


def test_a_piped_chat_reads_like_a_conversation(empty: Program) -> None:
    printed = empty.ok("chat", stdin="my name is Ana\n\n   \nwhat is 12 * 12?\n")
    assert "\nyou> my name is Ana\ndemo> " in printed
    assert printed.count("you> ") == 2
    assert "  -> " in printed
    assert "  <- 12 * 12 = 144" in printed
    assert "144" in printed.split("  <- 12 * 12 = 144")[1]


def test_the_top_names_the_store_the_session_and_the_model(empty: Program) -> None:
    lines = empty.ok("chat", stdin="hello\n").splitlines()
    assert lines[0] == f"store    {empty.url}"
    assert re.fullmatch(r"session  chat-[0-9a-f]{8} \(new\)", lines[1])
    assert lines[2].startswith("model    offline (rule-based stand-in, no language model; set ")


def test_the_end_prints_commands_that_look_inside(empty: Program) -> None:
    printed = empty.ok("chat", stdin="hello\n")
    commands = [shlex.split(line) for line in printed.split("To look inside:")[1].splitlines()[1:]]
    names = [words[words.index("tertulia") + 1] for words in commands]
    assert names == ["show", "tail", "verify"]
    for words in commands:
        assert empty.ok(*words[words.index("tertulia") + 1 :], store=None)


def test_a_chat_goes_on_with_the_last_session_and_shows_where_it_was(empty: Program) -> None:
    first = empty.ok("chat", stdin="my name is Ana\n")
    second = empty.ok("chat", stdin="what is my name?\n")
    assert session_of(first) == session_of(second)
    assert "goes on: 2 messages" in second
    assert "Where it was:\n  [3] user: my name is Ana" in second
    assert "Ana" in second.split("you> what is my name?")[1]


def test_a_new_chat_is_another_session(empty: Program) -> None:
    first = empty.ok("chat", stdin="hello\n")
    other = empty.ok("chat", "--new", stdin="hello\n")
    assert session_of(first) != session_of(other)
    assert "exists" in empty.refused("chat", session_of(first), "--new")


def test_a_chat_in_which_nothing_is_said_keeps_nothing(empty: Program) -> None:
    assert "nothing is kept" in empty.ok("chat", stdin="\n")


def test_a_named_session_has_an_owner_and_an_end(empty: Program) -> None:
    empty.ok("chat", "mine", "--user", "ana", "--system", "Be brief.", stdin="hello\n")
    shown = empty.json("show", "mine")
    assert (shown["app"], shown["user"], shown["system"]) == ("chat", "ana", "Be brief.")
    assert "another user" in empty.refused("chat", "mine", "--user", "eve", stdin="hello\n")
    empty.ok("end", "mine")
    assert "tertulia reopen mine" in empty.refused("chat", "mine", stdin="hello\n")
    assert session_of(empty.ok("chat", stdin="hello\n")) != "mine"


def test_the_model_is_named_by_option_environment_or_key(empty: Program) -> None:
    for words, env, expected in (
        (("--model", "a:b"), {"TERTULIA_MODEL": "c:d", "OPENAI_API_KEY": "k"}, "a:b"),
        ((), {"TERTULIA_MODEL": "c:d", "OPENAI_API_KEY": "k"}, "c:d"),
        ((), {"OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k"}, "openai:"),
        ((), {"ANTHROPIC_API_KEY": "k"}, "anthropic:"),
    ):
        printed = empty.ok("chat", *words, stdin="", **env)
        assert f"\nmodel    {expected}" in printed
        assert "stand-in" not in printed


def test_an_error_of_the_model_is_one_line_and_the_chat_goes_on(empty: Program) -> None:
    printed = empty.ok("chat", "--model", "nowhere:none", stdin="hello\nagain\n")
    assert len(re.findall(r"^error: ", printed, re.MULTILINE)) == 2
    assert "Traceback" not in printed


def test_a_model_name_that_cannot_be_is_refused(empty: Program) -> None:
    assert "names no model" in empty.refused("chat", "--model", "nonsense")


def test_slash_commands_look_inside_and_go_back(empty: Program) -> None:
    looking = ["/help", "my name is Ana", "/history", "/state", "/events"]
    going_back = ["/rewind", "/rewind 3", "/history", "/what", "/quit", "never"]
    said = "\n".join(looking + going_back)
    printed = empty.ok("chat", stdin=said)
    assert "/rewind N" in printed
    assert "[3] user: my name is Ana" in printed
    assert "turn.completed" in printed
    assert "say which message" in printed
    assert "as it was at event 1; /rewind " in printed
    assert "nothing has been said yet" in printed
    assert "/what is no command" in printed
    assert "never" not in printed


def test_a_fork_goes_on_in_a_branch(empty: Program) -> None:
    printed = empty.ok("chat", "trunk", stdin="my name is Ana\n/fork branch\nwhat is my name?\n")
    assert "this is branch now; trunk stays as it is" in printed
    assert "Ana" in printed.split("you> what is my name?")[1]
    assert len(empty.json("show", "trunk")["messages"]) == 2
    assert len(empty.json("show", "branch")["messages"]) == 4


def test_a_chat_killed_in_the_middle_of_an_answer_goes_on_where_it_was(empty: Program) -> None:
    empty.ok("chat", stdin="my name is Ana\n")
    with empty.started("chat") as process:
        assert process.stdin is not None
        process.stdin.write(LONG + "\n")
        process.stdin.flush()
        seen = read_until(process, "demo> ")
        process.kill()
        process.wait()
    assert "abandoned by a process that died" in empty.ok("show", session_of(seen))
    resumed = empty.ok("chat", stdin="what is my name?\n")
    assert session_of(resumed) == session_of(seen)
    assert "user: my name is Ana" in resumed
    assert "The process that was answering here died in turn " in resumed
    assert "user: remember word word" in resumed
    assert "\ndemo> remember note: kept as note 1: word word" in resumed
    assert "Ana" in resumed.split("you> what is my name?")[1]
    log = empty.ok("tail", session_of(seen), "-n", "100")
    assert "turn.resumed" in log
    assert log.count("tool.called") == 1, "what the tool did was not done again"
    assert empty.ok("verify", session_of(seen)).startswith("ok: ")


def test_an_order_goes_to_the_order_desk_and_waits_for_a_yes(empty: Program) -> None:
    said = "order two coffees\nmaybe\ny\nwhat did I order?\n"
    printed = empty.ok("chat", "shop", stdin=said)
    assert "  order_desk has the floor now\n" in printed
    asked = 'approve place_order(what="two coffees")? [y/n] '
    assert f"\n{asked}maybe\nsay y or n" in printed
    assert f"\n{asked}y\n  <- order 1 is placed: two coffees\norder_desk> " in printed
    assert "order_desk> list orders: two coffees" in printed
    shown = empty.json("show", "shop")
    assert shown["floor"] == "order_desk"
    assert shown["state"]["orders"] == ["two coffees"]


def test_a_no_is_told_to_the_model_with_its_reason(empty: Program) -> None:
    printed = empty.ok("chat", stdin="order a cake\nn no cake today\nwhat did I order?\n")
    assert "<- This call was rejected by a person and did not run. Reason: no cake today" in printed
    assert "nothing was ordered yet" in printed


def test_what_waits_still_waits_in_the_next_chat(empty: Program) -> None:
    first = empty.ok("chat", "shop", stdin="order a cake\n")
    approve = next(line for line in first.splitlines() if " approve shop " in line)
    second = empty.ok("chat", stdin="")
    assert "waits for you:\n  user: order a cake" in second
    words = shlex.split(approve)
    empty.ok(*words[words.index("tertulia") + 1 :], store=None)
    third = empty.ok("chat", stdin="what did I order?\n")
    assert "is decided; it goes on now:" in third
    assert "order_desk> place order: order 1 is placed: a cake" in third
    assert "list orders: a cake" in third


def test_a_chat_that_waits_can_be_looked_into_and_left(empty: Program) -> None:
    printed = empty.ok("chat", stdin="order a cake\n/history\n/state\n/rewind 1\n/fork\nhello\n")
    assert "nothing is remembered yet" in printed
    assert "error: a tool call of this session waits for a yes or a no first" in printed
    assert "Hello!" in printed, "the branch begins before what waits"


def test_a_summary_is_an_answer_of_a_type(empty: Program) -> None:
    printed = empty.ok("chat", stdin="my name is Ana\nwhat is 12 * 12?\n/summary\n")
    assert "about   your name is Ana\npoints  your name is Ana\n        12 * 12 = 144\n" in printed


def test_ctrl_c_without_a_terminal_ends_the_chat(empty: Program) -> None:
    with empty.started("chat") as process:
        read_until(process, "/help.")
        status, complaints = interrupt(process)
    assert status == 130
    assert "Traceback" not in complaints


@pytest.mark.parametrize("text", ["\x1b[2J red", "\udcff", "ü" * 100])
def test_what_is_typed_may_be_anything(empty: Program, text: str) -> None:
    assert "\x1b" not in empty.ok("chat", stdin=f"{text}\n")
