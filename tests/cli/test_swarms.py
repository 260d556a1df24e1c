"""`tertulia swarm`, and `tertulia chat --swarm`."""

from __future__ import annotations

import json

import pytest
from tests.cli.program import Program, read_until

SHOP = """
from tertulia import Agent, Policy, Swarm

class Polite(Policy):
    auto_ban, ban_for, chunk_window = True, 3600, 8
    def validate_input(self, message, context):
        return not message.isupper() or self.refuse("shouts")
    def validate_output(self, text, context):
        return True

desk = Agent("desk", model="offline", handoffs=["till"], description="Answers first.")
till = Agent("till", model="offline")
shop = Swarm("shop", [desk, till], policies=[Polite()], max_tool_calls=5)
"""
DRAWN = """\
swarm shop
├── agents
│   ├── desk (default): Answers first.
│   │   └── -> till
│   └── till
├── policies, in this order
│   └── Polite: input and output, bans for 1:00:00, streams, 8 characters behind
├── rescue: retry
├── tool_timeout: 30 s
├── max_tool_calls: 5
├── max_nested: 20
├── idle_timeout: 900 s
└── policy_timeout: 30 s
"""


@pytest.fixture
def shop(empty: Program) -> Program:
    """The program, beside a file with the swarm shop."""
    (empty.folder / "shop.py").write_text(SHOP)
    return empty


def test_a_swarm_is_drawn_from_a_file_or_a_module(shop: Program) -> None:
    assert shop.ok("swarm", "shop.py", store=None, PYTHONIOENCODING="utf-8") == DRAWN
    assert shop.ok("swarm", "shop:shop", store=None, PYTHONIOENCODING="utf-8") == DRAWN


def test_a_program_gets_the_same_as_json(shop: Program) -> None:
    told = shop.json("swarm", "shop.py:shop", store=None)
    assert told["agents"] == {"desk": ["till"], "till": []}
    assert (told["default"], told["limits"]["max_tool_calls"]) == ("desk", 5)


def test_a_swarm_that_cannot_be_is_one_line(shop: Program) -> None:
    (shop.folder / "bad.py").write_text(SHOP.replace('handoffs=["till"]', 'handoffs=["tills"]'))
    complaint = shop.refused("swarm", "bad.py", store=None)
    assert "'tills', who is not here" in complaint
    assert "desk, till" in complaint


def test_a_file_without_a_swarm_says_so(shop: Program) -> None:
    assert "is no Swarm" in shop.refused("swarm", "shop.py:desk", store=None)
    assert "has no 'other'" in shop.refused("swarm", "shop.py:other", store=None)
    (shop.folder / "none.py").write_text("shop = 1\n")
    assert "has no swarm" in shop.refused("swarm", "none.py", store=None)
    (shop.folder / "two.py").write_text(SHOP + 'bank = Swarm("bank", [desk, till])\n')
    assert "several swarms (shop, bank)" in shop.refused("swarm", "two.py", store=None)


def chat(program: Program, said: str, *words: str) -> str:
    return program.ok("chat", "--swarm", "shop.py", "--model", "offline", *words, stdin=said)


def test_a_chat_with_a_swarm_shows_who_speaks_and_what_is_refused(shop: Program) -> None:
    said = (
        "my name is Ana\nLet me talk to the till\nHELLO\nhello\n/bans\n/unban\nwhat is my name?\n"
    )
    printed = chat(shop, said)
    assert "policies Polite\nclient   me, at desk\n" in printed
    assert "  till has the floor now" in printed
    refused = printed.split("you> HELLO")[1]
    assert refused.startswith("\ntill> I am not going to discuss it!\n")
    assert "  policy Polite, input refused: shouts\n  banned until " in refused
    assert "  policy Polite, a ban stands: shouts\n" in refused
    assert "1 ban lifted" in refused
    assert "till> Your name is Ana." in refused


def test_a_chat_with_a_swarm_goes_on_where_the_client_was(shop: Program) -> None:
    chat(shop, "my name is Ana\n/agent till\n", "--client", "ana")
    printed = chat(shop, "what is my name?\n/back\n/agent sales\n", "--client", "ana")
    assert "client   ana, at till\n" in printed
    assert "Where it was:" in printed
    assert "till> Your name is Ana." in printed
    assert "desk has the floor" in printed
    assert "error: swarm 'shop': there is no agent 'sales'; agents: desk, till" in printed
    assert "client   me, at desk\n" in chat(shop, "hello\n")


def test_a_client_is_no_session_of_the_demo(shop: Program) -> None:
    done = shop("chat", "mine", "--swarm", "shop.py")
    assert done.returncode == 2
    assert "--swarm goes with --client" in done.stderr


def test_a_client_without_a_swarm_is_refused(shop: Program) -> None:
    done = shop("chat", "--client", "ana")
    assert done.returncode == 2
    assert "name it with --swarm" in done.stderr


def test_the_top_names_the_models_that_answer(shop: Program) -> None:
    words = ("--swarm", "shop.py", "--model", "openai:gpt-5")
    assert "\nmodel    offline (rule-based" in shop.ok("chat", *words, stdin="")
    text = SHOP.replace('till = Agent("till", model="offline")', 'till = Agent("till")')
    (shop.folder / "shop.py").write_text(text)
    assert "\nmodels   desk: offline, till: openai:gpt-5\n" in shop.ok("chat", *words, stdin="")


def test_the_swarm_of_the_demo_refuses_bans_and_asks_before_it_orders(empty: Program) -> None:
    said = "I want a pizza\norder two coffees\ny\nthis is stupid\n/unban\n/back\n"
    demo = ("--swarm", "tertulia.cli.demo_swarm", "--model", "offline")
    printed = empty.ok("chat", *demo, stdin=said)
    assert "order two coffees  " in printed.split("you> ")[0]
    assert "demo> We have coffee, tea and cake" in printed
    assert "order_desk> place order: order 1 is placed: two coffees" in printed
    assert "policy Polite, input refused: it says 'stupid'" in printed
    assert printed.split("you> /back\n")[1].startswith("demo has the floor")
    assert "Try:" not in empty.ok("chat", *demo, stdin="")


def test_a_turn_with_a_swarm_that_was_killed_goes_on(shop: Program) -> None:
    words = ("chat", "--swarm", "shop.py", "--model", "offline")
    with shop.started(*words) as process:
        assert process.stdin is not None
        process.stdin.write(f"remember {'word ' * 20_000}\n")
        process.stdin.flush()
        read_until(process, "desk> ")
        process.kill()
    printed = chat(shop, "what did I tell you?\n")
    assert "died in turn" in printed
    assert "It goes on now" in printed
    assert printed.count("you> ") == 1
    assert [event["type"] for event in events(shop, "turn.resumed")] == ["turn.resumed"]


def events(program: Program, kind: str) -> list[dict[str, object]]:
    lines = program.ok("tail", "me", "--type", kind, "--json").splitlines()
    return [json.loads(line) for line in lines]
