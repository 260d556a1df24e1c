"""`tertulia export` and `tertulia fork`."""

from __future__ import annotations

import json

from tests.cli.program import Program


def test_export_writes_one_json_object_a_line_to_standard_output(program: Program) -> None:
    lines = program.ok("export", "s0").splitlines()
    assert all({"timestamp", "role", "message"} <= set(json.loads(line)) for line in lines)
    assert json.loads(lines[-1])["type"] == "head"


def test_export_writes_a_file(program: Program) -> None:
    assert program.ok("export", "s0", "--format", "markdown", "-o", "s0.md") == ""
    assert "question 2" in (program.folder / "s0.md").read_text(encoding="utf-8")


def test_export_as_json_is_one_document(program: Program) -> None:
    assert len(json.loads(program.ok("export", "s1", "--format", "json"))["messages"]) == 12


def test_a_file_that_cannot_be_written_is_said_in_one_line(program: Program) -> None:
    assert "gone/s0.jsonl cannot be written" in program.refused(
        "export", "s0", "-o", "gone/s0.jsonl"
    )


def test_a_fork_has_the_history_up_to_its_point(program: Program) -> None:
    made = program.json("fork", "s0", "branch", "--at", "12")
    assert (made["session"], made["parent"]) == ("branch", "s0")
    messages = program.json("show", "branch")["messages"]
    assert [m["content"] for m in messages if m["role"] == "user"] == ["question 0"]


def test_a_fork_without_a_name_gets_one(program: Program) -> None:
    name = program.ok("fork", "s2").split()[0]
    shown = program.json("show", name)
    assert (shown["app"], shown["user"]) == ("shop", "ana")


def test_a_fork_onto_a_session_is_refused(program: Program) -> None:
    assert "exists" in program.refused("fork", "s0", "s1")
