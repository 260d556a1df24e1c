"""`tertulia verify`, `anchor` and `keygen`."""

from __future__ import annotations

import json
import stat

import pytest
from tests.cli.program import Program

from tertulia.stores.database import connect


def test_a_session_that_holds_verifies(program: Program) -> None:
    assert program.ok("verify", "s0").startswith("ok: session s0 holds")
    found = program.json("verify", "s0")
    assert found["ok"] is True
    assert found["checked"] == program.json("show", "s0")["events"]


def test_an_exported_file_is_checked_alone_without_a_store(program: Program) -> None:
    program.ok("export", "s0", "-o", "s0.jsonl")
    done = program("verify", "s0.jsonl", store="sqlite:///nowhere.db")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("ok: file s0.jsonl holds")


def test_a_tampered_export_names_the_first_bad_event(program: Program) -> None:
    lines = program.ok("export", "s0").splitlines()
    at = next(n for n, line in enumerate(lines) if "question 1" in line)
    bad = json.loads(lines[at])["seq"]
    lines[at] = lines[at].replace("question 1", "question 9")
    (program.folder / "bad.jsonl").write_text("\n".join(lines), encoding="utf-8")
    done = program("verify", "bad.jsonl")
    assert done.returncode == 1
    assert f"first at event {bad}:" in done.stdout
    found = program("verify", "bad.jsonl", "--json")
    assert json.loads(found.stdout)["first_bad"] == bad


@pytest.mark.parametrize("data", [b"\xff\xfe", b"", b"no json\n", b"[]\n"])
def test_a_file_that_is_no_export_does_not_hold(program: Program, data: bytes) -> None:
    (program.folder / "strange").write_bytes(data)
    done = program("verify", "strange")
    assert done.returncode in {1, 2}
    assert "Traceback" not in done.stderr


def test_a_changed_store_does_not_verify(program: Program) -> None:
    database = connect(str(program.file))
    database.execute(
        "UPDATE events SET body = CAST(replace(CAST(body AS TEXT), 'question 1', 'question 9') AS "
        "BLOB) WHERE session = 1"
    )
    assert database.changes() > 0
    database.close()
    done = program("verify", "s0")
    assert done.returncode == 1
    assert "first at event" in done.stdout


def test_an_anchor_holds_for_the_session_and_for_its_export(program: Program) -> None:
    program.ok("keygen", "key", store=None)
    assert stat.S_IMODE((program.folder / "key").stat().st_mode) == 0o600
    program.ok("anchor", "s0", "--key", "key", "-o", "anchor.json")
    program.ok("prune", "s0", "keep_last_2")
    program.ok("export", "s0", "-o", "s0.jsonl")
    signed = ("--anchor", "anchor.json", "--key", "key.pub")
    assert "is what was anchored" in program.ok("verify", "s0", *signed)
    assert "is what was anchored" in program.ok("verify", "s0.jsonl", *signed)


def test_an_anchor_finds_a_log_that_was_cut_off_or_made_anew(program: Program) -> None:
    program.ok("keygen", "key", store=None)
    program.ok("export", "s0", "-o", "before.jsonl")
    program.ok("prune", "s0", "keep_last_2")
    (program.folder / "anchor.json").write_text(program.ok("anchor", "s0", "--key", "key"))
    signed = ("--anchor", "anchor.json", "--key", "key")
    cut = program("verify", "before.jsonl", *signed)
    assert cut.returncode == 1
    assert "the file ends before position" in cut.stdout
    program.ok("export", "s1", "-o", "other.jsonl")
    assert "does not name the session" in program.refused("verify", "other.jsonl", *signed)
    anew = program("verify", "s1", *signed)
    assert anew.returncode == 1
    assert "the anchor names another log" in anew.stdout


def test_an_anchor_by_another_key_is_refused(program: Program) -> None:
    program.ok("keygen", "key", store=None)
    program.ok("keygen", "other", store=None)
    program.ok("anchor", "s0", "--key", "key", "-o", "anchor.json")
    said = program.refused("verify", "s0", "--anchor", "anchor.json", "--key", "other.pub")
    assert "was signed by the key" in said


def test_what_is_there_is_not_written_over(program: Program) -> None:
    program.ok("keygen", "key", store=None)
    assert "key exists" in program.refused("keygen", "key", store=None)
    assert "key exists" in program.refused("anchor", "s0", "--key", "key", "-o", "key")


def test_an_anchor_needs_its_key(program: Program) -> None:
    assert "give both" in program.refused("verify", "s0", "--anchor", "anchor.json")
    assert "no.pem" in program.refused("anchor", "s0", "--key", "no.pem")
    (program.folder / "text").write_text("no key")
    assert "the key is no PEM" in program.refused("anchor", "s0", "--key", "text")
    said = program.refused("verify", "s0", "--anchor", "text", "--key", "text")
    assert "text is no anchor" in said
