"""The examples are short, need no key, and print what they say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.nursery import finished

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))


def run(name: str, folder: Path, *arguments: str, **settings: str) -> list[str]:
    """What an example prints; it gets no keys, and no settings but these."""
    [file] = [path for path in EXAMPLES if path.stem == name]
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    command = ["-W", "error", str(file), *arguments]
    ran = finished(command, "", cwd=folder, env=kept | settings, timeout=60, reader=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    return ran.stdout.splitlines()


@pytest.mark.parametrize("file", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_an_example_is_short_and_says_what_it_shows(file: Path) -> None:
    text = file.read_text()
    assert len(text.splitlines()) < 40
    assert text.startswith('"""')


def test_every_example_is_run_here() -> None:
    text = Path(__file__).read_text()
    assert [path.stem for path in EXAMPLES if f'run("{path.stem}"' not in text] == []


def test_a_chat_remembers_when_it_is_run_again(tmp_path: Path) -> None:
    first = run("01_chat", tmp_path, "chat.db")
    assert "Alice" in first[-1]
    again = run("01_chat", tmp_path, "chat.db")
    assert again[0] == "(6 messages from last time)"
    assert "Alice" in again[-1]


def test_state_is_seen_by_whom_its_scope_says(tmp_path: Path) -> None:
    assert run("02_state", tmp_path) == [
        "friday's cart: None",
        "friday's language: es",
        "friday's currency: EUR",
        "visits, of 50 at once: 50",
        "the shop is closed; the cart is as it was: ['apple']",
    ]


def test_a_fork_and_a_rewind_show_what_they_say(tmp_path: Path) -> None:
    assert run("03_fork", tmp_path) == [
        "trip: We go to Japan. / First to Tokyo.",
        "other trip: We go to Japan. / No, to Osaka.",
        "rewound: We go to Japan.",
        "undone: We go to Japan. / First to Tokyo.",
        "the audit has it all: ['session.rewound', 'session.rewound']",
        "both can be proved: True",
    ]


def test_a_custom_store_holds_live_sessions(tmp_path: Path) -> None:
    assert run("04_custom_store", tmp_path) == ["['Keep this.'] from ['s']"]


def test_a_killed_process_is_gone_on_from(tmp_path: Path) -> None:
    assert run("05_crash_and_resume", tmp_path) == [
        "the child ended with SIGKILL",
        "there is: ['Count to three.', 'One, two, three.']",
        "then: ['Count to three.', 'One, two, three.', 'Where were we?', 'At a million, nearly.']",
        "in the audit: ['turn.abandoned']",
        "proved: True",
    ]


def test_memory_outlives_a_conversation_and_goes_with_its_source(tmp_path: Path) -> None:
    assert run("07_memory", tmp_path) == [
        "the topic on Friday: None",
        "remembered: I have had migraines since 2020.",
        "remembered: Penicillin and sulfa drugs",
        "Bob finds: []",
        "with Monday deleted: ['Penicillin and sulfa drugs']",
        "forgotten: True",
    ]


def test_a_tool_runs_and_another_waits_for_a_person(tmp_path: Path) -> None:
    printed = run("06_tools_and_approval", tmp_path)
    assert printed[0] == "look up order: order A-17 cost 40 euros"
    assert printed[1] == "waits: refund {'order_id': 'A-17'}"
    assert printed[2].startswith("refund: 40 euros are on their way (key ")
    assert printed[3] == "waits: refund {'order_id': 'A-18'}"
    assert "rejected by a person and did not run. Reason: it was used" in printed[4]


def test_a_handoff_is_in_the_stream_and_survives_a_restart(tmp_path: Path) -> None:
    assert run("08_handoffs", tmp_path) == [
        "desk -> billing: asks for an invoice",
        "billing: The invoice of May is on its way.",
        "the floor is with billing",
        "[('desk', ''), ('billing', 'The invoice of May is on its way.')]",
    ]


def test_an_answer_is_of_the_type_that_was_asked_for(tmp_path: Path) -> None:
    assert run("09_structured", tmp_path) == [
        "Ticket(category='technical', urgent=True)",
        "technical True 2",
        "no answer fits, and the history is as it was: 4 messages",
    ]


def test_a_router_goes_on_with_the_next_provider(tmp_path: Path) -> None:
    assert run("10_router", tmp_path) == [
        "first: Hello, Ann.",
        "second: Your name is Ann.",
        "2 failed, and nothing was lost: 4",
        "in the audit: [{'from': 'first', 'to': 'second', 'error': 'the provider is down'}]",
        "poet",
        "clerk",
    ]


def test_a_client_hears_the_whole_answer_though_its_server_is_killed(tmp_path: Path) -> None:
    printed = run("11_live", tmp_path)
    assert printed[0] == "Nice to meet you, Ada."
    assert " ".join(printed[1:-1]).startswith("I  ... am Tertulia's offline model: a handful of")
    assert printed[-2].endswith("tools when your words match one.")
    assert printed[-1] == "Your name is Ada."


def test_a_phone_call_is_answered_by_a_graph(tmp_path: Path) -> None:
    assert run("12_phone", tmp_path) == [
        "Nice to meet you, Ada.",
        "Your name is Ada.",
        "the app ended the call: True",
    ]


def test_a_swarm_hands_over_refuses_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    assert run("13_swarm", tmp_path) == [
        "bus: {'from': 'triage', 'to': 'refunds', 'reason': 'a refund'}",
        "Answer('It is on its way.', kind='answer', agent='refunds')",
        "phone: We are closing in five minutes.",
        "Answer('I am not going to discuss it!', kind='ban', agent='refunds')",
        "refunds has the floor; ['NoThreats']",
        "triage - Hello again.",
    ]


def test_a_client_is_served_by_one_worker_and_by_the_other_when_it_is_killed(
    postgres: str, nats: str, tmp_path: Path
) -> None:
    assert run("14_many_machines", tmp_path, TERTULIA_STORE=postgres, TERTULIA_BUS=nats) == [
        "Hello! - one answers",
        "Are you there? - one answers",
        "And now? - two answers",
    ]
