"""`tertulia show` and `tertulia tail`."""

from __future__ import annotations

import json

from tests.cli.program import Program, interrupt, read_until


def test_show_tells_the_facts_and_the_newest_messages(program: Program) -> None:
    printed = program.ok("show", "s2", "--limit", "4")
    assert "shop" in printed
    assert '{"color": "blue"}' in printed
    assert "user: question 2" in printed
    assert "-> add(a=40, b=2)" in printed
    assert "<- 42" in printed
    assert "question 1" not in printed


def test_what_is_stored_cannot_command_the_terminal(program: Program) -> None:
    for command in ("show", "tail"):
        printed = program.ok(command, "s0")
        assert "\x1b" not in printed
        assert "it is 42 \N{REPLACEMENT CHARACTER}[31m ü" in printed


def test_show_as_json_has_the_whole_messages(program: Program) -> None:
    shown = program.json("show", "s1", "--limit", "1")
    assert shown["state"] == {"color": "blue"}
    assert shown["messages"][-1]["content"] == "it is 42 \x1b[31m ü, question 2"


def test_show_pages_backwards_and_goes_back_in_time(program: Program) -> None:
    newest = program.json("show", "s0", "--limit", "4")["messages"]
    before = program.json("show", "s0", "--before", str(newest[0]["seq"]))["messages"]
    assert [message["content"] for message in before if message["role"] == "user"] == [
        "question 0",
        "question 1",
    ]
    assert program.json("show", "s0", "--at", "0")["messages"] == []


def test_a_session_is_found_in_whatever_app_has_it(program: Program) -> None:
    assert program.json("show", "s2")["app"] == "shop"
    assert "in the app 'shop'" in program.refused("show", "s0", "--app", "shop")


def test_an_id_that_two_apps_have_needs_its_app(program: Program) -> None:
    program.ok("chat", "both", "--app", "a", stdin="hello\n")
    program.ok("chat", "both", "--app", "b", stdin="hello\n")
    assert "--app, one of: a, b" in program.refused("show", "both")
    assert program.json("show", "both", "--app", "b")["app"] == "b"


def test_tail_prints_the_newest_events_one_a_line(program: Program) -> None:
    lines = program.ok("tail", "s0", "-n", "3").splitlines()
    assert [line.split()[3] for line in lines] == ["message.added", "turn.completed", "state.set"]
    assert lines[-1].endswith('session:color = "blue"')


def test_tail_as_json_is_one_event_a_line(program: Program) -> None:
    printed = program.ok("tail", "s0", "--json", "--after", "20")
    events = [json.loads(line) for line in printed.splitlines()]
    assert [event["seq"] for event in events] == list(range(21, 21 + len(events)))


def test_tail_picks_types_out(program: Program) -> None:
    printed = program.ok("tail", "s0", "--json", "--type", "turn.started", "--type", "state.set")
    types = [json.loads(line)["type"] for line in printed.splitlines()]
    assert types == ["turn.started"] * 3 + ["state.set"]
    assert "no.type" in program.refused("tail", "s0", "--type", "no.type")


def test_tail_follow_shows_what_another_process_appends_and_ends_with_ctrl_c(
    program: Program,
) -> None:
    with program.started("tail", "s0", "--follow", "-n", "1") as process:
        read_until(process, "state.set")
        program.ok("end", "s0", "--reason", "over now")
        assert "over now" in read_until(process, "over now")
        status, complaints = interrupt(process)
    assert status == 130
    assert "Traceback" not in complaints


def test_tail_follow_ends_quietly_when_nobody_reads_it_any_more(program: Program) -> None:
    with program.started("tail", "s0", "--follow", "-n", "1") as process:
        read_until(process, "\n")
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(timeout=30) == 0
        assert process.stderr.read() == f"store: {program.url}\n"


def test_a_pipe_that_is_closed_early_is_quiet(program: Program) -> None:
    with program.started("export", "s0") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(timeout=30) == 0
        assert process.stderr.read() == f"store: {program.url}\n"
