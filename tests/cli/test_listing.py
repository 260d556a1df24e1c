"""`tertulia sessions`."""

from __future__ import annotations

from tests.cli.program import Program


def test_sessions_are_listed_in_the_order_of_their_creation(program: Program) -> None:
    printed = program.ok("sessions")
    assert [line.split()[0] for line in printed.splitlines()] == ["id", "s0", "s1", "s2"]


def test_pages_follow_each_other_by_their_cursor(program: Program) -> None:
    first = program("sessions", "--limit", "2", "--json")
    assert '"s1"' in first.stdout
    assert '"s2"' not in first.stdout
    assert first.stderr.splitlines()[-1] == "there are more: --after 2"
    rest = program.json("sessions", "--limit", "2", "--after", "2")
    assert [info["id"] for info in rest] == ["s2"]


def test_the_last_page_does_not_promise_more(program: Program) -> None:
    assert "more" not in program("sessions", "--limit", "3").stderr


def test_a_limit_of_zero_lists_nothing(program: Program) -> None:
    assert program.json("sessions", "--limit", "0") == []


def test_a_user_and_an_app_are_picked_out(program: Program) -> None:
    assert [info["id"] for info in program.json("sessions", "--user", "ana")] == ["s1", "s2"]
    assert [info["id"] for info in program.json("sessions", "--app", "shop")] == ["s2"]
    nobody = program("sessions", "--user", "nobody")
    assert (nobody.returncode, nobody.stdout) == (0, "")
    assert "no sessions" in nobody.stderr


def test_the_listing_has_what_a_program_needs(program: Program) -> None:
    info = program.json("sessions", "--app", "shop")[0]
    assert (info["user_id"], info["status"], info["messages"]) == ("ana", "open", 12)
    assert info["running"] is False
